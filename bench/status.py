"""What the status of a thousand sites costs: the page, the metrics, and ``--json status``.

    python bench/status.py

Targets: a page in one request within 200 ms and 150 KiB, metrics within 250 ms, `--json status` within a second of
processor time. All are measured in processor time of a real home, and in bytes, after each site has been judged; a
busy machine makes everything slower, so the least of several rounds counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, fill, new_home, print_rows

SITES = 1_000
ROUNDS = 9
LARGEST = 150 * 1024
#: what a site has that does everything
IN_USE = {
    "state": "running",
    "pids": [1],
    "latencies": list(range(19)),
    "latency": {phase: {"count": 3, "seconds": 1.5} for phase in ("queued", "start", "app", "whole")},
    "starts_by_kind": {"cold": 1, "warm": 0, "deploy": 2, "recycle": 0},
    "start_seconds": {"count": 3, "sum": 0.5},
    "start_failures": 0,
    "stops_by_reason": {"idle": 2},
    "memory": 10**7,
    "cpu": 1.25,
}


def least(work: Callable[[], Any]) -> float:
    """Milliseconds of processor time of the quickest round."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found) * 1000


class Made:
    """A collector of prometheus_client whose samples have been made before."""

    def __init__(self, metrics: list[Any]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Any]:
        return self._metrics


def child() -> None:
    """Measure in this process, whose environment names the home, and print the figures as JSON."""
    from prometheus_client import CollectorRegistry, generate_latest

    from multisite.config.read import read_home
    from multisite.sites.catalogue import read
    from multisite.status import observed
    from multisite.status.metrics import collect, exposition
    from multisite.status.observed import Observed
    from multisite.status.simulate import Simulation
    from multisite.status.web.overview import View, overview

    catalogue = read(read_home(os.environ["MOYA_SERVICE_HOME"]))
    watched = Observed(lambda: catalogue)
    while watched.document()["unseen"]:
        time.sleep(observed.FRESH)
    document = Simulation(SITES).document(time.time())
    busy = {**document, "sites": [{**row, **IN_USE, "last_use": time.time()} for row in document["sites"]]}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Made(list(collect(busy, time.time()))))  # type: ignore[arg-type]

    def page() -> str:
        watched._made_at = float("-inf")  # as if nobody had looked for a while
        return overview(watched.document(), View.of(""), now=time.time(), curves=watched.curve)

    def metrics() -> bytes:
        watched._made_at = float("-inf")
        return exposition(watched.document(), time.time())

    figures = {
        "page": least(page),
        "bytes": len(page().encode()),
        "metrics": least(metrics),
        "busy": least(lambda: exposition(busy, time.time())),
        "series": exposition(busy, time.time()).count(b"\n"),
        "library": least(lambda: generate_latest(registry)),
        "shown": least(lambda: overview(document, View.of(""), now=time.time())),
        "shown bytes": len(overview(document, View.of(""), now=time.time()).encode()),
    }
    print(json.dumps(figures))


def command(home: HomeDir) -> float:
    """Seconds of processor time of ``--json status``, of the quickest round."""
    found = []
    for _ in range(ROUNDS):
        argv = [sys.executable, "-m", "multisite", "--home", str(home.path), "--json", "status"]
        before = os.times()
        done = subprocess.run(argv, env=home.environ(), capture_output=True, check=False)
        after = os.times()
        assert len(json.loads(done.stdout)["sites"]) == SITES, done.stderr
        found.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(found)


def measure() -> list[Row]:
    """All rows."""
    with new_home() as home:
        fill(home, SITES)
        argv = [sys.executable, __file__, "--child"]
        done = subprocess.run(argv, env=home.environ(), capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        seconds = command(home)
    found = json.loads(done.stdout)
    largest = max(found["bytes"], found["shown bytes"])
    sites = f"{SITES:,} sites"

    def row(what: str, key: str, most: float) -> Row:
        return Row(f"{what} of {sites}, processor time", f"{found[key]:.0f} ms", f"≤ {most:.0f} ms", found[key] <= most)

    return [
        row("status page, figures included,", "page", 200),
        Row(f"status page of {sites}, size", f"{largest / 1024:.0f} KiB", "≤ 150 KiB", largest <= LARGEST),
        row("metrics, figures included,", "metrics", 250),
        row(f"text of the metrics ({found['series']:,} lines), each site in use, invented,", "busy", 250),
        Row(f"the same by prometheus_client, its samples made before, {sites}", f"{found['library']:.0f} ms"),
        Row(f"--json status of {sites}, processor time", f"{seconds:.2f} s", "≤ 1 s", seconds <= 1),
    ]


if __name__ == "__main__":
    if "--child" in sys.argv:
        child()
    else:
        print_rows(measure())
