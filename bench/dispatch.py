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
from time import process_time_ns

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, Server, fill, free_port, median, middle, new_home, print_rows, wrk

ROUNDS = 301
CALLS = 1_000  # short blocks in processor time: what else runs on the machine falls out of the medians
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

    as_in_gunicorn()
    environ = {"HTTP_HOST": f"{site}.test", "PATH_INFO": "/", "SCRIPT_NAME": "", "REMOTE_ADDR": "127.0.0.1"}
    setup_testing_defaults(environ)

    class Response:
        """As gunicorn's: its start_response is a method, and it knows its status."""

        status = None

        def start_response(self, status, headers, exc_info=None):
            self.status = status

    def block(app) -> float:
        start = process_time_ns()
        for _ in range(CALLS):
            for _part in app(dict(environ), Response().start_response):
                pass
        return (process_time_ns() - start) / CALLS / 1000

    assert b"".join(application(dict(environ), Response().start_response)) == b"hello\n"
    block(bare), block(application)
    pairs = [(block(bare), block(application)) for _ in range(ROUNDS)]
    print(json.dumps({"bare": median(b for b, _ in pairs), "added": median(a - b for b, a in pairs)}))


def as_in_gunicorn() -> None:
    """Have this process taken for a gthread worker: the requests that a site has in it are counted."""
    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.workers.gthread import ThreadWorker

    from multisite.sites import server

    cfg = Config()
    cfg.set("threads", 8)
    server._worker = server.Worker(ThreadWorker(1, os.getppid(), [], None, 30, cfg, Logger(cfg)))


def hello_server(home: HomeDir, worker_class: str, application: str) -> Server:
    """One gunicorn worker, the same settings for either side."""
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", worker_class]
    argv += ["--workers", "1", "--no-control-socket", application]
    if worker_class == "gthread":  # which a sync worker that is given threads becomes
        argv += ["--threads", "4"]
    environ = home.environ()
    environ["PYTHONPATH"] += os.pathsep + str(home.path / "sites" / middle(1))
    name = application.partition(".")[0].partition(":")[0]
    return Server(argv, port, home.path / "log" / f"{worker_class}-{name}.log", environ)


def whole_server(worker_class: str) -> list[Row]:
    """Throughput and processor time over those of the bare application, each under a gunicorn of its own."""
    host = f"{middle(1)}.test"
    ratios, rates = [], []
    with new_home() as home:
        fill(home, 1)
        bare_server = hello_server(home, worker_class, f"hello_of_{middle(1)}:application")
        with bare_server as bare, hello_server(home, worker_class, "multisite.service:application") as ours:
            assert ours.ask(host).body == b"hello\n"
            used = {bare.port: [0.0, 0], ours.port: [0.0, 0]}  # seconds of processor time, requests
            for number in range(WHOLE_ROUNDS + 1):
                order = (bare, ours) if number % 2 else (ours, bare)
                rate = {server.port: ask_and_account(server, host, used[server.port]) for server in order}
                ratios.append(rate[ours.port] / rate[bare.port])
                rates.append(rate[bare.port])
    ratio = median(ratios[1:])  # the first round was for warming up
    each = {port: seconds / requests * 1e6 for port, (seconds, requests) in used.items()}
    figure = f"{ratio:.3f} ({min(ratios[1:]):.2f} to {max(ratios[1:]):.2f}; bare {median(rates):,.0f} requests/s)"
    processor = f"{each[ours.port] / each[bare.port]:.3f} (bare {each[bare.port]:.0f} µs)"
    return [
        Row(f"throughput over the bare application, gunicorn {worker_class}", figure, "≥ 0.99", ratio >= 0.99),
        Row(f"processor time a request over the bare application, gunicorn {worker_class}", processor),
    ]


def ask_and_account(server: Server, host: str, account: list[float], path: str = "/") -> float:
    """Requests per second of one round; its processor time and requests are added to `account`."""
    before = processor_seconds(server)
    load = wrk(server.port, host, WHOLE_SECONDS, path=path)
    account[0] += processor_seconds(server) - before
    account[1] += load.requests
    state = server.process.poll()
    assert not load.failures, f"{server.argv}: {load.report}\nexit status {state}\n{server.log()[-5000:]}"
    return load.per_second


def processor_seconds(server: Server) -> float:
    """What the workers of `server` used so far (proc(5): utime and stime)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in server.workers()]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def measure() -> list[Row]:
    return [added_cost(1), added_cost(10_000), *whole_server("sync"), *whole_server("gthread")]


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[-1])
    else:
        print_rows(measure())
