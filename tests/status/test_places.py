"""`multisite check` knows the folders without which a home or a site cannot work, and makes none of them."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from multisite.cli import main
from multisite.config.model import Site
from multisite.config.read import read_home
from multisite.control.client import Client
from multisite.errors import BackendUnavailable
from multisite.status import places
from tests.supervisor.harness import as_user

HELLO = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"


def checked(home: pathlib.Path) -> tuple[int, list[dict[str, Any]]]:
    done = CliRunner().invoke(main, ["--home", str(home), "--json", "check"])
    return done.exit_code, json.loads(done.stdout)["problems"]


def made(path: pathlib.Path, service: str = "state_dir = state\nruntime_dir = run", more: str = "") -> pathlib.Path:
    for folder in ("sites-enabled", "code"):
        (path / folder).mkdir()
    (path / "code" / "app.py").write_text(HELLO)
    sections = (f"[service]\n{service}\n[supervisor]\nallow_root = yes\n", "[projects]\nread = sites-enabled/*.ini\n")
    (path / "moya.conf").write_text("".join(sections))
    keys = f"domains = shop.test\nlocation = {path}/code\napplication = app:application\n"
    (path / "sites-enabled" / "shop.ini").write_text(f"[service]\n{keys}{more}")
    return path


def test_nothing_is_wrong_with_folders_that_are_yet_to_be_made(tmp_path: pathlib.Path) -> None:
    home = made(tmp_path)
    assert checked(home) == (0, [])
    assert not (home / "run").exists() and not (home / "state").exists()


@pytest.mark.parametrize("mode", ["spawned", "in-process"])
def test_a_runtime_directory_too_long_for_a_socket_is_an_error(tmp_path: pathlib.Path, mode: str) -> None:
    """Said once of the home, and of each site that has processes."""
    home = made(tmp_path, f"state_dir = state\nruntime_dir = {'r' * 110}", f"mode = {mode}\n")
    code, problems = checked(home)
    assert code == 1
    assert [(one["file"], one["key"]) for one in problems] == [
        (str(home / "moya.conf"), "runtime_dir"),
        *([(str(home / "sites-enabled/shop.ini"), "name")] if mode == "spawned" else []),
    ]
    assert "the limit is 107" in problems[0]["reason"]


def test_a_site_whose_name_makes_it_too_long_is_the_only_one(tmp_path: pathlib.Path) -> None:
    """The control socket has room, and so has a short name."""
    room = 107 - len(os.fsencode(str(tmp_path / "run"))) - len("/sites/.sock")
    home = made(tmp_path, f"state_dir = state\nruntime_dir = run{'n' * max(0, room - 40)}")
    name = "x" * 60
    text = (home / "sites-enabled/shop.ini").read_text().replace("shop.test", "long.test")
    (home / "sites-enabled/long.ini").write_text(f"{text}name = {name}\n")
    code, problems = checked(home)
    assert code == 1
    assert [(os.path.basename(one["file"]), one["key"], one["value"]) for one in problems] == [
        ("long.ini", "name", name)
    ]
    assert "its socket" in problems[0]["reason"] and "runtime_dir" in problems[0]["remedy"]


@pytest.mark.parametrize("key", ["runtime_dir", "state_dir"])
def test_a_folder_below_a_file_cannot_be_had(tmp_path: pathlib.Path, key: str) -> None:
    (tmp_path / "file").touch()
    home = made(tmp_path, f"{key} = file/folder")
    code, problems = checked(home)
    assert (code, problems[0]["key"]) == (1, key)
    assert "file is not a folder" in problems[0]["reason"]


LOGS = {
    "no folder": ("none/e.log", "there is no folder"),
    "a file as its folder": ("file/e.log", "is not a folder"),
    "a folder as the log": ("code", "it is a folder"),
    "a good place": ("code/e.log", ""),
    "a placeholder": ("logs-of-%(name)s/e.log", "there is no folder"),
    "syslog": ("syslog:", ""),
    "a stream": ("/dev/stderr", ""),
}


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("key", ["access", "error"])
def test_logs_that_could_not_be_written_are_warned_of(tmp_path: pathlib.Path, kind: str, key: str) -> None:
    """The site is served all the same, so they are no errors."""
    place, reason = LOGS[kind]
    (tmp_path / "file").touch()
    path = place if place.startswith(("/", "syslog")) else f"{tmp_path}/{place}"
    home = made(tmp_path, more=f"[logging]\n{key} = {path}\n")
    code, problems = checked(home)
    assert code == 0
    assert [(one["section"], one["key"], one["severity"]) for one in problems] == (
        [("logging", key, "warning")] if reason else []
    )
    assert not reason or reason in problems[0]["reason"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_who_may_not_write_a_log_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "logs").mkdir(mode=0o500)
    site = Site("a.ini", name="a", error_log=str(tmp_path / "logs" / "e.log"))
    (problem,) = places.log_problems(site)
    assert problem.reason.startswith("the user '") and problem.reason.endswith(
        f"may not write to {tmp_path}/logs (mode 0500)"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="others follow it")
def test_root_follows_no_link_to_a_log(tmp_path: pathlib.Path) -> None:
    (tmp_path / "e.log").symlink_to("elsewhere.log")
    (problem,) = places.log_problems(Site("a.ini", name="a", error_log=str(tmp_path / "e.log")))
    assert "root does not follow" in problem.reason


def test_a_log_of_the_service_without_a_folder_is_an_error(tmp_path: pathlib.Path) -> None:
    """Since then logging.ini is not used at all; it is not opened to find that out."""
    home = made(tmp_path)
    handler = f"[handler:file]\nclass = FileHandler\nargs = ('{tmp_path}/none/service.log',)\n"
    (home / "logging.ini").write_text(f"[logger:root]\nhandlers = file\nlevel = INFO\n{handler}")
    code, problems = checked(home)
    assert code == 1
    assert f"there is no folder {tmp_path}/none" in problems[0]["reason"]
    (home / "none").mkdir()
    assert checked(home) == (0, [])
    assert not list((home / "none").iterdir())


def others_may_write(run: pathlib.Path) -> str:
    run.mkdir()
    run.chmod(0o777)
    return "other users may write to it"


def of_another_user(run: pathlib.Path) -> str:
    run.mkdir()
    os.chown(run, 65534, 65534)
    return "it belongs to the user 65534"


def below_a_file(run: pathlib.Path) -> str:
    run.write_text("")
    return "is not a folder"


def closed(run: pathlib.Path) -> str:
    run.mkdir()
    run.chmod(0o500)
    return f"the user {os.geteuid()} cannot write to {run}"


@pytest.mark.parametrize("spoil", [others_may_write, below_a_file, of_another_user if os.geteuid() == 0 else closed])
def test_no_start_is_promised_in_a_runtime_directory_that_cannot_be_used(
    tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], str]
) -> None:
    """check, status and whoever would start the supervisor agree; the last has what the system says of its attempt."""
    home = made(tmp_path)
    reason = spoil(home / "run")
    code, (problem,) = checked(home)
    assert (code, problem["key"], problem["severity"]) == (1, "runtime_dir", "error")
    status = CliRunner().invoke(main, ["--home", str(home), "status"]).stdout
    with pytest.raises(BackendUnavailable) as refused:
        Client(read_home(str(home)), start_within=1.0).ensure("shop")
    assert reason in problem["reason"]
    assert reason in status
    attempt = {below_a_file: "file exists", closed: "permission denied"}.get(spoil, reason)
    assert str(home / "run") in refused.value.reason
    assert attempt in refused.value.reason
    assert "the first request" not in status


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_user_who_may_not_write_it_is_warned_where_the_home_is_another_users() -> None:
    """The service may well run as that one."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        home = made(pathlib.Path(folder))
        (home / "run").mkdir()
        assert places.runtime_problem(read_home(str(home))) is None
        found = as_user(65534, 65534, lambda: _warned(home))
    assert found == ("warning", f"the user 65534 cannot write to {home}/run")


def _warned(home: pathlib.Path) -> tuple[str, str]:
    problem = places.runtime_problem(read_home(str(home)))
    assert problem
    return problem.severity, problem.reason
