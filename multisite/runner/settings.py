"""gunicorn's own settings and a logger for it, as a process without arbiter, command line or configuration file needs.

gunicorn's logger class brings in `logging.config` and a server for sockets with it: a MiB for a thing or two that
nobody here uses.
"""

from __future__ import annotations

import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
DATES = "[%Y-%m-%d %H:%M:%S %z]"


class Log:
    """What gunicorn's workers use of their logger: warnings and errors go to stderr, accesses nowhere."""

    access_log_enabled = False

    def __init__(self) -> None:
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


def settings(threads: int, processes: int) -> tuple[Any, Log]:
    """gunicorn's configuration, and a logger."""
    from gunicorn.config import Config

    config = Config()
    config.set("threads", threads)
    config.set("workers", processes)
    config.set("graceful_timeout", 24 * 3600)  # the supervisor has a shorter one of its own
    return config, Log()
