"""gunicorn in a site's process: which one, and with which settings and logger.

A site that has no gunicorn gets ours. A finder answers for the top-level name ``gunicorn`` alone, so nothing else of
our installation is visible. The site's own gunicorn wins if it has what we need, which its file shows without running
it; otherwise, and if a file of the site merely has that name (a configuration called ``gunicorn.py``), ours is first.

gunicorn's module of settings and its logger class import `argparse`, `logging.config` and more: two MiB for a few
values that nothing here changes. Those that its workers read are listed here (a test compares them with gunicorn's
own); for anything else the module is imported after all.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any


NAME = "gunicorn"
FOR_WSGI = (22, 0)  # `SyncWorker.handle`, and a safe parser
FOR_ASGI = (27, 0)  # the inside of `ASGIProtocol`
_VERSION = re.compile(r"^version_info = \((\d+), (\d+)", re.MULTILINE)
FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
DATES = "[%Y-%m-%d %H:%M:%S %z]"

#: gunicorn's defaults
DEFAULTS: dict[str, Any] = {
    "asgi_disconnect_grace_period": 3,
    "asgi_loop": "auto",
    "casefold_http_method": False,
    "errorlog": "-",
    "forwarder_headers": ["SCRIPT_NAME", "PATH_INFO"],
    "header_map": "drop",
    "http2_cleartext": "off",
    "http_parser": "auto",
    "http_protocols": ["h1"],
    "is_ssl": None,
    "keepalive": 2,
    "limit_request_field_size": 8190,
    "limit_request_fields": 100,
    "limit_request_line": 4094,
    "permit_obsolete_folding": False,
    "permit_unconventional_http_method": False,
    "permit_unconventional_http_version": False,
    "protocol": "http",
    "proxy_protocol": "off",
    "root_path": "",
    "secure_scheme_headers": {"X-FORWARDED-PROTOCOL": "ssl", "X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"},
    "sendfile": True,
    "strip_header_spaces": False,
    "timeout": 30,
    "websocket_max_message_size": 16777216,
}
#: of a peer that is not believed
UNBELIEVED: dict[str, Any] = {"secure_scheme_headers": {}, "forwarder_headers": []}
#: of a head that was accepted once already
WITHOUT_LIMITS: dict[str, Any] = {
    "limit_request_line": 1 << 20,
    "limit_request_fields": 1 << 20,
    "limit_request_field_size": 1 << 20,
}


class Finder:
    """Finds the gunicorn of one folder."""

    def __init__(self, folder: str) -> None:
        self._path = [os.path.dirname(os.path.abspath(folder))]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks."""
        return PathFinder.find_spec(name, self._path) if name == NAME else None


def inject(folder: str, least: tuple[int, int]) -> bool:
    """Make sure that ``import gunicorn`` gives at least this version; return whether it is the site's own.

    It may be called again with another version, until gunicorn is imported.
    """
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    is_own = _version(PathFinder.find_spec(NAME)) >= least
    if folder:
        sys.meta_path.insert(len(sys.meta_path) if is_own else 0, Finder(folder))
    return is_own


def _version(spec: ModuleSpec | None) -> tuple[int, int]:
    """Return the version of a package from its source; (0, 0) if it has none."""
    if spec is None or not spec.origin or not spec.submodule_search_locations:
        return (0, 0)
    try:
        with open(spec.origin, encoding="utf-8") as file:
            found = _VERSION.search(file.read(10000))
    except (OSError, ValueError):
        return (0, 0)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class Settings:
    """What gunicorn's workers read as ``cfg``: the values given, else gunicorn's defaults."""

    settings = None  # gunicorn's hooks look for the defaults there

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(DEFAULTS)
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        from gunicorn.config import Config

        value = getattr(Config(), name)
        setattr(self, name, value)
        return value


class Log:
    """The part of a logger that gunicorn's workers use: warnings and errors go to stderr, accesses nowhere."""

    access_log_enabled = False

    def __init__(self) -> None:
        import logging  # not before the site of an ASGI app, which gets it from asyncio

        logger = logging.getLogger("gunicorn.error")
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter(FORMAT, DATES))
            logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        self.debug, self.info, self.warning = logger.debug, logger.info, logger.warning
        self.error, self.exception, self.critical = logger.error, logger.exception, logger.critical

    def access(self, *told: object) -> None:
        """The server in front keeps the access log."""


def settings(processes: int, believes: bool, **values: Any) -> Settings:
    """gunicorn's configuration for a peer on a unix socket, whom gunicorn would believe in any case."""
    return Settings(
        workers=processes,
        graceful_timeout=24 * 3600,  # the supervisor has its own, shorter one
        **({} if believes else UNBELIEVED),
        **values,
    )
