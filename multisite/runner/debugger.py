"""A WSGI app that shows its tracebacks on the page, for its developer at this machine.

werkzeug's debugger where the site's interpreter has werkzeug (every Flask site's has); else the traceback alone.
"""

from __future__ import annotations

import sys
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    WSGI = Callable[..., Iterable[bytes]]

#: fields that a front end adds: the client may be anywhere (`multisite.errors.pages.is_local` tests them, too)
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


def debugged(app: WSGI, pin: str, console: bool = True) -> WSGI:
    """Return `app`, with a debugger for this machine, and unchanged for everybody else.

    Args:
        pin: opens the debugger's console.
        console: whether there may be one; it lives in the process that failed, which has to be the only one.
    """
    return Debugged(app, _werkzeug(app, pin, console) or Traceback(app))


class Debugged:
    """Calls `debugger` instead of `app` for requests from this machine."""

    def __init__(self, app: WSGI, debugger: WSGI) -> None:
        self.app, self.debugger = app, debugger

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        return (self.debugger if is_local(environ) else self.app)(environ, start_response)


def is_local(environ: dict[str, Any]) -> bool:
    """Return whether a request comes from this machine, and not through a front end."""
    address = environ.get("REMOTE_ADDR", "")
    loopback = address.startswith(("127.", "::ffff:127.")) or address == "::1"
    return loopback and not any(name in environ for name in FORWARDED)


def _werkzeug(app: WSGI, pin: str, console: bool) -> WSGI | None:
    try:
        from werkzeug.debug import DebuggedApplication
    except Exception:  # missing, too old for this Python, or a module of the site with the same name
        return None
    debugger: Any = DebuggedApplication(app, evalex=console and bool(pin), pin_logging=False)
    debugger.pin_cookie_name  # noqa: B018  makes its own PIN, which ours replaces
    debugger.pin = pin
    return debugger  # type: ignore[no-any-return]


class Traceback:
    """The last resort: `app`, and the traceback as plain text where it raises."""

    def __init__(self, app: WSGI) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        """Answer one request (PEP 3333)."""
        result: Any = ()
        try:
            result = self.app(environ, start_response)
            yield from result
        except Exception:
            text = traceback.format_exc()
            environ["wsgi.errors"].write(text)
            fields = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
            start_response("500 Internal Server Error", fields, sys.exc_info())
            yield text.encode("utf-8", "backslashreplace")
        finally:
            if hasattr(result, "close"):
                result.close()
