"""The memory of one more live site beside mod_wsgi's, and that of 5,000 sites that nobody asks for.

    python bench/density.py

Proportional set size of all processes: servers, workers, supervisor, preloader, backends. Targets: Flask at most 8 MiB
and 0.45 of mod_wsgi's, a minimal Django at most 18 MiB and 0.6; at most 10 KiB for a site that is only registered.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import peers
from coldstart import NAMES, add_site, warm
from common import Row, fill, middle, new_home, print_rows

from tests.servers.harness import ask, gunicorn

FEW, MANY = 2, 10  # live sites besides those that have warmed the preloader
REQUESTS = 20
REGISTERED = 5_000
TARGETS = {"flask": (8.0, 0.45), "django": (18.0, 0.6)}


def pss(pids: Iterable[int]) -> float:
    """KiB of the processes together."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return float(total)


def below(pids: Iterable[int]) -> list[int]:
    """These processes and all that came of them."""
    found = []
    for pid in pids:
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += below(map(int, (task / "children").read_text().split()))
    return found


def use(port: int, hosts: Iterable[str]) -> None:
    """Ask each often enough that it has what it needs."""
    for host in hosts:
        peers.wait_for(port, host)
        for _ in range(REQUESTS):
            assert ask(port, host).status == 200
    time.sleep(1)


def ours(kind: str) -> float:
    """MiB of one more live site of ours."""
    with new_home() as home:
        hosts = [f"live-{number}.test" for number in range(MANY)]
        for host in hosts:
            add_site(home, host.partition(".")[0], kind)
        with warm(home, kind) as port:
            use(port, hosts[:FEW])
            before = pss(home.processes())
            use(port, hosts[FEW:])
            return (pss(home.processes()) - before) / (MANY - FEW) / 1024


def of_mod_wsgi(kind: str) -> float:
    """MiB of one more daemon process group."""
    totals = []
    with new_home() as home:
        for count in (FEW, MANY):
            folder = home.path / f"apache-{count}"
            sites = {f"live-{n}.test": peers.write_site(home.path / f"{count}-{n}", kind) for n in range(count)}
            home.path.chmod(0o755)
            with peers.mod_wsgi(folder, sites) as (port, pids):
                use(port, sites)
                totals.append(pss(below(pids)))
    return (totals[1] - totals[0]) / (MANY - FEW) / 1024


def registered() -> float:
    """KiB of a site that is enabled and not used, over all processes."""
    totals = []
    for count in (1, REGISTERED):
        with new_home() as home:
            fill(home, count)
            add_site(home, "asked", "flask", mode="spawned")
            with gunicorn(home, "gthread") as server:
                use(server.port, [f"{middle(count)}.test", "asked.test"])
                time.sleep(3)  # the supervisor has looked at its configuration
                totals.append(pss(home.processes()))
    return (totals[1] - totals[0]) / (REGISTERED - 1)


def measure() -> list[Row]:
    """All rows."""
    rows = []
    for kind, (most, share) in TARGETS.items():
        own, theirs = ours(kind), of_mod_wsgi(kind)
        what = f"memory of one more live {NAMES[kind]} site"
        rows.append(Row(what, f"{own:.1f} MiB", f"≤ {most:g} MiB", own <= most))
        ratio = own / theirs
        rows.append(Row(f"{what}, of mod_wsgi's", f"{ratio:.2f} ({theirs:.1f} MiB)", f"≤ {share}", ratio <= share))
    idle = registered()
    rows.append(Row(f"one of {REGISTERED:,} sites that nobody asks for", f"{idle:.1f} KiB", "≤ 10 KiB", idle <= 10))
    return rows


if __name__ == "__main__":
    print_rows(measure())
