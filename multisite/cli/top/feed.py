"""Where the figures of ``top`` come from: the home, looked at in a thread, or a simulation."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from multisite.cli.output import printable
from multisite.cli.session import Session
from multisite.cli.top.view import Detail
from multisite.errors import MultisiteError
from multisite.sites import history
from multisite.sites.history import Sample
from multisite.status import lately, simulate
from multisite.status.document import document
from multisite.status.summary import Summary, summed

LINES = 200  # of a site's log
PATIENCE = 120.0  # seconds for an action


@dataclass(frozen=True)
class Glance:
    """What was seen at a time in Unix seconds."""

    at: float
    summary: Summary
    sites: list[dict[str, Any]]
    words: str = ""  # before the summary
    past: dict[str, list[Sample]] = field(default_factory=dict)  # seconds of each site, before the first look


class Feed(Protocol):
    """Shows a home, and changes it."""

    def look(self) -> Glance:
        """Look at all sites.

        Raises:
            MultisiteError, OSError: the home cannot be read.
        """

    def detail(self, name: str) -> Detail:
        """Look at one site, and at its log."""

    def act(self, action: str, name: str) -> str:
        """Use a command on a site; returns what it printed."""


class HomeFeed:
    """A home as it is."""

    def __init__(self, path: str) -> None:
        self._path, self._has_looked = path, False

    def look(self) -> Glance:
        """Look at all sites."""
        session = _Quiet(self._path)
        told = document(session)
        options = session.home.supervisor
        at, sites = time.time(), told["sites"]
        traffic = lately.note(sites, at)
        summary = summed(told, self._path, options.max_backends, options.memory_budget, *traffic)
        past = {} if self._has_looked else {site["name"]: _past(site, at) for site in sites}
        self._has_looked = True
        return Glance(at, summary, sites, f"{session.hidden}; " if session.hidden else "", past)

    def detail(self, name: str) -> Detail:
        """Look at one site, and at its log."""
        from multisite.cli.explain import of_site
        from multisite.cli.site.loglines import shown
        from multisite.cli.site.logs import last_lines

        session = _Quiet(self._path)
        named = session.named(name)
        facts: list[tuple[str, str]] = []
        if "%" not in named.site.location:
            answer = of_site(session, named.site)
            labels = ("file", "location", "application", "reason", "outage", "start")
            facts = [(label, str(answer[label])) for label in labels if answer[label]]
        backends = (session.supervisor or {}).get("sites", {}).get(named.site.name, {}).get("backends", ())
        facts += [("process", f"{one['pid']} {one['state']} {one['reason'] or ''}") for one in backends]
        lines: list[str] = []
        with contextlib.suppress(MultisiteError, OSError):
            lines = [shown(line, 0, False) for line in last_lines(session, named, LINES)]
        return Detail(name, facts, lines)

    def act(self, action: str, name: str) -> str:
        """Use a command on a site; returns what it printed."""
        words = [sys.executable, "-m", "multisite", "--home", self._path, action, "--", name]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        text = done.stdout.decode(errors="replace").strip().splitlines()
        return printable(text[0] if text else f"{action} {name}: done")


def _past(site: dict[str, Any], at: float) -> list[Sample]:
    """Return what a site did in the last minutes, by second."""
    path, used = site.get("history_file"), site.get("last_use") or 0.0
    return history.read(path, 0, at) if path and at - used < lately.HOUR else []


class _Quiet(Session):
    """A session that prints nothing: the screen is taken."""

    def warn(self, text: str) -> None:
        """Print nothing."""

    def waiting(self, what: str) -> contextlib.AbstractContextManager[Any]:
        """Show nothing."""
        return contextlib.nullcontext(what)


class ClusterFeed:
    """The sites of all machines, as the registry has them: a row for each site and machine."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[str, Any] = {}

    def look(self) -> Glance:
        """Look at all machines."""
        from multisite.cli.node.clustertable import looked, registry_line

        session = _Quiet(self._path)
        found = self._found = looked(session)
        registry = {**found["registry"], "machines": len(found["nodes"])}
        summary = summed({"supervisor": None, "sites": []}, self._path, 0, None)
        return Glance(time.time(), summary, cluster_rows(found), f"{registry_line(registry)}; ")

    def detail(self, name: str) -> Detail:
        """Show the machine of a row."""
        node = name.rpartition(" ")[2]
        row: dict[str, Any] = next((one for one in self._found["nodes"] if one["node"] == node), {})
        return Detail(name, [(key, str(row[key])) for key in ("host", "home", "version", "load") if key in row])

    def act(self, action: str, name: str) -> str:
        """Change nothing: that is for the machine itself."""
        site, _, node = name.partition(" ")
        return f"multisite {action} {site} works on {node}"


def cluster_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row of `top` for each site and machine.

    Args:
        found: the document of `multisite.status.machines`.
    """
    blank: dict[str, Any] = {"enabled": True, "service": None, "problems": [], "reason": "", "failure": None}
    rows = {f"{row['name']} {row['node']}": {**blank, **row} for row in found["sites"]}
    for row in found["incidents"]:
        key = f"{row['name']} {row['node']}"
        known = rows.setdefault(key, {**blank, "state": "broken"})
        known["failure"] = {"failure": row["cause"], "incident": row["incident"], "remedy": f"see {row['node']}"}
    return [{**row, "name": name} for name, row in rows.items()]


class SimulatedFeed:
    """Invented sites."""

    def __init__(self, count: int, seed: int, clock: Callable[[], float] = time.time) -> None:
        self._simulation, self._clock = simulate.Simulation(count, seed), clock

    def look(self) -> Glance:
        """Look at all sites."""
        at = self._clock()
        told = self._simulation.document(at)
        summary = summed(told, simulate.HOME, told["supervisor"]["max_backends"], 8 * 2**30)
        return Glance(at, summary, told["sites"], "simulated: ")

    def detail(self, name: str) -> Detail:
        """Look at one site, and at its log."""
        lines = self._simulation.log(name, self._clock(), LINES)
        log = [f"{time.strftime('%H:%M:%S', time.localtime(at))} {text}" for at, text in lines]
        return Detail(name, [("location", f"{simulate.HOME}/{name}")], log)

    def act(self, action: str, name: str) -> str:
        """Change nothing."""
        return f"{action} {name}: nothing happens to simulated sites"
