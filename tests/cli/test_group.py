"""One site's fault costs that site's row, never a command."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.cli.group import LazyGroup
from multisite.sites import sharing
from multisite.sites.catalogue import Catalogue
from multisite.sites.statefile import StateFile

Run = Callable[..., Result]
HELLO = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    for folder in ("sites-available", "sites-enabled", "code"):
        (tmp_path / folder).mkdir()
    (tmp_path / "code" / "app.py").write_text(HELLO)
    sections = ("[projects]\nread = sites-enabled/*.ini", "[service]\nstate_dir = state\nruntime_dir = run")
    (tmp_path / "moya.conf").write_text("\n".join((*sections, "[supervisor]\nallow_root = yes\n")))
    return tmp_path


@pytest.fixture
def run(home: pathlib.Path) -> Run:
    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["--home", str(home), *words])

    return run


def add(home: pathlib.Path, name: str, *lines: str, enable: bool = True) -> None:
    keys = {"domains": f"{name}.test", "location": str(home / "code"), "application": "app:application"}
    keys |= dict(line.split(" = ", 1) for line in lines)
    text = "[service]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
    (home / "sites-available" / f"{name}.ini").write_text(text)
    if enable:
        (home / "sites-enabled" / f"{name}.ini").symlink_to(f"../sites-available/{name}.ini")


@pytest.fixture
def faulty(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two good sites are two at which the program itself fails: one when it is judged, one before that."""
    for name in ("first", "judged", "made", "last"):
        add(home, name)
    place, made = sharing.place, Catalogue.site

    def broken_place(site: Any, *more: Any) -> Any:
        return {}["a judgement"] if site.name == "judged" else place(site, *more)

    def broken_site(self: Catalogue, name: str) -> Any:
        return {}["a site"] if name == "made" else made(self, name)

    monkeypatch.setattr(sharing, "place", broken_place)
    monkeypatch.setattr(Catalogue, "site", broken_site)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("command", ["list", "status"])
def test_a_table_has_a_row_for_each_site(run: Run, command: str) -> None:
    """The faulty ones are broken, and their incidents are told."""
    done = run(command)
    assert done.exit_code == 3, done.stderr
    text = " ".join(done.stdout.split())
    assert all(name in text for name in ("first", "judged", "made", "last"))
    assert text.count("incident ") == 2
    assert "KeyError: 'a judgement'" in text and "KeyError: 'a site'" in text
    rows = {site["name"]: site for site in json.loads(run("--json", command).stdout)["sites"]}
    assert [rows[name]["state"] for name in ("first", "judged", "made", "last")] == [
        "stopped",
        "broken",
        "broken",
        "stopped",
    ]
    assert rows["made"]["reason"].startswith("incident ") and rows["made"]["problems"]


@pytest.mark.usefixtures("faulty")
def test_check_counts_them_as_errors(run: Run) -> None:
    done = run("check")
    assert done.exit_code == 1
    assert done.stdout.count("cannot be checked: incident ") == 2
    problems = json.loads(run("--json", "check").stdout)["problems"]
    assert [os.path.basename(problem["file"]) for problem in problems] == ["judged.ini", "made.ini"]


@pytest.mark.usefixtures("faulty")
def test_the_traceback_is_where_the_line_says(home: pathlib.Path, run: Run) -> None:
    """It names our file and line, and the whole traceback is kept, for our own eyes."""
    reason = run("explain", "judged.test").stdout
    assert "runs:        not: incident " in reason and "sharing.py" not in reason
    path = reason.partition("its traceback is in ")[2].split()[0]
    told = json.loads(pathlib.Path(path).read_text())
    incident = reason.partition("incident ")[2].partition(":")[0]
    assert told[incident]["site"] == "judged"
    assert "KeyError: 'a judgement'" in told[incident]["traceback"][-1]
    assert os.stat(path).st_mode & 0o077 == 0
    assert StateFile.__name__  # the same place as all that a home keeps
    assert pathlib.Path(path).parent == home / "state"


@pytest.mark.usefixtures("faulty")
def test_what_is_done_to_several_is_done_to_the_others(home: pathlib.Path, run: Run, monkeypatch: Any) -> None:
    """`restart` says which site it could not restart, and exits with 1."""
    from multisite.cli import restart

    def broken_stamp(path: str) -> None:
        if "judged" in path:
            raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(restart, "stamp", broken_stamp)
    done = run("restart", "first", "judged", "last")
    assert done.exit_code == 1
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["first", "last"]
    assert done.stderr.startswith("multisite: judged: ") and "permission denied; do you need sudo?" in done.stderr
    told = json.loads(run("--json", "restart", "first", "judged", "last").stdout)
    assert told["restarted"] == ["first", "last"] and list(told["failed"]) == ["judged"]


@pytest.mark.usefixtures("faulty")
def test_rules_are_made_for_the_others(run: Run) -> None:
    done = run("create-rules", "--nginx")
    assert done.exit_code == 0
    assert "server_name first.test" in done.stdout and "server_name last.test" in done.stdout
    assert "no rules for the site made: incident " in done.stderr


@pytest.mark.usefixtures("faulty")
def test_stats_and_where_of_the_others(home: pathlib.Path, run: Run) -> None:
    assert {site["name"] for site in json.loads(run("--json", "stats").stdout)["sites"]} >= {"first", "made", "last"}
    assert run("where", "first").stdout == f"{home}/code\n"
    done = run("where", "made")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("multisite: incident ")


