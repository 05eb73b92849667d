"""How much each site is used: what a worker counts, in a file that others read.

Every worker has its own file below ``usage`` in the runtime directory, with one record for each site that it
has served: the site's name, and the cells of a scoreboard (`multisite.runner.board` has their meaning). A worker
holds a lock on its file as long as it lives; what a dead one left is added to the home's sums by the next that starts.

Every request is counted, with the class of its status and whether it failed; times and bytes of a site that gets more
than `MEASURED` requests a second are those of the measured ones. What is relayed, a worker counts, and the process
counts that apart; what is handed over with its client's connection, only the process counts: see
`multisite.sites.figures`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator
from time import monotonic_ns
from typing import Any

from multisite.config.model import Home
from multisite.runner import board
from multisite.sites.figures import Sums
from multisite.sites.statefile import StateFile

FOLDER = "usage"  # in the runtime directory
MEASURED = 200  # requests of a site that a worker measures in a second
MOST_SITES = 16384  # records in a file; its pages take room when they are first written
MOST_OF_A_NUMBER = 1000  # workers of containers that share a folder
NAME = 256  # bytes for a site's name
SIZE = NAME + board.SIZE
OLD_SIZE = NAME + 256  # of an earlier release, whose workers may still be there, or have left their files
_MAGIC, _PID, _STARTED, _REQUESTS, _ERRORS, _LAST_USE, _BUSY, _RECEIVED, _SENT = map(
    board.FIELDS.index,
    ("magic", "pid", "started", "requests", "errors", "last_use", "busy", "received", "sent"),
)
_BUCKETS = len(board.FIELDS)
_LOCK = ".lock"
_log = logging.getLogger("multisite.usage")


class Counts:
    """The counts of one site in one worker.

    Attributes:
        site: whose they are.
        cells: where they are.
        requests: how many there were; `count` alone counts one that is not measured.
        left: requests that may still be measured in this second.
        enter, leave: show a request while it is in flight (`board.Flights`).

    A cell is counted up in steps between which the interpreter does not change threads (it does so at calls and at
    the end of loops), so no lock is needed for that; tests/sites/test_usage.py would see a count lost. The lock keeps
    together what one request changes.
    """

    __slots__ = ("_lock", "cells", "enter", "leave", "left", "requests", "site")

    def __init__(self, cells: memoryview, site: str = "") -> None:
        self.cells, self.site = cells, site
        self.left = MEASURED
        self.requests = 0
        self._lock = threading.Lock()
        if cells[_MAGIC] != board.MAGIC:
            cells[_PID] = os.getpid()
            cells[_STARTED] = monotonic_ns()
            cells[_MAGIC] = board.MAGIC
        shown = board.Flights(cells.cast("B")[board.FLIGHTS :])
        self.enter, self.leave = shown.enter, shown.leave

    def count(self) -> int:
        """A request has come that is not measured; returns the time."""
        self.requests += 1
        self.cells[_REQUESTS] = self.requests
        return monotonic_ns()

    def begin(self) -> int:
        """A request has come that is to be measured; give the returned time to `end`."""
        cells = self.cells
        self.left -= 1
        now = monotonic_ns()
        self.requests += 1
        cells[_REQUESTS] = self.requests
        cells[_LAST_USE] = now
        return now

    def ended(self, status: int, failed: bool) -> None:
        """A request has ended that was not measured; `status` is 0 where it has none."""
        cells, place = self.cells, board.status_cell(status)
        cells[place] += 1
        if failed:
            cells[_ERRORS] += 1

    def end(self, began: int, failed: bool, sent: int, status: int = 0, received: int = 0, cpu: int = 0) -> int:
        """Note the end of a measured request; returns how many nanoseconds it took.

        Args:
            began: what `begin` returned.
            failed: with an error, or not to the end.
            sent, received: bytes of the bodies of the answer and the request.
            status: of the answer, 0 where there was none.
            cpu: nanoseconds of processor time, 0 where that is not known.
        """
        cells = self.cells
        now = monotonic_ns()
        took = now - began
        bucket = _BUCKETS + bisect_left(board.LATENCIES, took * 1e-9)
        with self._lock:
            cells[_LAST_USE] = now
            cells[_BUSY] += took
            cells[_RECEIVED] += received
            cells[_SENT] += sent
            cells[board.CPU] += cpu
            cells[bucket] += 1
            self.ended(status, failed)
        return took

    def relayed(self, took: int) -> None:
        """Count the nanoseconds that the relay has added to a request, between us and the application."""
        cells = self.cells
        with self._lock:
            cells[board.RELAYS] += 1
            cells[board.RELAY_TIME] += took

    def imported(self, size: int) -> None:
        """Note how many bytes the site's import has added to this process; 0: it is not imported any more."""
        self.cells[board.MEMORY] = size

    def withdraw(self) -> None:
        """The request goes on where others count it."""
        self.requests -= 1
        self.cells[_REQUESTS] = self.requests


