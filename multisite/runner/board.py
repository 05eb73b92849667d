"""The scoreboard of a site: what each of its processes counts, in a memory file that the supervisor reads.

The file holds one record of `SIZE` bytes for each slot; a process writes its own slot and no other, so no lock is
needed between processes. Every cell is an unsigned 64-bit number, written by one store, so a reader never sees half
of one. Times are nanoseconds of the monotonic clock, which all processes of a machine share.

The file is handed over open, and sealed against growing and shrinking (memfd_create(2)): nobody can fill the machine's
memory with it, or kill a process that has mapped it. The site can write anything into it. Therefore readers bound what
they find; a hostile site can falsify its own figures, and nothing else. The next process of a slot continues the counts
of the one before.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from array import array
from bisect import bisect_left
from time import monotonic_ns

from .report import say

TYPE_CHECKING = False  # importing typing would cost each backend milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# The upper bounds of the latency buckets in seconds; the last bucket has none.
LATENCIES = tuple(
    milliseconds / 1000
    for milliseconds in (0.1, 0.25, 0.5, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000)
)

FIELDS = (
    "magic",  # MAGIC once a process has written here
    "pid",
    "started",  # when this process began to serve
    "starts",  # how many processes have had this slot
    "in_flight",
    "requests",  # received, in all processes of this slot
    "errors",  # answers of 500 and above, and those cut short
    "last_use",  # when a request last began or ended
    "busy",  # nanoseconds spent on requests
    "received",  # bytes of their bodies
    "sent",  # bytes of the answers' bodies
    "quiet",  # of those in flight, how many do not count as use of the site
)
STATUSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")  # a count for each class; "none": the client had left
RELAYED = ("requests", "errors", "busy", "received", "sent")  # of those that a worker relays and counts itself
MAGIC = 0x4D53424F41524404
BEFORE = 0x4D53424F41524403  # of an earlier release, which had no more than the buckets
CELLS = 72
PLACES = 6
WIDTH = 96  # bytes of a place
FLIGHTS_SIZE = PLACES * WIDTH
_HEAD = struct.Struct("=QH")  # nanoseconds of the monotonic clock, 0: the place is free; bytes of the text
_ROOM = WIDTH - _HEAD.size
FLIGHTS = CELLS * 8  # where those begin that are in flight (`Flights`)
SIZE = FLIGHTS + FLIGHTS_SIZE
_BUCKETS = len(FIELDS)
_LARGEST = 2**53  # what JSON readers hold exactly
_PID, _STARTED, _STARTS, _IN_FLIGHT, _REQUESTS, _ERRORS, _LAST_USE, _BUSY, _RECEIVED, _SENT, _QUIET = range(1, _BUCKETS)
FIRST_STATUS = _BUCKETS + len(LATENCIES) + 1
_RELAYED = FIRST_STATUS + len(STATUSES)  # the same once more: `RELAYED`, the buckets and the statuses
_RELAYED_NOW = _RELAYED + len(RELAYED) + (_RELAYED - _BUCKETS)  # of those in flight, how many are relayed
# Of a site in a worker alone, which has other sites, too:
CPU = _RELAYED_NOW + 1  # nanoseconds of processor time of the threads that answered its measured requests
MEMORY = CPU + 1  # bytes that its import has added, 0 where it is not imported
RELAYS = MEMORY + 1  # relayed requests of which the application has said how long it took
RELAY_TIME = RELAYS + 1  # nanoseconds that the relay has added to them


class Board:
    """The writer of one slot; its threads share it.

    Args:
        file: the descriptor of the site's scoreboard, which the caller closes; with -1 nothing is counted.
        slot: the number of this process among those of the site that the file is for, from 0.

    Raises:
        OSError, ValueError: the file cannot be mapped, or has no such slot.
    """

    def __init__(self, file: int, slot: int, pid: int) -> None:
        self._lock = threading.Lock()
        self._cells = _mapped(file, slot)
        cells = self._cells
        if cells[0] != MAGIC:
            cells[1:CELLS] = memoryview(array("Q", bytes(FLIGHTS - 8)))
        cells[_PID] = pid
        cells[_IN_FLIGHT] = cells[_QUIET] = cells[_RELAYED_NOW] = 0
        cells[_STARTS] = _next(cells[_STARTS])
        cells[_STARTED] = cells[_LAST_USE] = monotonic_ns()
        cells[0] = MAGIC
        shown = Flights(cells.cast("B")[FLIGHTS:])
        self.enter, self.leave = shown.enter, shown.leave

    def begin(self, quiet: bool = False, relayed: bool = False) -> int:
        """Count a request that has arrived; pass the returned time to `end`, and the same arguments.

        Args:
            quiet: it is no use of the site.
            relayed: a worker relays it, and counts it as well.
        """
        now = monotonic_ns()
        cells = self._cells
        with self._lock:
            if quiet:
                cells[_QUIET] += 1
            else:
                cells[_LAST_USE] = now
            cells[_IN_FLIGHT] += 1
            cells[_REQUESTS] = _next(cells[_REQUESTS])
            if relayed:
                cells[_RELAYED] = _next(cells[_RELAYED])
                cells[_RELAYED_NOW] += 1
        return now

    def end(
        self,
        began: int,
        failed: bool,
        received: int = 0,
        sent: int = 0,
        quiet: bool = False,
        relayed: bool = False,
        status: int = 0,
    ) -> int:
        """Note that this request was answered, or given up; returns the time.

        Args:
            failed: with an error, or not to the end.
            received, sent: bytes of the bodies.
            status: of the answer, 0 where there was none.
        """
        now = monotonic_ns()
        took = now - began
        cells = self._cells
        figures = (int(failed), took, received, sent)
        places = _BUCKETS + bisect_left(LATENCIES, took * 1e-9), status_cell(status)
        with self._lock:
            cells[_IN_FLIGHT] -= 1
            if quiet:
                cells[_QUIET] -= 1
            else:
                cells[_LAST_USE] = now
            for cell, figure in zip(_SUMMED, figures):
                cells[cell] = _next(cells[cell], figure)
            for cell in places:
                cells[cell] = _next(cells[cell])
            if relayed:
                cells[_RELAYED_NOW] -= 1
                for cell, figure in enumerate(figures, _RELAYED + 1):
                    cells[cell] = _next(cells[cell], figure)
                for cell in places:
                    cells[cell + _AGAIN] = _next(cells[cell + _AGAIN])
        return now


_SUMMED = (_ERRORS, _BUSY, _RECEIVED, _SENT)
_AGAIN = _RELAYED + len(RELAYED) - _BUCKETS  # from a bucket or a status to that of those that are relayed


def status_cell(status: int) -> int:
    """Return the cell in which answers of this status are counted."""
    return FIRST_STATUS + (status // 100 if 100 <= status < 600 else 0)


class Flights:
    """Shows requests that are being answered, with method, path and when they came; threads of a process share it.

    There is room for `PLACES` at once, each cut to a place's width; one that finds none free is not shown. What a site
    writes there is bounded by whoever reads it, and escaped by whoever prints it.

    Args:
        area: `FLIGHTS_SIZE` bytes.
    """

    def __init__(self, area: memoryview) -> None:
        self._area = area
        self._area[:FLIGHTS_SIZE] = bytes(FLIGHTS_SIZE)
        self._free = list(range(PLACES))

    def enter(self, began: int, method: str, target: str) -> int:
        """Show a request; returns its place for `leave`, -1 where none is free. The query is not shown."""
        try:
            place = self._free.pop()
        except IndexError:
            return -1
        text = f"{method} {target.partition('?')[0]}".encode("utf-8", "replace")[:_ROOM]
        at = place * WIDTH
        self._area[at + _HEAD.size : at + _HEAD.size + len(text)] = text
        self._area[at : at + _HEAD.size] = _HEAD.pack(began, len(text))
        return place

    def leave(self, place: int) -> None:
        """Show it no more."""
        if place >= 0:
            self._area[place * WIDTH : place * WIDTH + _HEAD.size] = bytes(_HEAD.size)
            self._free.append(place)


def flights_of(area: bytes, now: int) -> tuple[tuple[str, str, float], ...]:
    """Return method, path and age in seconds of each request that is shown.

    Args:
        area: `FLIGHTS_SIZE` bytes.
        now: nanoseconds of the monotonic clock.
    """
    found: list[Any] = []
    for at in range(0, min(len(area), FLIGHTS_SIZE) - WIDTH + 1, WIDTH):
        began, length = _HEAD.unpack_from(area, at)
        if began:
            start = at + _HEAD.size
            text = area[start : start + min(length, _ROOM)].decode("utf-8", "replace")
            method, _, path = text.partition(" ")
            found.append((method, path, max(0, now - began) / 1e9))
    return tuple(found)


def opened(file: int, slot: int, pid: int) -> Board:
    """Return the writer of the slot; if it cannot be opened, one that counts nothing, since a site can do without.

    The descriptor is closed: the mapping stays.
    """
    try:
        return Board(file, slot, pid)
    except (OSError, ValueError) as error:
        say(f"MS614 Cannot write the scoreboard: {error}")
        return Board(-1, 0, pid)
    finally:
        try:
            os.close(file)
        except OSError:
            pass  # there is none


def _next(value: int, step: int = 1) -> int:
    return (value + step) & 0xFFFFFFFFFFFFFFFF


def _mapped(file: int, slot: int) -> memoryview:
    """The cells of the slot; the mapping lives as long as they do."""
    if file < 0:
        return memoryview(bytearray(SIZE)).cast("Q")
    end = (slot + 1) * SIZE
    return memoryview(mmap.mmap(file, end))[slot * SIZE : end].cast("Q")


class Record:
    """What was read from one slot, bounded; times are seconds of the monotonic clock.

    `latencies` has a count for each of `LATENCIES` and one for all that took longer, `statuses` one for each of
    `STATUSES`. `relayed` has those of `RELAYED`, and the same counts; `relayed_now` are those in flight. `cpu`
    (seconds), `memory` (bytes), `relays` and `relay_time` (seconds) are those of a site in a worker (`CPU` and others).
    `flights` has method, path and age of some requests that are in flight.
    """

    __slots__ = (
        *FIELDS[1:],
        "cpu",
        "flights",
        "latencies",
        "memory",
        "relay_time",
        "relayed",
        "relayed_now",
        "relays",
        "statuses",
    )

    def __init__(self, cells: Sequence[int], now: int) -> None:
        self.flights: tuple[tuple[str, str, float], ...] = ()
        bounded = [min(cell, _LARGEST) for cell in cells]
        self.pid = min(bounded[_PID], 2**22)
        self.started = min(cells[_STARTED], now) / 1e9
        self.starts = bounded[_STARTS]
        self.in_flight = min(bounded[_IN_FLIGHT], 2**16)
        self.requests = bounded[_REQUESTS]
        self.errors = bounded[_ERRORS]
        self.last_use = min(cells[_LAST_USE], now) / 1e9
        self.busy = bounded[_BUSY] / 1e9
        self.received = bounded[_RECEIVED]
        self.sent = bounded[_SENT]
        self.quiet = min(bounded[_QUIET], self.in_flight)
        self.latencies = tuple(bounded[_BUCKETS:FIRST_STATUS])
        self.statuses = tuple(bounded[FIRST_STATUS:_RELAYED])
        self.relayed = tuple(bounded[_RELAYED:_RELAYED_NOW])
        self.relayed_now = min(bounded[_RELAYED_NOW], self.in_flight)
        self.cpu, self.memory = bounded[CPU] / 1e9, bounded[MEMORY]
        self.relays, self.relay_time = bounded[RELAYS], bounded[RELAY_TIME] / 1e9

    def __repr__(self) -> str:
        return f"<Record pid={self.pid} in_flight={self.in_flight} requests={self.requests}>"


def read(file: int, slot: int) -> Record | None:
    """Return what the slot holds, or None if no process has written it yet.

    Args:
        file: a descriptor of the scoreboard.
        slot: the number of the process among those of the site.
    """
    data = os.pread(file, SIZE, slot * SIZE)
    return record_of(data, monotonic_ns())


def record_of(data: bytes, now: int) -> Record | None:
    """The record in `data`, as seen at the time `now`; what an earlier release did not count is 0."""
    if len(data) < SIZE:
        return None
    cells = array("Q", data[:FLIGHTS])
    if cells[0] not in (MAGIC, BEFORE):
        return None
    record = Record(cells, now)
    record.flights = flights_of(data[FLIGHTS:SIZE], now)
    return record
