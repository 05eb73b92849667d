"""Real sites in real processes: started on demand, stopped when idle, kept apart."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from multisite.config.read import read_home
from multisite.control.client import Client, SiteUnavailable, SupervisorError
from multisite.errors import BackendUnavailable
from tests.processes import is_running

from .harness import SERVER, WITHIN, SupervisedHome, ask, supervised, wait_until


def pid_of(body: str) -> int:
    return int(body.split(maxsplit=1)[0])


# Starting and stopping


def test_the_first_request_starts_the_site_and_later_ones_reach_the_same_process(home: SupervisedHome) -> None:
    home.site("blog")
    path = home.ensure("blog")
    assert home.state("blog")["state"] == "stopped"
    first, second = ask(path), ask(path)
    assert first == second
    assert home.state("blog")["pids"] == [pid_of(first)]
    assert home.state("blog")["starts"] == 1


def test_many_requests_at_once_start_one_process_and_all_are_answered(home: SupervisedHome) -> None:
    home.site("blog")
    path = home.ensure("blog")
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(path))) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 24
    assert len(set(answers)) == 1


def test_an_idle_site_is_stopped_and_comes_back_with_its_next_request(home: SupervisedHome) -> None:
    home.site("blog", idle_timeout="0.5")
    first = home.get("blog")
    home.wait_for("blog", "stopped")
    assert not is_running(pid_of(first))
    assert ask(home.rundir.socket("blog")) != first


ONE_IS_LATE = """
    import os, time

    try:
        os.mkdir("first")
    except FileExistsError:
        time.sleep(1)

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"here"]
"""


def test_an_idle_site_of_several_processes_is_stopped(home: SupervisedHome) -> None:
    """The one that is ready first does not have the other asked for once more, as if somebody waited for it."""
    home.app("blog", ONE_IS_LATE, processes="2", idle_timeout="2")
    assert home.get("blog") == "here"
    home.wait_for("blog", "stopped")
    assert home.state("blog")["starts"] == 2


def test_a_request_in_flight_is_never_idle(home: SupervisedHome, tmp_path: Path) -> None:
    """By the time that another site, which was used later, is stopped as idle, it would have been too."""
    begun, end = tmp_path / "begun", tmp_path / "end"
    code = SERVER.replace("            while", f"            open({str(begun)!r}, 'w').close()\n            while", 1)
    home.site("blog", code, idle_timeout="0.3")
    home.site("witness", idle_timeout="0.3")
    path = home.ensure("blog")
    with ThreadPoolExecutor() as pool:
        try:
            answer = pool.submit(ask, path, f"/until/{end}")
            wait_until(begun.exists)
            before = home.state("blog")["pids"]
            home.get("witness")
            home.wait_for("witness", "stopped")
            state = home.state("blog")
            assert (state["state"], state["pids"]) == ("running", before)
        finally:
            end.touch()
        assert pid_of(answer.result()) in before
    home.wait_for("blog", "stopped")


def test_at_the_bound_the_least_recently_used_idle_site_makes_room(tmp_path: Path) -> None:
    with supervised(tmp_path, "max_backends = 2") as home:
        for name in ("a", "b", "c"):
            home.site(name)
        home.get("a")
        home.get("b")
        home.wait_for("b", "running")
        time.sleep(0.05)  # the kernel notes the time of a connection in ticks of up to 10 ms
        home.get("a")
        home.get("c")
        home.wait_for("c", "running")
        assert [home.state(name)["state"] for name in ("a", "b")] == ["running", "stopped"]


def test_at_the_bound_a_new_site_waits_for_busy_ones(tmp_path: Path) -> None:
    with supervised(tmp_path, "max_backends = 1") as home:
        folder = home.site("a")
        home.site("b")
        path = home.ensure("a")
        answers: list[str] = []
        slow = threading.Thread(target=lambda: answers.append(ask(path, "/until/enough")))
        slow.start()
        wait_until(lambda: home.state("a")["in_flight"] and home.state("a")["state"] == "running")
        other = home.ensure("b")
        waits = threading.Thread(target=lambda: answers.append(ask(other)))
        waits.start()
        wait_until(lambda: home.state("b")["waiting"])
        assert home.state("b")["pids"] == [] and answers == []
        (folder / "enough").touch()
        for thread in (slow, waits):
            thread.join()
        assert len(set(answers)) == 2


def test_several_processes_share_the_socket(home: SupervisedHome) -> None:
    home.site("blog", processes="3")
    home.get("blog")
    pids = wait_until(lambda: len(found := home.state("blog")["pids"]) == 3 and found)
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: len(found := home.state("blog")["pids"]) == 3 and pids[0] not in found)


def test_a_site_of_our_own_runner_counts_its_requests(home: SupervisedHome) -> None:
    home.app(
        "wsgi",
        """
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"hello"]
        """,
    )
    for _ in range(3):
        assert home.get("wsgi") == "hello"
    wait_until(lambda: home.state("wsgi")["in_flight"] == 0)
    assert home.state("wsgi")["requests"] == 3
    assert (home.state("wsgi")["errors"], home.state("wsgi")["state"]) == (0, "running")


def test_a_command_that_only_knows_a_port_is_relayed_to(home: SupervisedHome) -> None:
    folder = home.site("blog", command=f"{sys.executable} -m http.server --bind 127.0.0.1 %PORT")
    (folder / "page.txt").write_text("a page")
    assert home.get("blog", "/page.txt") == "a page"


def test_a_command_that_binds_a_path_is_relayed_to(home: SupervisedHome) -> None:
    code = SERVER.replace("self.socket = socket.socket(fileno=3)", "self.socket = bind(sys.argv[1])")
    code += "\n"
    bind = "def bind(path):\n    s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(); return s\n\n"
    home.site("blog", bind + code, command=f"{sys.executable} srv.py %SOCKET")
    folder = home.path / "sites" / "blog"
    text = (folder / "srv.py").read_text()
    (folder / "srv.py").write_text("import socket\n" + text)
    assert pid_of(home.get("blog"))


# Failures


def test_a_command_that_exits_is_tried_twice_and_then_said_with_its_output(home: SupervisedHome) -> None:
    home.site("bad", "import sys\nprint('no flask here')\nsys.exit(3)")
    path = home.ensure("bad")
    with pytest.raises(OSError):
        ask(path)
    state = home.failed("bad")
    assert state["starts"] == 2
    assert state["failure"]["output"] == ["no flask here"]
    assert "exited with code 3" in state["failure"]["failure"]
    refusal = wait_until(lambda: refused(home, "bad"))  # sooner or later: each pause is twice as long as the last
    assert "exited with code 3" in refusal.reason
    assert refusal.retry_after >= 1
    assert refusal.incident == home.state("bad")["failure"]["incident"]


def refused(home: SupervisedHome, name: str) -> SiteUnavailable | None:
    """The answer during the pause after a failure, in which nobody can connect; None when it is over."""
    path = home.rundir.socket(name)
    try:
        ask(home.ensure(name))
    except SiteUnavailable as refusal:
        is_there = os.path.exists(path)
        with contextlib.suppress(SiteUnavailable):
            home.ensure(name)
            return None
        assert not is_there
        return refusal
    except OSError:
        pass
    return None


def test_who_waits_through_one_crash_during_the_start_is_answered_all_the_same(home: SupervisedHome) -> None:
    """The first failure is retried at once and the queue is kept."""
    once = "import os, sys\nif not os.path.exists('tried'):\n    open('tried', 'w').close(); sys.exit(1)\n"
    home.site("blog", once + SERVER)
    assert pid_of(home.get("blog"))


def test_a_process_that_ended_as_asked_ends_a_row_of_failures(home: SupervisedHome) -> None:
    """The next failure is a first one again, and who waits through it is answered."""
    once = "import os, sys\nif not os.path.exists('tried'):\n    open('tried', 'w').close(); sys.exit(1)\n"
    home.site("blog", once + "os.unlink('tried')\n" + SERVER)
    for starts in (2, 4, 6):
        assert pid_of(home.get("blog"))
        home.wait_for("blog", "running")  # a server that does not tell has been seen to answer
        assert home.state("blog")["starts"] == starts
        home.client.ask({"do": "stop", "site": "blog"})
        home.wait_for("blog", "stopped")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"command": "/no/such/program"}, "/no/such/program"),
        ({"command": "no-such-program-anywhere"}, "there is no such program"),
        ({"command": "serve %NOPE"}, "%NOPE"),
        ({"location": "/no/such/place"}, "/no/such/place"),
        ({"application": "app", "python": "/no/such/venv"}, "/no/such/venv"),
        ({"user": "no-such-user"}, "no-such-user"),
    ],
)
def test_what_cannot_be_started_is_said_in_one_sentence(
    home: SupervisedHome, keys: dict[str, str], reason: str
) -> None:
    home.site("bad", **keys)
    home.site("good")
    with pytest.raises((BackendUnavailable, OSError)) as caught:
        ask(home.ensure("bad"))
        ask(home.ensure("bad"))
    if not isinstance(caught.value, BackendUnavailable):
        with pytest.raises(BackendUnavailable) as caught:
            wait_until(lambda: home.ensure("bad") and False)
    assert reason in str(caught.value)
    assert home.get("good")


def test_a_site_that_never_becomes_ready_is_killed_and_said(home: SupervisedHome) -> None:
    home.site("bad", "import time\ntime.sleep(60)", start_timeout="0.4")
    path = home.ensure("bad")
    with pytest.raises(OSError):
        ask(path)
    state = home.failed("bad")
    assert "not ready within 0.4 s" in state["failure"]["failure"]
    assert state["starts"] == 1, "requests have waited long enough"


def test_a_site_that_ignores_sigterm_is_killed_after_stop_timeout(home: SupervisedHome) -> None:
    home.site("deaf", "import signal\nsignal.signal(15, signal.SIG_IGN)\n" + SERVER, stop_timeout="0.3")
    pid = pid_of(home.get("deaf"))
    assert home.client.ask({"do": "stop", "site": "deaf"})["pids"] == [pid]
    home.wait_for("deaf", "stopped")
    assert not is_running(pid)


def test_a_crash_while_serving_costs_that_request_alone(home: SupervisedHome) -> None:
    home.site("blog")
    first = home.get("blog")
    with pytest.raises(OSError):
        home.get("blog", "/die")
    assert home.get("blog") != first


def test_a_flood_of_output_is_bounded_and_hinders_nobody(home: SupervisedHome) -> None:
    log = home.path / "flood.log"
    flood = "[print('x' * 999) for _ in range(10**6)], open('over', 'w')"
    flood = f"import threading\nthreading.Thread(target=lambda: [{flood}]).start()\n"
    folder = home.site("flood", flood + SERVER, more=f"[logging]\nerror = {log}\n")
    home.site("quiet")
    home.get("flood")
    assert home.get("quiet")
    assert not (folder / "over").exists(), "nothing has flooded while the other site was asked"
    wait_until(lambda: "lines of output left out" in log.read_text())
    assert log.stat().st_size < 4 << 20


def test_output_goes_to_the_sites_error_log_which_may_be_renamed(home: SupervisedHome) -> None:
    log = home.path / "blog.error.log"
    code = SERVER.replace("if self.path ==", "print('asked', self.path, flush=True)\n        if self.path ==")
    home.site("blog", code, more=f"[logging]\nerror = {log}\n")
    home.get("blog", "/one")
    wait_until(lambda: log.exists() and "asked /one" in log.read_text())
    log.rename(home.path / "old.log")
    home.get("blog", "/two")
    wait_until(lambda: log.exists() and "asked /two" in log.read_text())


def test_what_a_site_daemonises_goes_with_it_and_a_neighbours_stays(home: SupervisedHome) -> None:
    code = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open("helper", "w").write(str(os.getpid()))
            os.closerange(0, 10)
            time.sleep(600)
        os._exit(0)
    os.wait()
    """
    import textwrap

    folders = [home.site(name, textwrap.dedent(code) + SERVER) for name in ("a", "b")]
    pids = [pid_of(home.get(name)) for name in ("a", "b")]
    helpers = [int(wait_until(lambda path=folder / "helper": path.exists() and path.read_text())) for folder in folders]
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not is_running(helpers[0]))
    assert is_running(helpers[1])


