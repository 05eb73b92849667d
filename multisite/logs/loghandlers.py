"""Our log handlers and formatters, and replacements for those that Moya's logging.ini names."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from typing import IO, Any

from multisite.config.logformat import Syslog
from multisite.logs.logfiles import open_append

#: where a platform's syslog daemon listens, tried in this order
SYSLOG_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")

#: shown by a record without a site
NO_SITE = {"site": "", "where": " " * 14}


class ReopeningFileHandler(logging.handlers.WatchedFileHandler):
    """Appends to a file, which is reopened after it was renamed or removed (logrotate).

    A fault while writing (full disk, no permission, directory gone) is reported once on standard error and never
    reaches the code that logs; writing is tried again with every record.

    Raises:
        OSError: the file cannot be opened when the handler is made.
    """

    def __init__(self, filename: str, mode: str = "a", encoding: str | None = "utf-8", delay: bool = False) -> None:
        self._told = False
        super().__init__(filename, mode, encoding, delay, errors="backslashreplace")

    def _open(self) -> IO[Any]:  # type: ignore[override]
        return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=_open_log)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the base class would let the faults of opening escape."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Report the first fault in one line; a traceback for each record would fill another log."""
        fault = sys.exc_info()[1]
        if not isinstance(fault, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            print(f"multisite: cannot write to the log {self.baseFilename}: {fault.strerror}", file=sys.stderr)


def _open_log(path: str, flags: int) -> int:
    """Open for a log: readable for owner and group alone; a FIFO nobody reads fails instead of hanging."""
    appends = flags & os.O_APPEND
    descriptor = open_append(path) if appends else os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o640)
    os.set_blocking(descriptor, True)
    return descriptor


class LocalSysLogHandler(logging.handlers.SysLogHandler):
    """Writes to the syslog daemon of this machine, wherever the platform has its socket.

    Raises:
        OSError: no syslog daemon listens; the library's handler would fail at each record instead.
    """

    def __init__(self, facility: int = logging.handlers.SysLogHandler.LOG_USER) -> None:
        address = next(filter(os.path.exists, SYSLOG_SOCKETS), None)
        if address is None:
            raise FileNotFoundError(2, "no syslog daemon listens on this machine", SYSLOG_SOCKETS[0])
        super().__init__(address, facility)

    def _connect_unixsocket(self, address: str) -> None:
        """Connect, now and after a restart of the daemon; callers must not wait for it."""
        super()._connect_unixsocket(address)  # type: ignore[misc]
        self.socket.setblocking(False)  # type: ignore[attr-defined]


class SyslogLines:
    """Sends lines to a syslog daemon; one that is too slow loses lines and does not delay the callers.

    Raises:
        OSError: there is no such daemon.
    """

    def __init__(self, target: Syslog, tag: str) -> None:
        facility = logging.handlers.SysLogHandler.facility_names[target.facility]
        if target.host:
            handler = logging.handlers.SysLogHandler((target.host, target.port), facility)
        else:
            handler = LocalSysLogHandler(facility)
        handler.ident = f"{tag}: "
        setattr(handler, "handleError", self._tell)  # noqa: B010 (its own prints a traceback for each record)
        self._handler = handler
        self._told = False

    def write(self, line: str, level: int = logging.INFO) -> None:
        """Send one line; line ends in it become ``#012``, as rsyslog writes them."""
        record = logging.LogRecord("", level, "", 0, line.replace("\n", "#012"), None, None)
        self._handler.handle(record)

    def append(self, data: bytes) -> None:
        """Send a line that has its end."""
        self.write(data[:-1].decode("ascii"))

    def check_renamed(self) -> None:
        """Do nothing: there is no file that could have been renamed."""

    def _tell(self, _record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            print(f"multisite: cannot write to syslog: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        """Close the connection."""
        self._handler.close()


class SyslogHandler(logging.Handler):
    """Sends records to syslog as `SyslogLines` does."""

    def __init__(self, target: Syslog, tag: str) -> None:
        self._lines = SyslogLines(target, tag)
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        self._lines.write(self.format(record), record.levelno)

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        super().close()


class SitePrefixFormatter(logging.Formatter):
    """Puts the site's name before each line, ``(blog)`` padded to 14 characters, as Moya's service does."""

    def format(self, record: logging.LogRecord) -> str:
        """The formatted record behind its site."""
        return str(getattr(record, "where", NO_SITE["where"])) + super().format(record)


#: classes that a logging.ini written for Moya names; the Moya package need not be there
MOYA_CLASSES: dict[str, type] = {
    "moya.logtools.MoyaConsoleHandler": logging.StreamHandler,
    "moya.logtools.MoyaFileHandler": ReopeningFileHandler,
    "moya.logtools.MoyaSysLogHandler": LocalSysLogHandler,
    "moya.logtools.MoyaServiceFormatter": SitePrefixFormatter,
}
