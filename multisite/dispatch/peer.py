"""The other end of a connection, and what a server has believed although the peer is not trusted.

gunicorn has its own list of peers that may speak for others (`forwarded_allow_ips`, `proxy_allow_ips`), and believes
every peer on a unix socket. Only what `trusted_proxies` names counts here: what was taken from any other peer is
undone.

Every account of the machine can connect from a loopback address, and to a unix socket whose mode lets everybody in. If
sites run as other users, a peer that is trusted by default counts as a front end only if the socket at the other end
belongs to one, or if not everybody could have connected.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import ipaddress
import os
import pwd
import socket
import stat
import struct
from typing import Any

from multisite.config.model import Home
from multisite.config.trusted import TrustedProxies, key_of
from multisite.control import peers
from multisite.proxy import headers
from multisite.runner.requesthead import PROXY, is_claim
from multisite.sites.server import find_worker

Environ = dict[str, Any]

PROTOCOL = "PROXY_PROTOCOL"  # gunicorn's variable; it exists if a peer has introduced its client that way


#: accounts that distributions give to web servers and proxies
ACCOUNTS = ("www-data", "www", "http", "apache", "httpd", "nginx", "caddy", "lighttpd", "haproxy", "traefik", "varnish")


class FrontEnds:
    """The users who may speak for others where everybody can connect: root, our own user, and those of front ends.

    Args:
        group: the group that may connect to the sites' sockets, "" for none.
        tenants_at: path of the supervisor's socket; if it belongs to root, sites run as other users.
    """

    def __init__(self, group: str, tenants_at: str) -> None:
        self._group = group
        self._tenants_at = tenants_at
        self._known: dict[int, bool] = {}
        self._guarded: dict[str | bytes, bool] = {}

    def has_tenants(self) -> bool:
        """Tell whether it matters; a supervisor may start later than its workers."""
        return is_of_root(self._tenants_at)

    def includes(self, sock: Any) -> bool:
        """Tell whether the other end of `sock` belongs to one of them; False if that is unknown.

        A unix socket that not everybody can connect to has already restricted its peers.
        """
        if self._is_guarded(sock):
            return True
        user = owner(sock)
        if user is None:
            return False
        if user not in self._known:
            self._known[user] = user in (0, os.geteuid()) or self.is_front_end(user)
        return self._known[user]

    def _is_guarded(self, sock: Any) -> bool:
        if getattr(sock, "family", None) != socket.AF_UNIX:
            return False
        path = sock.getsockname()
        if path not in self._guarded:
            self._guarded[path] = not is_open_to_all(path)
        return self._guarded[path]

    def is_front_end(self, user: int) -> bool:
        """Tell whether a user is a web server's account, or a member of the group."""
        try:
            account = pwd.getpwuid(user)
            group = grp.getgrnam(self._group) if self._group else None
        except KeyError:
            return False
        is_member = group is not None and (account.pw_gid == group.gr_gid or account.pw_name in group.gr_mem)
        return is_member or account.pw_name in ACCOUNTS


def front_ends_of(home: Home) -> FrontEnds:
    """Return who may speak for others to the workers of a home."""
    return FrontEnds(home.supervisor.socket_group, os.path.join(home.runtime_dir, "control.sock"))


class Peers:
    """Distinguishes the peers that are believed.

    Args:
        proxies: the trusted ones.
        front_ends: who must be at a trusted address, or at a unix socket; None if the address is enough.
        host_header: the field that names the host, if there is one.

    Attributes:
        believed: whether requests need no check, of addresses that have been looked up; a short cut.
    """

    def __init__(self, proxies: TrustedProxies, front_ends: FrontEnds | None = None, host_header: str = "") -> None:
        self._proxies = proxies
        self._front_ends = front_ends
        self._named = key_of(host_header) if host_header else ""
        self._doubts = False
        self.believed: dict[str, bool] = proxies.known if front_ends is None else {}

    def check_first(self, environ: Environ) -> None:
        """Leave in `environ` only what its peer may claim."""
        environ.pop(PROXY, None)
        if self._front_ends is not None:
            self._doubts = self._front_ends.has_tenants()
        if PROTOCOL in environ:
            self._check_introduction(environ)
        address = environ.get("REMOTE_ADDR", "")
        trusted = self._proxies.trusts(address)
        if self._front_ends is not None:
            if len(self.believed) > len(self._proxies.known):  # it has a bound, and has just begun again
                self.believed.clear()
            self.believed[address] = trusted and not self._doubts
        self.check(environ)

    def check(self, environ: Environ) -> None:
        """Do so for a peer that needs a check."""
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
        """Undo a line of the PROXY protocol unless the peer is trusted and names a client."""
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
    """Remove from `environ` what its peer claims about others, and what gunicorn made from it."""
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
    """Restore the path to what it is without a SCRIPT_NAME that was sent: below the server's own."""
    own = os.environ.get("SCRIPT_NAME", "")
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    below = path.startswith(own)
    environ["SCRIPT_NAME"] = own if below else ""
    environ["PATH_INFO"] = path[len(own) :] if below else path


