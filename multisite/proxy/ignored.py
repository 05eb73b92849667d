"""Requests that do not count as use of a site: health checks, crawlers (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from typing import Any

CHALLENGE = "/.well-known/acme-challenge/"  # of a certificate authority, to a site that is mounted at / (RFC 8555, 8.3)
#: the key in the environ of such a request, for the relay
QUIET = "multisite.quiet"


class Ignored:
    """Tells requests that are to be ignored from those that count.

    Args:
        paths: shell patterns of the whole path, as the visitor wrote it; ``*`` stands for slashes, too.
        agents: shell patterns of a part of the User-Agent field, in upper or lower case.
    """

    def __init__(self, paths: Iterable[str], agents: Iterable[str]) -> None:
        self._paths = _any_of(paths)
        self._agents = _any_of(f"*{agent.lower()}*" for agent in agents)

    def __bool__(self) -> bool:
        return bool(self._paths or self._agents)

    def matches(self, environ: Mapping[str, Any]) -> bool:
        """Tell whether this request does not count."""
        if self._paths and self._paths.match(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")):
            return True
        return bool(self._agents and self._agents.match(environ.get("HTTP_USER_AGENT", "").lower()))


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    expressions = [translate(pattern) for pattern in patterns]
    return re.compile("|".join(expressions)) if expressions else None
