"""Which machine each front end chooses for a host while all are alive: their hash rings, computed without them (pure).

nginx puts 160 points a weight on a ring, HAProxy as many leaves into a tree, and Caddy gives each machine a number for
each host and takes the highest. With the rules of ``multisite create-rules --nodes``, all three hash the host in lower
case, without its port and without a final dot. The machines differ from front end to front end, so use one kind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Protocol
from zlib import crc32

from multisite.config.nodes import HEAVIEST, Machine

POINTS = 160  # of nginx, for each unit of weight
LEAVES = 16  # of HAProxy, for each unit of its weight
FINEST = POINTS // LEAVES  # HAProxy's weight of a machine with weight 1, if no other is heavier
LEAVES_KEPT_APART = 4096  # HAProxy's numbers for the leaves of a server begin at its id times this
IDS = 2**32 // LEAVES_KEPT_APART - 1  # as the product has 32 bits, higher ids would repeat the leaves of lower ones
PREFIX_FIRST = (2, 6, 3)  # version of Caddy that hashes the machine before the host
XXHASH = (2, 8)  # version of Caddy that hashes with xxhash rather than FNV
_ALL = 2**32 - 1
_ALL64 = 2**64 - 1


class Ring(Protocol):
    """A front end's choice."""

    def choose(self, host: str) -> Machine:
        """Return the machine for a host in its normal form."""
        ...


class Nginx:
    """``hash $host consistent``: libketama's ring; a host belongs to the next point after it."""

    def __init__(self, machines: Iterable[Machine]) -> None:
        points: dict[int, Machine] = {}
        for machine in machines:
            host, _, port = str(machine).rpartition(":")
            begin, last = crc32(f"{host}\0{port}".encode()), 0
            for _ in range(machine.weight * POINTS):
                last = crc32(last.to_bytes(4, "little"), begin)
                points.setdefault(last, machine)
        self._places = sorted(points)
        self._machines = [points[place] for place in self._places]

    def choose(self, host: str) -> Machine:
        """Return the machine for a host in its normal form."""
        return self._machines[bisect_left(self._places, crc32(host.encode())) % len(self._machines)]


class Haproxy:
    """``balance hash`` with ``hash-type consistent crc32 avalanche``: a host belongs to the nearest leaf."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        leaves: dict[int, Machine] = {}
        numbers, finest = ids(machines), finesse(machines)
        for machine in machines:
            first = numbers[machine] * LEAVES_KEPT_APART
            for leaf in range(first, first + machine.weight * finest * LEAVES):
                leaves.setdefault(_mixed(leaf), machine)
        self._places = sorted(leaves)
        self._machines = [leaves[place] for place in self._places]

    def choose(self, host: str) -> Machine:
        """Return the machine for a host in its normal form."""
        place = _mixed(crc32(host.encode()))
        after = bisect_left(self._places, place) % len(self._places)
        before = after - 1
        is_nearer = (place - self._places[before]) & _ALL <= (self._places[after] - place) & _ALL
        return self._machines[before if is_nearer else after]


class Caddy:
    """``lb_policy header``: the machine with the highest hash of both names, whatever its weight.

    Args:
        version: decides how both are hashed; () for a recent one.
    """

    def __init__(self, machines: Iterable[Machine], version: tuple[int, ...] = ()) -> None:
        self._machines = tuple(machines)
        self._is_prefix = not version or version >= PREFIX_FIRST
        self._hash = _xxh64 if not version or version >= XXHASH else _fnv1a

    def choose(self, host: str) -> Machine:
        """Return the machine for a host in its normal form."""
        key = host.encode()
        names = (str(machine).encode() for machine in self._machines)
        numbers = [self._hash(name + key if self._is_prefix else key + name) for name in names]
        return self._machines[numbers.index(max(numbers))]


def choices(machines: Sequence[Machine], host: str, caddy: tuple[int, ...] = ()) -> dict[str, Machine]:
    """Return the machine that each kind of front end chooses for a host in its normal form.

    Args:
        machines: at least one; Caddy's rules accept no weights.
        caddy: version of Caddy, () for a recent one.
    """
    chosen = {"nginx": Nginx(machines).choose(host), "HAProxy": Haproxy(machines).choose(host)}
    if all(machine.weight == 1 for machine in machines):
        chosen["Caddy"] = Caddy(machines, caddy).choose(host)
    return chosen


def ids(machines: Iterable[Machine]) -> dict[Machine, int]:
    """Return HAProxy's ids of the machines, which decide the places of their leaves.

    They follow from the addresses alone, so that a machine that joins or leaves does not move the others.
    """
    found: dict[int, Machine] = {}
    for machine in sorted(machines, key=str):
        number = crc32(str(machine).encode()) % IDS
        while number in found:
            number = (number + 1) % IDS
        found[number] = machine
    return {machine: number + 1 for number, machine in found.items()}


def finesse(machines: Iterable[Machine]) -> int:
    """Return HAProxy's weight for each unit of weight: the more leaves, the fairer."""
    return max(1, min(FINEST, HEAVIEST // max((machine.weight for machine in machines), default=1)))


def _mixed(number: int) -> int:
    """HAProxy's avalanche: Bob Jenkins' integer hash and a prime that spreads the result."""
    number = (number + 0x7ED55D16 + (number << 12)) & _ALL
    number = (number ^ 0xC761C23C) ^ (number >> 19)
    number = (number + 0x165667B1 + (number << 5)) & _ALL
    number = ((number + 0xD3A2646C) ^ (number << 9)) & _ALL
    number = (number + 0xFD7046C5 + (number << 3)) & _ALL
    number = (number ^ 0xB55A4F09) ^ (number >> 16)
    return number * 3221225473 & _ALL


def _fnv1a(data: bytes) -> int:
    number = 0x811C9DC5
    for byte in data:
        number = ((number ^ byte) * 0x01000193) & _ALL
    return number


_PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def _turned(number: int, bits: int) -> int:
    return (number << bits | number >> 64 - bits) & _ALL64


def _round(lane: int, word: int) -> int:
    return _turned((lane + word * _PRIMES[1]) & _ALL64, 31) * _PRIMES[0] & _ALL64


def _xxh64(data: bytes) -> int:
    """XXH64 with the seed 0, as its specification describes it."""
    one, two, three, four, five = _PRIMES
    at = 0
    if len(data) >= 32:
        lanes = [one + two & _ALL64, two, 0, -one & _ALL64]
        for at in range(0, len(data) - 31, 32):
            words = (int.from_bytes(data[at + lane : at + lane + 8], "little") for lane in (0, 8, 16, 24))
            lanes = list(map(_round, lanes, words))
        at += 32
        number = sum(map(_turned, lanes, (1, 7, 12, 18))) & _ALL64
        for lane in lanes:
            number = ((number ^ _round(0, lane)) * one + four) & _ALL64
    else:
        number = five
    number = number + len(data) & _ALL64
    while at + 8 <= len(data):
        number ^= _round(0, int.from_bytes(data[at : at + 8], "little"))
        number = (_turned(number, 27) * one + four) & _ALL64
        at += 8
    if at + 4 <= len(data):
        number ^= int.from_bytes(data[at : at + 4], "little") * one & _ALL64
        number = (_turned(number, 23) * two + three) & _ALL64
        at += 4
    for byte in data[at:]:
        number = _turned(number ^ byte * five & _ALL64, 11) * one & _ALL64
    number = (number ^ number >> 33) * two & _ALL64
    number = (number ^ number >> 29) * three & _ALL64
    return number ^ number >> 32
