"""New versions of a site beside the one that serves: good ones take over, bad ones never answer anybody."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from multisite.logs import past
from tests.processes import is_running
from tests.supervisor.harness import SERVER, SupervisedHome, ask, wait_until

APP = """
import os, sys, time

VERSION = {version!r}
{early}

def application(environ, start_response):
    status = {health!r} if environ["PATH_INFO"] == "/health" else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    return [f"{{VERSION}} {{environ['HTTP_HOST']}} {{environ['SCRIPT_NAME']}}".encode()]
"""
ASGI = """
VERSION = {version!r}

async def application(scope, receive, send):
    assert scope["type"] == "http"
    status = {status} if scope["path"] == "/health" else 200
    await send({{"type": "http.response.start", "status": status, "headers": []}})
    await send({{"type": "http.response.body", "body": VERSION.encode()}})
"""
BROKEN = {
    "a syntax error": "def",
    "a module that is missing": "import there_is_no_such_module",
    "an exit": "sys.exit('bye')",
    "a hard exit": "os._exit(0)",
    "a start without end": "time.sleep(600)",
}

ENDLESS = "8s"  # until a start is taken for one without end: a good one may be slow where there is much else to do


def app(version: str, early: str = "", health: str = "200 OK") -> str:
    return APP.format(version=version, early=early, health=health)


def deploy(home: SupervisedHome, name: str = "blog") -> dict[str, Any]:
    """Restart a site; returns what became of it."""
    number = home.client.ask({"do": "restart", "site": name})["deploys"][name]
    found = wait_until(lambda: (d := last(home, name))["number"] >= number and d["state"] != "trying" and d)
    return dict(found)


def last(home: SupervisedHome, name: str = "blog") -> dict[str, Any]:
    """The last attempt of a site."""
    return dict(home.client.ask({"do": "deploys", "site": name})["deploys"][name])


class Load:
    """Requests without a pause, from two threads, and what they got."""

    def __init__(self, home: SupervisedHome) -> None:
        self.path = home.ensure("blog")
        self.versions: set[str] = set()
        self.failures: list[str] = []
        self.count = 0
        self._stop = threading.Event()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.versions.add(ask(self.path).split()[0])
                self.count += 1
            except OSError as error:
                self.failures.append(repr(error))

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def test_twenty_deploys_under_load_lose_no_request_and_serve_no_bad_version(home: SupervisedHome) -> None:
    """Half of them are broken, each in one of the ways there are."""
    folder = home.app("blog", app("good0"), smoke_path="/health", start_timeout=ENDLESS)
    home.get("blog")
    load = Load(home)
    ways = [*BROKEN.values(), *list(BROKEN.values())[:-1], ""]  # the one that takes its time, once
    with load.running():
        for number in range(1, 21):
            way = ways[number // 2] if number % 2 else ""
            health = "500 Oh" if number % 6 == 1 else "200 OK"
            (folder / "app.py").write_text(app(f"{'bad' if number % 2 else 'good'}{number}", way, health))
            outcome = deploy(home)
            assert outcome["state"] == ("failed" if number % 2 else "done"), (number, outcome)
        wait_until(lambda: ask(load.path).split()[0] == "good20")
    assert not load.failures
    assert load.count > 20
    assert load.versions <= {f"good{number}" for number in range(0, 21, 2)}


@pytest.mark.parametrize("way", BROKEN)
def test_everybody_is_told_why_the_old_version_goes_on(home: SupervisedHome, way: str) -> None:
    folder = home.app("blog", app("one"), start_timeout=ENDLESS)
    home.get("blog")
    (folder / "app.py").write_text(app("two", BROKEN[way]))
    outcome = deploy(home)
    assert outcome["state"] == "failed"
    assert home.state("blog")["replace_failure"] == outcome["failure"] != ""
    assert home.get("blog").startswith("one")


def test_starts_and_deploys_are_written_down_and_outlive_the_supervisor(home: SupervisedHome) -> None:
    folder = home.app("blog", app("one"), start_timeout=ENDLESS)
    home.get("blog")
    (folder / "app.py").write_text(app("two", BROKEN["an exit"]))
    failed = deploy(home)
    (folder / "app.py").write_text(app("two"))
    assert deploy(home)["state"] == "done"
    slow = app("three", "time.sleep(0)").replace("    status =", "    time.sleep(1.1)\n    status =", 1)
    (folder / "app.py").write_text(slow)
    deploy(home)
    home.get("blog", "/slow?card=1234")
    kept = wait_until(lambda: (p := past.read([home.home.state_dir], "blog")).slow and p)
    os.kill(home.pid, signal.SIGKILL)
    assert [(one["kind"], one["outcome"]) for one in kept.starts[::-1]] == [
        ("cold", "ready"),
        ("deploy", "failed"),
        ("deploy", "ready"),
        ("deploy", "ready"),
    ]
    assert all(one["steps"] and one["seconds"] > 0 and one["way"] for one in kept.starts)
    assert [one["outcome"] for one in kept.deploys[::-1]] == ["failed", "done", "done"]
    assert kept.deploys[-1]["failure"] == failed["failure"] == kept.starts[2]["failure"]
    assert kept.deploys[-1]["incident"] == kept.starts[2]["incident"] != ""
    assert [(one["method"], one["path"], one["status"]) for one in kept.slow] == [("GET", "/slow", 200)]
    assert kept.slow[0]["seconds"] == kept.slow[0]["split"]["app"] >= 1.1


def test_a_new_version_has_to_answer_the_smoke_request(home: SupervisedHome) -> None:
    """It is asked for the canonical domain, below the mount, and that is no request of anybody's."""
    where = home.path / "asked"
    code = f"    open({str(where)!r}, 'a').write(' '.join(map(environ.get, {('HTTP_HOST', 'SCRIPT_NAME')!r})) + '\\n')"
    folder = home.app("blog", app("one"), smoke_path="/health", mount="/api", domains="*.x.test, b.test")
    home.get("blog")
    (folder / "app.py").write_text(app("two", health="503 No") + "\n")
    outcome = deploy(home)
    assert outcome["failure"].endswith("the smoke request GET /api/health was answered with 503")
    assert home.get("blog").startswith("one")
    (folder / "app.py").write_text(app("three").replace("    status =", f"{code}\n    status =", 1))
    requests = home.state("blog")["requests"]
    assert deploy(home)["state"] == "done"
    assert where.read_text() == "b.test /api\n"
    assert home.state("blog")["requests"] == requests
    assert home.get("blog").startswith("three")


