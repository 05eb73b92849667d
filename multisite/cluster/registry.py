"""What several machines share through an engine: entries with a time to live, and leases (an interface).

An entry has a kind (``node``, ``pool``, …), a key and a value of JSON. Its owner announces it again and again; what has
not been announced within its time to live is gone. A lease has one owner at a time, and a number that grows with each
new owner, so that whoever checks it can refuse one that has lost its lease without knowing (a fencing token).

No method is called on a request's way: an engine may be slow, and may be away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

DEFAULT_NAME = "default"  # of a cluster, where the URL names none
ANSWERS_WITHIN = 2.0  # seconds that an engine has for one answer
FIGURES = "figures"  # the kind that is different all the time, so an engine hints at no change of it


class EngineAway(Exception):
    """The engine cannot be reached, or refuses; the message is the reason, without a password."""


class Version(NamedTuple):
    """Which state of the entries it is.

    Attributes:
        epoch: the engine's life: another one after it has lost its data.
        number: changes whenever an entry was added, changed or removed.
    """

    epoch: str
    number: int


@dataclass(frozen=True)
class Snapshot:
    """The entries at one moment.

    Attributes:
        entries: kind → key → value.
        is_whole: whether these are all; otherwise they are those that were added or changed, and none was removed.
    """

    version: Version
    entries: dict[str, dict[str, str]] = field(default_factory=dict)
    is_whole: bool = True


class Registry(Protocol):
    """An engine. One thread at a time may use it, except for `changes`, which may have its own.

    Every method raises `EngineAway`. Times to live are seconds.
    """

    def announce(self, kind: str, key: str, value: str, ttl: float) -> None:
        """Add an entry, or confirm it. One whose value is the same does not change the version."""

    def withdraw(self, kind: str, key: str) -> None:
        """Remove an entry; it need not be there."""

    def version(self) -> Version:
        """Return the version as it is now; this is cheap."""

    def snapshot(self, since: Version | None = None) -> Snapshot:
        """Return all entries; those that are new suffice if none is gone.

        Args:
            since: the version of the last snapshot, if the caller has kept it.
        """

    def changes(self, timeout: float) -> bool:
        """Wait for a hint that the version may be another, for at most so many seconds. Hints may get lost.

        `FIGURES` are none of their reasons.
        """

    def lease(self, key: str, owner: str, ttl: float) -> int | None:
        """Take a lease or renew it; return its number, or None while another owner has it.

        Whoever loses a lease and takes it again gets another number. The time to live counts from a moment between
        the call and its return: the owner has to count it from before the call.
        """

    def release(self, key: str, owner: str, number: int) -> None:
        """Give a lease back, if this owner still has it with this number."""

    def publish(self, prefixes: tuple[str, ...], values: Mapping[str, str]) -> None:
        """Write keys for other programs, under their own names, and remove earlier ones that are not among them.

        Args:
            prefixes: what all these keys begin with; nobody else writes such keys.
            values: by key.
        """

    def holder(self, key: str) -> tuple[str, int] | None:
        """Return the owner of a lease and its number; None if it is free."""


@dataclass(frozen=True)
class Address:
    """What a URL says: ``SCHEME://[USER:PASSWORD@]HOST[:PORT],…[/PATH][?OPTIONS][#NAME]``.

    Attributes:
        scheme: names the engine.
        hosts: names or IP addresses, and ports (None: the engine's usual one).
        path: without its first slash.
        name: of the cluster: several may share an engine.
    """

    scheme: str
    hosts: tuple[tuple[str, int | None], ...]
    path: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    name: str = DEFAULT_NAME

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            ValueError: it is none; the message is the reason, and does not repeat a password.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("it is not a URL") from None
        if parts.netloc and "@" in url and "@" not in parts.netloc:
            raise ValueError("its @ is behind a /, ? or #; write these as %2F, %3F or %23 in a password")
        account, _, listed = parts.netloc.rpartition("@")
        user, _, password = account.partition(":")
        if not parts.scheme or not listed:
            raise ValueError("it is not a URL with a host")
        name = unquote(parts.fragment) or DEFAULT_NAME
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise ValueError(f"the cluster's name {name!r} is not made of letters, digits, - and _")
        hosts = tuple(_host(item) for item in listed.split(","))
        return cls(parts.scheme, hosts, parts.path.lstrip("/"), unquote(user), unquote(password), name)

    def __str__(self) -> str:
        """Return the URL without user and password."""
        hosts = ",".join(_shown(*host) for host in self.hosts)
        name = f"#{self.name}" if self.name != DEFAULT_NAME else ""
        return f"{self.scheme}://{hosts}{'/' if self.path else ''}{self.path}{name}"


def _shown(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}" if port else name


def _host(text: str) -> tuple[str, int | None]:
    """Raises ValueError: it is not HOST or HOST:PORT."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} has no port between 0 and 65535") from None
    if not parts.hostname or parts.path or parts.username is not None:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return parts.hostname, port
