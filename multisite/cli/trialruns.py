"""``check --boot`` and ``restart --wait``: start sites, and report the outcomes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from multisite.cli.group import fail, fenced
from multisite.cli.output import say, say_json, say_table, waiting
from multisite.config import hosting

if TYPE_CHECKING:
    from multisite.cli.session import Session
    from multisite.config.model import Site
    from multisite.supervisor.dryrun import Outcome

PAUSE = 0.1  # seconds between two requests to the supervisor
BEYOND = 15.0  # seconds to wait beyond start_timeout, for a process that is stopped after it
HEADER = ("name", "starts", "seconds", "failure")
SHOWN = 8  # last lines of output of a start that failed


def at_once() -> int:
    """Return how many sites to start at a time."""
    return (os.cpu_count() or 1) + 1


# check --boot


def check_by_booting(session: Session, names: Sequence[str], wide: bool = False) -> None:
    """Start sites, by default all enabled ones, and report; exit code 1 if one does not start."""
    outcomes = sorted(_booted(session, names), key=lambda outcome: outcome.name)
    failed = [outcome for outcome in outcomes if outcome.failure]
    if session.as_json:
        say_json({"errors": len(failed), "sites": [outcome.as_dict() for outcome in outcomes]})
    else:
        if outcomes:
            say_table(
                HEADER,
                map(_cells, outcomes),
                numbers=("seconds",),
                drop=("seconds",),
                cut=("failure", "name"),
                wide=wide,
            )
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
            yield Outcome(site.name, "its file has errors; multisite check lists them")
        elif hosting.is_hosting(site.location) and not site.host:
            if names:
                fail(f"{name} is a hosting site, with a site for each host; name one of its hosts")
        elif site.exclusive:
            if names:
                fail(f"{name} is exclusive: a test start could be the second one; multisite restart {name} starts it")
        elif is_startable(site):
            sites.append(site)
    yield from _shown(boot(sites, session.home, at_once()), sites)


def _site(session: Session, name: str) -> Site | str:
    return session.catalogue.site(name)


def _shown(outcomes: Iterator[Outcome], sites: Sequence[Site]) -> Iterator[Outcome]:
    """Yield the outcomes, while a spinner names the sites that are still starting."""
    left = {site.name: site for site in sites}
    with waiting() as show:
        show(_still(left, len(sites)))
        for outcome in outcomes:
            left.pop(outcome.name, None)
            show(_still(left, len(sites)))
            yield outcome


def _still(left: Mapping[str, Site], count: int) -> str:
    names, more = list(left)[:3], len(left) - 3
    return f"starting {', '.join(names)}{f' and {more} more' if more > 0 else ''} ({count - len(left)} of {count} done)"


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return outcome.name, "no" if outcome.failure else "yes", f"{outcome.seconds:.2f}", outcome.failure


def say_output(outcome: Outcome) -> None:
    """Print the last lines of a site's output."""
    for line in outcome.output[-SHOWN:]:
        say(f"{outcome.name} | {line}", err=True)


# restart --wait


def restart_and_wait(session: Session, sites: Sequence[Site]) -> None:
    """Restart sites and print each outcome; exit code 1 if a new version is not serving."""
    results = []
    for site in sites:
        with waiting(f"{site.name}: waiting for the new version (start_timeout = {site.start_timeout:g}s)"):
            step, instead = partial(_restarted, session, site), partial(_result, site, False)
            results.append(fenced(session, site.name, step, instead))
    if session.as_json:
        say_json({"restarted": results})
    else:
        for result in results:
            for line in result["output"]:
                say(f"{result['name']} | {line}", err=True)
            say(f"{result['name']}: {result['said']}", err=not result["ok"])
    if not all(result["ok"] for result in results):
        raise SystemExit(1)


