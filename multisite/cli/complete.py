"""``multisite completion``, and the words that the shell offers after a command: names of sites, never an error."""

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
    return sorted({name for site in session.catalogue.sites.values() for name in site.domains})


available = _names(lambda session: session.places.choices())
disabled = _names(_off)
enabled = _names(lambda session: session.places.enabled_choices())
sites = _names(lambda session: sorted(session.catalogue.sites))
known = _names(lambda session: sorted({*session.catalogue.sites, *session.places.choices()}))
switched = _names(lambda session: [*sorted(session.catalogue.sites), "on", "off"])
addresses = _names(lambda session: [*_domains(session), *sorted(session.catalogue.sites)])


def explained(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the addresses and names of sites, and the ids of messages."""
    from multisite.errors import codes

    ids = codes.messages() if incomplete.upper().startswith("MS") else {}  # all of them would hide the sites
    return [*addresses(ctx, param, incomplete), *(id for id in ids if id.startswith(incomplete.upper()))]


def incidents(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the ids of the last incidents."""
    from multisite.status.incidents import latest

    try:
        found = latest(Session(ctx.find_root().params.get("home")).home)
    except (MultisiteError, OSError):
        return []
    return [one.incident for one in found if one.incident.startswith(incomplete)]


def keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the arguments of `set`: ``threads=``, ``logging.error=``, ``env.``."""
    from multisite.config.options import OPTIONS, SITE_FILE

    options = [option for option in OPTIONS if option.file == SITE_FILE]
    prefixes = ["" if option.section == "service" else f"{option.section}." for option in options]
    words = (
        f"{prefix}{option.key}{'=' if option.key else ''}" for prefix, option in zip(prefixes, options, strict=True)
    )
    return [word for word in words if word.startswith(incomplete)]


EPILOG = """\b
Examples:
  multisite completion bash > /etc/bash_completion.d/multisite
  multisite completion zsh > "${fpath[1]}/_multisite"
  multisite completion fish > ~/.config/fish/completions/multisite.fish
"""


@click.command(epilog=EPILOG, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for bash, zsh or fish."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(script(ctx.find_root().command, {}, "multisite", "_MULTISITE_COMPLETE").source())
