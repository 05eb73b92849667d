"""``multisite show``: the effective options of a site, and where each value comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from multisite.cli import complete
from multisite.cli.output import say_json, say_problems, say_table, wide_option
from multisite.cli.session import Session, pass_session
from multisite.status.settings import Setting, origin, settings

if TYPE_CHECKING:
    from multisite.cli.output import Cell

EPILOG = """\b
Examples:
  multisite show blog
  multisite show blog --json
"""
HEADER = ("key", "value", "from")
LISTS = ("domains", "upstreams")  # a narrow terminal shows their first items


@click.command(epilog=EPILOG, short_help="Show the effective values of a site and where they come from.")
@wide_option
@click.argument("name", metavar="SITE", shell_complete=complete.known)
@pass_session
def show(session: Session, name: str, wide: bool) -> None:
    """Show the effective value of each option of SITE, enabled or not, and the file and line that set it.

    Passwords, keys and other secrets in [env], in URLs and in command lines are masked.
    """
    named = session.any_site(name)
    found = list(settings(session.home, named.file, named.site))
    if session.as_json:
        return say_json({"name": named.site.name, "file": named.site.file, "settings": [asdict(one) for one in found]})
    say_table(HEADER, (_cells(session, one) for one in found), drop=("from",), cut=("value", "from", "key"), wide=wide)
    say_problems(named.file.problems)


def _cells(session: Session, setting: Setting) -> tuple[Cell, ...]:
    key = setting.key if setting.section == "service" else f"[{setting.section}] {setting.key}"
    listed = tuple(setting.value.split(", ")) if setting.value and setting.key in LISTS else setting.value
    return key, listed or "-", origin(session.home, setting)
