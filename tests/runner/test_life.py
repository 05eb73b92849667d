"""How a backend starts and ends: what it tells, what it prints, and its exit status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from .harness import ENVIRON, QUEUE, SCRIPT, WITHIN, Backend, backend, envelope, receive_all, spec

WAITING = """
import os, re, sys, threading, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        print("waiting", file=sys.stderr)
        open("gate").read()
    elif path == "/hang":
        hang_here()
    elif path == "/hold":
        re.match(r"(a+)+$", "a" * 60 + "b")
    elif path == "/slowly":
        return slowly(start_response)
    elif path == "/drip":
        return drip(start_response)
    elif path == "/close":
        start_response("200 OK", [("Content-Length", "2")])
        return Closing([b"ok"])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

class Closing(list):
    def close(self):
        print("waiting", file=sys.stderr)
        open("gate").read()
        print("done", file=sys.stderr)

def hang_here():
    threading.Event().wait()

def slowly(start_response):
    start_response("200 OK", [])
    for _ in range(16):
        time.sleep(0.2)
        yield b"x"

def drip(start_response):
    start_response("200 OK", [])
    while not os.path.exists("enough"):
        time.sleep(0.05)
        yield b"x"
"""


def ask_later(site: Backend, path: str) -> socket.socket:
    """A request whose answer is read some time."""
    client = site.connect()
    client.sendall(envelope({**ENVIRON, "PATH_INFO": path, "RAW_URI": path}))
    return client


def wait_for_log(site: Backend, text: str) -> None:
    """Until the log has it."""
    subprocess.run(["timeout", str(WITHIN), "sh", "-c", f"until grep -q '{text}' log; do sleep 0.01; done"],
                   cwd=site.job["location"], check=True)  # fmt: skip


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def test_it_tells_that_it_is_ready(tmp_path: Path) -> None:
    """After loading, and once."""
    with backend(tmp_path, WAITING) as site:
        assert [notice.split("\n")[0] for notice in site.told] == ["STATUS=loading", "READY=1"]


@pytest.mark.parametrize("threads", [1, 3])
def test_terminated_it_finishes_what_is_in_flight(tmp_path: Path, gate: Path, threads: int) -> None:
    """SIGTERM: it says that it stops, answers the request, and exits with 0."""
    with backend(tmp_path, WAITING, threads=threads) as site:
        first = ask_later(site, "/wait")
        wait_for_log(site, "waiting")
        site.process.send_signal(signal.SIGTERM)
        assert site.notice().startswith("STOPPING=1")
        gate.write_text("open")
        assert receive_all(first).endswith(b"ok")
        assert site.exit() == 0
        assert site.record().in_flight == 0
        assert site.notice() == "LEAVES=1"


@pytest.mark.parametrize("ending", ["asked to end", "after so many requests"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bodys_close_is_in_flight(tmp_path: Path, gate: Path, threads: int, ending: str) -> None:
    """It is waited for although the client has its answer and has left."""
    with backend(tmp_path, WAITING, threads=threads, max_requests=1 if "many" in ending else 0) as site:
        with ask_later(site, "/close") as client:
            assert b"\r\n\r\n" in client.recv(65536)
        wait_for_log(site, "waiting")
        if not site.job["max_requests"]:
            site.process.send_signal(signal.SIGTERM)
        assert site.notice().startswith("STOPPING=1")
        assert site.record().in_flight == 1
        gate.write_text("open")
        assert site.exit() == 0
        assert site.record().in_flight == 0 and "done" in site.log
        assert site.notice() == "LEAVES=1"


def test_what_is_queued_is_left_to_the_next_process(tmp_path: Path, gate: Path) -> None:
    """No request is lost when one process follows another on the socket."""
    with backend(tmp_path, WAITING) as site:
        first = ask_later(site, "/wait")
        wait_for_log(site, "waiting")
        second = ask_later(site, "/")
        site.process.send_signal(signal.SIGTERM)
        gate.write_text("open")
        assert site.exit() == 0
        site.process = site._start(sys.executable, tmp_path)
        assert receive_all(first).endswith(b"ok") and receive_all(second).endswith(b"ok")
        record = site.wait_for(in_flight=0, requests=2)
        assert record.starts == 2


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]])
def test_at_once_means_at_once(tmp_path: Path, gate: Path, signals: list[signal.Signals]) -> None:
    """SIGQUIT, SIGINT and a second SIGTERM wait for nothing."""
    with backend(tmp_path, WAITING, threads=2) as site:
        client = ask_later(site, "/wait")
        wait_for_log(site, "waiting")
        for number in signals[:-1]:
            site.process.send_signal(number)
            assert site.notice().startswith("STOPPING=1")
        site.process.send_signal(signals[-1])
        assert site.exit() == 0
        assert receive_all(client) == b""


def test_a_thread_of_the_site_does_not_keep_it(tmp_path: Path) -> None:
    """A site's own thread that never ends delays the exit, and does not prevent it."""
    code = WAITING + "\nthreading.Thread(target=hang_here).start()\n"
    with backend(tmp_path, code) as site:
        assert site.terminate() == 0


