"""What a site did lately, in one small file: by second, by minute and by hour, with no database.

The file holds three rings of `Sample`. Each figure of a sample is one byte on a logarithmic scale: within 3 per cent of
the true figure, counts up to 17 exactly. So any byte is a figure, and a file that the machine's failure has torn costs
at most a wrong point in a curve; what says which point is which is checksummed, and a ring that fails its checksum
begins again. The exact sums are elsewhere (`multisite.sites.tally`, `multisite.sites.usage`).

One process writes, in place, through a mapping: what it has written outlives it, however it ends. Anybody who may read
the file reads it whole, at any time. A second in which nothing happened is not written, so an idle site costs nothing.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote

from multisite.config.model import Home
from multisite.sites.statefile import StateFile


class Sample(NamedTuple):
    """What a site did in one span of time.

    Attributes:
        requests, errors: how many ended in it.
        cpu: seconds of processor time.
        memory: bytes, at most.
        latency: seconds within which 95 per cent of the requests were answered; in a sum, the worst of those.
        waiting: requests that waited at once, at most.
    """

    requests: float = 0.0
    errors: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    latency: float = 0.0
    waiting: float = 0.0

    def and_(self, other: Sample) -> Sample:
        """Return what was done in both spans."""
        return Sample(
            self.requests + other.requests,
            self.errors + other.errors,
            self.cpu + other.cpu,
            max(self.memory, other.memory),
            max(self.latency, other.latency),
            max(self.waiting, other.waiting),
        )


class Tier(NamedTuple):
    """One of the rings: so many points, each for so many seconds."""

    seconds: int
    points: int


Data = mmap.mmap | bytes
TIERS = (Tier(1, 300), Tier(60, 1440), Tier(3600, 720))  # five minutes, a day, 30 days
NOTHING = Sample()
_SMALLEST = Sample(1.0, 1.0, 0.001, 65536.0, 0.0001, 1.0)  # of each figure that is not nought
_STEPS = 254
_RATIO = 10.0 ** (7 / _STEPS)  # seven decades
_SCALE = tuple(_RATIO**step for step in range(_STEPS + 1))
_MAGIC = b"MSRING1\n"
_MARK = struct.Struct("<QI")  # the number of the newest span, and a checksum over it
_HEAD = len(_MAGIC) + _MARK.size * len(TIERS)
_WIDTH = len(Sample._fields)
_BEGINS = [_HEAD + _WIDTH * sum(tier.points for tier in TIERS[:number]) for number in range(len(TIERS))]
SIZE = _HEAD + _WIDTH * sum(tier.points for tier in TIERS)  # bytes: 14,804


SUFFIX = ".ring"


def folder(home: Home) -> str:
    """Return where the histories of a home's sites are."""
    return os.path.join(home.state_dir, f"history-{StateFile(home, 'history').key}")


def path_of(home: Home, name: str) -> str:
    """Return the file of a site's history, which need not be there."""
    return os.path.join(folder(home), quote(name, safe="") + SUFFIX)


def paths(home: Home) -> dict[str, str]:
    """Return the files of all histories that are there, by the site's name; none of a folder that cannot be read."""
    there = folder(home)
    try:
        files = os.listdir(there)
    except OSError:
        return {}
    return {name_of(file): os.path.join(there, file) for file in files if file.endswith(SUFFIX)}


def name_of(file: str) -> str:
    """Return whose history a file of the folder is; "" for another file."""
    return unquote(file.removesuffix(SUFFIX)) if file.endswith(SUFFIX) else ""


