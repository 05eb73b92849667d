"""Invented figures of any number of sites, to see what a large home would look like.

They follow from the seed and the time alone: two looks at the same moment show the same, and sums only grow.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

from multisite import __version__
from multisite.config.model import Site
from multisite.logs.past import DONE, FAILED, READY, Past
from multisite.status.inventory import Inventory
from multisite.status.report import SiteReport

HOME = "/srv/simulated"
_WORDS = ("blog", "shop", "wiki", "api", "docs", "forum", "photos", "mail", "intranet", "club", "museum", "bakery")
_PATHS = ("/", "/login", "/search", "/feed", "/static/app.css", "/items/42", "/export")
_DAY = 86400.0
_BEGIN = 1_700_000_000.0  # when the sites were first asked for
_TROUBLES = (("backoff", "failed"), ("broken", "file"), ("running", "old"), ("running", "queue"))
_STATES = ("running", "running", "in-process", "in-process", "in-process", "stopped", "stopped", "stopped")


@dataclass(frozen=True)
class _Character:
    """What is typical of a site."""

    name: str
    state: str
    rate: float  # requests a second
    phase: float
    errors: float  # of a request
    cost: float  # seconds of processor time for a request
    memory: float  # bytes
    trouble: str  # "" for most

    def requests(self, at: float) -> float:
        """Return how many there have been: the sum over a rate that rises and falls, and never sinks below nought."""
        time, swing = at - _BEGIN, 0.0
        for period, share in ((_DAY, 0.6), (47.0, 0.3)):
            pace = math.tau / period
            swing += share / pace * (math.cos(self.phase) - math.cos(pace * time + self.phase))
        return self.rate * (time + swing)


class Simulation:
    """A home with so many invented sites.

    Args:
        count: of sites.
        seed: another one gives other sites.
    """

    def __init__(self, count: int, seed: int = 1) -> None:
        self._sites = [_character(number, seed) for number in range(count)]

    def document(self, at: float) -> dict[str, Any]:
        """Return what `multisite.status.document.document` would, at a time in Unix seconds."""
        sites = [_row(number, site, at) for number, site in enumerate(self._sites)]
        supervisor = {
            "pid": 4711,
            "version": __version__,
            "home": HOME,
            "uptime": round(at - _BEGIN, 3),
            "servers": [4712, 4713],
            "backends": sum(len(site["pids"]) for site in sites),
            "max_backends": max(50, len(sites)),
        }
        return {"supervisor": supervisor, "preloaders": [], "sites": sites}

    def log(self, name: str, at: float, count: int) -> list[tuple[float, str]]:
        """Return the last lines of a site's log, oldest first: when each was written, and its text."""
        last = int(at)
        return [(float(second), _line(name, second)) for second in range(last - count + 1, last + 1)]


def _character(number: int, seed: int) -> _Character:
    dice = random.Random(f"{seed}-{number}")
    state, trouble = dice.choice(_STATES), ""
    if dice.random() < 0.03:
        state, trouble = dice.choice(_TROUBLES)
    return _Character(
        name=f"{dice.choice(_WORDS)}-{number:04}",
        state=state,
        rate=dice.paretovariate(1.1) / 20 if state in ("running", "in-process") else 0.001,
        phase=dice.uniform(0, math.tau),
        errors=dice.choice((0.0, 0.0, 0.001, 0.02)),
        cost=dice.uniform(0.002, 0.08),
        memory=dice.uniform(18e6, 140e6) if state == "running" else 0.0,
        trouble=trouble,
    )


@cache
def _empty(name: str) -> dict[str, Any]:
    """Return the row of a site of which nothing is known, with all keys that the document has."""
    site = Site(f"{HOME}/sites-enabled/{name}.ini", name, (f"{name}.example.com",), "/")
    return SiteReport(Inventory(HOME), site, None, "simulated", "stopped", enabled=False).as_dict(figures=False)