def test_exit_handlers_of_the_site_run(tmp_path: Path) -> None:
    """A graceful end is Python's own."""
    code = WAITING + "\nimport atexit; atexit.register(print, 'goodbye', flush=True)\n"
    with backend(tmp_path, code) as site:
        assert site.terminate() == 0
        assert "goodbye" in site.log


@pytest.mark.parametrize("threads", [1, 4])
def test_it_leaves_after_so_many_requests(tmp_path: Path, threads: int) -> None:
    """Exactly so many are answered, then the status is 0."""
    with backend(tmp_path, WAITING, max_requests=20, threads=threads) as site:
        for _ in range(20):
            assert site.ask("/").body == b"ok"
        assert site.exit() == 0
        assert site.record().requests == 20


def test_jitter_spreads_the_ends(tmp_path: Path) -> None:
    """Up to so many requests more, and never fewer."""
    from multisite.runner.job import _with_jitter

    drawn = {_with_jitter(10, 3) for _ in range(300)}
    assert drawn == {10, 11, 12, 13}
    assert (_with_jitter(0, 5), _with_jitter(7, 0)) == (0, 7)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_hung_request_is_shown_and_ended(tmp_path: Path, threads: int) -> None:
    """Its Python stack is in the log, with the request; the status is 4."""
    with backend(tmp_path, WAITING, request_timeout=1.0, threads=threads) as site:
        client = ask_later(site, "/hang")
        assert site.exit() == 4
        assert "no progress for 1 s with GET site.test/hang" in site.log
        assert "in hang_here" in site.log
        assert receive_all(client) == b""
        assert "STOPPING=1\nSTATUS=no progress" in site.notice()


def test_others_finish_while_one_hangs(tmp_path: Path) -> None:
    """A process that is about to leave because of one request answers those that go on."""
    with backend(tmp_path, WAITING, request_timeout=2.0, threads=4) as site:
        other = ask_later(site, "/drip")
        hung = ask_later(site, "/hang")
        assert site.notice().startswith("STOPPING=1")
        (tmp_path / "enough").touch()
        assert receive_all(other).endswith(b"0\r\n\r\n")
        assert site.exit() == 4
        hung.close()


def test_code_that_holds_the_interpreter_is_shown_too(tmp_path: Path) -> None:
    """Where no thread of Python runs any more, the stack is printed all the same."""
    with backend(tmp_path, WAITING, request_timeout=1.0) as site:
        held = ask_later(site, "/hold")
        assert site.exit() == 1
        assert "in application" in site.log
        held.close()


def test_a_long_answer_is_no_hang(tmp_path: Path) -> None:
    """The timeout bounds the time without progress, and not that of a download."""
    with backend(tmp_path, WAITING, request_timeout=2.0) as site:
        assert site.ask("/slowly").body == b"x" * 16
        assert site.process.poll() is None


def test_a_slow_client_is_not_the_sites_fault(tmp_path: Path) -> None:
    """A peer that sends or takes nothing costs its connection, and not the process."""
    code = """
    def application(environ, start_response):
        body = environ["wsgi.input"].read() or b"x" * 10_000_000
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    """
    with backend(tmp_path, code, request_timeout=1.5, threads=2) as site:
        upload = site.connect()
        upload.sendall(envelope({**ENVIRON, "REQUEST_METHOD": "POST", "CONTENT_LENGTH": "10"}, b"half"))
        download = site.connect()
        download.sendall(envelope(ENVIRON))
        site.wait_for(requests=2, in_flight=0)
        assert receive_all(upload) == b""
        assert len(receive_all(download)) < 10_000_000
        assert site.process.poll() is None
        assert site.log == ""


