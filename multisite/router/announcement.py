"""uWSGI's subscription packets, read and written byte for byte (pure).

A node announces each of its keys by a datagram: a uwsgi header with modifier1 224 and modifier2 0 to join, otherwise to
leave, then variables, with decimal numbers. It repeats this every ten seconds. In a signed one the variable ``sign``
comes last, and covers all variables before it; ``unix`` is then a growing number.
https://uwsgi-docs.readthedocs.io/en/latest/SubscriptionServer.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MODIFIER = 224
LARGEST = 4096  # bytes of a datagram, uWSGI's own buffer
MOST_WEIGHT = 65535
ALGORITHMS = ("wrr", "lrc", "wlrc", "iphash")

_NUMBER = re.compile(rb"[0-9]{1,18}\Z")


@dataclass(frozen=True, slots=True)
class Announcement:
    """The content of one datagram.

    Attributes:
        key: as it was sent, not yet in its normal form.
        address: of the node.
        leaves: the node does not answer for the key any more.
        cores: requests that the node can answer at once, 0 if unknown.
        load: requests that it answers just now.
        weight: its share of the requests; uWSGI's first packets have 0, which stands for 1.
        backup: its level; see `multisite.config.nodes.Node`.
        algorithm: how to distribute its requests, "" if unknown.
        protocol: "http" if the node does not speak uwsgi.
        notify: path of a datagram socket that is notified when the node is new.
        unix: the number that grows, 0 in a packet that is not signed.
        sign: the signature, empty in one that is not signed.
        signed: the bytes that it covers.
    """

    key: str
    address: str
    leaves: bool = False
    modifier1: int = 0
    modifier2: int = 0
    cores: int = 0
    load: int = 0
    weight: int = 1
    backup: int = 0
    algorithm: str = ""
    protocol: str = "uwsgi"
    notify: str = ""
    unix: int = 0
    sign: bytes = b""
    signed: bytes = b""


def read(data: bytes) -> Announcement | None:
    """Return the content of a datagram; None if uWSGI would not accept it. Any bytes are safe."""
    if not 4 <= len(data) <= LARGEST or data[0] != MODIFIER or int.from_bytes(data[1:3], "little") != len(data) - 4:
        return None
    try:
        found = list(_variables(data))
    except ValueError:
        return None
    values = {key: value for key, value, _at in found}
    key, address = values.get(b"key", b""), values.get(b"address", b"")
    if not (0 < len(key) <= 255 and 0 < len(address) <= 255):
        return None
    number = _numbers(values)
    algorithm = values.get(b"algo", b"").decode("latin-1")
    sign_at = next((at for name, _value, at in found if name == b"sign"), len(data))
    return Announcement(
        key.decode("utf-8", "surrogateescape"),
        address.decode("utf-8", "surrogateescape"),
        data[3] != 0,
        number("modifier1", 255),
        number("modifier2", 255),
        number("cores"),
        number("load"),
        max(1, number("weight", MOST_WEIGHT)),
        number("backup", 255),
        algorithm if algorithm in ALGORITHMS else "",
        "http" if values.get(b"proto") in (b"http", b"h") else "uwsgi",
        values.get(b"notify", b"").decode("utf-8", "surrogateescape"),
        number("unix"),
        values.get(b"sign", b""),
        data[4:sign_at],
    )


class _numbers:
    """Reads numbers as uWSGI does: an invalid one is 0, and one that is too large is the largest allowed."""

    def __init__(self, values: Mapping[bytes, bytes]) -> None:
        self._values = values

    def __call__(self, name: str, most: int = 2**63 - 1) -> int:
        digits = self._values.get(name.encode(), b"")
        return min(most, int(digits)) if _NUMBER.match(digits) else 0


def _variables(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield each key, its value and where both begin.

    Raises:
        ValueError: a length leads out of the packet, or a key is empty.
    """
    at, end = 4, len(data)
    while at < end:
        begin = at
        parts = []
        for least in (1, 0):
            size = int.from_bytes(data[at : at + 2], "little")
            at += 2 + size
            if at > end or size < least:
                raise ValueError("truncated")
            parts.append(data[at - size : at])
        yield parts[0], parts[1], begin


def write(announced: Announcement) -> bytes:
    """Return the datagram, as uWSGI makes it; without a signature.

    Raises:
        ValueError: it would be larger than uWSGI takes.
    """
    pairs = {
        "key": announced.key,
        "address": announced.address,
        "modifier1": announced.modifier1,
        "modifier2": announced.modifier2,
        "cores": announced.cores,
        "load": announced.load,
        "weight": announced.weight,
    }
    if announced.notify:
        pairs["notify"] = announced.notify
    body = b"".join(_string(text) for pair in pairs.items() for text in pair)
    if len(body) > LARGEST - 4:
        raise ValueError(f"an announcement of {len(body) + 4} bytes; uWSGI takes {LARGEST}")
    return b"%c%b%c%b" % (MODIFIER, len(body).to_bytes(2, "little"), announced.leaves, body)


def _string(text: object) -> bytes:
    encoded = str(text).encode("utf-8", "surrogateescape")
    return len(encoded).to_bytes(2, "little") + encoded
