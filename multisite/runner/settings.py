"""gunicorn's own settings and a logger for it, as a process without arbiter, command line or configuration file needs.

gunicorn's module of settings and its logger class bring `argparse`, `logging.config` and more with them: two MiB for
a few values that nobody here changes. What its workers read of them is written down here (a test compares the values
with gunicorn's own); for anything else the module is imported after all.
"""

from __future__ import annotations

import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


#: of a head that has been let through once
WITHOUT_LIMITS: dict[str, Any] = {
    "limit_request_line": 1 << 20,
    "limit_request_fields": 1 << 20,
    "limit_request_field_size": 1 << 20,
}


class Settings:
    """What gunicorn's workers read as ``cfg``: the values given, else gunicorn's defaults."""

    settings = None  # gunicorn's hooks look there for what the defaults are

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


def settings(processes: int, believes: bool, **values: Any) -> Settings:
    """gunicorn's configuration for a peer on a unix socket, whom gunicorn would believe in any case."""
    return Settings(
        workers=processes,
        graceful_timeout=24 * 3600,  # the supervisor has a shorter one of its own
        **({} if believes else UNBELIEVED),
        **values,
    )