class History:
    """The history of one site, to be added to; it is made where there is none.

    Raises:
        OSError: the file cannot be had.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._map = _mapped(path)
        self._newest = [_mark(self._map, number) for number in range(len(TIERS))]
        self._now = [self._point(number, newest) for number, newest in enumerate(self._newest)]

    def __repr__(self) -> str:
        return f"<History {self.path}>"

    def add(self, when: float, sample: Sample) -> None:
        """Add what was done in the second that ends at `when` (Unix seconds).

        A clock that has been set back adds to the newest point until it has caught up.
        """
        for number, tier in enumerate(TIERS):
            span, newest = int(when) // tier.seconds, self._newest[number]
            if span > newest:
                self._clear(number, max(newest + 1, span - tier.points + 1), span)
                self._newest[number] = span
                self._now[number] = NOTHING
            summed = self._now[number] = self._now[number].and_(sample)
            at = _place(number, self._newest[number])
            self._map[at : at + _WIDTH] = bytes(map(_code, summed, _SMALLEST))
            if span > newest:
                _set_mark(self._map, number, span)

    def points(self, tier: int, until: float) -> list[Sample]:
        """Return the points of a ring, oldest first; the last is that of `until` (Unix seconds)."""
        return _points(self._map, tier, until, TIERS[tier].points)

    def close(self) -> None:
        """Write no more; what was written stays."""
        self._map.close()

    def _point(self, number: int, span: int) -> Sample:
        return _sample(self._map, _place(number, span)) if span else NOTHING

    def _clear(self, number: int, first: int, last: int) -> None:
        """Empty the points between two spans, at most as many as the ring has."""
        for span in range(first, last + 1):
            at = _place(number, span)
            self._map[at : at + _WIDTH] = bytes(_WIDTH)


def read(path: str, tier: int, until: float, points: int = 0) -> list[Sample]:
    """Return what `History.points` returns, from the file alone; zeros if there is none.

    Args:
        path: of the file.
        tier: the number of the ring in `TIERS`.
        until: Unix seconds.
        points: how many of the newest; 0: all.
    """
    data, points = b"", points or TIERS[tier].points
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            data = os.read(file, SIZE)
        finally:
            os.close(file)
    if len(data) < SIZE or not data.startswith(_MAGIC):
        return [NOTHING] * points
    return _points(data, tier, until, points)


def summed(samples: Iterable[Sample]) -> Sample:
    """Return what was done in all of the spans."""
    total = NOTHING
    for sample in samples:
        total = total.and_(sample)
    return total


def _mapped(path: str) -> mmap.mmap:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(file).st_size != SIZE:
            os.ftruncate(file, 0)
        os.posix_fallocate(file, 0, SIZE)  # what is mapped and has no room on the disk would end this process (SIGBUS)
        mapped = mmap.mmap(file, SIZE)
    finally:
        os.close(file)
    if mapped[: len(_MAGIC)] != _MAGIC:
        mapped[:] = bytes(SIZE)
        mapped[: len(_MAGIC)] = _MAGIC
    return mapped


def _mark(data: Data, number: int) -> int:
    """Return the number of the newest span of a ring; 0 where there is none, or what it says cannot be believed."""
    at = len(_MAGIC) + number * _MARK.size
    span, check = _MARK.unpack(bytes(data[at : at + _MARK.size]))
    return int(span) if check == _checksum(number, span) else 0


def _set_mark(data: mmap.mmap, number: int, span: int) -> None:
    at = len(_MAGIC) + number * _MARK.size
    data[at : at + _MARK.size] = _MARK.pack(span, _checksum(number, span))


def _checksum(number: int, span: int) -> int:
    return zlib.crc32(struct.pack("<BQ", number, span))


def _place(number: int, span: int) -> int:
    return _BEGINS[number] + span % TIERS[number].points * _WIDTH


def _points(data: Data, number: int, until: float, points: int) -> list[Sample]:
    tier, newest = TIERS[number], _mark(data, number)
    last = int(until) // tier.seconds
    known = range(newest - tier.points + 1, newest + 1)
    spans = range(last - points + 1, last + 1)
    return [_sample(data, _place(number, span)) if newest and span in known else NOTHING for span in spans]


def _sample(data: Data, at: int) -> Sample:
    point = data[at : at + _WIDTH]
    if not any(point):
        return NOTHING
    return Sample(*map(_figure, point, _SMALLEST))


def _code(figure: float, smallest: float) -> int:
    """Return the byte for a figure; what is larger than the scale is its largest."""
    if not figure > 0.0:
        return 0
    step = round(math.log(min(max(figure / smallest, 1.0), _SCALE[-1])) / math.log(_RATIO))
    return min(step, _STEPS) + 1


def _figure(code: int, smallest: float) -> float:
    figure = _SCALE[code - 1] * smallest if code else 0.0
    return float(round(figure)) if smallest == 1.0 else figure  # a count
