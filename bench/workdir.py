"""What it costs that each site in the workers has a working directory of its own.

    python bench/workdir.py

Targets: at most 0.1 µs a request where a thread is called for the same site as before, and 3 µs where it is called for
another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import process_time_ns

sys.path.insert(0, str(Path(__file__).parent))

from common import HELLO, Row, median, new_home, print_rows
from dispatch import as_in_gunicorn

ROUNDS = 301
CALLS = 500
SITES = 6


def measure() -> list[Row]:
    with new_home() as home:
        names = [f"s{number}" for number in range(SITES)]
        for name in names:
            home.site(name, HELLO)
        hosts = [f"{name}.test" for name in names]
        argv = [sys.executable, __file__, "--child", *hosts]
        done = subprocess.run(argv, env=home.environ(), capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
    same, other, back, base = (json.loads(done.stdout)[name] for name in ("same", "other", "back", "base"))
    named = "working directory of a site in the workers, added per request"
    told = f"{same:.2f} µs (without {base:.2f} µs)"
    return [
        Row(f"{named}, one site again and again", told, "≤ 0.1 µs", same <= 0.1),
        Row(f"{named}, two sites in turn", f"{other:.2f} µs", "≤ 3 µs", other <= 3),
        Row(f"{named}, where the thread goes back after each call", f"{back:.2f} µs"),
    ]


def child(hosts: list[str]) -> None:
    """Measure in this process and print the figures as JSON."""
    from wsgiref.util import setup_testing_defaults

    from multisite.inprocess import workdir
    from multisite.service import application

    as_in_gunicorn()
    environs = []
    for host in hosts:
        environs.append({"HTTP_HOST": host, "PATH_INFO": "/", "SCRIPT_NAME": "", "REMOTE_ADDR": "127.0.0.1"})
        setup_testing_defaults(environs[-1])

    def ask(environ) -> bytes:
        return b"".join(application(dict(environ), lambda status, headers, exc_info=None: None))

    def block(pair) -> float:
        start = process_time_ns()
        for _ in range(CALLS):
            for environ in pair:
                ask(environ)
        return (process_time_ns() - start) / CALLS / len(pair) / 1000

    own, back, none = environs[0:2], environs[2:4], environs[4:6]
    assert [ask(environ) for environ in own] == [b"hello\n"] * 2
    assert workdir._server
    workdir._server.runs_hooks = True
    assert [ask(environ) for environ in back] == [b"hello\n"] * 2
    workdir._obstacle = (os.getpid(), "measured without")
    assert [ask(environ) for environ in none] == [b"hello\n"] * 2
    figures: dict[str, list[float]] = {"same": [], "other": [], "back": [], "base": []}
    for _ in range(ROUNDS):
        alone, turns = block(none[:1]), block(none)
        figures["base"].append(alone)
        figures["same"].append(block(own[:1]) - alone)
        figures["other"].append(block(own) - turns)
        figures["back"].append(block(back) - turns)
    print(json.dumps({name: median(values) for name, values in figures.items()}))


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[2:])
    else:
        print_rows(measure())
