"""`multisite check` knows the folders without which a home or a site cannot work, and makes none of them."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest
from click.testing import CliRunner

from multisite.cli import main, places
from multisite.config.model import Site

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
    assert "107 are the most" in problems[0]["reason"]


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
    assert "file is no folder" in problems[0]["reason"]


LOGS = {
    "no folder": ("none/e.log", "there is no folder"),
    "a file as its folder": ("file/e.log", "is no folder"),
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
    assert problem.reason.startswith("the user '") and problem.reason.endswith(f"may not write {tmp_path}/logs")


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
