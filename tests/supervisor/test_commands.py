"""The commands that talk to the supervisor, typed as a person would."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.errors import BackendUnavailable
from tests.processes import is_running

from .harness import SERVER, WITHIN, SupervisedHome, ask, run, wait_until


def typed(home: SupervisedHome, *words: str, code: int = 0) -> str:
    """Run the command; returns what it printed."""
    done = run(home.path, *words)
    assert done.exit_code == code, done.stderr
    return done.stdout + done.stderr


def site_in(home: SupervisedHome, name: str, command: str = "status") -> dict[str, Any]:
    document = json.loads(typed(home, "--json", command))
    return next(site for site in document["sites"] if site["name"] == name)


def test_without_a_supervisor_everything_is_stopped(home: SupervisedHome) -> None:
    home.site("blog")
    document = json.loads(typed(home, "--json", "status"))
    assert document["supervisor"] is None
    assert document["preloaders"] == []
    assert (document["sites"][0]["state"], document["sites"][0]["placement"]) == ("stopped", "spawned")
    assert "no supervisor is running" in typed(home, "status")
    assert typed(home, "stop", "blog") == "blog: it was not running\n"


def test_status_and_list_show_processes(home: SupervisedHome) -> None:
    home.site("blog")
    home.get("blog")
    home.wait_for("blog", "running")
    for command in ("status", "list"):
        site = site_in(home, "blog", command)
        assert (site["state"], site["pids"]) == ("running", home.state("blog")["pids"])
        assert site["memory"] > 1 << 20
    assert str(home.state("blog")["pids"][0]) in typed(home, "status")
    assert str(home.pid) in typed(home, "status")


def test_what_another_homes_supervisor_cannot_tell_is_told_without_it(home: SupervisedHome) -> None:
    """Two homes share a runtime directory by mistake: commands that only look give a warning."""
    home.site("blog")
    home.ensure("blog")
    other = home.rival()
    (other / "sites-enabled" / "shop.ini").write_text(
        "[service]\ndomains = shop.test\nmode = spawned\ncommand = true\n"
    )
    for words in (("list",), ("status",), ("explain", "shop.test")):
        done = run(other, *words)
        assert (done.exit_code, "shop" in done.stdout) == (0, True), done
        assert f"warning: MS528 the runtime directory {home.rundir.path} cannot be used" in done.stderr
        assert "the first request" not in done.stdout
    told = f"runtime_dir = {home.rundir.path}: the home {home.path} uses it (process {home.pid})"
    assert f"none can start: {other}/moya.conf: [service] {told}" in run(other, "status").stdout
    checked = run(other, "check")
    assert (checked.exit_code, told in checked.stdout) == (1, True), checked
    assert run(home.path, "check").stdout.endswith("1 site, no errors\n")
    refused = run(other, "stop", "shop")
    assert (refused.exit_code, f"the home {home.path} uses it" in refused.stderr) == (1, True), refused


FRAGILE = """
import os, signal, time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/exit":
        os._exit(9)
    if environ["PATH_INFO"] == "/kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if environ["PATH_INFO"] == "/hang":
        time.sleep(600)
    start_response("200 OK", [])
    return [b"well"]
