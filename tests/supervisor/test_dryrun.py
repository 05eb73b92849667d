"""``check --boot`` and ``restart --wait``: sites start once, apart from what runs, and the outcome is reported."""

from __future__ import annotations

import contextlib
import json
import os
import re
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main, trialruns
from multisite.config.model import Site
from multisite.control.client import SupervisorError
from multisite.supervisor.process import kernel, orphans
from tests.supervisor.harness import SERVER, SupervisedHome, wait_until

APP = """
import os
{early}
def application(environ, start_response):
    start_response({health!r} if environ["PATH_INFO"] == "/health" else "200 OK", [])
    return [b"{version}"]
"""


def app(version: str = "one", early: str = "", health: str = "200 OK") -> str:
    return APP.format(version=version, early=early, health=health)


def run(home: SupervisedHome, *words: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.path), *words], prog_name="multisite")


def test_check_boot_starts_every_kind_of_site_and_reports(home: SupervisedHome) -> None:
    home.app("good", app(), smoke_path="/health")
    home.app("shared", app(), mode="auto")
    home.app("broken", app(early="import there_is_no_such_module"))
    home.app("unwell", app(health="500 Oh"), smoke_path="/health")
    home.app("leaves", app(early="import os; os._exit(3)"))
    home.app("left", "import os\ndef application(*_):\n    os._exit(6)\n", smoke_path="/health")
    home.app("slow", app(early="import time; print('wait', flush=True); time.sleep(600)"), start_timeout="5s")
    home.site("silent", SERVER, smoke_path="/any")
    home.site("plain", SERVER)
    home.site("exits", "print('bye')")
    home.site("nothing", location="/no/such/place")
    home.site("far", application="", upstreams="http://127.0.0.1:9", mode="proxy")
    result = run(home, "--json", "check", "--boot")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    found = {site["name"]: site["failure"] for site in told["sites"]}
    assert {name for name, failure in found.items() if not failure} == {"good", "shared", "silent", "plain"}
    assert told["errors"] == 7
    assert "there_is_no_such_module" in found["broken"]
    assert found["unwell"] == "the smoke request GET /health was answered with 500"
    assert found["slow"].startswith("it was not ready within 5 s")
    assert "exited with code 0" in found["exits"]
    assert found["leaves"] == "exited with code 3 before it was ready"  # which the runner has for another reason
    assert found["left"] == "exited with code 6 before it was ready"
    assert "/no/such/place" in found["nothing"]
    assert next(site for site in told["sites"] if site["name"] == "slow")["output"] == ["wait"]
    assert not [pid for pid in kernel.pids() if orphans._mark(pid).startswith(f"boot-{os.getpid()}:")]


def test_check_boot_as_a_table_and_by_name(home: SupervisedHome) -> None:
    home.app("good", app())
    home.app("broken", app(early="1/0"))
    result = run(home, "check", "--boot", "good")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "1 started, 0 failed" in result.stdout
    result = run(home, "check", "--boot")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stderr
    assert run(home, "check", "good").exit_code == 0


def test_check_boot_leaves_what_runs_alone(home: SupervisedHome) -> None:
    folder = home.app("blog", app(), smoke_path="/health")
    home.get("blog")
    before = home.state("blog")
    (folder / "app.py").write_text(app("two", "import there_is_no_such_module"))
    assert run(home, "check", "--boot", "blog").exit_code == 1
    after = home.state("blog")
    assert [after[key] for key in ("pids", "requests", "starts")] == [
        before[key] for key in ("pids", "requests", "starts")
    ]
    assert home.get("blog") == "one"


def test_restart_waits_for_the_outcome(home: SupervisedHome) -> None:
    folder = home.app("blog", app(), smoke_path="/health")
    home.get("blog")
    (folder / "app.py").write_text(app("three", health="500 Internal"))
    result = run(home, "restart", "--wait", "blog")
    assert result.exit_code == 1
    failure = r"the smoke request GET /health was answered with 500"
    said = rf"blog: new version failed to start \(start up: {failure}\); the old version is still serving \(.*\)\n"
    assert re.fullmatch(said, result.stderr)
    assert home.get("blog") == "one"
    (folder / "app.py").write_text(app("fourth"))
    result = run(home, "restart", "--wait", "blog")
    assert result.exit_code == 0
    assert re.fullmatch(r"blog: the new version is serving \(blog\.ini as of [\d:]{8}\)\n", result.stdout)
    wait_until(lambda: home.get("blog") == "fourth")


