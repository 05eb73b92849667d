"""The service's log: where it goes, which site a record is about, and a site's own error log.

What the code of an in-process site logs and writes to ``wsgi.errors`` gets into that site's own log by `Records` and
`Errors`.

Everything of ours is logged below the logger ``multisite``, and what concerns one site to ``multisite.site.NAME``.
Loggers of others (the WSGI server's, the sites') are left alone unless logging.ini names them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from multisite.config.logformat import Syslog, parse_syslog
from multisite.errors import Problem
from multisite.logs import loggingini
from multisite.logs.logfiles import STREAMS
from multisite.logs.loggingplan import LoggerPlan, make_plan
from multisite.logs.loghandlers import NO_SITE, ReopeningFileHandler, SyslogHandler

if TYPE_CHECKING:
    from multisite.config.model import Home
    from multisite.config.site import Site

#: name of the site that is served in this context; "" for the service itself
current_site: ContextVar[str] = ContextVar("multisite_current_site", default="")

SERVICE = "multisite"
SITE_PREFIX = "multisite.site."
DEFAULT_FORMAT = "%(asctime)s %(levelname)-8s %(where)s %(message)s"


class OwnLog(Protocol):
    """The error log of one site."""

    def handle(self, record: logging.LogRecord) -> Any:
        """Write a record."""

    def write_line(self, line: str) -> None:
        """Write a line as it is."""


class Records(logging.Handler):
    """Gives each site's records to its own log; it is at the root logger while any site has one.

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
            for _, standing in _standing if self._service.handlers else ():
                standing.handle(record)

    def _has_another(self, name: str) -> bool:
        """Tell whether a handler besides this one gets the records of a logger."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger:
            if set(logger.handlers) - {self, *(handler for _, handler in _standing)}:
                return True
            logger = logger.parent if logger.propagate else None
        return False


_log = logging.getLogger(SERVICE)
_lock = threading.Lock()
installed: list[tuple[logging.Logger, logging.Handler]] = []  # what `configure` added
_standing: list[tuple[logging.Logger, logging.Handler]] = []  # what others added, whatever logging.ini says
_site_logs: dict[str, tuple[str, SiteLogHandler | SiteSyslogHandler]] = {}  # site -> (path, handler)
_own: dict[str, OwnLog] = {}  # the same by site, for the records of its code
records = Records(_own, _log)
_told: set[Problem] = set()  # problems of site logs that were logged already


def configure(home: Home) -> tuple[Problem, ...]:
    """Set up logging as the home's logging.ini says; called again, it replaces what it did before.

    Without a logging.ini records go to standard error from INFO on, or, if the WSGI server has configured the root
    logger, to the root's handlers. If logging.ini has an error, the whole file is not used.

    Returns:
        all problems of logging.ini and of the files that it extends, for the caller to log.
    """
    install_site_in_records()
    path = os.path.join(home.path, home.projects.logging)
    with _lock:
        _remove_installed()
        problems = _configure_from(path) if os.path.exists(path) else None
        if problems is None or any(problem.severity == "error" for problem in problems):
            _configure_default()
    return tuple(problems or ())


def problems_of(home: Home) -> tuple[Problem, ...]:
    """Return the problems of the home's logging.ini, which is only read here: no handler is made."""
    path = os.path.join(home.path, home.projects.logging)
    plan, problems = make_plan(loggingini.read(path)) if os.path.exists(path) else (None, [])
    return (*problems, *(plan.foreseen() if plan else ()))


def _configure_from(path: str) -> list[Problem]:
    """Apply a logging.ini; nothing is changed if there is an error."""
    plan, problems = make_plan(loggingini.read(path))
    if plan is None:
        return problems
    handlers, faults = plan.build()
    if faults:
        for handler in handlers.values():
            handler.close()
        return problems + faults
    _quiet_default()
    for logger in plan.loggers:
        _apply(logger, handlers)
    if not any(logger.name == SERVICE or (not logger.name and logger.level) for logger in plan.loggers):
        _log.setLevel(logging.INFO)  # else the root's WARNING would hide messages of Moya's service
    return problems


