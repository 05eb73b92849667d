"""The key of a request, by which its node is looked up (pure).

uWSGI's Fastrouter asks for ``UWSGI_FASTROUTER_KEY``, else ``HTTP_HOST``, else ``SERVER_NAME``, and takes no key longer
than 255 bytes. So do we; with the port first, then without it, in the normal form of hosts. A key from the front end
may be any name; it is looked up unchanged, then in the normal form of hosts, unless it could lead out of a folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from multisite.config.domains import normalise
from multisite.errors import BadHost

VARIABLE = "UWSGI_FASTROUTER_KEY"
LONGEST = 255  # bytes

_PORT = re.compile(r":([0-9]{1,5})\Z")
_NO_KEY = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff/\\,|]")


def keys_of(environ: Mapping[str, Any], trusted: bool, named: str = "") -> tuple[str, ...]:
    """Return the keys by which a request's node may be found, the best first; empty if it has none.

    Args:
        environ: of the request.
        trusted: its peer is a trusted front end.
        named: the host that a trusted front end named in `host_header`, "" for none.
    """
    sent = environ.get(VARIABLE) if trusted else None
    if sent:
        return tuple(dict.fromkeys((sent, *keys_of_host(sent)))) if is_key(sent) else ()
    return keys_of_host(named or environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""))


def keys_of_host(raw: str) -> tuple[str, ...]:
    """Return the keys of a host as a client sent it."""
    try:
        host = normalise(raw)
    except BadHost:
        return ()
    port = _PORT.search(raw)
    return (f"{host}:{int(port[1])}", host) if port else (host,)


def is_key(text: str) -> bool:
    """Tell whether `text` may be a key: no path, nothing invisible, at most 255 bytes."""
    return 0 < len(text.encode("utf-8", "replace")) <= LONGEST and text not in (".", "..") and not _NO_KEY.search(text)


def normal(text: str) -> str:
    """Return a key of a mapping file or an announcement in the form that requests look up: a host in its normal form.

    Raises:
        ValueError: it cannot be a key.
    """
    if not is_key(text):
        raise ValueError(f"a key is a host or a name of at most {LONGEST} bytes, without blanks and slashes")
    keys = keys_of_host(text)
    return keys[0] if keys else text
