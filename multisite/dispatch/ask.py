"""Whether a host is ours: the question of a front end that fetches certificates on demand.

Caddy asks this before it fetches one (``on_demand_tls { ask … }``), with the host as ``?domain=``: 200 allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from multisite.config.domains import normalise
from multisite.errors import BadHost, pages

PATH = "/.multisite/ask"
LOOPBACK = ("127.0.0.1", "[::1]", "localhost")

_PEERS = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "")  # "": on a unix socket
_YES = pages.error_page(200, "Yes", "A site answers here under this name.")
_NO = pages.error_page(404, "No", "No site answers here under this name.")


def is_question(environ: dict[str, Any]) -> bool:
    """Tell whether a process on this machine asks for itself: a front end's visitors come with X-Forwarded-For."""
    return (
        environ.get("PATH_INFO") == PATH
        and environ.get("REMOTE_ADDR", "") in _PEERS
        and environ.get("HTTP_HOST", "").rpartition(":")[0] in LOOPBACK
        and "HTTP_X_FORWARDED_FOR" not in environ
        and "HTTP_FORWARDED" not in environ
    )


class Ask:
    """Answers with `claims`, which tells whether a site answers a normalised host."""

    name = ""
    key = ("", "")
    check_at = float("inf")

    def __init__(self, claims: Callable[[str], bool]) -> None:
        self._claims = claims

    def app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one question (PEP 3333)."""
        named = parse_qs(environ.get("QUERY_STRING", ""), max_num_fields=10).get("domain", [])
        try:
            ours = len(named) == 1 and self._claims(normalise(named[0]))
        except BadHost:
            ours = False
        return (_YES if ours else _NO)(environ, start_response)