def test_an_application_that_raises_at_the_smoke_request_is_not_taken(home: SupervisedHome) -> None:
    folder = home.app("blog", app("one"), smoke_path="/health")
    home.get("blog")
    (folder / "app.py").write_text(app("two").replace("    status =", "    1/0\n    status ="))
    assert deploy(home)["state"] == "failed"
    assert any("ZeroDivisionError" in line for line in home.state("blog")["failure"]["output"])
    assert home.get("blog").startswith("one")


def test_a_smoke_request_without_an_answer_ends_with_start_timeout(home: SupervisedHome) -> None:
    folder = home.app("blog", app("one"), smoke_path="/health", start_timeout=ENDLESS)
    home.get("blog")
    (folder / "app.py").write_text(app("two").replace("    status =", "    time.sleep(600)\n    status ="))
    assert "GET /health is not answered" in deploy(home)["failure"]


def test_an_asgi_site_is_asked_too(home: SupervisedHome) -> None:
    code = ASGI.format(version="one", status=200)
    folder = home.app("blog", code, application="asgi:app:application", smoke_path="/health")
    assert home.get("blog") == "one"
    (folder / "app.py").write_text(ASGI.format(version="two", status=500))
    assert deploy(home)["failure"].endswith("GET /health was answered with 500")
    assert home.get("blog") == "one"
    (folder / "app.py").write_text(ASGI.format(version="three", status=404))
    assert deploy(home)["state"] == "done"
    wait_until(lambda: home.get("blog") == "three")


@pytest.mark.parametrize("how", ["on the socket", "behind the relay"])
def test_another_server_is_tried_on_a_socket_of_its_own(home: SupervisedHome, how: str) -> None:
    """What does not answer there never gets the site's."""
    server = SERVER.replace('f"{os.getpid()}', 'f"VERSION')
    if how == "behind the relay":
        server = server.replace('("", 0), Handler)', '("127.0.0.1", int(sys.argv[1])), Handler)')
        server = server.replace("self.socket = socket.socket(fileno=3)", "")
        server = server.replace("class Server", "class Other").split("if __name__")[0]
        server += "socketserver.ThreadingTCPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n"
    bad = server.replace("status = 200", "status = 500 if self.path == '/health' else 200")
    command = f"{sys.executable} srv.py" + (" %PORT" if how == "behind the relay" else "")
    folder = home.site("blog", server.replace("VERSION", "one"), command=command, smoke_path="/health")
    assert home.get("blog").startswith("one")
    (folder / "srv.py").write_text(bad.replace("VERSION", "two"))
    load = Load(home)
    with load.running():
        assert deploy(home)["failure"].endswith("GET /health was answered with 500")
        (folder / "srv.py").write_text(server.replace("VERSION", "three"))
        assert deploy(home)["state"] == "done"
    assert not load.failures
    assert load.versions <= {"one", "three"}
    wait_until(lambda: home.get("blog").startswith("three"))


