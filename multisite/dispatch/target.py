"""What a host leads to in a worker: a site, the choice between several, or nodes outside this home's sites."""

from __future__ import annotations

from typing import Any, Protocol

from multisite.inprocess.generation import WSGI

Environ = dict[str, Any]
Key = tuple[str, str]  # name of a site, and, if that is a hosting site, the host


class Target(Protocol):
    """What is remembered about a host: a site, or the choice between several.

    `check_at` is the monotonic second from which a request takes the long way.
    """

    name: str
    key: Key
    check_at: float

    @property
    def app(self) -> WSGI:
        """The WSGI callable that answers now."""


class RoutedTarget(Target, Protocol):
    """What answers a host that belongs to no site.

    `lasts` tells whether it is remembered.
    """

    lasts: bool


class HostRouter(Protocol):
    """What hosts that belong to no site lead to (`multisite.router`)."""

    def answering(self, environ: Environ, named: str, otherwise: WSGI | None) -> RoutedTarget | None:
        """Return what answers a request; `otherwise` answers if no node is known, None if nothing does."""

    def claims(self, host: str) -> bool:
        """Tell whether `host` is known by its name."""
