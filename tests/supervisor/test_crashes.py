"""A process that ends while it serves: what that costs, what keeps running, and what counts against the site."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .harness import SupervisedHome, ask, supervised, wait_until

APP = """
import os, signal, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/die":
        signal.raise_signal(signal.SIGSEGV)
    if path.startswith("/until/"):
        while not os.path.exists(path[6:]):
            time.sleep(0.01)
    if path.startswith("/die-after/"):
        while not os.path.exists(path[10:]):
            time.sleep(0.01)
        os._exit(9)
    if path == "/exit":
        os._exit(0)
    start_response("500 Oh" if path == "/bad" else "200 OK", [])
    return [str(os.getpid()).encode()]
"""
ASGI = """
import os, signal

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("http only")
    if scope["path"] == "/die":
        signal.raise_signal(signal.SIGSEGV)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""
SITES = ("sync", "threads", "asgi", "several")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupervisedHome]:
    with supervised(tmp_path_factory.mktemp("home")) as made:
        made.app("sync", APP)
        made.app("threads", APP, threads="4")
        made.app("asgi", ASGI, application="asgi:app:app")
        made.app("several", APP, processes="2")
        yield made


def answered(home: SupervisedHome, name: str) -> str:
    """Ask a site; returns what it answers, once that is counted."""
    body = home.get(name)
    wait_until(lambda: home.state(name)["in_flight"] == 0)
    return body


def die(path: str, target: str = "/die") -> None:
    with pytest.raises(OSError):
        ask(path, target)


@pytest.mark.parametrize("name", SITES)
def test_a_page_that_crashes_costs_its_request_however_often(home: SupervisedHome, name: str) -> None:
    """Nobody else gets an error, the site is neither held back nor given up, and one line tells of each crash."""
    path = home.ensure(name)
    answered(home, name)
    for _ in range(8):
        die(path)
        answered(home, name)
        state = home.state(name)
        assert state["state"] not in ("backoff", "fatal")
    assert home.state(name)["starts"] >= 8


def test_a_page_that_crashes_is_hammered_and_the_others_are_answered(home: SupervisedHome) -> None:
    """Three of four requests end their process, so that many processes in a row answer nobody."""
    path = home.ensure("sync")
    assert answered(home, "sync")
    with ThreadPoolExecutor(4) as pool:
        crashes = [pool.submit(die, path) for _ in range(18)]
        answers = [pool.submit(ask, path) for _ in range(6)]
        assert all(answer.result() for answer in answers)
        assert [crash.result() for crash in crashes] == [None] * 18
    assert home.state("sync")["state"] not in ("backoff", "fatal")


def test_an_answer_of_500_is_one(home: SupervisedHome) -> None:
    """A site that answers with errors has started."""
    home.app("bad", APP)
    path = home.ensure("bad")
    for _ in range(4):
        with pytest.raises(OSError):
            ask(path, "/bad")
        die(path)
    assert home.state("bad")["state"] not in ("backoff", "fatal")
    assert ask(path)


def test_a_server_that_does_not_count_has_answered_when_it_has_lasted(home: SupervisedHome) -> None:
    home.site("foreign")
    path = home.ensure("foreign")
    for _ in range(7):
        assert ask(path)
        time.sleep(0.6)  # at least; a longer life is no other case
        die(path)
    assert ask(path)


def test_what_never_answers_is_held_back(home: SupervisedHome) -> None:
    """Waiting requests learn of it at once, and a file that changes lets it start again."""
    home.app("hopeless", APP.replace('path == "/die"', "not os.path.exists('mended')"))
    path = home.ensure("hopeless")
    die(path, "/")
    die(path, "/")
    assert home.failed("hopeless")["failure"]["failure"].endswith("killed by SIGSEGV while serving")
    (home.path / "sites" / "hopeless" / "mended").touch()
    home.client.ask({"do": "restart", "site": "hopeless"})
    assert home.get("hopeless")


