"""`multisite check` knows what of [router] cannot work, and connects to nothing to find out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from multisite.cli import main, routing
from multisite.config.read import read_home
from multisite.errors import Problem

CODE = "nodes = {}\n\ndef get(key):\n    return nodes.get(key)\n"


def found(home: Path, text: str) -> list[Problem]:
    (home / "moya.conf").write_text(f"[router]\n{text}\n")
    read = read_home(str(home))
    assert not read.problems
    return routing.problems(read)


def only(home: Path, text: str) -> Problem:
    (problem,) = found(home, text)
    assert problem.remedy and problem.is_error
    return problem


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "mapper.py").write_text(CODE)
    (tmp_path / "map.txt").write_text("# comment\n\nunbit.it 127.0.0.1:3031,5|/run/x.sock\nb.example:8000 @abstract\n")
    (tmp_path / "nodes").mkdir()
    (tmp_path / "keys").mkdir()
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "plain").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "map = map.txt",
        "pattern = /run/nodes/%s/uwsgi.sock",
        "base = nodes",
        "code = mapper.py:get",
        "code = mapper:get",
        "code = posixpath:basename",
        "redis = redis://127.0.0.1:1/0",
        "sql = sqlite:///map.db\nquery = SELECT node FROM map WHERE domain = :key",
        "subscription_server = 127.0.0.1:7000, [::1]:7000, :7001, @abstract, %(home)s/x.sock",
        "subscription_keys = sha256:keys",
        "subscription_credentials = keys",
        "stats = 127.0.0.1:9191",
        "provision = mapper.py:get",
        "provision = ./tool --really 'two words'",
        "provision = true",
        "to = 127.0.0.1:1\nfallback = http://127.0.0.1:2",
    ],
)
def test_what_can_work_is_no_problem(home: Path, text: str) -> None:
    assert found(home, text) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("map = none.txt", "No such file"),
        ("map = nodes", "Is a directory"),
        ("pattern = /run/nodes/x.sock", "the same node for every key"),
        ("base = none", "there is no folder"),
        ("base = plain", "is not a folder"),
        ("code = mapper.py", "FILE:FUNCTION"),
        ("code = none.py:get", "there is no file"),
        ("code = mapper.py:put", "there is no put"),
        ("code = mapper.py:nodes", "nodes is not callable"),
        ("code = no.such.module:get", "there is no module no.such.module"),
        ("redis = 127.0.0.1", "scheme"),
        ("sql = sqlite:///map.db", "query is missing"),
        ("sql = sqlite:///map.db\nquery = SELECT 1", ":key"),
        ("sql = nonsense\nquery = SELECT :key", "parse"),
        ("mappers = consul", "no installed package has a mapper consul"),
        ("subscription_server = 127.0.0.1", "neither HOST:PORT"),
        ("subscription_server = 127.0.0.1:70000", "neither HOST:PORT"),
        ("subscription_server = /none/x.sock", "there is no folder /none"),
        (f"subscription_server = /{'x' * 120}", "has 121 bytes"),
        ("subscription_keys = keys", "DIGEST:FOLDER"),
        ("subscription_keys = MD5:keys", "SHA1"),
        ("subscription_keys = SHA1:none", "is not a folder"),
        ("subscription_credentials = none", "there is no folder"),
        ("stats = here", "neither HOST:PORT"),
        ("provision = none.py:domain", "there is no file"),
        ("provision = mapper:put", "there is no put"),
        ("provision = ./none", "there is no program"),
        ("provision = ./plain", "it is not executable"),
        ("provision = no-such-program x", "there is no program"),
        ("provision = ./tool 'open", "split"),
    ],
)
def test_what_cannot_work_is_told_with_its_key_and_a_remedy(home: Path, text: str, reason: str) -> None:
    problem = only(home, text)
    key, _, value = text.partition("\n")[0].partition(" = ")
    assert (problem.file, problem.section, problem.key) == (str(home / "moya.conf"), "router", key)
    assert reason in problem.reason and problem.value in value


def test_code_that_is_no_python_is_told_with_its_line_and_never_run(home: Path) -> None:
    (home / "mapper.py").write_text(f"open({str(home / 'was-run')!r}, 'w')\ndef get(:\n")
    assert "line 2" in only(home, "code = mapper.py:get").reason
    (home / "mapper.py").write_text(f"open({str(home / 'was-run')!r}, 'w')\ndef get(key): ...\n")
    assert found(home, "code = mapper.py:get\nprovision = mapper:get") == []
    assert not (home / "was-run").exists()


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("redis", "redis = redis://127.0.0.1"),
        ("sqlalchemy", "sql = sqlite:///map.db\nquery = SELECT :key"),
        ("cryptography.hazmat.primitives", "subscription_keys = SHA1:keys"),
    ],
)
def test_a_missing_library_has_its_remedy(home: Path, monkeypatch: pytest.MonkeyPatch, module: str, text: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    problem = only(home, text)
    assert "is missing" in problem.reason and problem.remedy.startswith("pip install 'multisite-wsgi[")


def test_each_wrong_line_of_a_map_is_told_with_its_number(home: Path) -> None:
    lines = ["a.example 127.0.0.1:1", "b.example", "../etc 127.0.0.1:1", "c.example nowhere", "d.example 1.2.3.4:5,999"]
    (home / "map.txt").write_text("\n".join(lines))
    told = found(home, "map = map.txt")
    assert [(problem.file, problem.line) for problem in told] == [
        (str(home / "map.txt"), each) for each in (2, 3, 4, 5)
    ]
    assert all(problem.reason and problem.remedy and problem.value == lines[problem.line - 1] for problem in told)


def test_a_map_of_junk_is_told_in_few_lines(home: Path) -> None:
    (home / "map.txt").write_bytes(b"\xff\xfe junk,\n" * 10_000)
    told = found(home, "map = map.txt")
    assert len(told) == routing.MOST_LINES + 1 and "9950 more lines" in told[-1].reason
    assert all(str(problem).isprintable() for problem in told)


def test_check_tells_them_and_fails(home: Path) -> None:
    (home / "sites-enabled").mkdir()
    (home / "moya.conf").write_text("[service]\nstate_dir = state\nruntime_dir = run\n[router]\nmap = none.txt\n")
    done = CliRunner().invoke(main, ["--home", str(home), "--json", "check"])
    told: list[dict[str, Any]] = json.loads(done.stdout)["problems"]
    assert done.exit_code == 1 and [each["key"] for each in told] == ["map"]
