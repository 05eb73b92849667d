"""Sites that do what no site should: the process stays whole, or ends with a reason."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.processes import is_running

from .harness import ENVIRON, WITHIN, Backend, backend, envelope, hand_over, receive_all, spec

BAD = """
import os, signal, sys, threading, time

def application(environ, start_response):
    path = environ["PATH_INFO"].strip("/")
    if path in globals():
        answer = globals()[path](environ, start_response)
        if answer is not None:
            return answer
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

def forks(environ, start_response):
    if os.fork() == 0:
        print("in the child", file=sys.stderr)

def forks_and_exits(environ, start_response):
    if os.fork() == 0:
        sys.exit(0)

def forks_and_raises(environ, start_response):
    if os.fork() == 0:
        raise RuntimeError("of the child")

def forks_later(environ, start_response):
    start_response("200 OK", [])
    def body():
        yield b"one "
        os.fork()
        yield b"two"
    return body()

def forks_well(environ, start_response):
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        body = repr(pool.map(abs, [-1, -2])).encode()
    start_response("200 OK", [])
    return [body]

def handles(environ, start_response):
    signal.signal(signal.SIGTERM, lambda number, frame: print("handled by the site", file=sys.stderr))

def closes_all(environ, start_response):
    os.closerange(3, 200)

def closes_listener(environ, start_response):
    os.close(3)

def replaces_listener(environ, start_response):
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 3)

def closes_its_own(environ, start_response):
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink("/proc/self/fd/" + name)
        except OSError:
            continue
        if link.startswith("socket:") and int(name) > 3:
            os.close(int(name))

def loses_stderr(environ, start_response):
    sys.stdout = sys.stderr = None

def closes_stderr(environ, start_response):
    sys.stderr.close()

def odd_stderr(environ, start_response):
    sys.stderr = object()

def breaks(environ, start_response):
    raise RuntimeError("no luck")

def leaves(environ, start_response):
    os._exit(7)

def hangs(environ, start_response):
    threading.Event().wait()
"""


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def no_child_serves(site: Backend) -> None:
    """Requests are answered by one process, and counted once."""
    before = site.wait_for(in_flight=0).requests
    for _ in range(20):
        assert site.ask("/").body == site.http("/").body == b"ok"
    assert site.wait_for(in_flight=0).requests == before + 40
    deadline = time.monotonic() + WITHIN
    while any(is_running(int(pid)) for pid in children(site.process.pid)):
        assert time.monotonic() < deadline, "a child goes on"
        time.sleep(0.01)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("path", ["/forks", "/forks_and_exits", "/forks_and_raises"])
def test_a_child_that_comes_back(tmp_path: Path, path: str, threads: int) -> None:
    """It answers nothing, counts nothing and goes on to nothing; the parent does all of it."""
    with backend(tmp_path, BAD, threads=threads) as site:
        for answer in (site.ask(path), site.http(path), site.http(path, **{"X-Odd!": "gunicorn reads this"})):
            assert (answer.status, answer.body) == (200, b"ok")
            assert answer.raw.count(b"HTTP/1.1 ") == 1
        assert site.record().requests == 3
        no_child_serves(site)
        assert "of the child" not in site.log and "SystemExit" not in site.log


def test_a_child_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    """What it would add is not sent."""
    with backend(tmp_path, BAD) as site:
        for answer in (site.ask("/forks_later"), site.http("/forks_later")):
            assert answer.body == b"one two"
        no_child_serves(site)


@pytest.mark.parametrize("threads", [1, 3])
def test_children_that_know_what_they_do(tmp_path: Path, threads: int) -> None:
    """multiprocessing works: a child that is told to end does so, and nobody else."""
    with backend(tmp_path, BAD, threads=threads) as site:
        for _ in range(5):
            assert site.ask("/forks_well").body == site.http("/forks_well").body == b"[1, 2]"
        no_child_serves(site)
        assert site.process.poll() is None and "STOPPING=1" not in "".join(site.told)
        ticks = Path(f"/proc/{site.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        assert sum(map(int, ticks)) < 300  # a pipe of ours that a child has written to would keep it spinning
        assert site.terminate() == 0


ASGI = """
import asyncio, os, sys

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/forks":
        if os.fork() == 0:
            await asyncio.sleep(0)
    elif scope["path"] == "/raises":
        if os.fork() == 0:
            raise RuntimeError("of the child")
    elif scope["path"] == "/closes":
        os.closerange(3, 200)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize("path", ["/forks", "/raises"])
