"""The subscription server: the sockets at which nodes announce themselves; the supervisor of a home has one.

It accepts only uWSGI's packets. On a UDP socket anybody could send anything, so an unsigned packet is accepted only
from the networks of `subscription_allow`; on a unix socket the mode of its file decides who may send.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable

from multisite.config.model import Home
from multisite.router import announcement, signatures
from multisite.router.announcement import Announcement
from multisite.router.pool import Pool
from multisite.router.signatures import Signatures

MOST_AT_ONCE = 512  # datagrams of a socket that are taken in one turn of the loop
SO_RCVBUFFORCE = 33  # socket(7); root may go beyond net.core.rmem_max
BUFFER = 4 * 2**20  # bytes of the kernel's queue: all nodes of a rebooted machine announce themselves at once
LOOPBACK = ("127.0.0.0/8", "::1")
COMPLAIN_EVERY = 60.0  # seconds between two lines about packets of one kind

_CREDENTIALS = struct.Struct("=iII")
_log = logging.getLogger("multisite.router")


class Socket:
    """One socket of the server.

    Args:
        address: ``HOST:PORT`` of UDP, or the path of a unix datagram socket; ``@NAME`` for an abstract one.
        group: number of the group that may send to the unix socket, None for none.
        descriptor: of the socket if another program has bound it, else -1.

    Raises:
        OSError: it cannot be bound.
        ValueError: it is not an address.
    """

    def __init__(self, address: str, group: int | None = None, descriptor: int = -1) -> None:
        self.address = address
        self.path = address if address.startswith("/") else ""
        self.is_unix = bool(self.path) or address.startswith("@")
        self.sock = self._bound(group) if descriptor < 0 else socket.socket(fileno=descriptor)
        self.sock.setblocking(False)

    def _bound(self, group: int | None) -> socket.socket:
        if self.is_unix:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            where: object = self.path or "\0" + self.address[1:]
        else:
            host, port = host_and_port(self.address)
            found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_DGRAM)
            family, _, _, _, where = found[0]
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if self.path:
                clear(self.path, socket.SOCK_DGRAM)
            if self.is_unix:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            old = os.umask(0o177)
            try:
                sock.bind(where)  # type: ignore[arg-type]
            finally:
                os.umask(old)
            if self.path and group is not None:
                os.chown(self.path, -1, group)
                os.chmod(self.path, 0o660)
            try:
                sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # as far as net.core.rmem_max allows
        except BaseException:
            sock.close()
            raise
        return sock

    def receive(self) -> tuple[bytes, str, tuple[int, int]] | None:
        """Return a datagram, the sender's address ("" for a unix socket) and user and group (-1: not known); or None.

        One that is longer than uWSGI's buffer is returned a byte longer than that, so that it is refused.
        """
        try:
            data, ancillary, _flags, sender = self.sock.recvmsg(announcement.LARGEST + 1, 64)
        except (BlockingIOError, InterruptedError):
            return None
        uid = gid = -1
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(content) >= _CREDENTIALS.size:
                _pid, uid, gid = _CREDENTIALS.unpack_from(content)
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                _close_all(content)
        return data, "" if self.is_unix else str(sender[0]), (uid, gid)

    def close(self) -> None:
        """Accept no more packets."""
        self.sock.close()
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def host_and_port(address: str) -> tuple[str, int]:
    """Read ``HOST:PORT`` or ``[IPv6]:PORT``; the host may be empty.

    Raises:
        ValueError: it is neither.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) < 65536:
        raise ValueError("it is neither HOST:PORT nor the path of a socket")
    return host.strip("[]"), int(port)


