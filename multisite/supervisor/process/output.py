"""What a site's processes print: read, kept for the start report, appended to a log, never without bounds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from multisite.config.logformat import Syslog, parse_syslog
from multisite.config.model import Site
from multisite.errors import one_line
from multisite.logs import logs
from multisite.logs.logfile import open_append
from multisite.logs.loghandlers import SyslogLines
from multisite.supervisor.handover import Handed, Keeper, State
from multisite.supervisor.process.journey import Tail

PIECE = 65536
READ_PER_SECOND = 4 << 20  # bytes; beyond, the pipe is left full and the site waits
LOGGED_PER_SECOND = 256 << 10  # bytes; beyond, lines are counted and left out
LINE = 64  # bytes that a line counts for besides what is in it: a flood of empty ones costs us most


class SiteLog(Handed):
    """Where the lines of one site go: its ``[logging] error`` file, else the service's log."""

    HANDED = ("_second", "_logged", "_left_out", "_told")
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

    def write(self, lines: list[str], now: float) -> None:
        """Append lines; those above the share of this second are left out and counted."""
        self._begin_second(int(now))
        taken = []
        for line in lines:
            self._logged += len(line) + LINE
            if self._logged > LOGGED_PER_SECOND:
                self._left_out += 1
            else:
                taken.append(line)
        if taken:
            self._append(taken)
            for follow in list(self.followers):
                follow(taken)

    def _begin_second(self, second: int) -> None:
        if second == self._second:
            return
        self._second, self._logged = second, 0
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._append([f"multisite: {left_out} lines of output left out"])

    def _append(self, lines: list[str]) -> None:
        if self._syslog:
            self._send(self._syslog, lines)
            return
        if not self._path:
            for line in lines:
                logs.site_logger(self.name).info("%s", one_line(line.expandtabs()))
            return
        try:
            self._open()
            data = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
            os.write(self._file, data)
            self._told = False
        except OSError as error:
            if not self._told:
                self._told = True
                logs.site_logger(self.name).error("%s: cannot be written: %s", self._path, error.strerror)

    def _send(self, target: Syslog, lines: list[str]) -> None:
        try:
            self._sender = self._sender or SyslogLines(target, f"multisite: {self.name}")
        except OSError as error:
            if not self._told:
                self._told = True
                logs.site_logger(self.name).error("syslog cannot be reached: %s", error.strerror)
            return
        for line in lines:
            self._sender.write(line)

    def _open(self) -> None:
        """Open the file, again when it was renamed or removed (logrotate)."""
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

    HANDED = ("_second", "_read")
    PARTS = ("descriptor", "tail", "_log")

    def __init__(self, descriptor: int, log: SiteLog, tail: Tail) -> None:
        self.descriptor = descriptor
        self.tail = tail
        self._log = log
        self._second = 0
        self._read = 0

    def pack(self, keep: Keeper) -> State:
        """Return what a successor is made of, and then takes."""
        return {**self.hand(), "descriptor": keep(self.descriptor)}

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
        try:
            data = os.read(self.descriptor, PIECE)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        lines = self.tail.feed(data) if data else self.tail.flush()
        self._read += len(data) + LINE * len(lines)
        self._log.write(lines, now)
        return bool(data)

    def drain(self, now: float) -> None:
        """Read what a process left behind, a bounded amount of it."""
        for _ in range(64):
            if not self.read(now) or not self._ready():
                return

    def _ready(self) -> bool:
        import select

        return bool(select.select([self.descriptor], [], [], 0)[0])

    def close(self) -> None:
        """Close it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