def _row(number: int, site: _Character, at: float) -> dict[str, Any]:
    requests, runs = int(site.requests(at)), site.state == "running"
    errors, cpu = int(requests * site.errors), round(requests * site.cost, 3)
    wave = math.sin(at / 31 + site.phase)
    statuses = {"1xx": 0, "2xx": requests - errors, "3xx": 0, "4xx": 0, "5xx": errors}
    queue = 1 + int(3 * (1 + wave)) if site.trouble == "queue" else 0
    busy = {"method": "GET", "path": _PATHS[number % len(_PATHS)], "age": round(at % 7, 1)}
    return {
        **_empty(site.name),
        "location": f"{HOME}/{site.name}",
        "application": "wsgi:application",
        "enabled": True,
        "placement": None if site.trouble == "file" else "in-process" if site.state == "in-process" else "spawned",
        "state": site.state,
        "failure": _failure(site, at),
        "problems": [_PROBLEM] if site.trouble == "file" else [],
        "pids": [10_000 + number] if runs else [],
        "requests": requests,
        "errors": errors,
        "statuses": statuses,
        "cpu": cpu,
        "in_flight": int(runs and wave > 0.5),
        "requests_in_flight": [busy] if runs and wave > 0.5 else [],
        "waiting": queue,
        "memory": int(site.memory * (1 + 0.08 * wave)) if runs else None,
        "up_since": at - 3600 - number if runs else None,
        "last_use": at - (0 if site.rate > 0.01 else 5000),
        "starts": 1 + number % 9,
        "sent": requests * 9000,
        "received": requests * 700,
    }


_PROBLEM = {
    "file": f"{HOME}/sites-enabled",
    "section": "service",
    "key": "threads",
    "value": "many",
    "reason": "is not a whole number",
    "remedy": "threads = 4",
    "severity": "error",
}


def _failure(site: _Character, at: float) -> dict[str, Any] | None:
    if site.trouble not in ("failed", "old"):
        return None
    steps = [{"step": "spawn", "seconds": 0.012}]
    told = {"failure": "ModuleNotFoundError: no module named 'flask'", "incident": f"{hash_of(site.name):08x}"}
    remedy = f"{HOME}/{site.name}/.venv/bin/pip install flask"
    return {**told, "at": at - 60, "serving": site.trouble == "old", "remedy": remedy, "steps": steps, "output": []}


def past_of(row: dict[str, Any], at: float) -> Past:
    """Return what the site of a row went through until a time in Unix seconds: starts, deploys and slow requests."""
    dice, failure = random.Random(row["name"]), row["failure"]
    is_in_worker = row["placement"] == "in-process"
    steps = ("import",) if is_in_worker else ("prepare", "fork and run", "start up")
    way = "imported in worker 4712" if is_in_worker else "forked from a preloader"
    begun = row["up_since"] or (_BEGIN + (at - _BEGIN) // _DAY * _DAY)
    starts, deploys = [], []
    for number in range(row["starts"] if row["placement"] else 0):
        times = [round(dice.uniform(0.01, 0.3), 3) for _ in steps]
        took = [{"step": step, "seconds": time} for step, time in zip(steps, times, strict=True)]
        seconds = round(sum(times), 3)
        told = {"at": begun - number * _DAY, "seconds": seconds, "failure": "", "incident": ""}
        starts.append({**told, "kind": "cold", "outcome": READY, "steps": took, "way": way})
        if number % 3 == 1:
            deploys.append({**told, "cause": "reload", "outcome": DONE})
    if failure:
        failed = {**{key: failure[key] for key in ("at", "failure", "incident")}, "seconds": 0.012, "outcome": FAILED}
        kind = "deploy" if failure["serving"] else "cold"
        starts.insert(0, {**failed, "kind": kind, "steps": failure["steps"], "way": ""})
        deploys[:0] = [{**failed, "cause": "reload"}] if failure["serving"] else []
    return Past(starts, deploys, [_slow(at - number * 700, dice) for number in range(dice.randrange(4))])


def _slow(at: float, dice: random.Random) -> dict[str, Any]:
    app = round(dice.uniform(1.0, 4.0), 3)
    split = {"queued": 0.0, "relay": 0.001, "app": app}
    path = dice.choice(_PATHS)
    return {"at": at, "method": "GET", "path": path, "status": 200, "seconds": round(app + 0.001, 3), "split": split}


def hash_of(text: str) -> int:
    """Return a number of 32 bits for a text, the same in every process."""
    return random.Random(text).getrandbits(32)


def _line(name: str, second: int) -> str:
    number = hash_of(f"{name}-{second}")
    return f"GET {_PATHS[number % len(_PATHS)]} 200 {number % 90 + 2} ms"
