"""Who listens on which TCP address of this machine, as far as /proc shows it (proc(5)), and where we may listen."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multisite.supervisor.process import kernel

if TYPE_CHECKING:
    from multisite.cli.session import Session

_LISTEN = "0A"  # the state in /proc/net/tcp
_TABLES = {"/proc/self/net/tcp": socket.AF_INET, "/proc/self/net/tcp6": socket.AF_INET6}
_UNPRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_WILDCARDS = ("0.0.0.0", "::")
LONGEST_COMMAND = 80  # characters to show
MOST_TRIED = 100  # ports to try for a free one


@dataclass(frozen=True)
class Listener:
    """A listening socket: its address and its inode, by which the process that holds it is found."""

    host: str
    port: int
    inode: str


def listeners() -> Iterator[Listener]:
    """Yield all sockets that listen on a TCP address."""
    for path, family in _TABLES.items():
        try:
            with open(path, encoding="ascii") as file:
                rows = [line.split() for line in file.read().splitlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if row[3] == _LISTEN:
                host, _, port = row[1].partition(":")
                yield Listener(_host(host, family), int(port, 16), row[9])


def _host(digits: str, family: int) -> str:
    """Read an address as the kernel writes it: words of four bytes, each in this machine's byte order."""
    words = (digits[at : at + 8] for at in range(0, len(digits), 8))
    return socket.inet_ntop(family, b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words))


def held(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process holds; none if we may not look."""
    folder = f"/proc/{pid}/fd"
    found = set()
    try:
        for name in os.listdir(folder):
            target = os.readlink(f"{folder}/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def holder(host: str, port: int) -> int:
    """Return the process that occupies an address, 0 if that cannot be seen."""
    wanted = {
        one.inode
        for one in listeners()
        if one.port == port and (one.host == host or one.host in _WILDCARDS or host in (*_WILDCARDS, ""))
    }
    pids = {pid for pid in kernel.pids() if wanted & held(pid)} if wanted else set()
    return min((pid for pid in pids if kernel.parent(pid) not in pids), default=0)


def of_service(session: Session) -> list[tuple[str, int]]:
    """Return the TCP addresses on which the servers of the home listen, as far as they are known."""
    from multisite.control import localnames
    from multisite.errors import MultisiteError

    try:
        answer = session.supervisor
    except MultisiteError:
        answer = None
    pids = {*(answer["supervisor"]["servers"] if answer else ()), *localnames.holders(session.home)}
    sockets = {one.inode: (one.host, one.port) for one in listeners()}
    found = dict.fromkeys(sockets[inode] for pid in sorted(pids) for inode in sorted(held(pid) & sockets.keys()))
    return sorted(found, key=lambda address: address[1])


def refusal(address: str, words: str) -> str:
    """Return why a server cannot listen on HOST:PORT and what to do about it, "" if it can.

    Args:
        address: host (an IPv6 address in brackets) and port.
        words: the user's command, without its port.
    """
    host, _, digits = address.rpartition(":")
    try:
        _listen(host.strip("[]"), int(digits))
    except (OSError, OverflowError) as error:
        return _explained(error, address, words)
    return ""


def _explained(error: OSError | OverflowError, address: str, words: str) -> str:
    host, _, digits = address.rpartition(":")
    host, port, number = host.strip("[]"), int(digits), getattr(error, "errno", None)
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    if isinstance(error, socket.gaierror):
        reason = f"no address is known for that name ({reason}); --bind 127.0.0.1 is this machine's own"
    elif number == errno.EADDRINUSE:
        return f"{address} is in use {_by(host, port)}; {words} --port {_free(host, port)} uses another port"
    elif number in (errno.EACCES, errno.EPERM):
        return _privileged(port, words)
    elif number == errno.EADDRNOTAVAIL:
        reason = "no network interface of this machine has that address; ip address lists them"
    return f"{address}: {reason}"


def _listen(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if host:
        socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)  # `create_server` hides the kind of error
    socket.create_server((host, port), family=family).close()


def _by(host: str, port: int) -> str:
    pid = holder(host, port)
    if not pid:
        return f"by a process that only root can see (sudo ss -ltnp 'sport = :{port}' shows it)"
    command = shlex.join(os.fsdecode(kernel.read(pid, "cmdline")).rstrip("\0").split("\0"))
    shown = command if len(command) <= LONGEST_COMMAND else f"{command[: LONGEST_COMMAND - 1]}…"
    return f"by process {pid} ({shown})"


def _free(host: str, port: int) -> int:
    """Return the next higher port that is free and open to ordinary users."""
    first = max(port + 1, 1024)
    for candidate in range(first, min(first + MOST_TRIED, 65536)):
        try:
            _listen(host, candidate)
        except OSError:
            continue
        return candidate
    return first


def _privileged(port: int, words: str) -> str:
    try:
        with open(_UNPRIVILEGED, encoding="ascii") as file:
            first = int(file.read())
    except (OSError, ValueError):
        first = 1024
    higher = 8443 if port == 443 else max(8000, first)
    remedies = (
        f"{words} --port {higher}",
        f"sudo {words} --port {port}",
        f"sudo sysctl net.ipv4.ip_unprivileged_port_start={port}",
        "a front end that listens there (multisite create-rules --nginx)",
    )
    return f"only root may use ports below {first}, such as {port}; {', '.join(remedies[:-1])}, or {remedies[-1]}"


def refusals(addresses: Iterable[str], words: str) -> Iterator[str]:
    """Yield why a server cannot listen on those of `addresses` that are HOST:PORT."""
    for address in addresses:
        if reason := refusal(address, words):
            yield reason
