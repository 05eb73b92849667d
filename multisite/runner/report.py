"""What a backend reports: lines and errors to the site's log, messages as of sd_notify(3) to the supervisor.

The messages go into a pipe that only this process has. The log is descriptor 2, whatever that is: ``sys.stderr`` is the
site's to replace and to close.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections import deque
from json import dumps  # before a site can patch it
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

STDERR = 2
SLOW = 10**9  # nanoseconds until an answer begins, from which on a request is slow
LONGEST = 1000  # characters of a line for the supervisor
LONGEST_TRACEBACK = 4096  # characters for the supervisor; the end is kept
SAME_WITHIN = 1.0  # seconds within which the same exception at the same request is the same incident
BURST = 20  # different incidents at one time; one more each second
MOST_WAITING = 100  # messages; while the supervisor does not read, it is told of no more incidents
END = "\n\n"  # of a message to it: no line of one is empty
FOLDER = os.path.dirname(os.path.abspath(__file__))


def say(text: str) -> None:
    """Write a line to the log, if there is one."""
    data = (text + "\n").encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass


def report(error: BaseException, what: str) -> str:
    """Print the traceback as the site's author knows it, without our frames; return its last line."""
    text = _traceback_of(error)
    say(f"{what}\n{text}")
    return text.rpartition("\n")[2].strip()


def _traceback_of(error: BaseException) -> str:
    import traceback

    lines = traceback.format_exception(type(error), error, _without_ours(error.__traceback__))
    return "".join(lines).rstrip("\n")


def _without_ours(frames: TracebackType | None) -> TracebackType | None:
    """Return the frames from the first that is neither ours nor of the import system; all of them if there is none."""
    first = frames
    while first is not None and _is_ours(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    return first


def _is_ours(path: str) -> bool:
    return os.path.dirname(path) == FOLDER or path.startswith("<frozen importlib") or "/importlib/" in path


class Notifier:
    """Writes to `descriptor`, which never waits; with -1 it writes nothing.

    If there is no room, the rest is kept, even a part of a message, and is written first the next time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._identity = _identity(descriptor)
        self._waiting: deque[bytes] = deque()
        self._lock = allocate_lock()
        self._room, self._filled_at = float(BURST), monotonic()  # for new incidents
        self._last: tuple[str, object, float] = ("", None, 0.0)  # an incident, what it was, and its second

    def ready(self) -> None:
        """Report that the backend accepts requests."""
        self._send("READY=1\nSTATUS=serving")

    def stopping(self, why: str) -> None:
        """Report that it accepts no more requests."""
        self._send(f"STOPPING=1\nSTATUS={_line(why)}")

    def hangs(self, why: str) -> None:
        """Report that it accepts no more requests and ends: one of its requests makes no progress."""
        self._send(f"STOPPING=1\nSTATUS={_line(why)}\nHUNG=1")

    def recycles(self) -> None:
        """Report that it accepts no more requests, after `max_requests` of them, and needs a successor."""
        self._send("STOPPING=1\nRECYCLES=1\nSTATUS=max_requests")

    def leaves(self) -> None:
        """Report that it has answered all accepted requests and ends: a site's code may use the same exit status."""
        self._send("LEAVES=1")

    def status(self, text: str) -> None:
        """Report what a user should know about it, in one line."""
        self._send(f"STATUS={_line(text)}")

    def failed(self, why: str) -> None:
        """Report that it will not serve and ends; the exit status alone would not show that we ended it."""
        self._send(f"FAILED=1\nSTATUS={_line(why)}")

    def modules(self, names: str) -> None:
        """Report which modules of the interpreter the site needs, separated by spaces."""
        self._send(f"MODULES={names}")

    def facts(self, found: dict[str, Any]) -> None:
        """Report what the examination of the site has found."""
        self._send(f"FACTS={dumps(found)}")

    def slow(self, method: str, target: str, status: int, took: int) -> None:
        """Report a request that was not relayed, if it was slow; its query is left out.

        Args:
            took: nanoseconds until its answer began.
        """
        if took >= SLOW:
            path = target.partition("?")[0][:LONGEST]
            self._send(f"SLOW={dumps([method[:20], path, status, took / 1e9])}")

    def raised(self, error: BaseException, method: str, host: str, path: str) -> str:
        """Report an exception of the application, to the log and to the supervisor; return the incident of the page.

        A flood costs a bounded share: the same exception within a second, and more than one a second in the long run,
        have the incident of the one before, and are in the log alone.

        Args:
            path: as in an environ (PEP 3333), without the query.
        """
        incident, is_new = self._incident_of(error, (method, host, path))
        text = _traceback_of(error)
        say(f"MS616 incident {incident}: Error handling {_line(f'{method} {host}{path}')}\n{text}")
        if is_new and len(self._waiting) < MOST_WAITING:
            from traceback import format_exception_only

            cause = _line("".join(format_exception_only(type(error), error)))
            told = [method[:20], host[:LONGEST], path[:LONGEST], cause, text[-LONGEST_TRACEBACK:]]
            self._send(f"INCIDENT={dumps([incident, *told])}")
        return incident

    def _incident_of(self, error: BaseException, asked: object) -> tuple[str, bool]:
        """Return an id, and whether it is a new one; threads that meet here may get one more."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = trace and (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        now, what = monotonic(), (type(error), place, asked)
        incident, known, at = self._last
        self._room, self._filled_at = min(float(BURST), self._room + now - self._filled_at), now
        if incident and (self._room < 1.0 or (known == what and now - at < SAME_WITHIN)):
            return incident, False
        self._room -= 1.0
        self._last = (os.urandom(4).hex(), what, now)
        return self._last[0], True

    def _send(self, text: str) -> None:
        self._waiting.append((text + END).encode("utf-8", "replace"))
        self.flush()

    def flush(self) -> None:
        """Send what could not be sent before; a supervisor that is gone, or does not read, must not delay a site."""
        while self._waiting and self._lock.acquire(False):  # else another thread is at it, and will see what waits
            try:
                self._write()
            except BlockingIOError:
                return
            except OSError:
                self._waiting.clear()
            finally:
                self._lock.release()

    def _write(self) -> None:
        """Write as much of the first waiting message as there is room for."""
        if not self._identity or _identity(self._descriptor) != self._identity:
            self._waiting.clear()
        elif self._waiting:
            rest = self._waiting[0][os.write(self._descriptor, self._waiting[0]) :]
            if rest:
                self._waiting[0] = rest
            else:
                self._waiting.popleft()


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return which file a descriptor belongs to: a site may close it, and open its own file in its place."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST]
