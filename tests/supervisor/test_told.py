"""A failed start is reported everywhere, by the supervisor and after its end, until a start succeeds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from multisite.control.client import NotRunning
from multisite.errors import BackendUnavailable
from multisite.sites.failures import LastFailures, of_starts
from tests.processes import is_running

from .harness import SERVER, SupervisedHome, run, wait_until

APP = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"well"]
"""
BROKEN = "import sys\nprint('no flask here')\nsys.exit(3)\n"


def typed(home: SupervisedHome, *words: str, code: int = 0) -> str:
    done = run(home.path, *words)
    assert done.exit_code == code, done.stdout + done.stderr
    return done.stdout


def listed(home: SupervisedHome, name: str, code: int = 0) -> dict[str, Any]:
    sites = json.loads(typed(home, "--json", "list", code=code))["sites"]
    return next(dict(site) for site in sites if site["name"] == name)


def fail(home: SupervisedHome, name: str) -> str:
    """Ask for a site until it is given up for a while; returns the incident."""
    with pytest.raises((OSError, BackendUnavailable)):
        home.get(name)
    return str(home.failed(name)["failure"]["incident"])


def end_supervisor(home: SupervisedHome) -> None:
    pid = home.pid
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_running(pid))


def test_explain_and_list_tell_a_failed_start_whether_or_not_the_supervisor_lives(home: SupervisedHome) -> None:
    """The pause after the second failure is short; after it the site is stopped, and still broken."""
    home.site("bad", BROKEN)
    incident = fail(home, "bad")
    home.wait_for("bad", "stopped")
    for _ in range(2):
        told = typed(home, "explain", "bad.test", code=1)
        assert told.count(f"incident {incident}: ") >= 1
        for expected in ("exited with code 3", "    start up: ", "    | no flask here", "broken"):
            assert expected in told
        site = listed(home, "bad", code=3)
        assert (site["state"], site["failure"]["incident"]) == ("broken", incident)
        assert site["failure"]["output"] == ["no flask here"]
        assert "exited with code 3" in " ".join(typed(home, "list", code=3).split())
        with contextlib.suppress(NotRunning):
            end_supervisor(home)


def test_start_tries_a_site_again_whose_last_start_failed(home: SupervisedHome) -> None:
    """What it needed may be there now, and no file of the site tells."""
    needed = home.path / "needed"
    home.site("bad", f"import os, sys\nif not os.path.exists({str(needed)!r}): sys.exit(3)\n{SERVER}")
    fail(home, "bad")
    home.wait_for("bad", "stopped")
    needed.touch()
    assert typed(home, "start", "bad") == "bad: starting\n"
    home.wait_for("bad", "running")
    assert listed(home, "bad")["state"] == "running"


INCIDENT = re.compile(r"incident ([0-9a-f]{8}): (.*)")
#: what its first start does, and the next; whether any visitor sees an error, and what the log shows
TWICE = {
    "the same": ("sys.exit(3)", "sys.exit(3)", True, r"exited with code 3 before it was ready \(tried twice\)"),
    "another": (
        "sys.exit(3)",
        "sys.exit(4)",
        True,
        r"exited with code 4 before it was ready \(tried twice; the first time: .*exited with code 3 before",
    ),
    "once": ("sys.exit(3)", "", False, "exited with code 3 before it was ready.*; the second attempt succeeded"),
}


def spoken(home: SupervisedHome, *words: str) -> str:
    """What a command prints, whether or not the pause after the failures is over just now."""
    return run(home.path, *words).stdout


def row(home: SupervisedHome, command: str) -> dict[str, Any]:
    (site,) = json.loads(spoken(home, "--json", command))["sites"]
    return dict(site)


@pytest.mark.parametrize("server", ["our runner", "a command"])
@pytest.mark.parametrize("what", TWICE)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_start_that_is_tried_twice_is_one_incident(
    home: SupervisedHome, capfd: pytest.CaptureFixture[str], what: str, server: str, processes: str
) -> None:
    """The log has it once, and requests that waited get the incident that is in the log."""
    first, second, is_refused, expected = TWICE[what]
    count = f"""
    import os, sys
    with open("starts", "a+") as starts:
        starts.write("x")
        starts.flush()
        starts.seek(0)
        tries = len(starts.read())
    if tries <= {processes}:
        os._exit({first[9:-1]})
    elif {bool(second)}:
        os._exit({second[9:-1] or 0})
    """
    count = textwrap.dedent(count)
    if server == "our runner":
        folder = home.app("flaky", count + APP, processes=processes)
    else:
        folder = home.site("flaky", count + SERVER, processes=processes)
    if is_refused:
        with pytest.raises((OSError, BackendUnavailable)):
            home.get("flaky")
        incident = home.failed("flaky")["failure"]["incident"]
        assert row(home, "list")["failure"]["incident"] == incident
        assert row(home, "status")["failure"]["incident"] == incident
        assert incident in spoken(home, "explain", "flaky.test")
    else:
        assert home.get("flaky")
        home.wait_for("flaky", "running")
        incident = ""
        assert home.state("flaky")["failure"] is None or home.state("flaky")["pids"]
    assert len((folder / "starts").read_text()) > int(processes)
    end_supervisor(home)
    told = dict(INCIDENT.findall(capfd.readouterr().err))
    assert len(told) == 1 and incident in "".join(told), told
    assert re.search(expected, told[next(iter(told))]), told