GREETS = """
import os

WORD = os.environ["WORD"]

def application(environ, start_response):
    start_response("200 OK", [])
    return [WORD.encode()]
"""


def edited(home: SupervisedHome, where: str, word: str) -> float:
    """Have a site's next version say `word`, or not start without one; returns when the site's file was changed."""
    env = f"[env]\nWORD = {word}\n" if word else "[env]\n"
    file = home.path / "sites-enabled" / "blog.ini"
    if where == "moya.conf":
        conf = home.path / "moya.conf"
        conf.write_text(conf.read_text().partition("[env]")[0] + env)
    else:
        file.write_text(file.read_text().partition("[env]")[0] + env)
    return file.stat().st_mtime


@pytest.mark.parametrize("where", ["the site's file", "moya.conf"])
def test_what_is_edited_at_the_last_moment_is_what_a_restart_tries(home: SupervisedHome, where: str) -> None:
    """Five edits without a pause, good and bad ones, are each judged by themselves, and a success leaves no failure."""
    home.app("blog", GREETS)
    edited(home, where, "word0")
    home.get("blog")
    for number in range(1, 6):
        is_good = number % 2 == 0 or number == 5
        version = edited(home, where, f"word{number}" if is_good else "")
        result = run(home, "--json", "restart", "--wait", "blog")
        told = json.loads(result.stdout)["restarted"][0]
        assert (told["ok"], told["version"]) == (is_good, pytest.approx(version)), told
        assert ("KeyError" in told["said"]) is not is_good
        status = json.loads(run(home, "--json", "status").stdout)["sites"][0]
        assert bool(status["failure"]) is not is_good
        if is_good:
            wait_until(lambda: home.get("blog") == f"word{number}")


def test_a_restart_of_a_site_at_rest_judges_the_newest_file_and_leaves_no_failure(home: SupervisedHome) -> None:
    home.app("blog", GREETS)
    with contextlib.suppress(SupervisorError, OSError):
        home.get("blog", seconds=5)
    home.failed("blog")
    version = edited(home, "the site's file", "word")
    result = run(home, "--json", "restart", "--wait", "blog")
    assert json.loads(result.stdout)["restarted"][0]["version"] == pytest.approx(version), result.output
    assert json.loads(run(home, "--json", "status").stdout)["sites"][0]["failure"] is None
    assert home.get("blog") == "word"


def test_a_restart_of_a_file_with_errors_is_no_success(home: SupervisedHome) -> None:
    """What would be tried is the last good version, of which nobody asks."""
    home.app("blog", app())
    home.get("blog")
    file = home.path / "sites-enabled" / "blog.ini"
    file.write_text(file.read_text().replace("application", "aplication"))
    result = run(home, "restart", "--wait", "blog")
    assert result.exit_code == 1
    assert "its file has errors" in result.stderr
    assert "aplication" in result.stderr
    assert home.get("blog") == "one"


@pytest.mark.parametrize("kind", ["ours", "smoke", "silent", "several"])
def test_a_restart_of_an_idle_site_keeps_the_process_that_it_tried(home: SupervisedHome, kind: str) -> None:
    """It serves the next request, and stops as idle after idle_timeout."""
    if kind == "silent":
        home.site("blog", SERVER, idle_timeout="2s")
    else:
        more = {"smoke_path": "/health"} if kind == "smoke" else {"processes": "2"} if kind == "several" else {}
        home.app("blog", app(), idle_timeout="2s", **more)
    home.client.meet()
    for _ in range(2):
        result = run(home, "restart", "--wait", "blog")
        assert result.exit_code == 0, result.output
        assert re.fullmatch(r"blog: the new version is serving \(blog\.ini as of [\d:]{8}\)\n", result.stdout)
        state = home.state("blog")
        assert state["state"] == "running"
        tried = set(state["pids"])
        body = home.get("blog")
        assert int(body.split()[0]) in tried if kind == "silent" else body == "one"
        assert tried <= set(home.state("blog")["pids"])
        home.wait_for("blog", "stopped")


