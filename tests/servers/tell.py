"""An application that tells what it was asked, as JSON."""

from __future__ import annotations

TELL = """
import json, os

def application(environ, start_response):
    told = {key: value for key, value in environ.items() if isinstance(value, str)}
    told["body"] = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode("latin-1")
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Worker", str(os.getpid())),
                              ("Content-Length", str(len(body)))])
    return [body]
"""
