"""Who may reach the sites' sockets: the service's own user, and the group that moya.conf names."""

from __future__ import annotations

import grp
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multisite.config.model import Home
from multisite.config.read import read_home
from multisite.control.rundir import RuntimeDir, RuntimeDirError, access_of
from multisite.errors import MultisiteError
from multisite.supervisor.site.queue import SiteSocket

from .harness import MOYA_CONF, SupervisedHome, as_user, ask, supervised, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
GROUP = "socket_group = www-data"
NOBODYS = "no-such-group"
WWW, NOBODY = (33, 33), (65534, 65534)  # uid, gid of www-data and nobody


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))
    return True


def modes(run: Path, *names: str) -> dict[str, tuple[str, int]]:
    """Octal mode and group of each path, "." being the directory itself."""
    found = {name: (run / name).lstat() for name in names if os.path.lexists(run / name)}
    return {name: (f"{stat.S_IMODE(status.st_mode):04o}", status.st_gid) for name, status in found.items()}


ROOTS = {
    ".": ("0711", 0),
    "control.sock": ("0600", 0),
    "supervisor.lock": ("0600", 0),
    "sites": ("0700", 0),
    "sites/blog.sock": ("0600", 0),
    "domains": ("0700", 0),
    "domains/blog.test": ("0700", 0),
    "board": ("0711", 0),
    "notify": ("0711", 0),
    "private": ("0711", 0),
}
WITH_GROUP = {
    **ROOTS,
    "workers.sock": ("0660", 33),
    "sites": ("0710", 33),
    "sites/blog.sock": ("0660", 33),
    "domains": ("0710", 33),
    "domains/blog.test": ("0710", 33),
}


def answer(path: Path, question: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))
        connected.sendall(question + b"\n")
        return connected.recv(65536)


@as_root
@pytest.mark.parametrize(("key", "expected"), [("", ROOTS), (GROUP, WITH_GROUP)], ids=["alone", "group"])
def test_modes_under_root(open_path: Path, key: str, expected: dict[str, tuple[str, int]]) -> None:
    with supervised(open_path, key) as home:
        home.site("blog")
        home.get("blog")
        assert modes(open_path / "run", *expected) == expected


@as_root
def test_what_a_sites_own_user_has_there_is_its_own_alone(open_path: Path) -> None:
    hello = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"
    with supervised(open_path) as home:
        home.app("ours", hello, user="www-data", python="/usr/bin/python3")
        assert home.get("ours") == "hello"
        assert as_user(33, 33, lambda: os.stat(open_path / "run" / "board" / "ours").st_size) == "PermissionError"
        if not os.path.realpath(sys.executable).startswith("/root/"):  # it runs the relay, as the site's user
            home.site("binds", command="/usr/bin/python3 srv.py %SOCKET", user="www-data")
            with pytest.raises(OSError):
                home.get("binds")
            private = (open_path / "run" / "private" / "binds").stat()
            assert (stat.S_IMODE(private.st_mode), private.st_uid) == (0o700, 33)


@as_root
@pytest.mark.parametrize(
    ("who", "let_in"), [(WWW, True), (NOBODY, "PermissionError"), ((1, 1), "PermissionError")], ids=str
)
def test_the_group_connects_and_nobody_else(open_path: Path, who: tuple[int, int], let_in: object) -> None:
    with supervised(open_path, GROUP) as home:
        home.site("blog")
        home.get("blog")
        run = open_path / "run"
        for path in (run / "sites" / "blog.sock", run / "domains" / "blog.test" / "http.sock"):
            assert as_user(*who, lambda path=path: connects(path)) == let_in
        assert as_user(*who, lambda: connects(run / "control.sock")) == "PermissionError"
        assert as_user(*who, lambda: os.listdir(run / "sites")) == "PermissionError"


@as_root
def test_the_control_socket_asks_who_is_there_whatever_its_mode(open_path: Path) -> None:
    """The mode alone would let everybody stop and restart the sites of all."""
    with supervised(open_path) as home:
        home.site("blog")
        home.get("blog")
        control = open_path / "run" / "control.sock"
        control.chmod(0o666)
        for stranger in (WWW, (WWW[0], 0)):  # root's group is not root
            told = as_user(*stranger, lambda: answer(control, b'{"do": "stop", "site": "blog"}'))
            assert told in (b"", "ConnectionResetError", "BrokenPipeError")
        assert as_user(0, 0, lambda: answer(control, b'{"do": "ping"}')).startswith(b'{"pid":')
        assert home.state("blog")["state"] == "running"


