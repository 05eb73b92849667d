"""A plain WSGI application (PEP 3333) that shows what it was told about the request."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

SHOWN = (
    "REQUEST_METHOD",
    "HTTP_HOST",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "SERVER_SOFTWARE",
    "wsgi.url_scheme",
    "wsgi.multithread",
    "wsgi.multiprocess",
)

PAGE = """<!doctype html>
<title>Hello</title>
<h1>Hello from a plain WSGI application</h1>
<table>
{rows}
</table>
"""


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    rows = "\n".join(f"<tr><th>{name}<td>{escape(str(environ.get(name, '-')))}" for name in SHOWN)
    body = PAGE.format(rows=rows).encode()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
