"""What ``check --boot`` and ``restart --wait`` find out by starting sites."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from multisite.cli.group import fail, fenced
from multisite.cli.output import GOES_ON, say, say_json, say_table
from multisite.config import hosting

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.config.model import Site
    from multisite.supervisor.dryrun import Outcome

PAUSE = 0.1  # seconds between two questions
BEYOND = 15.0  # seconds that a start may take longer than start_timeout: who is ended is waited for
HEADER = ("name", "starts", "seconds", "failure")
SHOWN = 5  # last lines of output of a start that failed


def at_once() -> int:
    """Return how many sites are started at a time."""
    return (os.cpu_count() or 1) + 1


# check --boot


def check_by_booting(session: Session, names: Sequence[str]) -> None:
    """Start sites, all enabled ones where none is named, and report; exit code 1 if one does not start."""
    outcomes = sorted(_booted(session, names), key=lambda outcome: outcome.name)
    failed = [outcome for outcome in outcomes if outcome.failure]
    if session.as_json:
        say_json({"errors": len(failed), "sites": [outcome.as_dict() for outcome in outcomes]})
    else:
        if outcomes:
            say_table(HEADER, map(_cells, outcomes), numbers=("seconds",), fold=("failure", "name"))
        for outcome in failed:
            say_output(outcome)
        say(f"{session.home.path}: {len(outcomes)} started, {len(failed)} failed", err=bool(failed))
    if failed:
        raise SystemExit(1)


def _booted(session: Session, names: Sequence[str]) -> Iterator[Outcome]:
    from multisite.supervisor.dryrun import Outcome, boot, is_startable

    sites = []
    for name in names or session.catalogue.entries:
        site = session.named(name).site if names else fenced(session, name, partial(_site, session, name), str)
        if isinstance(site, str):
            yield Outcome(name, site)
        elif session.catalogue.entries[site.entry_name].broken:
            yield Outcome(site.name, "its file has errors; multisite check says which")
        elif hosting.is_hosting(site.location) and not site.host:
            if names:
                fail(f"{name} has a site for each folder; name one of its hosts")
        elif is_startable(site):
            sites.append(site)
    yield from _shown(boot(sites, session.home, at_once()), len(sites), session.as_json)


def _site(session: Session, name: str) -> Site | str:
    return session.catalogue.site(name)


def _shown(outcomes: Iterator[Outcome], count: int, as_json: bool) -> Iterable[Outcome]:
    if as_json or not sys.stderr.isatty():
        return outcomes
    from rich.console import Console
    from rich.progress import track

    return track(outcomes, "starting", total=count, console=Console(stderr=True), transient=True)


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return outcome.name, "no" if outcome.failure else "yes", f"{outcome.seconds:.2f}", outcome.failure


def say_output(outcome: Outcome) -> None:
    """Say the last lines that a site printed."""
    for line in outcome.output[-SHOWN:]:
        say(f"{outcome.name} | {line}", err=True)


# restart --wait


def restart_and_wait(session: Session, sites: Sequence[Site]) -> None:
    """Restart sites and say what became of it; exit code 1 if a new version does not serve."""
    results = [
        fenced(session, site.name, partial(_restarted, session, site), partial(_result, site, False)) for site in sites
    ]
    if session.as_json:
        say_json({"restarted": results})
    else:
        for result in results:
            say(f"{result['name']}: {result['said']}", err=not result["ok"])
    if not all(result["ok"] for result in results):
        raise SystemExit(1)


def _restarted(session: Session, site: Site) -> dict[str, Any]:
    entry = session.catalogue.entries[site.entry_name]
    wrong = next((problem for problem in entry.problems if problem.is_error), None)
    if wrong:
        return _result(site, False, f"nothing was changed, since its file has errors: {wrong}")
    about = {"site": site.entry_name, "host": site.host}
    running = session.ask("deploys", **about) or {"deploys": {}}
    if running["deploys"] or hosting.is_hosting(site.location):
        answer = session.ask("restart", **about)
        if answer and answer["deploys"]:
            return _outcome(session, site, answer["deploys"])
        if hosting.is_hosting(site.location):
            return _result(site, True, "nothing of it runs")
    return _tried(session, site)


def _result(site: Site, ok: bool, said: str, version: float = 0.0) -> dict[str, Any]:
    """Describe an outcome; `version` is when the file was changed that was judged, 0 where none was."""
    when = time.strftime("%H:%M:%S", time.localtime(version))
    of = f" ({os.path.basename(site.file)} as of {when})" if version else ""
    return {"name": site.name, "ok": ok, "said": f"{said}{of}", "version": version or None}


def _outcome(session: Session, site: Site, wanted: dict[str, int]) -> dict[str, Any]:
    """Wait for the attempts `wanted` (number by site), or for what has come after them."""
    about, within = {"site": site.entry_name, "host": site.host}, site.start_timeout + BEYOND
    deadline = time.monotonic() + within
    while True:
        found = (session.ask("deploys", **about) or {"deploys": {}})["deploys"]
        open_ = [name for name in wanted if found.get(name, {}).get("state") == "trying"]
        if not open_:
            break
        if time.monotonic() > deadline:
            return _result(site, False, f"{', '.join(open_)}: not decided within {within:g} s; multisite status tells")
        time.sleep(PAUSE)
    lost = [name for name, number in wanted.items() if found.get(name, {}).get("number", 0) < number]
    if lost:  # the site has been taken out of service, or the supervisor has ended
        return _result(site, False, f"{', '.join(lost)}: what became of it is not known; multisite status tells")
    version = max(found[name].get("version", 0.0) for name in wanted)
    failed = {name: found[name]["failure"] for name in wanted if found.get(name, {}).get("state") == "failed"}
    if not failed:
        return _result(site, True, "the new version serves", version)
    several = len(wanted) > 1
    said = "; ".join(f"{f'{name}: ' if several else ''}{GOES_ON} failed: {failed[name]}" for name in failed)
    return _result(site, False, said, version)


def _tried(session: Session, site: Site) -> dict[str, Any]:
    """Start a site once apart, and have the workers load it only if that went well."""
    from multisite.sites import failures
    from multisite.supervisor.dryrun import boot, is_startable

    version = session.catalogue.entries[site.entry_name].stamp[0] / 1e9
    if is_startable(site):
        outcome = next(boot([site], session.home, 1))
        if outcome.failure:
            if not session.as_json:
                say_output(outcome)
            return _result(
                site, False, f"nothing was changed, since a start on trial failed: {outcome.failure}", version
            )
        failures.of_starts(session.home).clear(site.name)
        session.ask("mended", site=site.entry_name, host=site.host)
    if not site.host:
        stamp(site.file)
    return _result(site, True, "a start on trial went well; it is loaded anew with its next request", version)


def stamp(path: str) -> None:
    """Set the time of the file that `path` leads to; a link's own time could be set by anybody."""
    try:
        os.utime(path)
    except OSError as error:
        error.filename = path  # utime does not say it
        raise
