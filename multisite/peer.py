"""Who is at the other end of a connection, and what a server has taken from somebody that is not trusted.

gunicorn has a list of its own of who may say for whom he speaks (`forwarded_allow_ips`, `proxy_allow_ips`), and
believes every peer on a unix socket. Only what `trusted_proxies` names counts here: what was taken from anybody else
is undone.
"""

from __future__ import annotations

import os
from typing import Any

from multisite import client, headers
from multisite.runner.request import PROXY
from multisite.trusted import TrustedProxies

Environ = dict[str, Any]

PROTOCOL = "PROXY_PROTOCOL"  # gunicorn's variable; there is one where a peer has introduced its client that way


class Peers:
    """Tells those that are believed.

    Args:
        proxies: the trusted ones.
    """

    def __init__(self, proxies: TrustedProxies) -> None:
        self._proxies = proxies

    def hear(self, environ: Environ) -> None:
        """Leave in `environ` what its peer may say, and nothing else."""
        environ.pop(PROXY, None)
        if PROTOCOL in environ:
            self._check_introduction(environ)
        if not self._proxies.trusts(environ.get("REMOTE_ADDR", "")):
            distrust(environ)

    def _check_introduction(self, environ: Environ) -> None:
        """Undo a line of the PROXY protocol unless the peer is trusted and names somebody."""
        address, port = _peer(environ.get("gunicorn.socket"))
        if environ["REMOTE_ADDR"] and self._proxies.trusts(address):
            return
        for key in (PROTOCOL, "PROXY_ADDR", "PROXY_PORT", "REMOTE_PORT"):
            environ.pop(key, None)
        environ["REMOTE_ADDR"] = address
        if port:
            environ["REMOTE_PORT"] = port


def distrust(environ: Environ) -> None:
    """Take out of `environ` what its peer says about somebody else, and what gunicorn made of it."""
    worker = client.find_worker()
    dropped = headers.drop_claims(environ, worker.claims if worker else frozenset())
    sock = environ.get("gunicorn.socket")
    if dropped and sock is not None:
        _undo_scheme(environ, "https" if hasattr(sock, "cipher") else "http")
        if "HTTP_SCRIPT_NAME" in dropped:
            _undo_script_name(environ)


def _undo_scheme(environ: Environ, scheme: str) -> None:
    if environ["wsgi.url_scheme"] != scheme:
        environ["wsgi.url_scheme"] = scheme
        if not environ.get("REMOTE_ADDR") and ":" not in environ.get("HTTP_HOST", ""):
            environ["SERVER_PORT"] = "443" if scheme == "https" else "80"  # of a unix socket, which has none


def _undo_script_name(environ: Environ) -> None:
    """Have the path be what it is without a SCRIPT_NAME that was sent: below the server's own."""
    own = os.environ.get("SCRIPT_NAME", "")
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    below = path.startswith(own)
    environ["SCRIPT_NAME"] = own if below else ""
    environ["PATH_INFO"] = path[len(own) :] if below else path


def _peer(sock: Any) -> tuple[str, str]:
    """Return the address and the port of a socket's other end, "" for what it has not."""
    try:
        address = sock.getpeername()
    except (AttributeError, OSError):
        return "", ""
    return (str(address[0]), str(address[1])) if isinstance(address, tuple) else ("", "")
