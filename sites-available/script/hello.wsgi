"""A script for mod_wsgi; it runs here without a change."""

def application(environ, start_response):
    body = b"<!doctype html>\n<title>Script</title>\n<h1>Hello from a .wsgi file</h1>\n"
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
