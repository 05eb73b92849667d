"""A request target in absolute form, which is for proxies and which every server has to take all the same."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RAW = ("RAW_URI", "REQUEST_URI")  # the target as it was sent: gunicorn's name; that of uWSGI, mod_wsgi and waitress

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)


def split(target: str) -> tuple[str, str] | None:
    """The authority of a target in absolute form, and the rest of it in origin form; None for any other.

    An empty path is ``/`` (RFC 9112 section 3.2.1).
    """
    absolute = _ABSOLUTE.fullmatch(target)
    if not absolute:
        return None
    authority, rest = absolute.groups()
    return authority, rest if rest[:1] == "/" else f"/{rest}"


def resolve(environ: dict[str, Any]) -> None:
    """Put a target in absolute form into origin form, and its authority in the place of Host.

    The authority is the host, whatever Host says (RFC 9112 section 3.2.2).
    """
    for key in RAW:
        found = split(environ.get(key, ""))
        if found:
            environ["HTTP_HOST"], environ[key] = found
            if not environ.get("SCRIPT_NAME") and not environ.get("PATH_INFO"):
                environ["PATH_INFO"] = "/"
