"""From `ensite`'s return to the first right answer, and what a loaded neighbour notices of it.

    python bench/addsite.py

Targets: at most 50 ms; not one failed request of the neighbour in 20 additions, 20 edits and 20 removals.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, Server, loaded, median, new_home, print_rows

from tests.servers.harness import HELLO, gunicorn

CHANGES = 20
DEADLINE = 5.0  # seconds


def command(home: HomeDir, *words: str) -> None:
    """Run the command line tool to its end."""
    argv = [sys.executable, "-c", "from multisite.cli import main; main()", "--home", str(home.path), *words]
    done = subprocess.run(argv, env=home.environ(), cwd=home.path, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")


def until(server: Server, host: str, status: int, text: str | None = None) -> tuple[float, int]:
    """Milliseconds until the answer is right, and how many were not."""
    start, wrong = time.perf_counter(), 0
    while True:
        answer = server.ask(host)
        passed = time.perf_counter() - start
        if answer.status == status and text in (None, answer.text):
            return passed * 1000, wrong
        if passed > DEADLINE:
            sys.exit(f"{host} is {answer.status} after {DEADLINE} s")
        wrong += 1


def change_sites(home: HomeDir, server: Server) -> dict[str, list[tuple[float, int]]]:
    """Twenty additions, edits and removals."""
    times: dict[str, list[tuple[float, int]]] = {"addition": [], "edit": [], "removal": []}
    for number in range(CHANGES):
        name = f"new{number}"
        where = home.site(name, enable=False)
        command(home, "ensite", name)
        times["addition"].append(until(server, f"{name}.test", 200, f"site {name}"))
        (where / f"edited{number}.py").write_text(HELLO.replace("{text}", f"edited {name}"))
        keys = f"domains = {name}.test\nlocation = {where}\napplication = edited{number}:application\n"
        home.ini(name, f"[service]\n{keys}")
        times["edit"].append(until(server, f"{name}.test", 200, f"edited {name}"))
        command(home, "dissite", name)
        times["removal"].append(until(server, f"{name}.test", 404))
    return times


def measure() -> list[Row]:
    with new_home() as home:
        home.site("a")
        with gunicorn(home, "gthread", "--workers", "2", "--threads", "8") as server:
            assert server.ask("a.test").text == "site a"
            with loaded(server.port, "a.test") as load:
                times = change_sites(home, server)
    rows = []
    for kind, target, limit in (("addition", "≤ 50 ms", 50.0), ("edit", "≤ 1 s", 1000.0), ("removal", "≤ 1 s", 1000.0)):
        took = [ms for ms, _ in times[kind]]
        wrong = sum(count for _, count in times[kind])
        figure = f"median {median(took):.1f} ms, worst {max(took):.1f} ms"
        figure += f", {wrong} wrong answers before it" if kind == "addition" else ""
        met = max(took) <= limit and not (kind == "addition" and wrong)
        rows.append(Row(f"{kind} of a site until the first right answer, under load", figure, target, met))
    figure = f"{load.failures} of {load.requests:,}"
    what = f"failed requests of the neighbour in {CHANGES} additions, edits and removals"
    return [*rows, Row(what, figure, "0", load.failures == 0 and load.requests > 0)]


if __name__ == "__main__":
    print_rows(measure())
