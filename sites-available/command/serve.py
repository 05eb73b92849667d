"""A server of one's own, in any language: it binds the path that it is told, and speaks HTTP there."""

import os
import sys
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer


class Handler(BaseHTTPRequestHandler):
    """Says who answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Answer one request."""
        body = f"Hello from process {os.getpid()}, a program that speaks HTTP by itself.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        """Leave that to the access log of the site."""


if __name__ == "__main__":
    ThreadingUnixStreamServer(sys.argv[1], Handler).serve_forever()
