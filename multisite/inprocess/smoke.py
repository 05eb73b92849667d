"""The smoke request of a site in this interpreter: the new application answers it before it takes any other.

`multisite.runner.smoke` is the same for a process of its own.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any

from multisite.config.model import Site
from multisite.errors import AppLoadError
from multisite.runner.answer import FileWrapper, WsgiAnswer
from multisite.runner.smoke import Nobody, Smoke, verdict

WSGI = Callable[..., Iterable[bytes]]


def check(app: WSGI, site: Site) -> None:
    """Have `app` answer the smoke request of `site`, if it has one.

    Raises:
        AppLoadError: it is not well; the cause is what it raised.
    """
    if not site.smoke_path:
        return
    smoke = Smoke({"host": site.canonical_host, "mount": site.mount, "path": site.smoke_path})
    connection: Any = Nobody(smoke)
    answer = WsgiAnswer(connection, "GET", "HTTP/1.1")
    try:
        _call(app, smoke.environ(), answer)
    except (Exception, SystemExit) as error:  # the site's code may raise anything
        raise AppLoadError(f"{smoke} failed: {type(error).__name__}: {error}") from error
    reason = verdict(smoke, answer.status)
    if reason:
        raise AppLoadError(reason)


def _call(app: WSGI, environ: dict[str, Any], answer: WsgiAnswer) -> None:
    environ |= {
        "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
    }
    result: Any = app(environ, answer.start_response)
    try:
        answer.send(result)
    finally:
        if hasattr(result, "close"):
            result.close()