@as_root
def test_the_workers_socket_takes_from_others_what_workers_ask_and_nothing_else(open_path: Path) -> None:
    with supervised(open_path, GROUP) as home:
        home.site("blog")
        home.get("blog")
        workers = open_path / "run" / "workers.sock"
        assert b'"socket":' in as_user(*WWW, lambda: answer(workers, b'{"do": "ensure", "site": "blog"}'))
        for do in (b"trouble", b"hung"):
            asked = b'{"do": "%s", "site": "blog", "incident": "0badcafe"}' % do
            assert b'"error"' not in as_user(*WWW, lambda asked=asked: answer(workers, asked))
        forged = b'{"do": "hung", "site": "blog", "incident": "x\\nforged"}'
        assert b'"status":400' in as_user(*WWW, lambda: answer(workers, forged))
        for do in (b"stop", b"status", b"restart", b"upgrade", b"logs"):
            told = as_user(*WWW, lambda do=do: answer(workers, b'{"do": "%s", "site": "blog"}' % do))
            assert b'"status":403' in told
        assert home.state("blog")["state"] == "running"


@pytest.mark.parametrize(("mode", "usable"), [(0o770, False), (0o707, False), (0o1770, True), (0o755, True)], ids=oct)
def test_a_runtime_directory_that_others_may_write_is_refused(open_path: Path, mode: int, usable: bool) -> None:
    """Any user who may write to it, its group included, could replace our socket with another."""
    home = SupervisedHome(open_path)
    (open_path / "run").mkdir()
    (open_path / "run").chmod(mode)
    if usable:
        home.rundir.make()
        return
    with pytest.raises(MultisiteError, match="other users may write to it"):
        home.rundir.make()


@as_root
def test_without_a_group_nobody_connects(open_path: Path) -> None:
    with supervised(open_path) as home:
        home.site("blog")
        home.get("blog")
        path = open_path / "run" / "sites" / "blog.sock"
        assert as_user(*WWW, lambda: connects(path)) == "PermissionError"


@as_root
def test_a_group_that_is_named_later_is_let_in_and_one_that_is_taken_out_is_not(open_path: Path) -> None:
    with supervised(open_path) as home:
        home.site("blog")
        first = home.get("blog")
        conf, run = home.path / "moya.conf", open_path / "run"
        text = conf.read_text()
        conf.write_text(text + GROUP + "\n")
        wait_until(lambda: modes(run, *WITH_GROUP) == WITH_GROUP)
        conf.write_text(text)
        wait_until(lambda: modes(run, *ROOTS) == ROOTS)
        assert home.get("blog") == first


def socket_in(home_path: str, group: str) -> dict[str, tuple[str, int]]:
    """Make the runtime directory and one socket as the present user, and return their modes."""
    conf = Path(home_path) / "moya.conf"
    conf.write_text(f"[service]\nruntime_dir = run\n[supervisor]\nsocket_group = {group}\n")
    home = read_home(home_path)
    rundir = RuntimeDir(home)
    rundir.make()
    rundir.let_in(access_of(home))
    listener = SiteSocket(rundir.socket("blog"), rundir)
    listener.open(10, ["blog.test"])
    names = (".", "sites", "sites/blog.sock", "domains", "domains/blog.test", "board", "notify", "private")
    found = modes(Path(rundir.path), *names)
    listener.close()
    return found


@as_root
@pytest.mark.parametrize(("group", "let_in"), [("", False), ("www-data", True), ("daemon", False)])
def test_modes_under_another_user(open_path: Path, group: str, let_in: bool) -> None:
    """Who is not root may let in a group that they are a member of; any other is a problem, and nobody is."""
    os.chown(open_path, *NOBODY)
    found = as_user(*NOBODY, lambda: socket_in(str(open_path), group), groups=(33,))
    mine, theirs = (folder, socket_) = (("0700", 65534), ("0600", 65534)), (("0710", 33), ("0660", 33))
    folder, socket_ = theirs if let_in else mine
    assert found == {
        ".": folder,
        "sites": folder,
        "sites/blog.sock": socket_,
        "domains": folder,
        "domains/blog.test": folder,
        "board": mine[0],
        "notify": mine[0],
        "private": mine[0],
    }