# Changes


def test_a_changed_site_is_replaced_and_no_request_is_lost(home: SupervisedHome) -> None:
    home.site("blog")
    path = home.ensure("blog")
    first = ask(path)
    home.site("blog", more="[env]\nGREETING = moin\n")
    answers = [ask(path)]
    while answers[-1] == first:
        answers.append(ask(path))
    assert answers[-1].endswith("moin")
    wait_until(lambda: len(home.state("blog")["pids"]) == 1)


def test_a_replacement_that_fails_leaves_the_old_process_serving(home: SupervisedHome) -> None:
    folder = home.site("blog")
    first = home.get("blog")
    (folder / "srv.py").write_text("raise SystemExit('broken')")
    home.client.ask({"do": "restart", "site": "blog"})
    wait_until(lambda: home.state("blog")["replace_failure"])
    assert home.get("blog") == first
    assert home.state("blog")["failure"]["output"] == ["broken"]


def test_restart_gives_another_process_and_stop_none(home: SupervisedHome) -> None:
    home.site("blog")
    first = home.get("blog")
    home.client.ask({"do": "restart", "site": "blog"})
    second = wait_until(lambda: (answer := home.get("blog")) != first and answer)
    wait_until(lambda: home.state("blog")["pids"] == [pid_of(second)])
    home.client.ask({"do": "stop", "site": "blog"})
    home.wait_for("blog", "stopped")
    assert not is_running(pid_of(second))


