"""A front end that goes straight to a site's socket, against the same front end before ``gunicorn -w1``.

    python bench/direct.py

nginx asks over unix sockets on both sides. Targets: at least 0.97 of the throughput, warm; and of cold requests with a
body, each to a site whose process was just stopped, none is lost and none run twice.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HELLO, HomeDir, Row, Server, free_port, median, new_home, print_rows, wrk

from tests.servers.harness import ask, eventually, find_program, gunicorn

FLASK = """\
import flask

application = flask.Flask(__name__)


@application.get("/")
def hello():
    return "hello\\n"
"""
DIGEST = """\
import hashlib
import os


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    digest = hashlib.sha256(body).hexdigest()
    with open("executed", "a") as file:
        file.write(digest + "\\n")
    start_response("200 OK", [("Content-Length", "64"), ("X-Pid", str(os.getpid()))])
    return [digest.encode()]
"""
NGINX = """\
user {user};
daemon off;
pid {root}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_max_body_size 0;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    {servers}
}}
"""
ROUNDS = 8
SECONDS = 1
COLD = 20


@contextlib.contextmanager
def nginx(root: Path, *upstreams: str) -> Iterator[list[int]]:
    """Ports of an nginx, one for each of `upstreams`."""
    program = find_program("nginx") or sys.exit("bench: nginx is missing (apt-get install nginx-light)")
    ports = [free_port() for _ in upstreams]
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; }} }}"
        for port, upstream in zip(ports, upstreams, strict=True)
    )
    root.mkdir(exist_ok=True)
    settings = root / "nginx.conf"
    settings.write_text(NGINX.format(root=root, user=getpass.getuser(), servers=servers))
    argv = [program, "-p", str(root), "-c", str(settings)]
    with Server(argv, ports[0], root / "log", dict(os.environ)):
        yield ports


@contextlib.contextmanager
def by_hand(home: HomeDir, name: str) -> Iterator[tuple[str, list[int]]]:
    """``gunicorn -w1`` for the site; its address and its processes."""
    path = home.path / f"{name}.sock"
    argv = [sys.executable, "-m", "gunicorn", "-w1", "--no-control-socket", "-b", f"unix:{path}"]
    process = subprocess.Popen(
        [*argv, f"{name}_app:application"], cwd=home.path / "sites" / name, stderr=subprocess.DEVNULL
    )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        eventually(lambda: path.exists() and children.read_text(), 20, "gunicorn serves")
        yield f"http://unix:{path}:", [process.pid, *map(int, children.read_text().split())]
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def site(home: HomeDir, name: str, code: str) -> Iterator[tuple[str, Server]]:
    """A spawned site that has been asked for once: the address of its own socket, and the server that we are behind."""
    home.site(name, code, mode="spawned")
    with gunicorn(home, "sync") as behind:
        assert behind.ask(f"{name}.test").status == 200, behind.log()
        yield f"http://unix:{home.runtime}/multisite/domains/{name}.test/http.sock:", behind


def processor_seconds(pids: list[int]) -> float:
    """What the processes have used so far (proc(5): utime and stime)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def pids_of(home: HomeDir) -> list[int]:
    """The backends of the home."""
    return list(home.processes(backends=True))


def warm(name: str, code: str) -> list[Row]:
    """Throughput and processor time, interleaved."""
    with (
        new_home() as home,
        site(home, name, code) as (straight, _),
        by_hand(home, name) as (hand, hand_pids),
        nginx(home.path / "nginx", hand, straight) as ports,
    ):
        pids = {ports[0]: hand_pids, ports[1]: pids_of(home)}
        rates, used = {port: [] for port in ports}, {port: [] for port in ports}
        for number in range(ROUNDS + 1):
            for port in ports if number % 2 else ports[::-1]:
                before = processor_seconds(pids[port])
                load = wrk(port, f"{name}.test", SECONDS)
                assert not load.failures, f"{load.failures} failed requests"
                if number:  # the first round was for warming up
                    rates[port].append(load.per_second)
                    used[port].append((processor_seconds(pids[port]) - before) / load.requests * 1e6)
    ratios = [ours / theirs for theirs, ours in zip(rates[ports[0]], rates[ports[1]], strict=True)]
    ratio, processor = median(ratios), [median(used[port]) for port in ports]
    figure = f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}; gunicorn {median(rates[ports[0]]):,.0f} requests/s)"
    return [
        Row(f"{name}, nginx straight to its socket over nginx and gunicorn", figure, "≥ 0.97", ratio >= 0.97),
        Row(f"{name}, processor time a request there", f"{processor[1]:.0f} µs, gunicorn {processor[0]:.0f} µs"),
    ]


def cold() -> Row:
    """Requests with bodies of one byte to five megabytes, each to a site that was just stopped."""
    with (
        new_home() as home,
        site(home, "digest", DIGEST) as (straight, _),
        nginx(home.path / "nginx", straight) as ports,
    ):
        executed = home.path / "sites" / "digest" / "executed"
        executed.unlink()
        took, right, wanted = [], 0, []
        for number in range(COLD):
            told = home.multisite("stop", "digest")
            assert not pids_of(home), told
            body = os.urandom(5 ** (number % 10) * 3)
            wanted.append(hashlib.sha256(body).hexdigest())
            began = time.monotonic()
            answer = ask(ports[0], "digest.test", method="POST", body=body)
            took.append((time.monotonic() - began) * 1000)
            right += answer.status == 200 and answer.text == wanted[-1]
        ran = shlex.split(executed.read_text())
    figure = f"{COLD - right} of {COLD}, {len(ran) - len(set(ran))} run twice; median {median(took):.0f} ms"
    return Row("cold POSTs straight to the socket that were lost", figure, "0", right == COLD and ran == wanted)


def measure() -> list[Row]:
    return [*warm("hello", HELLO), *warm("flask", FLASK), cold()]


if __name__ == "__main__":
    print_rows(measure())