def test_a_site_that_was_proven_is_not_when_it_is_another(home: SupervisedHome) -> None:
    """After a change its own processes have to show that they can serve."""
    home.app("changing", APP)
    assert home.get("changing")
    die(home.ensure("changing"))
    assert home.get("changing")
    folder = home.app("changing", APP.replace('path == "/die"', "True"))
    (folder / "tmp").mkdir()
    home.client.ask({"do": "stop", "site": "changing"})
    home.wait_for("changing", "stopped")
    home.client.ask({"do": "restart", "site": "changing"})
    path = home.ensure("changing")
    die(path, "/")
    die(path, "/")
    home.failed("changing")


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_after_max_requests_another_one_serves_while_the_last_request_goes_on(
    home: SupervisedHome, tmp_path: Path, kind: str
) -> None:
    """A slow last request, or what an application does after its answer, keeps nobody waiting."""
    name, gate = f"limited-{kind}", tmp_path / "gate"
    code = APP
    if kind == "asgi":
        code = (
            "import asyncio\n"
            + ASGI
            + f"""
    while scope["path"] == "/work" and not os.path.exists({str(gate)!r}):
        await asyncio.sleep(0.01)
"""
        )
    home.app(name, code, max_requests="2", application="asgi:app:app" if kind == "asgi" else "app:application")
    path = home.ensure(name)
    with ThreadPoolExecutor(1) as pool:
        if kind == "wsgi":
            first = ask(path)
            slow = pool.submit(ask, path, f"/until{gate}")
            wait_until(lambda: home.state(name)["in_flight"])
        else:
            slow = pool.submit(ask, path, "/work")
            first = slow.result()
            assert [ask(path), ask(path)] == [first, first]  # its call has not ended, so it is not counted yet
        assert ask(path) != first
        state = home.state(name)
        assert int(first) in state["pids"] and state["in_flight"] == 1
        gate.touch()
        assert slow.result() == first
    wait_until(lambda: int(first) not in home.state(name)["pids"])
    assert home.state(name)["failure"] is None


@pytest.mark.parametrize("key", ["max_requests", "always_restart"])
def test_what_a_site_ends_itself_is_not_planned_whatever_it_may_leave_after(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], key: str
) -> None:
    """An exit status of 0 says nothing: the runner says it before, when it leaves after its `max_requests`."""
    with supervised(tmp_path) as home:
        folder = home.app("leaver", APP, **({"max_requests": "100"} if key == "max_requests" else {}))
        if key == "always_restart":
            (folder / "tmp").mkdir()
            (folder / "tmp" / "always_restart.txt").touch()
        path = home.ensure("leaver")
        first = answered(home, "leaver")
        if key == "always_restart":
            wait_until(lambda: not home.state("leaver")["pids"])
            assert home.state("leaver")["failure"] is None
        die(path, "/exit")
        wait_until(lambda: "exited with code 0 while serving" in capfd.readouterr().err)
        assert ask(path) != first
        assert home.state("leaver")["state"] not in ("backoff", "fatal")


def test_who_may_not_leave_does_not_by_saying_so(home: SupervisedHome) -> None:
    """Without `max_requests` no process is replaced for what it says of itself."""
    home.app(
        "says",
        "import os\nos.write(5, b'STOPPING=1\\nRECYCLES=1\\n\\n')\n"
        + APP.replace(
            'if path == "/exit":',
            "if path == '/leave':\n        os.write(5, b'RECYCLES=1\\n\\nX=1\\n\\n')\n    if path == '/exit':",
        ),
    )
    path = home.ensure("says")
    first = answered(home, "says")
    assert ask(path, "/leave") == first
    assert ask(path) == first
    assert home.state("says")["starts"] == 1


def test_max_requests_ends_within_drain_timeout(home: SupervisedHome) -> None:
    """What the last request is about does not keep a process for ever."""
    home.app("endless", APP, max_requests="1", drain_timeout="0.3", stop_timeout="0.3")
    path = home.ensure("endless")
    thread = threading.Thread(target=die, args=(path, "/until/never"))
    thread.start()
    thread.join()
    assert ask(path)


def test_a_crash_of_what_is_about_to_end_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A restart does not hide it."""
    with supervised(tmp_path) as home:
        home.app("leaving", APP)
        path = home.ensure("leaving")
        first = ask(path)
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(die, path, f"/die-after{tmp_path}/gate")
            wait_until(lambda: home.state("leaving")["in_flight"])
            home.client.ask({"do": "restart", "site": "leaving"})
            wait_until(lambda: ask(path) != first)
            (tmp_path / "gate").touch()
            lost.result()
        wait_until(lambda: int(first) not in home.state("leaving")["pids"])
        assert home.state("leaving")["failure"] is None
        assert "exited with code 9 while serving" in capfd.readouterr().err