def test_links_that_cannot_be_made_do_not_keep_the_others(home: pathlib.Path, run: Run, monkeypatch: Any) -> None:
    from multisite.sites.enabling import Places

    for name in ("one", "two", "three"):
        add(home, name, enable=False)
    enable = Places.enable

    def broken_enable(self: Places, stem: str) -> Any:
        if stem == "two":
            raise PermissionError(13, "Permission denied", str(home / "sites-enabled/two.ini"))
        return enable(self, stem)

    monkeypatch.setattr(Places, "enable", broken_enable)
    done = run("ensite", "one", "two", "three")
    assert done.exit_code == 1
    assert done.stdout.startswith("enabled one\nenabled three\none: http://one.test:8000/")
    assert done.stderr.startswith("multisite: two: ") and "do you need sudo?" in done.stderr


def test_a_site_file_that_breaks_the_reader_is_a_problem_of_that_file(
    home: pathlib.Path, run: Run, monkeypatch: Any
) -> None:
    from multisite.config import checks

    add(home, "good")
    add(home, "odd", "mount = /odd")
    cross_check = checks.cross_check

    def broken(values: Any, service: Any, *more: Any, **named: Any) -> Any:
        return {}["a key"] if service.get("mount") == "/odd" else cross_check(values, service, *more, **named)

    monkeypatch.setattr(checks, "cross_check", broken)
    assert "odd.ini: it cannot be read: KeyError: 'a key'" in run("check").stdout
    rows = {site["name"]: site["state"] for site in json.loads(run("--json", "list").stdout)["sites"]}
    assert rows == {"good": "stopped", "odd": "broken"}


def test_an_unforeseen_end_of_a_command_is_one_line(run: Run, monkeypatch: Any) -> None:
    """No traceback, exit code 1, and an incident."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("no idea")

    monkeypatch.setattr(LazyGroup, "get_command", broken)
    done = run("list")
    assert done.exit_code == 1
    assert done.stderr.startswith("multisite: incident ") and len(done.stderr.splitlines()) == 1


# What raised: a site that serves, and a command that ends.


def _deep(folder: pathlib.Path) -> str:
    (folder / "src" / "shop").mkdir(parents=True)
    (folder / "src" / "shop" / "web.py").write_text(HELLO)
    return "src.shop.web:application"


def _deeper(folder: pathlib.Path) -> str:
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "b" / "c" / "__init__.py").write_text(HELLO)
    return "a.b.c"


def _no_such(folder: pathlib.Path) -> str:
    (folder / "src" / "shop").mkdir(parents=True)
    return "src.shop.none"


def _chain(folder: pathlib.Path) -> str:
    """A thousand elif, each of which is within the last one in the syntax tree."""
    branches = "".join(f"elif x == {number}:\n    pass\n" for number in range(950))
    (folder / "chain.py").write_text(f"x = 1\nif x == 0:\n    pass\n{branches}else:\n    pass\n{HELLO}")
    return "chain:application"


def _nested(folder: pathlib.Path) -> str:
    """Too deep for Python itself."""
    (folder / "nested.py").write_text(f"x = {'(' * 5000}1{')' * 5000}\n{HELLO}")
    return "nested:application"


def _other_coding(folder: pathlib.Path) -> str:
    (folder / "coding.py").write_bytes(b"# coding: no-such-coding\n" + HELLO.encode())
    return "coding:application"


def _zeros(folder: pathlib.Path) -> str:
    (folder / "zeros.py").write_bytes(b"\0" * 100)
    return "zeros:application"


def _folder(folder: pathlib.Path) -> str:
    (folder / "page.wsgi").mkdir()
    return "page.wsgi"


def _loop(folder: pathlib.Path) -> str:
    (folder / "loop.py").symlink_to("loop.py")
    return "loop:application"


def _pipe(folder: pathlib.Path) -> str:
    os.mkfifo(folder / "pipe.py")
    return "pipe:application"


def _dangling(folder: pathlib.Path) -> str:
    (folder / "gone").symlink_to("nowhere")
    return "gone.app:application"


ODD = (_deep, _deeper, _no_such, _chain, _nested, _other_coding, _zeros, _folder, _loop, _pipe, _dangling)
FINE = {"deep", "deeper", "chain"}


def test_odd_sites_are_judged_and_no_command_ends(home: pathlib.Path, run: Run) -> None:
    """Each command says something of each, and none of it is an incident."""
    for make in ODD:
        name = make.__name__.strip("_").replace("_", "-")
        folder = home / name
        folder.mkdir()
        add(home, name, f"location = {folder}", f"application = {make(folder)}")
    for words in (["check"], ["list"], ["status"], ["stats"], ["--json", "list"], ["create-rules", "--nginx"]):
        done = run(*words)
        assert "incident" not in done.output, done.output
        expected = {"check": 1, "list": 3, "status": 3}.get(words[-1], 0)
        assert done.exit_code == expected, done.output
    rows = {site["name"]: site["state"] for site in json.loads(run("--json", "list").stdout)["sites"]}
    for name, state in rows.items():
        assert state == ("stopped" if name in FINE else "broken"), name
        assert "incident" not in run("explain", f"{name}.test").output
        assert "incident" not in run("logs", name).output
