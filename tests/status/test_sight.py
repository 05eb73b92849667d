"""What an ordinary user sees of root's service: what files say, no false word, and the command that shows the rest."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from multisite.cli import main
from multisite.config.model import Home
from multisite.config.read import read_home
from multisite.control.rundir import RuntimeDir
from multisite.status import sight
from tests.supervisor.harness import SupervisedHome, as_user, supervised

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
NOBODY, WWW = (65534, 65534), (33, 33)
HELLO = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"
READING = {
    "list": ("list",),
    "status": ("status",),
    "stats": ("stats",),
    "stats of one": ("stats", "blog"),
    "explain": ("explain", "blog.test"),
    "explain by name": ("explain", "blog"),
    "router": ("router",),
}


@pytest.fixture(scope="module")
def home() -> Iterator[SupervisedHome]:
    """A service of root's with a site that runs, one in the workers, one that may be in either, and hidden places."""
    path = Path(tempfile.mkdtemp(prefix="multisite-", dir="/tmp"))
    path.chmod(0o755)
    (path / "state").mkdir(mode=0o700)
    with supervised(path, "socket_group = www-data") as made:
        made.app("blog", HELLO)
        made.app("moves", HELLO, mode="auto", share="yes")
        made.app("inside", HELLO, mode="in-process")
        venv = made.app("venv", HELLO, python=str(path / "sites" / "venv" / ".venv")) / ".venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to("/usr/bin/python3")
        venv.chmod(0o700)
        made.app("closed", HELLO).chmod(0o700)
        (made.app("locked", HELLO) / "app.py").chmod(0o600)
        made.app("words", HELLO, more=f"[access]\nhtpasswd = {path}/passwords\n")
        (path / "passwords").touch(mode=0o600)
        made.app("secret", HELLO)
        (path / "sites-enabled" / "secret.ini").chmod(0o600)
        made.get("blog")
        for words in (*READING.values(), ("check",), ("logs", "blog"), ("stop", "inside")):
            command(made.path, *words)  # imports what others may not, where this Python is hidden from them
        yield made
    shutil.rmtree(path)


def command(path: Path, *words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["--home", str(path), *words])
    return done.exit_code, done.stdout, done.stderr


def seen(path: Path, *words: str, who: tuple[int, int] = NOBODY, groups: tuple[int, ...] = ()) -> tuple[int, str, str]:
    found: tuple[int, str, str] = as_user(*who, lambda: command(path, *words), groups)
    return found


@pytest.mark.parametrize("words", READING.values(), ids=READING)
@pytest.mark.parametrize("who", [NOBODY, WWW], ids=["stranger", "socket_group"])
def test_every_reading_command_shows_what_it_may_and_names_the_one_that_shows_all(
    home: SupervisedHome, words: tuple[str, ...], who: tuple[int, int]
) -> None:
    code, out, err = seen(home.path, *words, who=who)
    assert code == 0, err
    assert f"sudo multisite --home {home.path} {' '.join(words)}" in err
    assert "no nodes are known" not in out
    assert "socket_group" not in err and "no supervisor is running" not in out + err
    assert "stopped" not in out and "broken" not in out


@pytest.mark.parametrize("words", [("list",), ("status",)], ids=" ".join)
def test_what_cannot_be_seen_is_unknown_in_json_too(home: SupervisedHome, words: tuple[str, ...]) -> None:
    code, out, _ = seen(home.path, "--json", *words)
    told = json.loads(out)
    assert code == 0
    assert told["supervisor"] is None and "sudo multisite" in told["hidden"]
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in told["sites"]}
    assert {row["state"] for row in rows.values()} == {"unknown"}
    assert {row["requests"] for row in rows.values()} == {None}
    assert rows["blog"]["placement"] == "spawned" and rows["blog"]["domains"] == ["blog.test"]
    assert rows["moves"]["placement"] is None


def test_stats_makes_nothing_in_order_to_read(home: SupervisedHome) -> None:
    folder = home.path / "run" / "usage"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    try:
        code, _, err = command(home.path, "stats")
        assert (code, err, list(folder.iterdir())) == (0, "", [])
        folder.chmod(0o700)
        code, out, err = seen(home.path, "--json", "stats")
        assert code == 0 and ".lock" not in err
        assert {row["requests"] for row in json.loads(out)["sites"]} == {None}
    finally:
        shutil.rmtree(folder)


def test_a_place_that_may_not_be_looked_at_is_not_called_missing(home: SupervisedHome) -> None:
    code, out, _ = seen(home.path, "--json", "check")
    found = {os.path.basename(one["file"]): one for one in json.loads(out)["problems"]}
    assert code == 0, out
    assert {name: (one["key"], one["severity"]) for name, one in found.items() if name != "moya.conf"} == {
        "venv.ini": ("python", "warning"),
        "closed.ini": ("location", "warning"),
        "locked.ini": ("application", "warning"),
        "secret.ini": ("", "warning"),
        "words.ini": ("htpasswd", "warning"),
    }
    for name, place in {"venv.ini": "venv/.venv", "closed.ini": "closed", "locked.ini": "locked/app.py"}.items():
        assert f"{home.path}/sites/{place} is closed to the user 'nobody'" in found[name]["reason"]
        assert found[name]["remedy"].startswith("sudo multisite")


