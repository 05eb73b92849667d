"""Whose the socket at the other end of a connection within this machine is, as the kernel tells it."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
import struct
from typing import Any

from multisite.control import peers

# linux/inet_diag.h
_REQUEST = struct.Struct("=BBBBI")
_ADDRESSES = struct.Struct("!HH16s16s")
_ANY = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface and cookie
_ANSWER = struct.Struct("=4x48x12xII")  # user and inode

Ends = tuple[int, bytes, int, bytes, int]  # family; address and port of the peer, then of ourselves


def owner(sock: Any) -> int | None:
    """Return the number of the user whose socket `sock` is connected to; None if the kernel does not tell.

    A socket that its process has closed belongs to nobody any more; of a unix socket it is told who connected it.
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


def _ends(sock: Any) -> Ends:
    (peer, peer_port), (own, own_port) = sock.getpeername()[:2], sock.getsockname()[:2]
    far, near = (ipaddress.ip_address(address.partition("%")[0]) for address in (peer, own))
    far, near = (getattr(ip, "ipv4_mapped", None) or ip for ip in (far, near))
    family = socket.AF_INET if far.version == 4 else socket.AF_INET6
    return family, far.packed, int(peer_port), near.packed, int(own_port)


def _asked(ends: Ends) -> int | None:
    """Ask for this one socket (sock_diag(7)).

    Raises:
        OSError: it is not allowed, or the kernel has no such thing.
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
    """Look for the socket in the tables of all (proc_net_tcp.rst)."""
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
    """Tell whether every account can connect to the unix socket at `path`, or whether that cannot be learnt."""
    if not path or path[:1] in ("\0", b"\0"):
        return True  # it has a name in no folder, or none
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