def checked(home: SupervisedHome) -> str:
    argv = [sys.executable, "-m", "multisite", "--home", str(home.path), "check"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def test_a_group_that_does_not_exist_is_a_problem_and_sites_are_served(tmp_path: Path) -> None:
    with supervised(tmp_path, f"socket_group = {NOBODYS}") as home:
        home.site("blog")
        assert f"[supervisor] socket_group = {NOBODYS}: there is no such group" in checked(home)
        path = home.ensure("blog")
        assert ask(path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_problem_is_told_once_and_once_more_when_it_comes_back(tmp_path: Path) -> None:
    """Not with each change of anything."""
    log = tmp_path / "log"
    with supervised(tmp_path) as home, log.open("w") as told:

        def takes(group: str, number: int) -> None:
            supervisor = f"max_backends = {number}\n{f'socket_group = {group}' if group else ''}"
            (tmp_path / "moya.conf").write_text(MOYA_CONF.format(supervisor=supervisor))
            wait_until(lambda: home.status()["supervisor"]["max_backends"] == number)

        code = "import sys; from multisite.supervisor import run; sys.exit(run.run(sys.argv[1], foreground=True))"
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=told) as process:
            try:
                wait_until(lambda: os.path.exists(home.rundir.control))
                for number, (group, times) in enumerate([(NOBODYS, 1), (NOBODYS, 1), ("", 1), (NOBODYS, 2)], 20):
                    takes(group, number)
                    assert log.read_text().count("there is no such group") == times
            finally:
                process.terminate()


@as_root
def test_a_folder_that_the_group_cannot_pass_is_said(open_path: Path) -> None:
    closed = open_path / "closed"
    closed.mkdir(mode=0o700)
    with supervised(closed, GROUP) as home:
        assert f"the group cannot enter {closed}" in checked(home)
        closed.chmod(0o711)
        assert "socket_group" not in checked(home)


def test_a_number_is_a_group_too(tmp_path: Path) -> None:
    gid = os.getegid()
    (tmp_path / "moya.conf").write_text(f"[supervisor]\nsocket_group = {gid}\n")
    assert access_of(read_home(str(tmp_path))).group == gid
    (tmp_path / "moya.conf").write_text(f"[supervisor]\nsocket_group = {grp.getgrgid(gid).gr_name}\n")
    assert access_of(read_home(str(tmp_path))).group == gid


# Workers of another user


def asked(home: SupervisedHome, request: dict[str, str]) -> Any:
    """Ask as a worker does; returns the answer or what kept it from coming."""
    try:
        return home.client.ask(request)
    except MultisiteError as error:
        return error.reason


@as_root
def test_workers_of_the_group_are_served_by_roots_supervisor(open_path: Path) -> None:
    """They may ask for a site's socket and connect to it; whatever else root's supervisor does is not theirs."""
    with supervised(open_path, GROUP) as home:
        home.site("blog")
        first = home.get("blog")
        assert as_user(*WWW, lambda: home.client.ensure("blog")) == home.rundir.socket("blog")
        assert as_user(*WWW, lambda: ask(home.client.ensure("blog"))) == first
        for command in ("status", "stop", "restart", "logs", "reload", "upgrade"):
            told = as_user(*WWW, lambda command=command: asked(home, {"do": command, "site": "blog"}))
            assert told == "only the supervisor's own user and root may send this command"
        assert home.get("blog") == first
        told = as_user(*NOBODY, lambda: asked(home, {"do": "ensure", "site": "blog"}))
        assert "permission denied" in told
        assert "socket_group" in told


@as_root
def test_the_workers_socket_goes_with_its_group_and_survives_an_upgrade(open_path: Path) -> None:
    with supervised(open_path, GROUP) as home:
        home.site("blog")
        home.get("blog")
        home.client.ask({"do": "upgrade"}, within=90)
        assert as_user(*WWW, lambda: home.client.ensure("blog")) == home.rundir.socket("blog")
        os.kill(home.pid, signal.SIGKILL)
        conf = home.path / "moya.conf"
        conf.write_text(conf.read_text().replace(GROUP, ""))
        assert home.get("blog")
        assert not os.path.exists(home.rundir.workers)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_runtime_directory_that_others_may_write_is_not_used(tmp_path: Path, mode: int) -> None:
    """They could put a socket in the place of ours."""
    (tmp_path / "moya.conf").touch()
    home = Home(str(tmp_path), str(tmp_path / "moya.conf"), environ={})
    run = tmp_path / "run"
    run.mkdir()
    run.chmod(mode)
    with pytest.raises(RuntimeDirError, match="other users may write to it"):
        RuntimeDir(home, str(run)).make()
    run.chmod(0o755)
    RuntimeDir(home, str(run)).make()