def test_the_first_of_several_processes_is_tried_alone(home: SupervisedHome) -> None:
    folder = home.app("blog", app("one"), processes="3", smoke_path="/health")
    home.get("blog")
    wait_until(lambda: [one["state"] for one in home.state("blog")["backends"]] == ["running"] * 3)
    before = home.state("blog")
    (folder / "app.py").write_text(app("two", health="500 Oh"))
    assert deploy(home)["state"] == "failed"
    after = home.state("blog")
    assert after["pids"] == before["pids"]
    assert after["starts"] == before["starts"] + 1
    (folder / "app.py").write_text(app("three"))
    assert deploy(home)["state"] == "done"
    wait_until(lambda: len(home.state("blog")["pids"]) == 3)
    assert not set(home.state("blog")["pids"]) & set(before["pids"])


def test_a_newer_version_takes_the_place_of_one_that_does_not_come_up(home: SupervisedHome) -> None:
    folder = home.app("blog", app("one"), start_timeout="60s")
    home.get("blog")
    (folder / "app.py").write_text(app("two", "time.sleep(600)"))
    home.client.ask({"do": "restart", "site": "blog"})
    wait_until(lambda: len(home.state("blog")["pids"]) == 2)
    (folder / "app.py").write_text(app("three"))
    assert deploy(home)["state"] == "done"
    wait_until(lambda: len(home.state("blog")["pids"]) == 1)
    assert home.get("blog").startswith("three")


@pytest.mark.parametrize("early", ["", "import there_is_no_such_module"], ids=["good", "bad"])
def test_all_old_processes_end_at_once_while_the_new_version_starts(home: SupervisedHome, early: str) -> None:
    """Who asks then waits for the new version, and has the answer of that one, or why there is none."""
    folder, go = home.app("blog", app("one"), processes="3"), home.path / "go"
    path = home.ensure("blog")
    assert ask(path).startswith("one")
    old = wait_until(lambda: len(pids := running(home)) == 3 and pids)
    waits = f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    (folder / "app.py").write_text(app("two", waits + early))
    number = home.client.ask({"do": "restart", "site": "blog"})["deploys"]["blog"]
    wait_until(lambda: len(home.state("blog")["pids"]) == 4)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not {*home.state("blog")["pids"]} & {*old})
    with ThreadPoolExecutor() as pool:
        try:
            answers = [pool.submit(ask, path) for _ in range(6)]
            assert last(home)["state"] == "trying"
        finally:
            go.touch()
        if early:
            assert all(isinstance(answer.exception(), OSError) for answer in answers)
        else:
            assert {answer.result().split()[0] for answer in answers} == {"two"}
    ended = wait_until(lambda: (d := last(home))["state"] != "trying" and d)
    assert (ended["number"], ended["state"]) == (number, "failed" if early else "done")
    (folder / "app.py").write_text(app("three"))
    home.client.ask({"do": "restart", "site": "blog"})
    wait_until(lambda: home.get("blog").startswith("three"))
    new = wait_until(lambda: len(pids := running(home)) == 3 and pids)
    assert not {*new} & {*old}


def running(home: SupervisedHome) -> list[int]:
    """The processes that are ready."""
    return [one["pid"] for one in home.state("blog")["backends"] if one["state"] == "running"]


@pytest.mark.parametrize("how", ["ours", "silent"])
def test_an_old_version_that_is_still_starting_never_outlives_the_next(home: SupervisedHome, how: str) -> None:
    """Who waited for it has the answer of the new one, and nobody the old one's, even if it comes up after all."""
    begun, go = home.path / "begun", home.path / "go"
    waits = f"open({str(begun)!r}, 'w').close()\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"

    def write(version: str, early: str = "") -> None:
        if how == "ours":
            home.app("blog", app(version, early), start_timeout="60s")
        else:
            home.site("blog", f"import os, time\n{early}{SERVER}".replace("os.environ.get('GREETING', '')", version))

    write("'one'" if how == "silent" else "one", waits)
    path = home.ensure("blog")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, path)
        wait_until(begun.exists)  # it has read the code that is to be replaced
        (first,) = home.state("blog")["pids"]
        write("'two'" if how == "silent" else "two")
        home.client.ask({"do": "restart", "site": "blog"})
        assert "two" in answer.result()
    wait_until(lambda: len(pids := running(home)) == 1 and first not in pids)
    go.touch()
    wait_until(lambda: not is_running(first))
    assert len(home.state("blog")["pids"]) == 1
    assert "two" in home.get("blog")


def test_a_bad_version_does_not_go_live_when_the_old_process_ends(home: SupervisedHome) -> None:
    folder = home.app("blog", app("one"), smoke_path="/health")
    home.get("blog")
    (folder / "app.py").write_text(app("two", health="500 Oh"))
    assert deploy(home)["state"] == "failed"
    home.client.ask({"do": "stop", "site": "blog"})
    home.wait_for("blog", "stopped")
    path = home.rundir.socket("blog")
    with pytest.raises(OSError, match=r".*"):
        ask(path)
    assert "was answered with 500" in home.state("blog")["failure"]["failure"]
    (folder / "app.py").write_text(app("three"))
    home.client.ask({"do": "restart", "site": "blog"})
    assert home.get("blog").startswith("three")


