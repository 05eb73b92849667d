"""What a request costs more through multisite than in the bare application.

    python bench/dispatch.py

Targets: at most 0.5 µs a request, with one site and with 10,000; at least 0.99 of the throughput under the same
gunicorn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, Server, fill, free_port, median, middle, new_home, print_rows, wrk

ROUNDS = 41
CALLS = 5_000
WHOLE_ROUNDS = 8
WHOLE_SECONDS = 1


def added_cost(sites: int) -> Row:
    """Median microseconds a call, interleaved with the bare application in one fresh process."""
    with new_home() as home:
        fill(home, sites)
        argv = [sys.executable, __file__, "--child", middle(sites)]
        code = home.path / "sites" / middle(sites)
        environ = home.environ()
        environ["PYTHONPATH"] += os.pathsep + str(code)
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
    figures = json.loads(done.stdout)
    added = figures["added"]
    text = f"{added:.2f} µs (bare {figures['bare']:.2f} µs)"
    return Row(f"dispatch, added per request, {sites:,} site{'s' * (sites > 1)}", text, "≤ 0.5 µs", added <= 0.5)


def child(site: str) -> None:
    """Measure in this process and print the figures as JSON."""
    import importlib
    from wsgiref.util import setup_testing_defaults

    # Another copy of the same source: the site's own is imported by its loader.
    bare = importlib.import_module(f"hello_of_{site}").application
    del sys.modules[f"hello_of_{site}"]
    sys.path.remove(os.environ["PYTHONPATH"].rpartition(os.pathsep)[2])
    from multisite.service import application

    environ = {"HTTP_HOST": f"{site}.test", "PATH_INFO": "/", "SCRIPT_NAME": "", "REMOTE_ADDR": "127.0.0.1"}
    setup_testing_defaults(environ)

    def start_response(status, headers, exc_info=None):
        assert status == "200 OK"

    def block(app) -> float:
        start = perf_counter_ns()
        for _ in range(CALLS):
            for _part in app(dict(environ), start_response):
                pass
        return (perf_counter_ns() - start) / CALLS / 1000

    assert b"".join(application(dict(environ), start_response)) == b"hello\n"
    block(bare), block(application)
    pairs = [(block(bare), block(application)) for _ in range(ROUNDS)]
    print(json.dumps({"bare": median(b for b, _ in pairs), "added": median(a - b for b, a in pairs)}))


def hello_server(home: HomeDir, worker_class: str, application: str) -> Server:
    """One gunicorn worker, the same settings for either side."""
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", worker_class]
    argv += ["--workers", "1", "--threads", "4", "--no-control-socket", application]
    environ = home.environ()
    environ["PYTHONPATH"] += os.pathsep + str(home.path / "sites" / middle(1))
    name = application.partition(".")[0].partition(":")[0]
    return Server(argv, port, home.path / "log" / f"{worker_class}-{name}.log", environ)


def whole_server(worker_class: str) -> Row:
    """Throughput through multisite over that of the bare application, each under a gunicorn of its own."""
    host = f"{middle(1)}.test"
    ratios, rates = [], []
    with new_home() as home:
        fill(home, 1)
        bare_server = hello_server(home, worker_class, f"hello_of_{middle(1)}:application")
        with bare_server as bare, hello_server(home, worker_class, "multisite.service:application") as ours:
            assert ours.ask(host).body == b"hello\n"
            for server in (bare, ours):
                wrk(server.port, host, 1)
            for number in range(WHOLE_ROUNDS):
                order = (bare, ours) if number % 2 else (ours, bare)
                rate = {id(server): wrk(server.port, host, WHOLE_SECONDS).per_second for server in order}
                ratios.append(rate[id(ours)] / rate[id(bare)])
                rates.append(rate[id(bare)])
    ratio = median(ratios)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    figure = f"{ratio:.3f} ({spread}; bare {median(rates):,.0f} requests/s)"
    return Row(f"throughput over the bare application, gunicorn {worker_class}", figure, "≥ 0.99", ratio >= 0.99)


def measure() -> list[Row]:
    return [added_cost(1), added_cost(10_000), whole_server("sync"), whole_server("gthread")]


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[-1])
    else:
        print_rows(measure())