REQUESTS = _REQUESTS
UNKNOWN = "(unknown hosts)"  # the name under which requests are counted whose host is that of no site


class Usage:
    """The counts of this worker, by site.

    Args:
        folder: for the files of workers, made if it is not there; "" counts for nobody.
    """

    def __init__(self, folder: str, past: StateFile) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._known: dict[str, Counts] = {}
        self._data: memoryview | None = None
        self._file = -1
        try:
            self._open(folder, past)
        except OSError as error:
            _log.warning("MS246 cannot count requests: %s", error)

    def _open(self, folder: str, past: StateFile) -> None:
        if not folder:
            return
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        if os.stat(folder).st_uid not in (0, os.geteuid()):
            raise PermissionError(f"{folder} belongs to another user")
        gather(folder, past)
        with _locked(folder, fcntl.LOCK_EX):
            self._file = _own_file(folder, str(self.pid), past.key)
        os.truncate(self._file, 0)
        os.truncate(self._file, MOST_SITES * SIZE)
        self._data = memoryview(mmap.mmap(self._file, MOST_SITES * SIZE))

    def __repr__(self) -> str:
        return f"<Usage of {len(self._known)} sites>"

    def of(self, site: str) -> Counts:
        """Return where to count for a site."""
        with self._lock:
            found = self._known.get(site)
            if found is None:
                found = Counts(self._cells(site), site)
                if len(self._known) < MOST_SITES:
                    self._known[site] = found
            return found

    @property
    def names(self) -> int:
        """How many names are counted for."""
        return len(self._known)

    def knows(self, site: str) -> bool:
        """Tell whether a name is counted for."""
        return site in self._known

    def _cells(self, site: str) -> memoryview:
        slot = len(self._known)
        begin = slot * SIZE
        if self._data is None or slot >= MOST_SITES or not self._reserve(begin):
            return memoryview(bytearray(board.SIZE)).cast("Q")
        name = site.encode()[:NAME]
        self._data[begin : begin + len(name)] = name
        return self._data[begin + NAME : begin + SIZE].cast("Q")

    def _reserve(self, begin: int) -> bool:
        """Reserve room on the disk for a slot; without it, a write to the map would end this process (SIGBUS)."""
        try:
            os.posix_fallocate(self._file, begin, SIZE)
        except OSError:
            return False
        return True


def _own_file(folder: str, name: str, key: str) -> int:
    """Open a file that no living worker has, and hold it; a worker of another container may have our number.

    Raises:
        OSError: there is none.
    """
    for number in range(MOST_OF_A_NUMBER):
        path = os.path.join(folder, f"{name}{f'.{number}' if number else ''}-{key}")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            os.close(file)
            if not isinstance(error, BlockingIOError):
                raise
    raise BlockingIOError(f"{MOST_OF_A_NUMBER} workers have the number {name}")


_current: dict[str, Usage] = {}  # by file of the sums; of this process
_making = threading.Lock()


def of_worker(home: Home, folder: Callable[[Home], str], kind: str = FOLDER) -> Usage:
    """Return the counts of this process, which a fork does not share.

    Args:
        folder: says where its file belongs.
        kind: of what is counted; what dead workers counted is kept under this name.
    """
    past = StateFile(home, kind)
    with _making:
        found = _current.get(past.path)
        if found is None or found.pid != os.getpid():
            found = _current[past.path] = Usage(folder(home), past)
        return found


@contextlib.contextmanager
def _locked(folder: str, how: int) -> Iterator[None]:
    """Keep the files from being gathered while they are read or made; a reader makes none."""
    path, flags = os.path.join(folder, _LOCK), os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags | (os.O_RDONLY if how == fcntl.LOCK_SH else os.O_RDWR | os.O_CREAT), 0o600)
    except FileNotFoundError:
        if how != fcntl.LOCK_SH:
            raise
        yield  # no worker has come so far that it could gather
        return
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def read(folder: str, past: StateFile, sites: Container[str] | None = None) -> tuple[dict[str, Sums], float]:
    """Return what was counted for each site, and since which time (seconds since 1970, 0.0: never).

    Args:
        folder: of the workers' files.
        past: what dead workers counted.
        sites: those that are asked about; None for all.
    """
    if not os.path.isdir(folder):
        return _load(past)
    with _locked(folder, fcntl.LOCK_SH):
        sums, since = _load(past)
        for _, file in files(folder, past.key):
            _add(sums, file, _is_dead(file), sites)
    return sums, since


