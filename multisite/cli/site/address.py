"""Where a site can be visited: its domain, and the port at which a server of the home listens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from multisite.errors import MultisiteError

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.config.model import SiteFile

DEFAULT_PORT = 8000
HTTP, HTTPS = 80, 443
_LISTENS = "0A"  # proc(5), /proc/net/tcp: TCP_LISTEN
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def address_of(session: Session, file: SiteFile) -> tuple[str, str]:
    """Return the URL of a site, and what has to be said about it ("" for nothing)."""
    ports = _ports(session)
    port = next((port for port in (HTTP, HTTPS) if port in ports), min(ports, default=DEFAULT_PORT))
    host = next((domain for domain in file.domains if not set(domain) & set("*{")), f"{file.name}.localhost")
    scheme = "https" if port == HTTPS else "http"
    shown = "" if port in (HTTP, HTTPS) else f":{port}"
    note = "" if ports else " as soon as multisite serve, or another server of these sites, is running"
    return f"{scheme}://{host}{shown}{file.mount.rstrip('/')}/", note


def _ports(session: Session) -> set[int]:
    """Return the TCP ports at which the servers of the home listen, as far as can be seen."""
    try:
        told = session.supervisor
    except MultisiteError:
        return set()
    return listening(told["supervisor"]["servers"]) if told else set()


def listening(pids: Iterable[int]) -> set[int]:
    """Return the TCP ports at which processes listen; those of other users cannot be seen."""
    inodes = set[str]()
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(descriptor.path))
    found = set[int]()
    for table in _TABLES:
        with contextlib.suppress(OSError), open(table, encoding="ascii") as rows:
            for words in map(str.split, rows):
                if words[3] == _LISTENS and f"socket:[{words[9]}]" in inodes:
                    found.add(int(words[1].rpartition(":")[2], 16))
    return found