def _peer(sock: Any) -> tuple[str, str]:
    """Return the address and the port of a socket's other end, "" for what it lacks."""
    try:
        address = sock.getpeername()
    except (AttributeError, OSError):
        return "", ""
    return (str(address[0]), str(address[1])) if isinstance(address, tuple) else ("", "")


# linux/inet_diag.h
_REQUEST = struct.Struct("=BBBBI")
_ADDRESSES = struct.Struct("!HH16s16s")
_ANY = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface and cookie
_ANSWER = struct.Struct("=4x48x12xII")  # user and inode

Ends = tuple[int, bytes, int, bytes, int]  # family; address and port of the peer, then our own


def owner(sock: Any) -> int | None:
    """Return the number of the user whose socket `sock` is connected to; None if the kernel does not report it.

    A socket that its process has closed belongs to nobody; for a unix socket the kernel reports who connected it.
    """
    try:
        if sock.family == socket.AF_UNIX:
            return peers.peer_of(sock)[1]
        ends = _ends(sock)
    except (AttributeError, OSError, ValueError, TypeError, IndexError):
        return None
    try:
        return _asked(ends)
    except OSError:
        return _looked_up(ends)


def owner_of(environ: Environ) -> int | None:
    """Return the user whose socket a request came from, as `owner` does; of other servers, by the ports that they tell.

    They tell no address of theirs; that of a loopback connection is taken to be the peer's, which it nearly always is.
    """
    sock = environ.get("gunicorn.socket")
    if sock is not None:
        return owner(sock)
    try:
        far = ipaddress.ip_address(environ["REMOTE_ADDR"])
        family = socket.AF_INET if far.version == 4 else socket.AF_INET6
        ends = family, far.packed, int(environ["REMOTE_PORT"]), far.packed, int(environ["SERVER_PORT"])
        return _asked(ends)
    except (LookupError, ValueError, OSError):
        return None


def _ends(sock: Any) -> Ends:
    (peer, peer_port), (own, own_port) = sock.getpeername()[:2], sock.getsockname()[:2]
    far, near = (ipaddress.ip_address(address.partition("%")[0]) for address in (peer, own))
    far, near = (getattr(ip, "ipv4_mapped", None) or ip for ip in (far, near))
    family = socket.AF_INET if far.version == 4 else socket.AF_INET6
    return family, far.packed, int(peer_port), near.packed, int(own_port)


def _asked(ends: Ends) -> int | None:
    """Ask the kernel for this one socket (sock_diag(7)).

    Raises:
        OSError: it is not allowed, or the kernel does not support it.
    """
    family, far, far_port, near, near_port = ends
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    body += _ADDRESSES.pack(far_port, near_port, far, near) + _ANY
    try:
        told = peers.sock_diag(body)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    if _ADDRESSES.unpack_from(told, 4)[:2] != (far_port, near_port):  # one that listens at the peer's port
        return None
    user, inode = _ANSWER.unpack_from(told)
    return int(user) if inode else None


def _looked_up(ends: Ends) -> int | None:
    """Look for the socket in the tables of all sockets (proc_net_tcp.rst)."""
    family, far, far_port, near, near_port = ends
    wanted = {_written(far, far_port) + b" " + _written(near, near_port)}
    if family == socket.AF_INET:
        mapped = bytes(10) + b"\xff\xff"
        wanted.add(_written(mapped + far, far_port) + b" " + _written(mapped + near, near_port))
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/self/net/{table}", "rb") as lines:
            for line in lines:
                if any(each in line for each in wanted):
                    fields = line.split()
                    return int(fields[7]) if int(fields[9]) else None
    return None


def _written(address: bytes, port: int) -> bytes:
    words = struct.unpack(f"={len(address) // 4}I", address)
    return ("".join(f"{word:08X}" for word in words) + f":{port:04X}").encode()


def is_open_to_all(path: str | bytes) -> bool:
    """Tell whether every account can connect to the unix socket at `path`; True if that is unknown."""
    if not path or path[:1] in ("\0", b"\0"):
        return True  # its name is in no directory, or it has none
    place = os.path.abspath(os.fsdecode(path))
    try:
        if not os.stat(place).st_mode & stat.S_IWOTH:
            return False
        while place != os.path.dirname(place):
            place = os.path.dirname(place)
            if not os.stat(place).st_mode & stat.S_IXOTH:
                return False
    except OSError:
        pass
    return True


def is_of_root(path: str) -> bool:
    """Tell whether root made what is at `path`."""
    try:
        return os.stat(path).st_uid == 0
    except OSError:
        return False