def test_a_touched_file_reloads(home: SupervisedHome) -> None:
    folder = home.site("blog")
    first = home.get("blog")
    (folder / "tmp").mkdir()
    (folder / "tmp" / "restart.txt").touch()
    wait_until(lambda: home.get("blog") != first)


def test_with_always_restart_each_request_finds_the_newest_code(home: SupervisedHome) -> None:
    code = """
        import os
        def application(environ, start_response):
            start_response("200 OK", [])
            return [b"%d VERSION" % os.getpid()]
        """
    folder = home.app("blog", code)
    first = home.get("blog")
    (folder / "tmp").mkdir()
    (folder / "tmp" / "always_restart.txt").touch()
    wait_until(lambda: (pids := home.state("blog")["pids"]) and pid_of(first) not in pids)
    home.get("blog")
    home.wait_for("blog", "stopped")
    for version in ("two", "three"):
        (folder / "app.py").write_text(textwrap.dedent(code).replace("VERSION", version))
        assert home.get("blog").endswith(version)
        home.wait_for("blog", "stopped")
    assert home.state("blog")["failure"] is None


def test_a_disabled_site_is_stopped_and_its_socket_is_gone(home: SupervisedHome) -> None:
    home.site("blog")
    pid = pid_of(home.get("blog"))
    (home.path / "sites-enabled" / "blog.ini").unlink()
    wait_until(lambda: not is_running(pid))
    wait_until(lambda: not os.path.exists(home.rundir.socket("blog")))
    with pytest.raises(BackendUnavailable, match="no site"):
        home.ensure("blog")