FAILURES = {
    "raises": ("raise RuntimeError('no database')", "RuntimeError: no database"),
    "syntax": ("def x(:", "SyntaxError: "),
    "exits": ("import sys; sys.exit('missing key')", "SystemExit: missing key"),
    "needs": ("import nothing_of_that_name", "it needs the module 'nothing_of_that_name'"),
    "has none": ("x = 1", "app has no 'application'"),
    "not callable": ("application = 3", "which cannot be called"),
    "holds on": ("import threading; threading.Thread(target=threading.Event().wait).start(); 1/0", "ZeroDivisionError"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_app_that_cannot_be_loaded(tmp_path: Path, failure: str) -> None:
    """The traceback is printed, its last line told, and the status is 3."""
    code, reason = FAILURES[failure]
    with backend(tmp_path, code, wait=False) as site:
        assert site.exit() == 3
        assert reason in site.log
        assert site.notice() == "STATUS=loading"
        assert reason in site.notice()
        assert "_multisite_runner" not in site.log and "/runner/" not in site.log


def test_an_unknown_module_says_so(tmp_path: Path) -> None:
    """With the name, and no frames of ours."""
    with backend(tmp_path, wait=False, spec=spec("missing.wsgi")) as site:
        assert site.exit() == 3
        assert "No module named 'missing'" in site.log
        assert "/runner/" not in site.log


def test_it_is_not_started_by_hand(tmp_path: Path) -> None:
    """Without a socket it says who starts it."""
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "LISTEN_FDS" in done.stderr and "Traceback" not in done.stderr


def test_a_job_for_another_process_is_refused(tmp_path: Path) -> None:
    """LISTEN_PID is that of the process it was meant for."""
    environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": "1", "MULTISITE_JOB": "0"}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_two_requests_at_once(tmp_path: Path, gate: Path) -> None:
    """With threads, one that waits keeps no other from being answered."""
    with backend(tmp_path, WAITING, threads=2) as site:
        waiting = ask_later(site, "/wait")
        wait_for_log(site, "waiting")
        assert site.record().in_flight == 1
        assert [site.ask("/").body for _ in range(5)] == [b"ok"] * 5
        gate.write_text("open")
        assert receive_all(waiting).endswith(b"ok")


def test_many_at_once_are_all_answered(tmp_path: Path) -> None:
    """More connections than threads wait in the kernel, and each is answered once."""
    with backend(tmp_path, WAITING, threads=4) as site:
        answers: list[bytes] = []

        def ask() -> None:
            for _ in range(50):
                answers.append(site.ask("/").body)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [b"ok"] * 800
        assert site.wait_for(in_flight=0).requests == 800


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_the_length_of_the_queue_is_the_supervisors(tmp_path: Path, kind: str) -> None:
    """As many requests may wait as the socket was made for, whoever serves it."""
    code = WAITING if kind == "wsgi" else "async def application(scope, receive, send): ..."
    with backend(tmp_path, code) as site:
        site.process.send_signal(signal.SIGSTOP)
        waiting = []
        with pytest.raises(BlockingIOError):
            while True:
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                waiting.append(client)
                client.connect(site.socket_path)
        assert len(waiting) - 1 >= QUEUE
        for client in waiting:
            client.close()


def test_no_descriptors_left(tmp_path: Path) -> None:
    """A process at its limit of descriptors waits, and answers when it can again."""
    code = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held = []

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/take":
            try:
                while True:
                    held.append(open("/dev/null"))
            except OSError:
                held.pop().close()
        start_response("200 OK", [("Content-Length", "0")])
        return []
    """
    with backend(tmp_path, code) as site:
        assert site.ask("/take").status == 200
        assert site.ask("/").status == 200


LEAVING = """
import sys, threading, time
sys.path.insert(0, {package!r})
from multisite.runner.hangs import Watchdog

class Request:
    def __init__(self, since):
        self.since = since

class Notifier:
    def hangs(self, why):
        print("says so", flush=True)

def stop():
    print("accepts no more", flush=True)
    del active[2]

active = {{1: Request(0.0), 2: Request(float("inf"))}}
Watchdog(30.0, active, stop, Notifier()).start()
threading.Event().wait()
"""


def test_who_leaves_accepts_no_more() -> None:
    """A process with a request that hangs takes no other one, and waits for those only that go on."""
    code = LEAVING.format(package=str(SCRIPT.parents[2]))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (run.returncode, run.stdout) == (4, "says so\naccepts no more\n"), run.stderr