def _apply(plan: LoggerPlan, handlers: dict[str, logging.Handler]) -> None:
    logger = logging.getLogger(plan.name)
    logger.disabled = False
    logger.propagate = plan.propagate
    if plan.level is not None:
        logger.setLevel(plan.level)
    if plan.handlers is None:
        return
    for old in logger.handlers[:]:
        if not isinstance(old, (SiteLogHandler, SiteSyslogHandler, Records)):
            logger.removeHandler(old)
    for name in plan.handlers:
        logger.addHandler(handlers[name])
        installed.append((logger, handlers[name]))


def _configure_default() -> None:
    _log.setLevel(logging.INFO)
    ours = {records, *(handler for _, handler in _standing)}
    _log.propagate = bool(set(logging.root.handlers) - ours)
    if not _log.propagate:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(DEFAULT_FORMAT, defaults=NO_SITE))
        _log.addHandler(handler)
        installed.append((_log, handler))


def _quiet_default() -> None:
    """Undo `_configure_default` for loggers that logging.ini does not name."""
    _log.propagate = True
    _log.setLevel(logging.NOTSET)


def _remove_installed() -> None:
    while installed:
        logger, handler = installed.pop()
        logger.removeHandler(handler)
        handler.close()


def restore() -> tuple[str, ...]:
    """Restore what a site's import took from our logging; call it after each import in this process.

    `logging.config.dictConfig` disables every logger that it does not name, by default, and empties the root
    logger; both are one forgotten line in a Django project's settings.

    Returns:
        what had to be restored, in words for a warning that names the site.
    """
    changes = []
    if install_site_in_records():
        changes.append("the log record factory")
    with _lock:
        disabled = [logger for logger in _ours() if logger.disabled]
        standing = [*installed, *_standing, *([(logging.root, records)] if _own else [])]
        missing = [(logger, handler) for logger, handler in standing if handler not in logger.handlers]
        for logger in disabled:
            logger.disabled = False
        for logger, handler in missing:
            logger.addHandler(handler)
    changes += [f"the logger {logger.name}" for logger in disabled]
    changes += [f"a log handler of {logger.name}" for logger, _ in missing]
    return tuple(changes)


def _ours() -> list[logging.Logger]:
    """The service's loggers and those of gunicorn, by name."""
    known = sorted(logging.root.manager.loggerDict.items())
    ours = [found for name, found in known if name.split(".")[0] in (SERVICE, "gunicorn")]
    return [found for found in ours if isinstance(found, logging.Logger)]


