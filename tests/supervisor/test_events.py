"""Events reach a command and a URL: failures, recoveries, deploys, sites that come and go; none is worth a wait."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from multisite.config.model import EventsOptions, Home, ServiceOptions
from multisite.config.read import read_home
from multisite.sites.failures import LastFailures
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import kernel
from multisite.supervisor.site import events
from multisite.supervisor.site.events import Events
from tests.processes import is_running

from .harness import SERVER, SupervisedHome, supervised, wait_until

BROKEN = "raise SystemExit('broken')"


@dataclass
class Hook:
    """A server that takes events; it answers with the statuses in `answers` first."""

    answers: list[int] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    fields: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    hangs: threading.Event | None = None

    @contextmanager
    def served(self) -> Iterator[Hook]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if hook.hangs:
                    hook.hangs.wait(60)
                status = hook.answers.pop(0) if hook.answers else 204
                (hook.taken if status < 300 else hook.refused).append(event)
                hook.fields.append(dict(self.headers))
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.port = server.server_address[1]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield self
            finally:
                if self.hangs:
                    self.hangs.set()
                server.shutdown()

    def names(self, site: str) -> list[str]:
        return [event["event"] for event in self.taken if event["name"] == site]


@contextmanager
def told(home: Path, hook: Hook, more: str = "") -> Iterator[SupervisedHome]:
    """A home whose events go to `hook`, and to a command that appends them to a file."""
    script = home / "notify.py"
    home.mkdir(exist_ok=True)
    script.write_text(
        "import os, sys\nopen('told', 'a').write(os.environ['MULTISITE_EVENT'] + ' ' + sys.stdin.read())\n"
    )
    url = f"http://user:hidden@127.0.0.1:{hook.port}/secret?token=hidden"
    with hook.served() as served:
        url = url.replace(":0/", f":{served.port}/")
        with supervised(home, f"{more}[events]\ncommand = {sys.executable} {script}\nurl = {url}\n") as made:
            yield made


def commanded(home: SupervisedHome) -> list[dict[str, Any]]:
    with suppress(FileNotFoundError):
        lines = (home.path / "told").read_text().splitlines()
        assert all(line.startswith(f"{json.loads(line.partition(' ')[2])['event']} ") for line in lines)
        return [json.loads(line.partition(" ")[2]) for line in lines]
    return []


def test_a_life_is_told_to_a_url_that_fails_first_and_to_a_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = Hook(answers=[500, 503])
    with told(tmp_path / "home", hook) as home:
        home.site("good")
        home.site("bad", BROKEN)
        with suppress(Exception):
            home.get("bad")
        home.failed("bad")
        wait_until(lambda: "crash_loop" in hook.names("bad"))
        incident = home.state("bad")["failure"]["incident"]
        home.site("bad", SERVER)
        wait_until(lambda: _answers(home, "bad"))
        wait_until(lambda: "recovered" in hook.names("bad"))

        assert home.get("good")
        home.client.ask({"do": "restart", "site": "good"})
        wait_until(lambda: "deployed" in hook.names("good"))
        (home.path / "sites" / "good" / "srv.py").write_text(BROKEN)
        home.client.ask({"do": "restart", "site": "good"})
        wait_until(lambda: "deploy_failed" in hook.names("good"))
        assert home.get("good"), "the old version still serves"

        (home.path / "sites-enabled" / "good.ini").rename(home.path / "good.ini")
        wait_until(lambda: "disabled" in hook.names("good"))
        (home.path / "good.ini").rename(home.path / "sites-enabled" / "good.ini")
        wait_until(lambda: hook.names("good")[-1] == "enabled")
        wait_until(lambda: len(commanded(home)) == len(hook.taken))

        ids = [event["id"] for event in hook.taken]
        assert len(ids) == len(set(ids)) and [event["id"] for event in hook.refused] == [ids[0]] * 2
        assert [event["id"] for event in commanded(home)] == ids
        assert hook.names("bad")[:3] == ["start_failed", "crash_loop", "recovered"]
        first = next(event for event in hook.taken if event["event"] == "start_failed")
        assert first["incident"] and "exited with code 1" in first["cause"] and first["remedy"]
        assert incident in {event["incident"] for event in hook.taken}
        assert {"id", "event", "at", "name", "state", "cause", "remedy", "incident", "host", "home", "left_out"} == set(
            first
        )
        fields = hook.fields[0]
        assert fields["Content-Type"] == "application/json" and fields["User-Agent"].startswith("multisite/")
        assert fields["Authorization"].startswith("Basic ")
    said = "".join(capfd.readouterr())
    assert "HTTP 500; it is tried again" in said and "works again" in said
    assert "hidden" not in said and "secret" not in said


def _answers(home: SupervisedHome, name: str) -> bool:
    with suppress(Exception):
        return bool(home.get(name))
    return False


class Told:
    """Events of no supervisor, with a loop that turns when it is asked to."""

    def __init__(self, path: Path, options: EventsOptions) -> None:
        self.home = Home(str(path), str(path / "moya.conf"), events=options)
        self.loop = Loop()
        self.events = Events(self.loop, lambda: self.home)

    def turn_until(self, what: Any) -> None:
        def turned() -> bool:
            self.loop.turn(0.01)
            return bool(what())

        wait_until(turned)

    def pids(self) -> list[int]:
        return [one.pid for one in self.events._messengers]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Told]]:
    found: list[Told] = []
    yield found
    for one in found:
        for messenger in one.events._messengers:
            messenger.wait(0)
        one.loop.close()


def test_a_storm_costs_a_bounded_number_of_lines_and_no_wait(tmp_path: Path, made: list[Told]) -> None:
    """While the URL hangs, one process and what fits in its queue; what was left out is counted."""
    with Hook(hangs=threading.Event()).served() as hook:
        one = Told(tmp_path, EventsOptions(url=f"http://127.0.0.1:{hook.port}/"))
        made.append(one)
        one.events.tell(events.ENABLED, "first")
        for _ in range(5000):
            one.events.tell(events.START_FAILED, "blog", cause="x" * 5000)
        assert len(one.pids()) == 1
        assert hook.hangs
        hook.hangs.set()
        one.turn_until(lambda: len(hook.taken) >= 20)
        for number in range(3):
            before = len(hook.taken)
            one.events.tell(events.RECOVERED, f"last{number}")
            one.turn_until(lambda before=before: len(hook.taken) > before or hook.names("last2"))
        one.turn_until(lambda: hook.names("last2"))
        lost = sum(event["left_out"] for event in hook.taken)
        assert len(hook.taken) < 1000 and len(hook.taken) + lost == 5004


def test_what_cannot_be_mended_is_not_tried_again(tmp_path: Path, made: list[Told], caplog: Any) -> None:
    """A redirect is not followed; the next event is told how many were given up."""
    with Hook(answers=[404, 302]).served() as hook:
        one = Told(tmp_path, EventsOptions(url=f"http://127.0.0.1:{hook.port}/secret"))
        made.append(one)
        for name in ("a", "b", "c"):
            one.events.tell(events.ENABLED, name)
        one.turn_until(lambda: hook.taken)
        assert [event["name"] for event in hook.refused] == ["a", "b"]
        assert (hook.taken[0]["name"], hook.taken[0]["left_out"]) == ("c", 2)
        one.turn_until(lambda: "HTTP 404; the event enabled is given up" in caplog.text)
        assert "secret" not in caplog.text


def test_a_command_that_fails_is_reported_and_keeps_nobody_waiting(
    tmp_path: Path, made: list[Told], caplog: Any
) -> None:
    with Hook().served() as hook:
        command = (sys.executable, "-c", "raise SystemExit('no mail today')")
        one = Told(tmp_path, EventsOptions(command, f"http://127.0.0.1:{hook.port}/"))
        made.append(one)
        one.events.tell(events.ENABLED, "$(touch harm); `touch harm`")
        one.turn_until(lambda: hook.taken)
        one.turn_until(lambda: "exit status 1: no mail today" in caplog.text)
        assert not (tmp_path / "harm").exists()


def test_the_process_goes_when_it_has_nothing_to_tell_and_with_the_options(tmp_path: Path, made: list[Told]) -> None:
    with Hook().served() as hook:
        one = Told(tmp_path, EventsOptions(url=f"http://127.0.0.1:{hook.port}/"))
        made.append(one)
        one.events.tell(events.ENABLED, "a")
        (first,) = one.pids()
        one.home = Home(one.home.path, one.home.file, events=EventsOptions(url=f"http://127.0.0.1:{hook.port}/other"))
        one.events.tell(events.ENABLED, "b")
        one.turn_until(lambda: len(hook.taken) == 2)
        one.events.tick(one.loop.now() + 2 * events.IDLE)
        one.turn_until(lambda: _reaped(one) and not one.pids())
        assert not is_running(first)


def _reaped(one: Told) -> bool:
    for pid in kernel.ended_children():
        status, _ = kernel.reap(pid)
        one.events.ended(pid, status)
    return True


def test_what_workers_note_is_told_once_whoever_of_them_saw_it(tmp_path: Path, made: list[Told]) -> None:
    with Hook().served() as hook:
        one = Told(tmp_path, EventsOptions(url=f"http://127.0.0.1:{hook.port}/"))
        one.home.service = ServiceOptions(state_dir=str(tmp_path / "state"))
        made.append(one)
        noted = LastFailures(one.home)
        noted.note("old", "it was broken before", "00000000", serving=False)

        def look(*names: str) -> None:
            one.events.tick(one.loop.now() + 2 * len(looks))
            looks.append(1)
            one.turn_until(lambda: [event["event"] for event in hook.taken] == list(names))

        looks = [1]
        look()
        noted.note("blog", "no module named x", "11111111", serving=False)
        noted.note("elsewhere", "it cannot share", "", serving=False, own_process=True)
        look("start_failed")
        noted.note("blog", "no module named x", "22222222", serving=False)
        look("start_failed")
        noted.clear("blog")
        look("start_failed", "recovered")
        noted.note("blog", "no module named y", "33333333", serving=True)
        look("start_failed", "recovered", "deploy_failed")
        assert {event["name"] for event in hook.taken} == {"blog"}
        assert hook.taken[0]["incident"] == "11111111" and hook.taken[0]["cause"] == "no module named x"


def test_without_options_nothing_runs(tmp_path: Path, made: list[Told]) -> None:
    one = Told(tmp_path, EventsOptions())
    made.append(one)
    one.events.tell(events.ENABLED, "a")
    assert one.pids() == []


@pytest.mark.parametrize(
    "url", ["hooks.example.com/hidden", "ftp://x/hidden", "https:///hidden", "http://x:port/hidden"]
)
def test_no_message_about_a_url_repeats_it(tmp_path: Path, url: str) -> None:
    (tmp_path / "moya.conf").write_text(f"[events]\nurl = {url}\n")
    (problem,) = read_home(str(tmp_path)).problems
    assert "is no http:// or https:// URL" in str(problem) and "[events] url" in str(problem)
    assert "hidden" not in str(problem) + json.dumps(problem.as_dict())