"""


@pytest.mark.parametrize("is_proven", [True, False], ids=["after an answer", "at its first request"])
@pytest.mark.parametrize("way", ["/exit", "/kill", "/hang"])
def test_a_crash_leaves_the_state_of_a_site_alone(home: SupervisedHome, way: str, is_proven: bool) -> None:
    """It is its last trouble, and the next request is answered; a request that hangs names the limit and its value."""
    home.app("blog", FRAGILE, request_timeout="1s")
    path = home.ensure("blog")
    if is_proven:
        home.get("blog")
    with pytest.raises(OSError):
        ask(path, way)
    wait_until(lambda: home.state("blog")["failure"] and not home.state("blog")["pids"])
    trouble = home.state("blog")["failure"]
    for command in ("list", "status"):
        site = site_in(home, "blog", command)
        assert site["state"] in ("stopped", "backoff"), site["state"]
        assert site["failure"]["incident"] == trouble["incident"] != ""
    assert trouble["incident"] in typed(home, "explain", "blog.test")
    end(home)
    for command in ("list", "status"):
        site = site_in(home, "blog", command)
        found = site["failure"]["incident"], site["state"]
        assert found == (trouble["incident"], "stopped"), "nobody runs to be asked"
    assert trouble["incident"] in typed(home, "explain", "blog.test")
    assert ("request_timeout = 1s" in trouble["failure"]) is (way == "/hang")
    wait_until(lambda: _answers(home))
    assert site_in(home, "blog", "status")["state"] == "running"


def end(home: SupervisedHome) -> None:
    pid = home.pid
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_running(pid))


def _answers(home: SupervisedHome) -> bool:
    try:
        return home.get("blog") == "well"
    except (OSError, BackendUnavailable):
        return False


def test_a_failed_start_is_a_line_of_status_and_explained_with_its_steps_and_its_output(home: SupervisedHome) -> None:
    home.site("bad", "print('no flask here')\nraise SystemExit(3)")
    with pytest.raises(OSError):
        home.get("bad")
    home.failed("bad")
    shown = typed(home, "status", code=3)
    assert "exited with code 3" in shown and "no flask here" not in shown
    assert "\n    multisite explain bad\n" in shown
    for words in (("explain", "bad"), ("status", "bad")):
        shown = typed(home, *words, code=1 if words[0] == "explain" else 3)
        assert "exited with code 3" in shown
        assert "| no flask here" in shown
        assert "start up:" in shown


def test_stop_ends_the_processes_and_the_next_request_starts_them(home: SupervisedHome) -> None:
    home.site("blog")
    pid = int(home.get("blog").split()[0])
    assert typed(home, "stop", "blog") == "blog: stopping\n"
    wait_until(lambda: not is_running(pid))
    assert home.get("blog")


def test_restart_replaces_the_process(home: SupervisedHome) -> None:
    home.site("blog")
    first = home.get("blog")
    typed(home, "restart", "blog")
    wait_until(lambda: home.get("blog") != first)


def test_logs_shows_what_was_printed_and_goes_on(home: SupervisedHome) -> None:
    home.site("blog", SERVER.replace("if self.path ==", "print(self.path, flush=True)\n        if self.path =="))
    home.get("blog", "/one")
    wait_until(lambda: untimed(typed(home, "logs", "blog")) == ["serving", "/one"])
    heed_interrupts = ["env", "--default-signal=INT"]  # a shell starts its background jobs with ^C ignored
    argv = [*heed_interrupts, sys.executable, "-m", "multisite", "--home", str(home.path), "logs", "-f", "blog"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        assert untimed("".join(following.stdout.readline() for _ in range(2))) == ["serving", "/one"]
        home.get("blog", "/two")
        assert untimed(following.stdout.readline()) == ["/two"]
        following.send_signal(signal.SIGINT)
    assert following.returncode == 130


def test_logs_of_a_site_that_nobody_started_are_those_of_its_file(home: SupervisedHome) -> None:
    log = home.path / "blog.log"
    log.write_text("from last time\n")
    home.site("blog", more=f"[logging]\nerror = {log}\n")
    assert untimed(typed(home, "logs", "blog")) == ["from last time"]
    home.site("silent")
    assert typed(home, "logs", "silent") == "no lines logged\n"


def test_what_was_printed_outlives_the_supervisor(home: SupervisedHome) -> None:
    """A restart of the server, and even a kill of the supervisor, loses nothing that it has read."""
    home.site("blog", SERVER.replace("if self.path ==", "print(self.path, flush=True)\n        if self.path =="))
    home.get("blog", "/one")
    wait_until(lambda: untimed(typed(home, "logs", "blog")) == ["serving", "/one"])
    supervisor = home.pid
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not is_running(supervisor))
    assert untimed(typed(home, "logs", "blog")) == ["serving", "/one"]
    home.get("blog", "/two")
    wait_until(lambda: untimed(typed(home, "logs", "blog")) == ["serving", "/one", "serving", "/two"])


def untimed(printed: str) -> list[str]:
    """Return lines without the time that stands before each of them; one that has none stays as it is."""
    return [re.sub(r"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in printed.splitlines()]


@pytest.fixture
def foreground(home: SupervisedHome, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`multisite supervise` as systemd would start it: with an address to be told on."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(address)
        notify.settimeout(WITHIN)
        argv = [sys.executable, "-m", "multisite", "--home", str(home.path), "supervise"]
        with subprocess.Popen(argv, env={**os.environ, "NOTIFY_SOCKET": address}) as process:
            try:
                assert notify.recv(100) == b"READY=1"
                yield process
            finally:
                process.terminate()


def test_in_the_foreground_it_tells_systemd_and_stays_until_it_is_told_to_leave(
    home: SupervisedHome, foreground: subprocess.Popen[bytes]
) -> None:
    home.site("blog")
    pid = int(home.get("blog").split()[0])
    second = subprocess.run(foreground.args, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (second.returncode, "is already running" in second.stderr) == (1, True), second
    foreground.terminate()
    assert foreground.wait(WITHIN) == 0
    wait_until(lambda: not is_running(pid))
    wait_until(lambda: not home.left())


def test_a_killed_supervisor_in_the_foreground_ends_with_an_error_for_systemd(
    home: SupervisedHome, foreground: subprocess.Popen[bytes]
) -> None:
    home.site("blog")
    pid = int(home.get("blog").split()[0])
    os.kill(home.pid, signal.SIGKILL)
    assert foreground.wait(WITHIN) == 128 + signal.SIGKILL
    wait_until(lambda: not is_running(pid))
