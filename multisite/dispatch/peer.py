"""Who is at the other end of a connection, and what a server has taken from somebody that is not trusted.

gunicorn has a list of its own of who may say for whom he speaks (`forwarded_allow_ips`, `proxy_allow_ips`), and
believes every peer on a unix socket. Only what `trusted_proxies` names counts here: what was taken from anybody else
is undone.

Every account of the machine can connect from a loopback address, and to a unix socket whose mode lets everybody in.
Where sites have users of their own, what is trusted by default stands for a front end only if the socket at the other
end belongs to one, or if not everybody could have connected.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
from typing import Any

from multisite.config.trusted import TrustedProxies, key_of
from multisite.dispatch import socketowner
from multisite.proxy import headers
from multisite.runner.requesthead import PROXY, is_claim
from multisite.sites.server import find_worker

Environ = dict[str, Any]

PROTOCOL = "PROXY_PROTOCOL"  # gunicorn's variable; there is one where a peer has introduced its client that way


#: accounts that distributions give to web servers and proxies
ACCOUNTS = ("www-data", "www", "http", "apache", "httpd", "nginx", "caddy", "lighttpd", "haproxy", "traefik", "varnish")


class FrontEnds:
    """The users who may speak for others where everybody can connect: root, ourselves, and those of front ends.

    Args:
        group: the group that may connect to the sites' sockets, "" for none.
        tenants_at: path of the supervisor's socket; if it is root's, sites have users of their own.
    """

    def __init__(self, group: str, tenants_at: str) -> None:
        self._group = group
        self._tenants_at = tenants_at
        self._known: dict[int, bool] = {}
        self._guarded: dict[str | bytes, bool] = {}

    def has_tenants(self) -> bool:
        """Tell whether it matters; a supervisor may come later than its workers."""
        return socketowner.is_of_root(self._tenants_at)

    def includes(self, sock: Any) -> bool:
        """Tell whether the other end of `sock` belongs to one of them; not if that cannot be learnt.

        A unix socket that not everybody can connect to has chosen them already.
        """
        if self._is_guarded(sock):
            return True
        user = socketowner.owner(sock)
        if user is None:
            return False
        if user not in self._known:
            self._known[user] = user in (0, os.geteuid()) or self._is_front_end(user)
        return self._known[user]

    def _is_guarded(self, sock: Any) -> bool:
        if getattr(sock, "family", None) != socket.AF_UNIX:
            return False
        path = sock.getsockname()
        if path not in self._guarded:
            self._guarded[path] = not socketowner.is_open_to_all(path)
        return self._guarded[path]

    def _is_front_end(self, user: int) -> bool:
        try:
            account = pwd.getpwuid(user)
            group = grp.getgrnam(self._group) if self._group else None
        except KeyError:
            return False
        is_member = group is not None and (account.pw_gid == group.gr_gid or account.pw_name in group.gr_mem)
        return is_member or account.pw_name in ACCOUNTS


class Peers:
    """Tells those that are believed.

    Args:
        proxies: the trusted ones.
        front_ends: who has to be at a trusted address, or at a unix socket; None where that says enough.
        host_header: the field that names the host, if one does.

    Attributes:
        believed: whether they are whatever they say, of addresses that have been asked for; for those in a hurry.
    """

    def __init__(self, proxies: TrustedProxies, front_ends: FrontEnds | None = None, host_header: str = "") -> None:
        self._proxies = proxies
        self._front_ends = front_ends
        self._named = key_of(host_header) if host_header else ""
        self._doubts = False
        self.believed: dict[str, bool] = proxies.known if front_ends is None else {}

    def hear(self, environ: Environ) -> None:
        """Leave in `environ` what its peer may say, and nothing else."""
        environ.pop(PROXY, None)
        if self._front_ends is not None:
            self._doubts = self._front_ends.has_tenants()
        if PROTOCOL in environ:
            self._check_introduction(environ)
        address = environ.get("REMOTE_ADDR", "")
        trusted = self._proxies.trusts(address)
        if self._front_ends is not None:
            if len(self.believed) > len(self._proxies.known):  # which has a bound, and has just begun anew
                self.believed.clear()
            self.believed[address] = trusted and not self._doubts
        self.check(environ)

    def check(self, environ: Environ) -> None:
        """Do so for a peer that is not believed whatever it says."""
        address = environ.get("REMOTE_ADDR", "")
        if not self._proxies.trusts(address):
            distrust(environ)
        elif self._doubts and self._claims(environ) and not self._is_front_end(environ):
            environ.pop(self._named, None)
            distrust(environ)

    def _claims(self, environ: Environ) -> bool:
        worker = find_worker()
        more = worker.claims if worker else ()
        return any(is_claim(key) or key in more or key == self._named for key in environ)

    def _is_front_end(self, environ: Environ) -> bool:
        return self._front_ends is not None and self._front_ends.includes(environ.get("gunicorn.socket"))

    def _check_introduction(self, environ: Environ) -> None:
        """Undo a line of the PROXY protocol unless the peer is trusted and names somebody."""
        address, port = _peer(environ.get("gunicorn.socket"))
        is_trusted = environ["REMOTE_ADDR"] and self._proxies.trusts(address)
        if is_trusted and (not self._doubts or self._is_front_end(environ)):
            return
        for key in (PROTOCOL, "PROXY_ADDR", "PROXY_PORT", "REMOTE_PORT"):
            environ.pop(key, None)
        environ["REMOTE_ADDR"] = address
        if port:
            environ["REMOTE_PORT"] = port


def distrust(environ: Environ) -> None:
    """Take out of `environ` what its peer says about somebody else, and what gunicorn made of it."""
    worker = find_worker()
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
