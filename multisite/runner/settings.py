"""gunicorn's own settings and logger, as a process without arbiter, command line or configuration file needs them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def settings(threads: int, processes: int) -> tuple[Any, Any]:
    """gunicorn's configuration and its logger, which writes warnings and errors to stderr."""
    from gunicorn.config import Config
    from gunicorn.glogging import Logger

    config = Config()
    config.set("threads", threads)
    config.set("workers", processes)
    config.set("loglevel", "warning")
    config.set("graceful_timeout", 24 * 3600)  # the supervisor has a shorter one of its own
    return config, Logger(config)
