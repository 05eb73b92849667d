"""Placement by itself: sites that may share and sites that may not, all mode = auto, asked in turn.

    python bench/placement.py [REQUESTS]

Two app.py sites, two with a helper.py, a Flask site, three Django projects, and sites that change the working directory
at once or when they answer, set signals, patch the standard library, change the environment or start threads are asked
in turn, each time through a connection of its own. The right answer of each is one that only its own process can give
while a neighbour does otherwise. Targets: no wrong and no failed answer, and every site where it should be, for the
true reason. Then: what an examination adds to the first request of a new site, and what a request costs here and there,
which is what `promote_after` trades.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HELLO, HomeDir, Row, Server, median, new_home, print_rows

from tests import mixture
from tests.mixture import KINDS
from tests.servers.harness import ask, eventually, gunicorn

REQUESTS = 20_000
ROUNDS = 7
CONF = "[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\npreload = no\n"
TICKS = os.sysconf("SC_CLK_TCK")


def asked(server: Server, name: str) -> str:
    """Ask a site; returns how that went: "right", "wrong" or "failed"."""
    try:
        answer = ask(server.port, f"{name}.test")
    except (OSError, http.client.HTTPException):
        return "failed"
    return "failed" if answer.status != 200 else "right" if answer.text == KINDS[name].right else "wrong"


def placed(requests: int) -> list[Row]:
    """Where the sites end up, and what they have answered on the way."""
    went = {name: Counter[str]() for name in KINDS}
    with new_home() as home:
        mixture.fill(home)
        home.conf(CONF)
        with gunicorn(home, "gthread", "--workers", "2", "--threads", "4") as server:
            for name in islice(cycle(KINDS), requests):
                went[name][asked(server, name)] += 1
            verdicts = mixture.verdicts(home)
    rows = []
    for name, kind in KINDS.items():
        placement, reason = verdicts[name]
        figure = f"{placement}: {reason.replace(str(home.path), '')}; {went[name].total():,} requests"
        rows.append(Row(f"mode = auto, {name}", figure, "where it should be", kind.is_explained(placement, reason)))
    what = f"mode = auto, {len(KINDS)} sites asked in turn"
    for how in ("wrong", "failed"):
        count = sum(each[how] for each in went.values())
        rows.append(Row(f"{what}: {how} answers", f"{count} of {requests:,}", "0", count == 0))
    return rows


def first_requests() -> Row:
    """The first request of a new site that is examined, and of one that is spawned anyway; interleaved."""
    took: dict[str, list[float]] = {"auto": [], "spawned": []}
    with new_home() as home:
        home.conf(CONF)
        for number in range(ROUNDS + 1):
            for mode in took:
                home.site(f"{mode}{number}", HELLO, application="app:application", mode=mode)
        with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
            for number in range(ROUNDS + 1):
                for mode, seen in took.items():
                    began = time.monotonic()
                    assert ask(server.port, f"{mode}{number}.test").status == 200
                    seen.append(time.monotonic() - began)
    auto, spawned = (median(seen[1:]) * 1000 for seen in took.values())  # the first has waited for the supervisor
    figure = f"{auto:.0f} ms, {spawned:.0f} ms with mode = spawned; {auto / spawned:.2f} of it"
    return Row("first request of a new site with mode = auto", figure, "≤ 1.25", auto <= 1.25 * spawned)


def spent(home: HomeDir, server: Server) -> float:
    """Seconds of processor time of the workers and of a home's own processes."""
    total = 0
    for pid in {*home.processes(), *server.workers()}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def costs(requests: int = 2000) -> Row:
    """Processor time of a request that is answered by a process and by the workers; medians of interleaved rounds."""
    figures: dict[str, list[float]] = {"spawned": [], "in-process": []}
    with new_home() as home:
        for mode in figures:
            home.site(mode, HELLO, application="app:application", mode=mode)
        with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
            for mode in figures:
                eventually(lambda mode=mode: ask(server.port, f"{mode}.test").status == 200, 30.0)  # type: ignore[misc]
            for _ in range(ROUNDS):
                for mode, seen in figures.items():
                    before = spent(home, server)
                    for _ in range(requests):
                        ask(server.port, f"{mode}.test")
                    seen.append((spent(home, server) - before) / requests * 1e6)
    spawned, here = map(median, figures.values())
    worth = f"; two imports of 50 ms are worth {0.1e6 / (spawned - here):,.0f} requests" if spawned > here else ""
    return Row("processor time of a request", f"{spawned:.0f} µs from a process, {here:.0f} µs in the workers{worth}")


def measure(requests: int = REQUESTS) -> list[Row]:
    return [*placed(requests), first_requests(), costs()]


if __name__ == "__main__":
    table = measure(int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS)
    print_rows(table)
    sys.exit(int(any(row.met is False for row in table)))