def test_a_fatal_site_recovers_when_its_file_is_corrected(home: SupervisedHome) -> None:
    home.site("blog", location="/no/such/place")
    with pytest.raises(BackendUnavailable):
        home.ensure("blog")
    home.site("blog")
    wait_until(lambda: is_well(home))
    assert home.get("blog")


def is_well(home: SupervisedHome) -> bool:
    try:
        return bool(home.ensure("blog"))
    except BackendUnavailable:
        return False


# The runtime directory


def test_files_are_there_with_narrow_modes(home: SupervisedHome) -> None:
    home.site("blog", domains="blog.test, *.blog.test, www.blog.test")
    home.get("blog")
    path = Path(home.rundir.path)
    modes = {name: stat.S_IMODE((path / name).stat().st_mode) for name in ("control.sock", "sites/blog.sock")}
    assert modes == {"control.sock": 0o600, "sites/blog.sock": 0o600}
    assert stat.S_IMODE(path.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    assert sorted(found.name for found in (path / "domains").iterdir()) == ["blog.test", "www.blog.test"]
    link = path / "domains" / "blog.test" / "http.sock"
    assert not os.path.isabs(os.readlink(link))
    assert ask(str(link)) == home.get("blog")


def test_a_socket_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    with supervised(tmp_path) as home:
        name = "n" * 64
        conf = home.path / "moya.conf"
        deep = tmp_path / "dddd"
        conf.write_text(conf.read_text().replace("runtime_dir = run", f"runtime_dir = {deep}"))
        home.site(name, domains="long.test")
        client = Client(read_home(str(tmp_path)))
        with pytest.raises(BackendUnavailable, match="longer than 107 bytes"):
            client.ensure(name)
        home.supervisors.add(int(client.ask({"do": "ping"})["pid"]))
        conf.write_text(conf.read_text().replace("dddd", "d" * 60))
        with pytest.raises(BackendUnavailable, match="longer than 107 bytes"):
            Client(read_home(str(tmp_path))).ensure(name)


def test_another_home_is_told_that_the_directory_is_taken(home: SupervisedHome) -> None:
    home.site("blog")
    home.ensure("blog")
    other = home.rival()
    with pytest.raises(BackendUnavailable, match=f"the home {home.path} uses it"):
        Client(read_home(str(other))).ensure("blog")


def test_a_runtime_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text("[service]\nruntime_dir = /dev/null/run\nstate_dir = state\n")
    with pytest.raises(BackendUnavailable, match="/dev/null"):
        Client(read_home(str(tmp_path))).ensure("blog")


# The control socket


def test_nonsense_on_the_control_socket_hurts_nobody(home: SupervisedHome) -> None:
    home.site("blog")
    home.get("blog")
    for nonsense in (b"\n", b"[]\n", b"\xff\xfe\n", b'{"do": "explode"}\n', b'{"do": "ensure"}\n', b"x" * 100_000):
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(WITHIN)
            connected.connect(home.rundir.control)
            try:
                connected.sendall(nonsense)
                assert b"error" in connected.recv(1000) or len(nonsense) > 65536
            except (ConnectionResetError, BrokenPipeError):
                assert len(nonsense) > 65536
    assert home.get("blog")
    with pytest.raises(SupervisorError, match="no command"):
        home.client.ask({"do": "explode"})


def test_logs_are_followed(home: SupervisedHome) -> None:
    code = SERVER.replace("if self.path ==", "print('asked', self.path, flush=True)\n        if self.path ==")
    home.site("blog", code)
    home.get("blog", "/one")
    answers = home.client.follow({"do": "logs", "site": "blog", "follow": True})
    assert next(answers)["lines"] == ["serving", "asked /one"]
    home.get("blog", "/two")
    assert next(answers)["lines"] == ["asked /two"]
    answers.close()  # type: ignore[attr-defined]
    assert home.get("blog")


def test_a_supervisor_that_leaves_takes_its_sockets_along(home: SupervisedHome) -> None:
    home.site("blog")
    home.get("blog")
    os.kill(home.pid, signal.SIGTERM)
    wait_until(lambda: not any(map(is_running, home.supervisors)))
    assert [path.name for path in Path(home.rundir.path).rglob("*") if not path.is_dir()] == ["supervisor.lock"]
    assert home.get("blog")