def test_a_half_written_tree_is_taken_when_it_is_whole(home: SupervisedHome) -> None:
    """The trigger comes first, and the file that mends it causes the next attempt."""
    folder = home.app("blog", app("one"))
    home.get("blog")
    (folder / "app.py").write_text(app("two", "import there_is_no_such_module"))
    (folder / "tmp").mkdir()
    (folder / "tmp" / "restart.txt").touch()
    wait_until(lambda: last(home)["state"] == "failed")
    assert home.get("blog").startswith("one")
    (folder / "there_is_no_such_module.py").write_text("")
    wait_until(lambda: home.get("blog").startswith("two"))


def test_nothing_is_taken_while_git_writes(home: SupervisedHome) -> None:
    folder = home.app("blog", app("one"))
    home.get("blog")
    (folder / ".git").mkdir()
    lock = folder / ".git" / "index.lock"
    lock.touch()
    (folder / "app.py").write_text(app("two", "import nothing_of_that_name"))
    (folder / "tmp").mkdir()
    (folder / "tmp" / "restart.txt").touch()
    os.utime(folder / "tmp" / "restart.txt", (2e9, 2e9))
    starts = home.state("blog")["starts"]
    witness = home.app("witness", app("before"))
    home.get("witness")
    for version in ("one", "two"):  # each is a look of the supervisor's at both
        (witness / "app.py").write_text(app(version))
        (witness / "tmp").mkdir(exist_ok=True)
        (witness / "tmp" / "restart.txt").write_text(version)
        wait_until(lambda version=version: home.get("witness").startswith(version))
    assert home.state("blog")["starts"] == starts
    (folder / "app.py").write_text(app("three"))
    lock.unlink()
    wait_until(lambda: home.get("blog").startswith("three"))
    assert home.state("blog")["starts"] == starts + 1


def test_a_release_is_taken_whichever_way_its_times_go(home: SupervisedHome) -> None:
    """Forward and back again by a link, with the times that its files had in the archive."""
    for version, stamp in (("one", 1_700_000_000), ("two", 4_000_000_000), ("three", 1_000)):
        folder = home.path / version
        (folder / "tmp").mkdir(parents=True)
        (folder / "app.py").write_text(app(version))
        (folder / "tmp" / "restart.txt").touch()
        os.utime(folder / "tmp" / "restart.txt", (stamp, stamp))

    def switch(version: str) -> None:
        (home.path / "new").symlink_to(version)
        os.replace(home.path / "new", home.path / "current")

    switch("one")
    home.app("blog", "", location=str(home.path / "current"))
    assert home.get("blog").startswith("one")
    for version in ("two", "one", "three", "two"):
        switch(version)
        wait_until(lambda version=version: home.get("blog").startswith(version))


def test_a_change_is_not_lost_on_those_that_run_when_another_process_starts(home: SupervisedHome) -> None:
    """One of two processes ends just after the change, and its successor has the new code already."""
    folder = home.app("blog", app("one"), processes="2")
    home.get("blog")
    old = wait_until(lambda: len(pids := home.state("blog")["pids"]) == 2 and pids)
    (folder / "app.py").write_text(app("two"))
    (folder / "tmp").mkdir()
    (folder / "tmp" / "restart.txt").touch()
    os.kill(old[0], signal.SIGKILL)
    wait_until(lambda: len(pids := home.state("blog")["pids"]) == 2 and not {*pids} & {*old})
    assert {home.get("blog").split()[0] for _ in range(20)} == {"two"}


def test_an_edit_with_errors_reloads_nothing(home: SupervisedHome) -> None:
    """It is no version of the site; the one that repairs it is."""
    folder = home.app("blog", app("one"))
    home.app("witness", app("one"))
    before = home.get("blog") and home.state("blog")
    home.get("witness")
    file = home.path / "sites-enabled" / "blog.ini"
    good = file.read_text()
    for number, bad in enumerate(("[service\n", good + "nonsense = 1\n", good + "threads = many\n")):
        file.write_text(bad)
        home.app("witness", app(str(number)), threads=str(number + 2))
        wait_until(lambda number=number: home.get("witness").startswith(f"{number} "))  # both have been looked at
        assert home.get("blog").startswith("one")
    after = home.state("blog")
    assert (after["pids"], after["starts"], last(home)["number"]) == (before["pids"], before["starts"], 0)
    (folder / "app.py").write_text(app("two"))
    file.write_text(good)
    wait_until(lambda: home.get("blog").startswith("two"))