def test_a_child_of_an_event_loop(tmp_path: Path, path: str) -> None:
    """It takes no events out of the parent's hands."""
    with backend(tmp_path, ASGI, spec=spec("app", "app")) as site:
        for answer in (site.ask(path), site.http(path)):
            assert (answer.status, answer.body) == (200, b"ok")
        no_child_serves(site)
        assert site.terminate() == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_a_sigterm_handler_of_the_site(tmp_path: Path, threads: int) -> None:
    """It runs; the process ends all the same, and well."""
    code = BAD.replace("def handles(environ, start_response):", "def handles(*args):\n  if 1:")
    with backend(tmp_path, code + "\nhandles()\n", threads=threads) as site:
        if threads == 1:  # elsewhere Python refuses to set one
            assert site.ask("/handles").body == b"ok"
        assert site.terminate() == 0
        assert ("handled by the site" in site.log) is (threads == 1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("path", ["/closes_all", "/closes_listener", "/replaces_listener"])
def test_descriptors_that_are_not_the_sites(tmp_path: Path, path: str, threads: int) -> None:
    """The process says why and leaves; it is never deaf. Who waits is answered by the next one."""
    with backend(tmp_path, BAD, threads=threads) as site:
        with site.connect() as client:
            client.sendall(envelope({**ENVIRON, "PATH_INFO": path}))
            receive_all(client)
        if site.process.poll() is None:  # a thread may still be accepting
            with site.connect() as client:
                client.sendall(envelope(ENVIRON))
                assert site.exit() == 5
                assert "closed or replaced descriptors" in site.log
                site.process = site._start(sys.executable, tmp_path)
                assert receive_all(client).endswith(b"ok")
        assert "closed or replaced descriptors" in site.log


def test_a_connection_that_the_site_closed(tmp_path: Path) -> None:
    """It costs that request."""
    with backend(tmp_path, BAD) as site:
        with site.connect() as client:
            client.sendall(envelope({**ENVIRON, "PATH_INFO": "/closes_its_own"}))
            assert receive_all(client) == b""
        no_child_serves(site)


@pytest.mark.parametrize("how", ["os.closerange(3, 200)", "os.dup2(os.open('/dev/null', os.O_RDONLY), 3)"])
def test_an_import_that_closes_everything(tmp_path: Path, how: str) -> None:
    """It is told as a reason, not as an error in code of ours."""
    with backend(tmp_path, f"import os\n{how}\ndef application(*args): ...", wait=False) as site:
        assert site.exit() == 3
        assert "its import closes or replaces descriptors" in site.log and "Traceback" not in site.log


def test_an_event_loop_without_descriptors(tmp_path: Path) -> None:
    """It ends rather than spins."""
    with backend(tmp_path, ASGI, spec=spec("app", "app"), request_timeout=5.0) as site:
        with site.connect() as client:
            client.sendall(envelope({**ENVIRON, "RAW_URI": "/closes"}))
            assert site.exit() != 0


@pytest.mark.parametrize("path", ["/loses_stderr", "/closes_stderr", "/odd_stderr"])
def test_a_site_that_spoils_its_streams(tmp_path: Path, path: str) -> None:
    """Its errors are still in its log, and its requests answered."""
    with backend(tmp_path, BAD, request_timeout=2.0) as site:
        assert site.ask(path).status == 200
        assert site.ask("/breaks").status == site.http("/breaks").status == 500
        assert site.log.count("RuntimeError: no luck") == 2
        no_child_serves(site)
        with site.connect() as client:
            client.sendall(envelope({**ENVIRON, "PATH_INFO": "/hangs"}))
            assert site.exit() == 4
        assert "in hangs" in site.log


def test_streams_that_were_spoilt_at_import(tmp_path: Path) -> None:
    """wsgi.errors is there all the same."""
    code = """
    import sys
    sys.stdout = sys.stderr = None
    def application(environ, start_response):
        print("noted", file=environ["wsgi.errors"])
        start_response("200 OK", [])
        return [b"ok"]
    """
    with backend(tmp_path, code) as site:
        assert site.ask().body == b"ok"
        assert site.log == "noted\n"


def test_a_log_that_nobody_reads_any_more(tmp_path: Path) -> None:
    """With descriptors 1 and 2 gone, the site is served."""
    code = BAD + "\nos.close(1), os.close(2)\n"
    with backend(tmp_path, code) as site:
        assert site.ask("/breaks").status == 500
        no_child_serves(site)


def test_a_site_that_leaves_in_a_request(tmp_path: Path) -> None:
    """The visitor sees a broken connection, and who waits is answered by the next process."""
    with backend(tmp_path, BAD) as site, site.connect() as leaver, site.connect() as waiting:
        leaver.sendall(envelope({**ENVIRON, "PATH_INFO": "/leaves"}))
        assert receive_all(leaver) == b""
        assert site.exit() == 7
        waiting.close()
        with site.connect() as client:
            client.sendall(envelope(ENVIRON))
            site.process = site._start(sys.executable, tmp_path)
            assert receive_all(client).endswith(b"ok")


def test_a_patched_standard_library(tmp_path: Path) -> None:
    """A site that gevent has patched is served as under gunicorn's sync worker, and still watched."""
    pytest.importorskip("gevent")
    patched = "import gevent.monkey; gevent.monkey.patch_all()\n"
    code = patched + BAD.replace("threading.Event().wait()", "time.sleep(99)")
    with backend(tmp_path, code, request_timeout=3.0, threads=4) as site:
        for answer in (site.ask(), site.http(), site.http("/", **{"X-Odd!": "x"}), site.http("/", "POST", b"x" * 9999)):
            assert (answer.status, answer.body) == (200, b"ok")
        with site.connect() as client:
            client.sendall(envelope({**ENVIRON, "PATH_INFO": "/hangs"}))
            assert site.exit() == 4
        assert "no progress for 3 s with GET site.test/" in site.log


PATCHED = """
from gevent import monkey
monkey.patch_all()
import time, gevent

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/mail":
        gevent.spawn(mail)
    if path == "/read":
        gevent.spawn(mail)
        environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"x" * (8 << 20) if path == "/large" else b"ok"]

def mail():
    for _ in range(3):
        time.sleep(0.02)
    open("sent", "w").close()
"""


@pytest.mark.parametrize("worker", ["auto", "sync"])
def test_greenlets_run_while_a_process_waits_for_its_next_request(tmp_path: Path, worker: str) -> None:
    """As under gunicorn's sync worker, whose select is patched with everything else; SIGTERM ends the wait."""
    pytest.importorskip("gevent")
    with backend(tmp_path, PATCHED, worker=worker, threads=1) as site:
        assert site.ask("/mail").body == b"ok"
        _wait_for_file(tmp_path / "sent")
        assert site.ask().body == b"ok"
        assert site.terminate() == 0


def test_greenlets_run_while_the_client_is_waited_for(tmp_path: Path) -> None:
    """One that sends its body late, or takes its answer late; a bound on that holds as before."""
    pytest.importorskip("gevent")
    with backend(tmp_path, PATCHED) as site, site.connect() as client:
        asked = {**ENVIRON, "REQUEST_METHOD": "POST", "PATH_INFO": "/read", "CONTENT_LENGTH": "4"}
        client.sendall(envelope(asked))
        _wait_for_file(tmp_path / "sent")
        client.sendall(b"body")
        assert b"ok" in receive_all(client)
        with site.connect() as late:
            late.sendall(envelope({**ENVIRON, "PATH_INFO": "/large"}))
            site.wait_for(in_flight=1)
            assert receive_all(late).count(b"x") >= 8 << 20
    with backend(tmp_path / "slow", PATCHED, request_timeout=3.0) as site, site.connect() as client:
        client.sendall(envelope({**ENVIRON, "PATH_INFO": "/large"}))
        site.wait_for(in_flight=1)
        site.wait_for(in_flight=0)
        assert site.ask().body == b"ok"


def _wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + WITHIN
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_children_of_handed_over_clients(tmp_path: Path) -> None:
    """A child that comes back does not answer the client either."""
    import socket

    with backend(tmp_path, BAD) as site:
        client, ours = socket.socketpair()
        with client, ours:
            client.settimeout(WITHIN)
            hand_over(site, {**ENVIRON, "PATH_INFO": "/forks"}, ours)
            data = receive_all(client)
            assert data.count(b"HTTP/1.1 200 OK") == 1 and data.endswith(b"ok")