def _close_all(rights: bytes) -> None:
    """Close descriptors that came with a packet uninvited."""
    for descriptor in struct.unpack(f"{len(rights) // 4}i", rights[: len(rights) // 4 * 4]):
        os.close(descriptor)


def clear(path: str, kind: int) -> None:
    """Remove a unix socket of this kind that no process has any more.

    Raises:
        OSError: another program has it, or it cannot be removed.
    """
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            with socket.socket(socket.AF_UNIX, kind) as probe:
                probe.connect(path)
            raise OSError(errno.EADDRINUSE, "another program receives there", path)
    except ConnectionRefusedError:
        os.unlink(path)
    except FileNotFoundError:
        pass


class SubscriptionServer:
    """Takes announcements into `pool`.

    Args:
        home: whose options say who may announce.
        pool: of the nodes.
        clock: monotonic seconds.
        wall: seconds since 1970.
    """

    def __init__(self, home: Home, pool: Pool, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self.pool = pool
        self._now, self._wall = clock, wall
        self._complained: dict[str, float] = {}
        self.adopt(home)

    def adopt(self, home: Home) -> None:
        """Take the options of a home that was read again."""
        options = home.router
        self._credentials = os.path.join(home.path, options.subscription_credentials or "")
        self._checks_owner = bool(options.subscription_credentials)
        self._signatures: Signatures | None = None
        self._closed = ""
        if options.subscription_keys:
            try:
                self._signatures = Signatures(options.subscription_keys, home.path)
            except ValueError as error:
                self._closed = f"subscription_keys = {options.subscription_keys}: {error}"
                _log.error("MS740 %s; no announcement is accepted", self._closed)
        allowed: Iterable[str] = options.subscription_allow or (() if options.subscription_keys else LOOPBACK)
        self._allowed = [ipaddress.ip_network(network, strict=False) for network in allowed]
        self._is_open = not options.subscription_keys or bool(options.subscription_allow)

    def receive(self, sock: Socket) -> None:
        """Take what has come, a bounded number of datagrams."""
        for _ in range(MOST_AT_ONCE):
            came = sock.receive()
            if came is None:
                return
            self.take(*came)

    def take(self, data: bytes, sender: str, user: tuple[int, int]) -> str:
        """Take one datagram; return the outcome, which the pool counts.

        Args:
            data: any bytes.
            sender: address it came from, "" for a unix socket.
            user: number of the sender's user and group, -1 where they are not known.
        """
        announced = announcement.read(data)
        if announced is None:
            return self._counted("garbage")
        if self._closed:
            return self._counted("refused")
        refusal = self._refusal(announced, sender, user)
        if refusal:
            self._complain(refusal, announced, sender)
            return self._counted("refused")
        clock = self._wall() if self._signatures and announced.sign else None
        outcome = self.pool.take(announced, self._now(), user[0], clock)
        if outcome in ("joined", "left"):
            _log.info("node %s %s %s", announced.address, outcome, announced.key)
        if outcome in ("full", "replayed"):
            self._complain(f"is {outcome}", announced, sender)
        if outcome == "joined" and announced.notify.startswith("/"):
            _notify(announced)
        return outcome

    def _refusal(self, announced: Announcement, sender: str, user: tuple[int, int]) -> str:
        """Return why a packet is not accepted, "" if it is."""
        if announced.sign:
            if not self._signatures:
                return (
                    ""
                    if self._is_allowed(sender)
                    else "is signed, and subscription_keys is not set, so it cannot be checked"
                )
            return "" if self._signatures.verify(announced) else "has a wrong signature"
        if not self._is_allowed(sender):
            how = "sign it (subscription_keys; on the node: --subscribe-to ADDRESS:KEY,0,SHA1:PRIVATE.pem)"
            return f"is not signed; {how}, or name its network in subscription_allow"
        if self._checks_owner and not self._owns(announced.key, user):
            return f"is not from the owner of the key's file in {self._credentials}"
        return ""

    def _is_allowed(self, sender: str) -> bool:
        if not self._is_open:
            return False
        if not sender:
            return True  # the mode of the socket has let it in
        ip = ipaddress.ip_address(sender.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self._allowed)

    def _owns(self, key: str, user: tuple[int, int]) -> bool:
        """Tell whether the file of a key belongs to the sender (uWSGI's subscriptions-credentials-check)."""
        try:
            status = os.stat(os.path.join(self._credentials, signatures.file_of(key)))
        except OSError:
            return False
        return (status.st_uid, status.st_gid) == user

    def _counted(self, outcome: str) -> str:
        self.pool.counted[outcome] += 1
        return outcome

    def _complain(self, reason: str, announced: Announcement, sender: str) -> None:
        now = self._now()
        if now < self._complained.get(reason, 0.0):
            return
        if len(self._complained) > 1000:
            self._complained.clear()
        self._complained[reason] = now + COMPLAIN_EVERY
        _log.warning(
            "MS741 an announcement of %.255r for %.255r, from %s, %s",
            announced.address,
            announced.key,
            sender or "a unix socket",
            reason,
        )


def _notify(announced: Announcement) -> None:
    """Notify a new node that it is known, as uWSGI does; it does no harm if nobody listens there."""
    text = f"[subscription ack] {announced.key} => new node: {announced.address}"
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(text.encode("utf-8", "surrogateescape"), announced.notify)
