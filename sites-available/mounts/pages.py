"""The site at the root of the domain."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

PAGE = """<!doctype html>
<title>Mounts</title>
<h1>Hello from the site at /</h1>
<p>SCRIPT_NAME is <code>{script}</code>, PATH_INFO is <code>{path}</code>.
<p>Its neighbour is at <a href="/api/things">/api</a>.
"""


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    page = PAGE.format(script=escape(repr(environ["SCRIPT_NAME"])), path=escape(repr(environ["PATH_INFO"])))
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [page.encode()]