def test_a_failed_restart_of_an_idle_site_is_one_attempt(home: SupervisedHome) -> None:
    """Nobody is kept from the site by it, and what it printed is shown."""
    folder = home.app("blog", app(early="print('hm', flush=True); import there_is_no_such_module"))
    home.client.meet()
    result = run(home, "restart", "--wait", "blog")
    assert result.exit_code == 1
    assert "blog | ModuleNotFoundError" in result.stderr
    assert "new version failed to start (start up: it needs the module 'there_is_no_such_module'" in result.stderr
    assert "; nothing is running (blog.ini as of " in result.stderr
    state = home.state("blog")
    assert (state["state"], state["pids"], state["starts"]) == ("stopped", [], 1)
    assert state["failure"]["failure"].startswith("start up: it needs the module")
    (folder / "app.py").write_text(app("mended"))
    assert run(home, "restart", "--wait", "blog").exit_code == 0
    assert home.state("blog")["failure"] is None
    assert home.get("blog") == "mended"


def test_a_failed_restart_of_a_command_that_never_listens_is_one_attempt(
    home: SupervisedHome, capfd: pytest.CaptureFixture[str]
) -> None:
    """What waits at its socket is our own look at it, and that starts no second process."""
    home.site("blog", "import time; time.sleep(600)", start_timeout="0.5")
    home.client.meet()
    result = run(home, "restart", "--wait", "blog")
    assert result.exit_code == 1
    assert all(word in result.stderr for word in ("%PORT", "%SOCKET", "LISTEN_FDS")), result.stderr
    for _ in range(3):  # another start would have begun with the next thing that the supervisor does
        state = home.state("blog")
        assert (state["state"], state["pids"], state["starts"]) == ("stopped", [], 1)
    told = re.findall("incident ([0-9a-f]{8}):", capfd.readouterr().err)
    assert told == [state["failure"]["incident"]]


def test_a_site_that_is_stopped_while_it_is_tried_is_no_success(home: SupervisedHome) -> None:
    folder = home.app("blog", app(early="open('begun', 'w'); import time; time.sleep(600)"))
    home.client.meet()
    home.client.ask({"do": "restart", "site": "blog", "start": True})
    wait_until((folder / "begun").exists)
    assert run(home, "stop", "blog").exit_code == 0
    wait_until(lambda: not home.state("blog")["pids"])
    told = home.client.ask({"do": "deploys", "site": "blog"})["deploys"]["blog"]
    assert (told["state"], told["failure"]) == ("failed", "the site was stopped before it was ready")


def test_restart_of_a_site_in_the_workers_is_tried_first(home: SupervisedHome) -> None:
    folder = home.app("blog", app(), mode="auto")
    file = home.path / "sites-enabled" / "blog.ini"
    os.utime(file, (5, 5))
    (folder / "app.py").write_text("def")
    result = run(home, "--json", "restart", "--wait", "blog")
    assert result.exit_code == 1
    assert "SyntaxError" in json.loads(result.stdout)["restarted"][0]["said"]
    assert file.stat().st_mtime == 5
    (folder / "app.py").write_text(app("fourth"))
    assert run(home, "restart", "--wait", "blog").exit_code == 0
    assert file.stat().st_mtime > 5


def test_a_site_may_not_print_to_the_terminal(home: SupervisedHome) -> None:
    """What a start prints is shown after it has failed, without anything that controls the terminal."""
    home.site("loud", "print('\\x1b[2Jgone'); import sys; sys.exit(4)")
    result = run(home, "check", "--boot", "loud")
    assert "\\x1b[2Jgone" in result.stderr
    assert "\x1b" not in result.output


@pytest.mark.parametrize("answer", [None, {"deploys": {}}, {"deploys": {"blog": {"number": 1, "state": "done"}}}])
def test_an_outcome_that_nobody_knows_is_no_success(answer: dict[str, Any] | None) -> None:
    """The supervisor has ended meanwhile, the site is gone, or only an earlier attempt is reported."""
    session: Any = SimpleNamespace(ask=lambda *_words, **_about: answer)
    outcome = trialruns._outcome(session, Site("/blog.ini", "blog", (), "/"), {"blog": 2})
    ok, said = outcome["ok"], outcome["said"]
    assert not ok and "blog: the outcome is unknown" in said


def test_an_outcome_that_does_not_come_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    trying = {"deploys": {"blog": {"number": 2, "state": "trying"}}}
    monkeypatch.setattr(trialruns, "BEYOND", 0.0)
    session: Any = SimpleNamespace(ask=lambda *_words, **_about: trying)
    outcome = trialruns._outcome(session, Site("/blog.ini", "blog", (), "/", start_timeout=0.0), {"blog": 2})
    ok, said = outcome["ok"], outcome["said"]
    assert not ok and "not ready within" in said
