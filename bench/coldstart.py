"""The first request to a stopped site, with a warm preloader, beside uWSGI's on-demand vassals and plain starts.

    python bench/coldstart.py

Targets: Flask at most 25 ms and 0.25 of uWSGI's, a minimal Django at most 60 ms and 0.35; ten Django sites at once at
most 0.3 of plain starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import peers
from common import HomeDir, Row, median, new_home, print_rows

from tests.servers.harness import ask, eventually, gunicorn

ROUNDS = 11
AT_ONCE = 10
BURSTS = 3
TARGETS = {"flask": (25.0, 0.25), "django": (60.0, 0.35)}
NAMES = {"flask": "Flask", "django": "minimal Django"}
PATIENCE = 60.0


def add_site(home: HomeDir, name: str, kind: str, **keys: str) -> None:
    """One of our sites with the peers' interpreter."""
    where = peers.write_site(home.path / "sites" / name, kind)
    keys = {"location": str(where), "application": "wsgi:application", "python": str(peers.virtualenv()), **keys}
    home.ini(name, f"[service]\ndomains = {name}.test\n" + "".join(f"{key} = {keys[key]}\n" for key in keys))


def status(home: HomeDir) -> dict[str, object]:
    """What ``multisite --json status`` prints."""
    told: dict[str, object] = json.loads(home.multisite("--json", "status"))
    return told


@contextmanager
def warm(home: HomeDir, kind: str) -> Iterator[int]:
    """Our service with a preloader that knows this kind of site; yields the port."""
    for name in ("warm-1", "warm-2"):
        add_site(home, name, kind)
    with gunicorn(home, "gthread", "--threads", "16") as server:
        for name in ("warm-1", "warm-2"):
            peers.wait_for(server.port, f"{name}.test")
        eventually(lambda: is_ready(home), PATIENCE, "there is a preloader")
        yield server.port


def is_ready(home: HomeDir) -> bool:
    found = status(home)["preloaders"]
    return bool(found) and all(one["state"] == "ready" for one in found)  # type: ignore[attr-defined]


def first(port: int, host: str) -> float:
    """Milliseconds of one request."""
    began = time.perf_counter()
    answer = ask(port, host)
    took = (time.perf_counter() - began) * 1000
    assert answer.status == 200, (host, answer)
    return took


def one_after_another(kind: str) -> list[Row]:
    """A fresh site of ours and one of uWSGI's in turn."""
    with new_home() as home:
        names = [f"cold-{number}" for number in range(ROUNDS)]
        for name in names:
            add_site(home, name, kind)
        theirs = {f"{name}.test": home.path / "sites" / name for name in names}
        with warm(home, kind) as port, peers.uwsgi(home.path / "uwsgi", theirs) as their_port:
            pairs = []
            for name in names:
                pairs.append((first(port, f"{name}.test"), first(their_port, f"{name}.test")))
                time.sleep(0.3)  # what a start leaves to be done is not the next one's
        ours, others = map(median, zip(*pairs, strict=True))
    most, share = TARGETS[kind]
    what = f"first request to a stopped {NAMES[kind]} site"
    return [
        Row(what, f"{ours:.1f} ms", f"≤ {most:g} ms", ours <= most),
        Row(
            f"{what}, of uWSGI's on-demand vassal",
            f"{ours / others:.2f} ({others:.0f} ms)",
            f"≤ {share}",
            ours / others <= share,
        ),
    ]


def at_once() -> Row:
    """Ten Django sites at the same moment, forked and plain in turn."""
    with new_home() as home:
        bursts = {}
        for way in ("auto", "no"):
            bursts[way] = [[f"{way}-{burst}-{n}" for n in range(AT_ONCE)] for burst in range(BURSTS)]
            for name in (name for burst in bursts[way] for name in burst):
                add_site(home, name, "django", preload=way)
        times: dict[str, list[float]] = {"auto": [], "no": []}
        with warm(home, "django") as port:
            for burst in range(BURSTS):
                for way, taken in times.items():
                    taken.append(together(port, bursts[way][burst]))
                    time.sleep(1)
    forked, plain = median(times["auto"]), median(times["no"])
    ratio = forked / plain
    figure = f"{ratio:.2f} ({forked:.2f} s, {plain:.2f} s)"
    return Row(f"{AT_ONCE} Django sites at once, of plain starts", figure, "≤ 0.3", ratio <= 0.3)


def together(port: int, names: list[str]) -> float:
    """Seconds until all have answered."""
    with ThreadPoolExecutor(len(names)) as pool:
        began = time.perf_counter()
        list(pool.map(lambda name: first(port, f"{name}.test"), names))
        return time.perf_counter() - began


def measure() -> list[Row]:
    """All rows."""
    return [*one_after_another("flask"), *one_after_another("django"), at_once()]


if __name__ == "__main__":
    print_rows(measure())
