"""Who is at the other end of a socket, as the kernel reports it."""

from __future__ import annotations

import os
import socket
import struct

_PEER = struct.Struct("=iII")  # pid, uid, gid: SO_PEERCRED, unix(7)
# linux/netlink.h, linux/sock_diag.h
_HEADER = struct.Struct("=IHHII")
_SOCK_DIAG, _BY_FAMILY, _ASKS = 4, 20, 1
_LARGEST = 1 << 16


def peer_of(connected: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of the process that made the other end of a unix socket."""
    pid, uid, gid = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid, gid


def sock_diag(request: bytes) -> bytes:
    """Return the answer to a request of one family (sock_diag(7)), both without their headers.

    Raises:
        OSError: there is no such socket (ENOENT), it is not allowed, or the kernel does not support it.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.settimeout(1.0)
        kernel.sendto(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _ASKS, 1, 0) + request, (0, 0))
        answer = kernel.recv(_LARGEST)
    kind, told = _HEADER.unpack_from(answer)[1], answer[_HEADER.size :]
    if kind != _BY_FAMILY:
        error = -struct.unpack_from("=i", told)[0]
        raise OSError(error, os.strerror(error))
    return told
