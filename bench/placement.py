"""Placement by itself: sites that may share and sites that may not, all mode = auto, asked in turn.

``python bench/placement.py [REQUESTS]`` asks twelve sites (two Django projects, two app.py, and sites that change the
working directory, set signals, patch the standard library, print, start threads, change their process in a view) as
often in all, checks every answer, and prints where each site has ended up and why. Then it measures what
``promote_after`` trades: the processor time of a request that is answered by a process and by the workers.
"""

from __future__ import annotations

import os
import re
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from common import HomeDir, Server, new_home

from tests.servers.harness import Client, gunicorn
from tests.servers.test_placement import ANSWER, SETTINGS, UNFIT, URLS, WSGI

REQUESTS = 20_000
FIT = {"app-one": "", "app-two": "", "prints": "print('hello')"}
CONF = "[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\n"
TICKS = os.sysconf("SC_CLK_TCK")


def fill(home: HomeDir) -> list[str]:
    """Write the sites; returns their names."""
    home.conf(CONF)
    plain = {name: (top, "pass", "") for name, top in FIT.items()} | UNFIT
    for name, (top, view, _) in plain.items():
        code = ANSWER.format(name=name, top=top, view=view, version=1)
        home.site(name, code, application="app:application")
    for name in ("django1", "django2"):
        folder = home.site(name, WSGI.format(name=name), application=f"{name}_wsgi:application")
        (folder / f"{name}_settings.py").write_text(SETTINGS.format(name=name))
        (folder / f"{name}_urls.py").write_text(URLS.format(name=name))
    return [*plain, "django1", "django2"]


def interleave(server: Server, names: list[str], requests: int) -> int:
    """Ask them in turn; returns how many answers were wrong."""
    wrong = 0
    for name in islice(cycle(names), requests):
        client = Client(server.port, timeout=60.0)
        answer = client.ask(f"{name}.test")
        client.close()
        wrong += (answer.status, answer.text) != (200, f"{name} 1")
    return wrong


def explained(home: HomeDir, name: str) -> str:
    found = re.search(r"^runs: +(.*)$", home.multisite("explain", f"{name}.test"), re.MULTILINE)
    return found[1] if found else "?"


def spent(home: HomeDir) -> float:
    """Seconds of processor time of all processes of a home."""
    total = 0
    for pid in home.processes():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def costs(rounds: int = 5, requests: int = 2000) -> tuple[float, float]:
    """Microseconds of processor time a request: from a process, and in the workers; medians of interleaved rounds."""
    figures: dict[str, list[float]] = {"spawned": [], "in-process": []}
    with new_home() as home:
        for mode in figures:
            code = ANSWER.format(name=mode, top="", view="pass", version=1)
            home.site(mode, code, application="app:application", mode=mode)
        with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
            interleave(server, list(figures), 100)
            for _ in range(rounds):
                for mode, seen in figures.items():
                    before = spent(home)
                    interleave(server, [mode], requests)
                    seen.append((spent(home) - before) / requests * 1e6)
    spawned, here = (sorted(seen)[len(seen) // 2] for seen in figures.values())
    return spawned, here


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    with new_home() as home:
        names = fill(home)
        with gunicorn(home, "gthread", "--workers", "2", "--threads", "4") as server:
            begun = time.monotonic()
            wrong = interleave(server, names, requests)
            print(f"{requests} requests to {len(names)} sites in {time.monotonic() - begun:.0f} s, {wrong} wrong")
            for name in names:
                print(f"  {name:9} {explained(home, name)}")
    spawned, here = costs()
    print(f"processor time a request: {spawned:.0f} µs from a process, {here:.0f} µs in the workers")
    saved = spawned - here
    print(f"an import of 50 ms in each of 2 workers is worth {0.1 / (saved * 1e-6):.0f} requests" if saved > 0 else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