def test_a_site_whose_file_is_hidden_is_not_called_unknown(home: SupervisedHome) -> None:
    code, out, err = seen(home.path, "explain", "secret.test")
    assert code == 1 and "404" not in out + err
    assert "secret.ini: may not be read by this user" in err and f"sudo multisite --home {home.path}" in err


def test_hidden_folders_and_a_hidden_moya_conf_name_the_command_too(home: SupervisedHome) -> None:
    for place in (home.path / "sites-enabled", home.path / "moya.conf"):
        mode = place.stat().st_mode
        place.chmod(0o700)
        try:
            for words in (*READING.values(), ("logs", "blog")):
                _, out, err = seen(home.path, *words)
                assert f"sudo multisite --home {home.path} {words[0]}" in err, err
                assert "404" not in out + err and "there is no site" not in err and "has no sites" not in err
        finally:
            place.chmod(mode)


@pytest.mark.parametrize("words", [("logs", "blog"), ("restart", "blog"), ("stop", "blog")], ids=" ".join)
def test_a_command_that_cannot_do_its_work_names_the_one_that_can(home: SupervisedHome, words: tuple[str, ...]) -> None:
    for who in (NOBODY, WWW):
        code, _, err = seen(home.path, *words, who=who)
        assert code == 1
        assert f"sudo multisite --home {home.path} {' '.join(words)}" in err and "socket_group" not in err
    assert home.state("blog")["state"] == "running"


def test_root_needs_no_other_command(home: SupervisedHome) -> None:
    for words in READING.values():
        code, _, err = command(home.path, *words)
        assert code == 0 and "hidden" not in err and "sudo" not in err


def plain(path: Path, uid: int, **folders: str) -> Home:
    (path / "moya.conf").write_text("")
    os.chown(path / "moya.conf", uid, uid)
    home = read_home(str(path), {"XDG_RUNTIME_DIR": str(path / "own")})
    return replace(home, system_temp=str(path))


def test_default_folders_are_those_of_the_service(tmp_path: Path) -> None:
    """Each user has defaults of their own: a service of www-data's is not looked for where root has one."""
    tmp_path.chmod(0o755)
    home = plain(tmp_path, 33)
    own, theirs = home.runtime_dir, tmp_path / "multisite-33"
    assert sight.of_service(home).runtime_dir == own
    theirs.mkdir()
    (theirs / "control.sock").touch()
    assert sight.of_service(home).runtime_dir == own, "it is not that user's"
    os.chown(theirs, 33, 33)
    assert sight.of_service(home).runtime_dir == str(theirs)
    (theirs / "supervisor.lock").write_text("1\n/another/home\n")
    assert sight.of_service(home).runtime_dir == own, "another home's supervisor is there"
    (theirs / "supervisor.lock").write_text(f"1\n{tmp_path}\n")
    assert sight.of_service(home).runtime_dir == str(theirs)
    os.makedirs(own)
    (Path(own) / "control.sock").touch()
    assert sight.of_service(home).runtime_dir == own


def test_root_is_answered_by_the_supervisor_of_another_user(tmp_path: Path) -> None:
    path = Path(tempfile.mkdtemp(prefix="multisite-", dir="/tmp"))
    try:
        (path / "run").mkdir()
        (path / "moya.conf").write_text("[service]\nruntime_dir = run\nstate_dir = state\n")
        for place in (path, path / "run", path / "moya.conf"):
            os.chown(place, 33, 33)
        code, out, _ = answered(path)
        assert code == 0 and f", {path}, supervisor 4711, up 1s" in out
    finally:
        shutil.rmtree(path)


def answered(path: Path) -> tuple[int, str, str]:
    """Ask for the status while a process of www-data's answers in the supervisor's place."""
    import socket
    import threading

    supervisor = {"pid": 4711, "uptime": 1, "backends": 0, "max_backends": 50}
    answer = json.dumps({"supervisor": supervisor, "preloaders": [], "sites": {}}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as listening:
        as_listening(listening, str(RuntimeDir(read_home(str(path))).control))

        def serve() -> None:
            connected, _ = listening.accept()
            with connected:
                connected.makefile("rb").readline()
                connected.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return command(path, "status")
        finally:
            thread.join(60)


def as_listening(listening: Any, path: str) -> None:
    """Listen as www-data, which is who the kernel then names as the peer."""
    listening.bind(path)
    os.chown(path, 33, 33)
    os.seteuid(33)
    try:
        listening.listen()
    finally:
        os.seteuid(0)
