"""What a host leads to in a worker: a site, the choice between several, or nodes that are no sites of this home."""

from __future__ import annotations

from typing import Any, Protocol

from multisite.inprocess.generation import WSGI

Environ = dict[str, Any]
Key = tuple[str, str]  # name of a site, and, if that is a hosting site, the host


class Target(Protocol):
    """What a host is remembered by: a site, or the choice between several.

    `check_at` says from which monotonic second a request takes the long way.
    """

    name: str
    key: Key
    check_at: float

    @property
    def app(self) -> WSGI:
        """The WSGI callable that answers just now."""


class RoutedTarget(Target, Protocol):
    """Who answers a host that is no site's.

    `lasts` says whether he is remembered by it.
    """

    lasts: bool


class HostRouter(Protocol):
    """Who knows what hosts that are no site's lead to (`multisite.router`)."""

    def answering(self, environ: Environ, named: str, otherwise: WSGI | None) -> RoutedTarget | None:
        """Return who answers a request; `otherwise` does where no node is known, None for nobody."""

    def claims(self, host: str) -> bool:
        """Tell whether `host` is known by its name."""