def pids(folder: str, past: StateFile) -> list[int]:
    """Return the workers of a home that count just now."""
    if not os.path.isdir(folder):
        return []
    with _locked(folder, fcntl.LOCK_SH):
        living = (name for name, file in files(folder, past.key) if not _is_dead(file))
        return [int(name.partition("-")[0].partition(".")[0]) for name in living]


def gather(folder: str, past: StateFile) -> None:
    """Add what dead workers left to the sums of the home, and remove their files."""
    with _locked(folder, fcntl.LOCK_EX):
        sums, since = _load(past)
        gone = []
        for name, file in files(folder, past.key):
            if _is_dead(file):
                _add(sums, file, True)
                gone.append(name)
        if len(sums) > MOST_SITES:  # of sites that are long gone, or nodes that were asked for once
            sums = dict(sorted(sums.items(), key=lambda item: item[1].requests)[-MOST_SITES:])
        if gone or not since:
            known = {name: [getattr(one, key) for key in _KEPT] for name, one in sums.items()}
            document = {"since": since or time.time(), "latencies": list(board.LATENCIES), "sites": known}
            if past.store(document):
                for name in gone:
                    os.unlink(os.path.join(folder, name))


_KEPT = (
    "requests",
    "errors",
    "sent",
    "busy",
    "latencies",
    "statuses",
    "received",
    "last_use",
    "cpu",
    "relays",
    "relay_time",
)


def _load(past: StateFile) -> tuple[dict[str, Sums], float]:
    document = past.load()
    try:
        same = document["latencies"] == list(board.LATENCIES)
        sums = {str(name): _loaded(row, same) for name, row in document["sites"].items()}
        return sums, float(document["since"])
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}, 0.0


def _loaded(row: list[Any], same: bool) -> Sums:
    requests, errors, sent, busy, latencies, *more = row
    sums = Sums(int(requests), int(errors), int(sent), float(busy))
    if same:
        sums.latencies = list(map(int, latencies))
    if more:  # as earlier releases did not have it
        statuses, received, last_use, *later = more
        sums.statuses = [int(count) for count, _ in zip(statuses, board.STATUSES, strict=True)]
        sums.received, sums.last_use = int(received), float(last_use)
        sums.cpu = float(later[0]) if later else 0.0
        if later[1:]:
            sums.relays, sums.relay_time = int(later[1]), float(later[2])
    return sums


def files(folder: str, key: str) -> Iterator[tuple[str, int]]:
    """Open the file of each worker of a home in turn; it is closed when the next is asked for."""
    for name in sorted(os.listdir(folder)):
        if not name.endswith("-" + key):
            continue
        try:
            file = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            yield name, file
        finally:
            os.close(file)


def _is_dead(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def records(folder: str, past: StateFile) -> Iterator[tuple[str, board.Record, bool]]:
    """Yield the name and the record of each slot of each worker's file, and whether that worker is dead."""
    if os.path.isdir(folder):
        with _locked(folder, fcntl.LOCK_SH):
            for _, file in files(folder, past.key):
                is_dead = _is_dead(file)
                for name, record in _records(file):
                    yield name, record, is_dead


def _records(file: int) -> Iterator[tuple[str, board.Record]]:
    now = monotonic_ns()
    size = SIZE if os.fstat(file).st_size >= MOST_SITES * SIZE else OLD_SIZE
    for slot in range(MOST_SITES):
        data = os.pread(file, size, slot * size)
        name = data[:NAME].rstrip(b"\0").decode("ascii", "replace")
        record = board.record_of(data[NAME:].ljust(board.SIZE, b"\0"), now) if name else None
        if not record:
            return
        if size == SIZE:
            record.in_flight = max(0, record.requests - sum(record.statuses))
        yield name, record


def _add(sums: dict[str, Sums], file: int, dead: bool, sites: Container[str] | None = None) -> None:
    for name, record in _records(file):
        if sites is not None and name not in sites:
            continue
        into = sums.setdefault(name, Sums())
        into.add(record)
        if not dead:
            into.in_flight += record.in_flight
            into.flights += record.flights