def install_site_in_records() -> bool:
    """Give each log record a `site` and a `where`, the site in parentheses padded to 14 characters.

    A record of ``multisite.site.NAME`` is about NAME wherever it is made; any other about `current_site`.
    The factory that was there before is called by ours. True if something was installed now.
    """
    if hasattr(logging.makeLogRecord({}), "where"):
        return False
    previous = logging.getLogRecordFactory()

    def factory(name: Any, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = previous(name, *args, **kwargs)
        about = name[len(SITE_PREFIX) :] if name and name.startswith(SITE_PREFIX) else current_site.get()
        record.site = about
        record.where = f"({about})".ljust(14) if about else NO_SITE["where"]
        return record

    logging.setLogRecordFactory(factory)
    return True


def site_logger(site_name: str) -> logging.Logger:
    """Return the logger for messages of the service about one site."""
    return logging.getLogger(SITE_PREFIX + site_name)


class SiteLogHandler(ReopeningFileHandler):
    """Writes a site's own error log: only the records about that site."""

    def __init__(self, site_name: str, path: str) -> None:
        self.site_name = site_name
        super().__init__(path)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out the site ``blog.eu``, whose logger is a child of the site ``blog``'s."""
        return getattr(record, "site", "") == self.site_name and bool(super().filter(record))

    def write_line(self, line: str) -> None:
        """Write a line of the site's own, as it is."""
        self.handle(_Line(self.site_name, line))

    def format(self, record: logging.LogRecord) -> str:
        """The line that `record` is."""
        return str(record.msg) if isinstance(record, _Line) else super().format(record)


class _Line(logging.LogRecord):
    """A line that needs no time and no level before it."""

    def __init__(self, site_name: str, line: str) -> None:
        super().__init__(SITE_PREFIX + site_name, logging.ERROR, "", 0, line, None, None)
        self.site = site_name


class SiteSyslogHandler(SyslogHandler):
    """Sends to syslog what `SiteLogHandler` writes to a file."""

    def __init__(self, site_name: str, target: Syslog) -> None:
        self.site_name = site_name
        super().__init__(target, f"multisite: {site_name}")

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out other sites."""
        return getattr(record, "site", "") == self.site_name and bool(super().filter(record))

    def write_line(self, line: str) -> None:
        """Send a line of the site's own."""
        self._lines.write(line, logging.ERROR)


def attach_site_log(site: Site) -> tuple[Problem, ...]:
    """Open the file that a site names as ``[logging] error``; called again, it follows a change.

    A file that cannot be opened is a problem, logged once; the service's own log has the records all the same.
    """
    if not site.error_log:
        detach_site_log(site.name)
        return ()
    with _lock:
        path, _ = _site_logs.get(site.name, ("", None))
    if path == site.error_log:
        return ()
    try:
        syslog = parse_syslog(site.error_log)
        handler = SiteSyslogHandler(site.name, syslog) if syslog else SiteLogHandler(site.name, site.error_log)
    except (OSError, ValueError) as fault:
        detach_site_log(site.name)
        return (tell_once(site, "error", site.error_log, fault),)
    detach_site_log(site.name)
    with _lock:
        _site_logs[site.name] = (site.error_log, handler)
        _own[site.name] = handler
        site_logger(site.name).addHandler(handler)
        logging.root.addHandler(records)
    return ()


def detach_site_log(site_name: str) -> None:
    """Close a site's own error log, if it has one."""
    with _lock:
        _, handler = _site_logs.pop(site_name, ("", None))
        _own.pop(site_name, None)
        if not _own:
            logging.root.removeHandler(records)
        if handler:
            site_logger(site_name).removeHandler(handler)
            handler.close()


def has_file(site_name: str) -> bool:
    """Tell whether a site has its own error log, and that can be read back."""
    path = _site_logs.get(site_name, ("",))[0]
    return bool(path) and path not in STREAMS and not path.startswith("syslog:")


def stand(logger: logging.Logger, handler: logging.Handler) -> None:
    """Have a handler at a logger for the life of this process."""
    with _lock:
        if (logger, handler) not in _standing:
            _standing.append((logger, handler))
        if handler not in logger.handlers:
            logger.addHandler(handler)


def own_log(site_name: str) -> OwnLog | None:
    """Return a site's own error log, if it has one that could be opened."""
    return _own.get(site_name)


def tell_once(site: Site, key: str, target: str, fault: OSError | ValueError) -> Problem:
    """Log once that a log of a site cannot be opened; only that log is lost."""
    directory = os.path.dirname(target)
    if target.startswith("syslog:"):
        remedy = "start a syslog daemon, or name a file"
    elif isinstance(fault, FileNotFoundError):
        remedy = f"create the directory {directory}"
    else:
        remedy = "name a file that the service's user may write"
    reason = f"cannot be opened: {getattr(fault, 'strerror', None) or fault}"
    problem = Problem("MS830", site.file, reason, section="logging", key=key, value=target, remedy=remedy)
    if problem not in _told:
        _told.add(problem)
        site_logger(site.name).error("MS830 %s", problem)
    return problem


def part_loggers(key_of: Callable[[str], str]) -> None:
    """Give each of several sites its own logger for a module name of which each has its own module.

    Otherwise the handler that one ``app.py`` adds to ``logging.getLogger(__name__)`` would get the others' records.

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
