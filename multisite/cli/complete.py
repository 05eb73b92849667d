"""What the shell offers after a command: names of sites, never an error."""

from __future__ import annotations

from collections.abc import Callable

import click

from multisite.cli.session import Session
from multisite.errors import MultisiteError


def _names(choose: Callable[[Session], list[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        taken = ctx.params.get(param.name or "") or ()
        try:
            names = choose(Session(ctx.find_root().params.get("home")))
        except (MultisiteError, OSError):
            return []
        return [name for name in names if name.startswith(incomplete) and name not in taken]

    return complete


def _off(session: Session) -> list[str]:
    enabled = set(session.places.enabled_choices())
    return [name for name in session.places.choices() if name not in enabled]


def _domains(session: Session) -> list[str]:
    return sorted({domain for site in session.catalogue.sites.values() for domain in site.domains})


available = _names(lambda session: session.places.choices())
disabled = _names(_off)
enabled = _names(lambda session: session.places.enabled_choices())
sites = _names(lambda session: sorted(session.catalogue.sites))
known = _names(lambda session: sorted({*session.catalogue.sites, *session.places.choices()}))
domains = _names(_domains)
