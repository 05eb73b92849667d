"""What a site's processes print: read, kept for the report of a start, and appended to a log, always within bounds."""

from __future__ import annotations

import contextlib
import logging
import os
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from multisite.config.logformat import Syslog, parse_syslog
from multisite.config.model import Site
from multisite.errors import one_line
from multisite.logs import kept as kept_logs
from multisite.logs import servicelog
from multisite.logs.kept import Tracebacks
from multisite.logs.logfiles import STREAMS, open_append
from multisite.logs.loghandlers import SyslogLines
from multisite.supervisor.process import descriptors
from multisite.supervisor.reexec import OPEN, Handed, converted, kept

PIECE = 65536
READ_PER_SECOND = 4 << 20  # bytes; above this, the pipe is left full and the site waits
LOGGED_PER_SECOND = 256 << 10  # bytes; above this, lines are counted and left out
LINE = 64  # bytes that a line counts for besides its content: a flood of empty lines costs us most
MOST_LINES = 40
IS_OUTPUT = {"is_output": True}  # of a record: the site printed it, and it is kept already
LONGEST_LINE = 1000  # characters of a line that are kept


@dataclass
class LastLines:
    """The last lines that a process printed, bounded whatever it prints."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LINES))
    _open: str = ""

    def feed(self, data: bytes) -> list[str]:
        """Take more output; return the lines that it completes."""
        *whole, rest = (self._open + data.decode("utf-8", "backslashreplace")).split("\n")
        done = [line.rstrip("\r")[:LONGEST_LINE] for line in whole]
        if len(rest) > LONGEST_LINE:
            done.append(rest[:LONGEST_LINE])
            rest = ""
        self._open = rest
        self.lines.extend(done)
        return done

    def flush(self) -> list[str]:
        """Treat an unfinished line as finished."""
        return self.feed(b"\n") if self._open else []


class SiteLog(Handed):
    """Where the lines of one site go: its ``[logging] error`` file, else the service's log."""

    KEPT = kept("_second _logged _left_out _told")
    ANEW = ("name", "followers", "_syslog", "_path", "_sender", "_file", "_stamp")

    def __init__(self, site: Site, followers: list[Callable[[list[str]], None]] | None = None) -> None:
        self.name = site.name
        self.followers = followers if followers is not None else []  # called with all new lines
        self._syslog = parse_syslog(site.error_log)
        self._path = "" if self._syslog else site.error_log
        self._sender: SyslogLines | None = None
        self._file = -1
        self._stamp = (0, 0)
        self._second = 0
        self._logged = 0
        self._left_out = 0
        self._told = False

    def write(self, lines: list[str], now: float, tracebacks: Tracebacks | None = None) -> None:
        """Append lines; those above this second's share are left out and counted."""
        self._begin_second(int(now))
        taken, levels, tracebacks = list[str](), list[int](), tracebacks or Tracebacks()
        for line in lines:
            self._logged += len(line) + LINE
            level = tracebacks.level(line)
            if self._logged > LOGGED_PER_SECOND:
                self._left_out += 1
            else:
                taken.append(line)
                levels.append(level)
        if taken:
            self._append(taken, levels)
            for follow in list(self.followers):
                follow(taken)

    def _begin_second(self, second: int) -> None:
        if second == self._second:
            return
        self._second, self._logged = second, 0
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._append([f"multisite: {left_out} lines of output left out"], [logging.WARNING])

    def _append(self, lines: list[str], levels: list[int]) -> None:
        if self._syslog or not self._path or self._path in STREAMS:  # nowhere to read them back from
            kept_logs.write(self.name, lines, levels)
        if self._syslog:
            self._send(self._syslog, lines)
            return
        if not self._path:
            for line, level in zip(lines, levels, strict=True):
                servicelog.site_logger(self.name).log(level, "%s", one_line(line.expandtabs()), extra=IS_OUTPUT)
            return
        try:
            self._open()
            data = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
            os.write(self._file, data)
            self._told = False
        except OSError as error:
            self._complain(f"{self._path}: cannot be written: {error.strerror}")

    def _send(self, target: Syslog, lines: list[str]) -> None:
        try:
            self._sender = self._sender or SyslogLines(target, f"multisite: {self.name}")
        except OSError as error:
            self._complain(f"syslog cannot be reached: {error.strerror}")
            return
        for line in lines:
            self._sender.write(line)

    def _complain(self, reason: str) -> None:
        """Log once what is wrong, until a line can be written again."""
        if not self._told:
            self._told = True
            servicelog.site_logger(self.name).error("MS546 %s", reason)

    def _open(self) -> None:
        """Open the file, and again after it was renamed or removed (logrotate)."""
        with contextlib.suppress(OSError):
            status = os.stat(self._path)
            if self._file >= 0 and (status.st_dev, status.st_ino) == self._stamp:
                return
        self.close()
        self._file = open_append(self._path)
        status = os.fstat(self._file)
        self._stamp = (status.st_dev, status.st_ino)

    def close(self) -> None:
        """Close the file."""
        if self._sender:
            self._sender.close()
            self._sender = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Output(Handed):
    """The reading end of one process's standard output and error."""

    KEPT = kept("_second _read", descriptor=OPEN)
    ANEW = ("tail", "_log", "_tracebacks")

    def __init__(self, descriptor: int, log: SiteLog, tail: LastLines) -> None:
        self.descriptor = descriptor
        self.tail = tail
        self._log = log
        self._tracebacks = Tracebacks()
        self._second = 0
        self._read = 0

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self.descriptor

    @property
    def waits_until(self) -> float:
        """Monotonic second from which more may be read; 0: at once."""
        return self._second + 1.0 if self._read >= READ_PER_SECOND else 0.0

    def read(self, now: float) -> bool:
        """Read a piece; False when the output has ended."""
        if int(now) != self._second:
            self._second, self._read = int(now), 0
        data = descriptors.read(self.descriptor, PIECE)
        if data is None:
            return True
        lines = self.tail.feed(data) if data else self.tail.flush()
        self._read += len(data) + LINE * len(lines)
        self._log.write(lines, now, self._tracebacks)
        return bool(data)

    def drain(self, now: float) -> None:
        """Read what a process left behind, within bounds."""
        for _ in range(64):
            if not self.read(now) or not select.select([self.descriptor], [], [], 0)[0]:
                return

    def close(self) -> None:
        """Close it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass
class Journey:
    """The steps of a start, in order, each with its duration in seconds once it is over.

    Attributes:
        way: forked or plain, and why.
        failed_at: monotonic seconds; 0.0 if it has not failed.
    """

    begun: float
    steps: list[tuple[str, float]] = field(default_factory=list)
    tail: LastLines = field(default_factory=LastLines)
    way: str = ""
    failure: str = ""
    incident: str = ""
    failed_at: float = 0.0
    _since: float = 0.0
    _step: str = ""

    def enter(self, step: str, now: float) -> None:
        """Begin a step; this ends the step before it."""
        self.leave(now)
        self._step, self._since = step, now

    def leave(self, now: float) -> None:
        """End the current step."""
        if self._step:
            self.steps.append((self._step, now - self._since))
            self._step = ""

    def fail(self, reason: str, incident: str, now: float) -> None:
        """End the journey with a failure."""
        step = self._step
        self.leave(now)
        self.failed_at = now
        self.failure = f"{step}: {reason}" if step else reason
        self.incident = incident

    @property
    def duration(self) -> float:
        """Seconds that all finished steps took."""
        return sum(seconds for _, seconds in self.steps)

    def pack(self) -> dict[str, Any]:
        """Return what `taken_over` accepts."""
        tail = [list(self.tail.lines), self.tail._open]
        return {**vars(self), "tail": tail}

    @classmethod
    def taken_over(cls, state: dict[str, Any]) -> Journey:
        """Return the journey that another program packed."""
        lines, rest = state["tail"]
        steps = [(str(step), float(seconds)) for step, seconds in state["steps"]]
        return cls(**{**state, "steps": steps, "tail": LastLines(deque(lines, MOST_LINES), rest)})

    def as_dict(self) -> dict[str, object]:
        """Describe it for ``status``."""
        return {
            "steps": [{"step": step, "seconds": round(seconds, 4)} for step, seconds in self.steps],
            "way": self.way,
            "failure": self.failure,
            "incident": self.incident,
            "output": list(self.tail.lines),
        }

    @property
    def headline(self) -> str:
        """One line with all steps."""
        steps = ", ".join(f"{step} {seconds * 1000:.0f} ms" for step, seconds in self.steps)
        return (self.failure or "started") + (f" ({steps})" if steps else "")

    def __str__(self) -> str:
        """The headline, and one line for each of the last lines of output."""
        return "\n".join([self.headline, *(f"    {line}" for line in self.tail.lines)])


JOURNEY = converted(lambda one: one and one.pack(), lambda told: told and Journey.taken_over(told))