def _restarted(session: Session, site: Site) -> dict[str, Any]:
    entry = session.catalogue.entries[site.entry_name]
    wrong = next((problem for problem in entry.problems if problem.is_error), None)
    if wrong:
        return _result(site, False, f"its file has errors, and nothing was changed: {wrong}")
    is_many = hosting.is_hosting(site.location) and not site.host
    if is_many or (site.host or _is_spawned(session, site)):
        answer = session.ask("restart", site=site.entry_name, host=site.host, start=not is_many)
        if answer and answer["deploys"]:
            return _outcome(session, site, answer["deploys"])
        if is_many:
            return _result(site, True, "it was not running")
    return _tried(session, site)


def _is_spawned(session: Session, site: Site) -> bool:
    """Tell whether the site runs in processes of the supervisor, or will at its next request."""
    from multisite.status.report import judge
    from multisite.supervisor.dryrun import is_startable

    return session.is_held(site.name) or (is_startable(site) and judge(session, site).placement == "spawned")


def _result(site: Site, ok: bool, said: str, version: float = 0.0, output: Sequence[str] = ()) -> dict[str, Any]:
    """Describe an outcome.

    Args:
        site: the restarted site.
        ok: whether the new version is good.
        said: the sentence for people.
        version: time of the last change of the file that was tried, 0 if none was.
        output: output of a failed start; the last lines are kept.
    """
    when = time.strftime("%H:%M:%S", time.localtime(version))
    of = f" ({os.path.basename(site.file)} as of {when})" if version else ""
    last = list(output[-SHOWN:])
    return {"name": site.name, "ok": ok, "said": f"{said}{of}", "version": version or None, "output": last}


def _outcome(session: Session, site: Site, wanted: dict[str, int]) -> dict[str, Any]:
    """Wait until the attempts in `wanted` (number by site), or later ones, have ended."""
    about, within = {"site": site.entry_name, "host": site.host}, site.start_timeout + BEYOND
    deadline = time.monotonic() + within
    while True:
        found = (session.ask("deploys", **about) or {"deploys": {}})["deploys"]
        open_ = [name for name in wanted if found.get(name, {}).get("state") == "trying"]
        if not open_:
            break
        if time.monotonic() > deadline:
            return _result(site, False, f"{', '.join(open_)}: not ready within {within:g} s; see multisite status")
        time.sleep(PAUSE)
    lost = [name for name, number in wanted.items() if found.get(name, {}).get("number", 0) < number]
    if lost:  # the site has been taken out of service, or the supervisor has ended
        return _result(site, False, f"{', '.join(lost)}: the outcome is unknown; see multisite status")
    version = max(found[name].get("version", 0.0) for name in wanted)
    failed = [name for name in wanted if found[name].get("state") == "failed"]
    if not failed:
        return _result(site, True, "the new version is serving", version)
    several = len(wanted) > 1
    said = "; ".join(f"{f'{name}: ' if several else ''}{_failed(found[name])}" for name in failed)
    tried = any(found[name]["cause"] == "trial" for name in failed)
    output = (session.ask("logs", **about) or {"lines": []})["lines"] if tried else ()
    return _result(site, False, said, version, output)


def _failed(deploy: dict[str, Any]) -> str:
    """Return why a version is not serving, and what serves instead."""
    instead = "nothing is running" if deploy["cause"] == "trial" else "the old version is still serving"
    return f"new version failed to start ({deploy['failure']}); {instead}"


def _tried(session: Session, site: Site) -> dict[str, Any]:
    """Start a site once in a test process, and make the workers load it only if that succeeds."""
    from multisite.sites import failures
    from multisite.supervisor.dryrun import boot, is_startable

    version = session.catalogue.entries[site.entry_name].stamp[0] / 1e9
    if is_startable(site):
        outcome = next(boot([site], session.home, 1))
        if outcome.failure:
            said = f"test start failed ({outcome.failure}); nothing was changed"
            return _result(site, False, said, version, outcome.output)
        failures.of_starts(session.home).clear(site.name)
        session.ask("mended", site=site.entry_name, host=site.host)
    if not site.host:
        stamp(site.file)
    return _result(site, True, "test start succeeded; the new version takes over at the next request", version)


def stamp(path: str) -> None:
    """Set the time of the file to which `path` leads; anybody could set the time of a link."""
    try:
        os.utime(path)
    except OSError as error:
        error.filename = path  # utime does not set it
        raise