def test_a_start_that_succeeds_clears_it(home: SupervisedHome) -> None:
    folder = home.site("blog", BROKEN)
    fail(home, "blog")
    (folder / "srv.py").write_text(SERVER)
    home.client.ask({"do": "restart", "site": "blog"})
    assert home.get("blog")
    home.wait_for("blog", "running")
    end_supervisor(home)
    assert of_starts(home.home).all() == {}
    assert (listed(home, "blog")["state"], listed(home, "blog")["failure"]) == ("stopped", None)


def test_a_file_that_changed_since_makes_it_outdated_before_any_request(home: SupervisedHome) -> None:
    folder = home.app("blog", "import no_such_module\n")
    fail(home, "blog")
    end_supervisor(home)
    assert listed(home, "blog", code=3)["state"] == "broken"
    (folder / "app.py").write_text("def application(environ, start_response):\n    pass\n")
    assert listed(home, "blog")["state"] == "stopped"
    assert "its next request tries again" in typed(home, "explain", "blog.test")


def test_a_replacement_that_failed_is_told_while_the_old_process_serves(home: SupervisedHome) -> None:
    folder = home.site("blog")
    home.get("blog")
    home.wait_for("blog", "running")
    (folder / "srv.py").write_text(BROKEN)
    home.client.ask({"do": "restart", "site": "blog"})
    wait_until(lambda: home.state("blog")["replace_failure"])
    told = typed(home, "explain", "blog.test")
    assert ": new version failed to start (" in told and "; the old version is still serving" in told
    assert "running" in told


def test_what_a_worker_noted_is_not_taken_away(home: SupervisedHome) -> None:
    """That a site may not share a process is why it is spawned at all."""
    LastFailures(home.home).note("blog", "it is an ASGI application", "", serving=False, own_process=True)
    home.site("blog", BROKEN)
    fail(home, "blog")
    assert LastFailures(home.home).all()["blog"].own_process


def test_a_traceback_is_logged_once(home: SupervisedHome, capfd: pytest.CaptureFixture[str]) -> None:
    home.app("blog", "import no_such_module_of_mine\n", start_timeout="20")
    fail(home, "blog")
    end_supervisor(home)
    logged = capfd.readouterr().err
    assert logged.count("ModuleNotFoundError: No module named 'no_such_module_of_mine'\n") == 2  # two starts
    assert logged.count("import no_such_module_of_mine\n") == 2


# A supervisor that is slow to look whether anybody has ended.
SLOW = """
import sys, time
from multisite.supervisor import loop, run

def turn(self, timeout, of_old=loop.Loop.turn):
    of_old(self, timeout)
    time.sleep(0.3)

loop.Loop.turn = turn
sys.exit(run.run(sys.argv[1], foreground=True))
"""


def test_the_last_words_of_a_process_are_heard_before_it_is_buried(home: SupervisedHome) -> None:
    """It prints, says why it ends, and is gone: all that may happen between two looks."""
    home.app("blog", "import no_such_module_of_mine\n")
    with subprocess.Popen([sys.executable, "-c", SLOW, str(home.path)], start_new_session=True) as supervisor:
        try:
            wait_until(lambda: os.path.exists(home.rundir.control))
            with pytest.raises((OSError, BackendUnavailable)):
                home.get("blog")
            assert "no_such_module_of_mine" in home.failed("blog")["failure"]["failure"]
        finally:
            supervisor.terminate()


def test_with_a_log_of_its_own_the_service_log_has_the_output_too(
    home: SupervisedHome, capfd: pytest.CaptureFixture[str]
) -> None:
    log = home.path / "own.log"
    home.site("blog", BROKEN, more=f"[logging]\nerror = {log}\n")
    fail(home, "blog")
    end_supervisor(home)
    assert log.read_text().count("no flask here") == 2
    assert capfd.readouterr().err.count("    no flask here\n") == 1  # one report of both attempts
