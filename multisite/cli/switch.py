"""``multisite ensite`` and ``multisite dissite``: enable and disable sites."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import click

from multisite.cli import complete
from multisite.cli.output import say, say_json, suggestion
from multisite.cli.session import Session, is_wildcard, pass_session, stem_of
from multisite.cli.site.verdict import Verdict, of_enabled, say_once_fixed
from multisite.sites.enabling import Step, identity
from multisite.status.fence import describe

NONE: Mapping[str, Verdict] = MappingProxyType({})
ENSITE = """\b
Examples:
  multisite ensite blog
  multisite ensite blog shop.ini 'demo-*'
"""
DISSITE = """\b
Examples:
  multisite dissite blog
  multisite dissite 'demo-*'
"""


@click.command(epilog=ENSITE, short_help="Enable sites.")
@click.option("--force", is_flag=True, help="Enable a site even if another one has its domain and keeps it.")
@click.argument("names", metavar="NAME...", nargs=-1, shell_complete=complete.disabled)
@pass_session
def ensite(session: Session, force: bool, names: tuple[str, ...]) -> None:
    """Enable sites, so that their next request is served; nothing is restarted.

    NAME is a file in sites-available, with or without .ini, or a quoted wildcard. Without NAME, the command lists the
    choices. A site is not enabled if another enabled site has one of its domains; with --force it is enabled, but the
    other site keeps the domain.

    The command checks each site, as `check` does, without running any of its code. If there are no problems, it prints
    the site's address. If there are, it prints them with their remedies, and the exit status is 1; the site is enabled
    anyway and starts serving when they are fixed.
    """
    places = session.places
    if not names:
        return say_choices(session, "available", places.choices())
    enabling = Enabling(session, force)
    steps = switch(names, places.choices(), _by_name(session), enabling.enable)
    verdicts = _verdicts(session, steps, force)
    report(session, steps, verdicts)
    if not session.as_json:
        for verdict in verdicts.values():
            verdict.say()
        say_once_fixed(verdicts.values())
    leave(steps, verdicts)


def _verdicts(session: Session, steps: Iterable[tuple[str, Step]], force: bool) -> dict[str, Verdict]:
    """Return the verdict on each site that is now enabled, by the path of its link."""
    paths = dict.fromkeys(step.path for _, step in steps if step.action != "refuse")
    found = ((path, of_enabled(session, path, force)) for path in paths)
    return {path: verdict for path, verdict in found if verdict}


@click.command(epilog=DISSITE, short_help="Disable sites.")
@click.argument("names", metavar="NAME...", nargs=-1, shell_complete=complete.enabled)
@pass_session
def dissite(session: Session, names: tuple[str, ...]) -> None:
    """Disable sites: remove their links and keep their files.

    NAME is a link in sites-enabled, with or without .ini, or a quoted wildcard. Without NAME, the command lists the
    choices. It also removes links whose file is gone, but never a file that is not a link.
    """
    places = session.places
    if not names:
        return say_choices(session, "enabled", places.enabled_choices())
    choices = [*places.enabled_choices(), *places.choices()]
    steps = switch(names, choices, _by_name(session), places.disable, places.enabled_choices())
    report(session, steps)
    leave(steps)


class Enabling:
    """Enables sites one after another, except those that claim a domain of another one.

    Args:
        force: enable those, too; the first site keeps the domain.
    """

    def __init__(self, session: Session, force: bool = False) -> None:
        from multisite.sites import catalogue

        self._session, self._force = session, force
        self._known = catalogue.read(session.home).holdings  # the session reads its own catalogue afterwards
        self._held = dict(self._known.domains)

    def enable(self, stem: str) -> Step:
        """Enable the site file `stem`."""
        session, places = self._session, self._session.places
        source = places.source(stem)
        if places.link_to(stem) or not identity(source):
            return places.enable(stem)
        file = session.read_available(stem)
        claims = [(domain, file.mount) for domain in file.domains]
        taken = next((claim for claim in claims if claim in self._held), None)
        if taken and not self._force:
            return Step("refuse", source, f"{stem}: {self._taken(taken)}")
        step = places.enable(stem)
        if step.action in ("create", "replace"):
            self._note(claims, step.path)
        return step

    def _note(self, claims: list[tuple[str, str]], path: str) -> None:
        """Note the first holder of each domain, since no server may be running to do it."""
        from multisite.sites.holdings import Holdings, HoldingsFile

        file = HoldingsFile(self._session.home)
        self._held |= {claim: path for claim in claims if claim not in self._held}
        with file.locked():
            file.keep(Holdings(self._known.names, self._held).above(file.load()))

    def _taken(self, claim: tuple[str, str]) -> str:
        domain, mount = claim
        where = "" if mount == "/" else f" at {mount}"
        remedy = "remove it from one of the two files, or use --force, with which the first one keeps it"
        return f"{self._held[claim]} already has the domain {domain}{where}; {remedy}"


def switch(
    names: Iterable[str],
    choices: Sequence[str],
    by_name: Callable[[str], str],
    act: Callable[[str], Step],
    wild: Sequence[str] | None = None,
) -> list[tuple[str, Step]]:
    """Act on each of `names`; a wildcard stands for all of `wild` (default `choices`) that it matches."""
    steps: list[tuple[str, Step]] = []
    for name in names:
        matches = fnmatch.filter(choices if wild is None else wild, stem_of(name)) if is_wildcard(name) else []
        for stem in matches or [stem_of(name)]:
            known = stem if stem in choices else by_name(stem)
            steps.append((known or name, _step(act, known) if known else _unknown(name, choices)))
    return steps


def _step(act: Callable[[str], Step], stem: str) -> Step:
    """Enable or disable one site; a link that cannot be made or removed does not affect the others."""
    try:
        return act(stem)
    except OSError as error:
        return Step("refuse", error.filename or "", f"{stem}: {describe(error)}")


def _unknown(name: str, choices: Sequence[str]) -> Step:
    if "/" in name:
        return Step("refuse", "", f"{name!r} is a path; give the name of a file in sites-available")
    return Step("refuse", "", f"there is no site {name!r}{suggestion(stem_of(name), dict.fromkeys(choices))}")


def _by_name(session: Session) -> Callable[[str], str]:
    """Return a function that finds the file with a given ``[service] name``, "" if there is none."""

    def find(name: str) -> str:
        return next((stem for stem, file in session.available.items() if file.name == name), "")

    return find


def say_choices(session: Session, word: str, choices: Sequence[str]) -> None:
    """List the possible names."""
    if session.as_json:
        say_json({word: list(choices)})
    else:
        say(f"{word}: {' '.join(choices) or 'nothing'}")


def report(session: Session, steps: Iterable[tuple[str, Step]], verdicts: Mapping[str, Verdict] = NONE) -> None:
    """Print the steps; refusals go to standard error."""
    if session.as_json:
        sites = [
            {
                **{"name": name, "action": step.action, "file": step.path, "message": step.message},
                **(verdicts[step.path].as_dict() if step.path in verdicts else {}),
            }
            for name, step in steps
        ]
        return say_json({"sites": sites})
    for _, step in steps:
        say(step.message if step.action != "refuse" else f"multisite: {step.message}", err=step.action == "refuse")


def leave(steps: Iterable[tuple[str, Step]], verdicts: Mapping[str, Verdict] = NONE) -> None:
    """End with exit status 1 if anything was refused, or a site has problems."""
    if any(step.action == "refuse" for _, step in steps) or not all(one.is_good for one in verdicts.values()):
        raise SystemExit(1)
