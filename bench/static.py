"""Static files: against whitenoise under the same gunicorn, and what a site with [static] pays for its own answers.

    python bench/static.py

Targets: at least 0.9 of whitenoise's throughput.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HELLO, HomeDir, Row, Server, free_port, median, new_home, print_rows
from dispatch import ask_and_account

ROUNDS = 8
CSS = "body { color: #222; background: #fff }\n" * 25  # about 1,000 bytes
WHITENOISE = """\
from whitenoise import WhiteNoise

def missing(environ, start_response):
    start_response("404 Not Found", [("Content-Length", "0")])
    return []

application = WhiteNoise(missing, root={root!r}, prefix="static/")
"""


def server_of(home: HomeDir, worker_class: str, application: str) -> Server:
    """One gunicorn worker, the same settings for either side."""
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", worker_class]
    # With more than one thread gunicorn takes gthread, whatever class it is told.
    argv += ["--workers", "1", "--threads", "1" if worker_class == "sync" else "4", "--no-control-socket", application]
    environ = home.environ()
    environ["PYTHONPATH"] += os.pathsep + str(home.path)
    name = application.partition(".")[0].partition(":")[0]
    return Server(argv, port, home.path / "log" / f"{worker_class}-{name}.log", environ)


def against_whitenoise(worker_class: str) -> list[Row]:
    """Throughput and processor time of hello.css, interleaved."""
    with new_home() as home:
        folder = home.path / "sites" / "static"
        folder.mkdir()
        (folder / "hello.css").write_text(CSS)
        (home.path / "white.py").write_text(WHITENOISE.format(root=str(folder)))
        home.ini("css", f"[service]\ndomains = css.test\nlocation = {home.path}\n[static]\n/static = {folder}\n")
        with (
            server_of(home, worker_class, "white:application") as white,
            server_of(home, worker_class, "multisite.service:application") as ours,
        ):
            for server in (white, ours):
                assert server.ask("css.test", "/static/hello.css").text == CSS
            return compare(f"hello.css over whitenoise, gunicorn {worker_class}", white, ours, "css.test", "css.test")


def beside_files(worker_class: str) -> list[Row]:
    """hello of a site that has a prefix and `check`, over hello of one that has none, in the same worker."""
    with new_home() as home:
        home.site("plain", HELLO)
        folder = home.site("files", HELLO)
        ini = home.path / "sites-available" / "files.ini"
        home.ini("files", ini.read_text() + f"[static]\n/static = {folder}\ncheck = {folder}\n")
        with server_of(home, worker_class, "multisite.service:application") as ours:
            what = f"hello of a site with [static] and check over one without, gunicorn {worker_class}"
            return compare(what, ours, ours, "plain.test", "files.test", path="/", target=None)


def compare(
    what: str,
    base: Server,
    ours: Server,
    base_host: str,
    host: str,
    path: str = "/static/hello.css",
    target: float | None = 0.9,
) -> list[Row]:
    """The rows of one comparison."""
    sides = ((base, base_host), (ours, host))
    used: tuple[list[float], list[float]] = ([0.0, 0], [0.0, 0])
    ratios, rates = [], []
    for number in range(ROUNDS + 1):
        rate = [0.0, 0.0]
        for side in (0, 1) if number % 2 else (1, 0):
            rate[side] = ask_and_account(*sides[side], used[side], path)
        ratios.append(rate[1] / rate[0])
        rates.append(rate[0])
    ratio = median(ratios[1:])  # the first round was for warming up
    each = [seconds / requests * 1e6 for seconds, requests in used]
    figure = f"{ratio:.3f} ({min(ratios[1:]):.2f} to {max(ratios[1:]):.2f}; {median(rates):,.0f} requests/s)"
    return [
        Row(
            f"throughput of {what}",
            figure,
            f"≥ {target}" if target else "",
            ratio >= target if target else None,
        ),
        Row(f"processor time of {what}", f"{each[1] / each[0]:.3f} ({each[0]:.0f} µs)"),
    ]


def measure() -> list[Row]:
    return [*against_whitenoise("sync"), *against_whitenoise("gthread"), *beside_files("sync")]


if __name__ == "__main__":
    print_rows(measure())
