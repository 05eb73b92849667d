"""What the code of an in-process site logs and writes to ``wsgi.errors``, on its way to the site's own error log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

WSGI = Callable[..., Iterable[bytes]]


class OwnLog(Protocol):
    """The error log of one site."""

    def handle(self, record: logging.LogRecord) -> Any:
        """Write a record."""

    def write_line(self, line: str) -> None:
        """Write a line as it is."""


class Records(logging.Handler):
    """Gives each site's records to its own log; stands at the root logger while some site has one.

    That the root has a handler hides from `logging` that a record has no other. Where this is so, it does what
    `logging` would do then, from WARNING on, with the handlers of the service's log rather than with lines that have
    neither time nor site.

    Args:
        known: the log of each site that has one, by name.
        service: the logger of the service, all of whose records are left alone.
    """

    def __init__(self, known: Mapping[str, OwnLog], service: logging.Logger) -> None:
        super().__init__()
        self._known, self._service = known, service

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to the log of its site."""
        if record.name == self._service.name or record.name.startswith(f"{self._service.name}."):
            return
        own = self._known.get(getattr(record, "site", ""))
        if own:
            own.handle(record)
        elif record.levelno >= logging.WARNING and not self._has_another(record.name):
            last = [logging.lastResort] if logging.lastResort else []
            for handler in self._service.handlers or last:
                handler.handle(record)

    def _has_another(self, name: str) -> bool:
        """Tell whether a handler besides this one gets the records of a logger."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


def part_loggers(key_of: Callable[[str], str]) -> None:
    """Have a logger called like a module of which several sites have one each be another one for each of them.

    Else the handler that one ``app.py`` gives to ``logging.getLogger(__name__)`` would get what the others log.

    Args:
        key_of: tells, for a top-level name, what stands for it where the site that asks has its own; "" otherwise.
    """
    manager = logging.root.manager
    original = manager.getLogger

    def getLogger(name: str) -> logging.Logger:
        top, *rest = name.split(".") if isinstance(name, str) else ("",)
        key = key_of(top)
        logger = original(key or name)
        for part in ("", *rest) if key else ():  # each above it too: a placeholder knows no other name
            key, top = (f"{key}.{part}", f"{top}.{part}") if part else (key, top)
            logger = original(key)
            logger.name = top
        return logger

    manager.getLogger = getLogger  # type: ignore[method-assign]


class Errors:
    """``wsgi.errors`` of a site (PEP 3333): whole lines, which threads do not mix."""

    def __init__(self, own: OwnLog) -> None:
        self._own = own
        self._open = threading.local()

    def write(self, text: str) -> int:
        """Write the lines that `text` ends; the rest waits for its end, or for `flush`."""
        *lines, rest = (getattr(self._open, "line", "") + text).split("\n")
        self._open.line = rest
        for line in lines:
            self._own.write_line(line)
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Write one after the other."""
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Write a line that has not ended."""
        if getattr(self._open, "line", ""):
            self.write("\n")
