"""`multisite incident`: one by its id, the last ones without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.cli.complete import incidents as completed
from tests.homes import TestHome

APP = """
def application(environ, start_response):
    raise ValueError("broken \\x1b[2J")
"""


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    made = TestHome(tmp_path)
    made.code("bad", app=APP)
    made.ini("bad")
    made.code("gone", app="import no_such_module")
    made.ini("gone")
    return made


def run(home: TestHome, *words: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.path), *words])


def asked(home: TestHome, host: str, path: str) -> str:
    answer = home.get(host, path, HTTP_ACCEPT="application/json", QUERY_STRING="secret=1")
    return str(json.loads(answer.text)["incident"])


def test_the_id_of_each_page_tells_what_has_failed_at_which_request(home: TestHome) -> None:
    first = asked(home, "bad.test", "/a")
    shown = run(home, "incident", first)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0] == f"incident {first}"
    assert "site:     bad" in lines and "request:  GET bad.test/a" in lines
    assert any(line.startswith("cause:    the application failed: ValueError: broken") for line in lines)
    assert (
        lines[-1].startswith("    ValueError: broken") and "secret" not in shown.stdout and "\x1b" not in shown.stdout
    )
    told = json.loads(run(home, "--json", "incident", first).stdout)
    assert (told["incident"], told["name"], told["request"]["path"]) == (first, "bad", "/a")


def test_a_failed_import_and_what_was_done_since(home: TestHome) -> None:
    failed = asked(home, "gone.test", "/b")
    told = json.loads(run(home, "--json", "incident", failed).stdout)
    assert told["request"]["path"] == "/b" and "no_such_module" in "".join(told["traceback"])
    home.hello("gone")
    home.later()
    assert home.get("gone.test").status == 200
    assert [one["did"] for one in json.loads(run(home, "--json", "incident", failed).stdout)["since"]] == ["recovered"]
    assert "recovered" in run(home, "incident", failed).stdout


def test_without_an_id_the_last_ones_are_listed(home: TestHome) -> None:
    assert run(home, "incident").stderr == "no incidents\n"
    assert json.loads(run(home, "--json", "incident").stdout) == {"incidents": []}
    first, second = asked(home, "bad.test", "/a"), asked(home, "gone.test", "/")
    listed = [one["incident"] for one in json.loads(run(home, "--json", "incident").stdout)["incidents"]]
    assert listed == [second, first]
    text = run(home, "incident", "--site", "bad").stdout
    assert first in text and second not in text


def test_an_unknown_id_is_an_error_that_says_how_to_go_on(home: TestHome) -> None:
    answer = run(home, "incident", "deadbeef")
    assert answer.exit_code == 1
    assert answer.stderr == (
        "multisite: there is no incident deadbeef, or no longer; multisite incident lists the last ones\n"
    )
    assert "error" in json.loads(run(home, "--json", "incident", "deadbeef").stdout)


def test_ids_are_completed(home: TestHome) -> None:
    name = asked(home, "bad.test", "/a")
    context = main.make_context("multisite", ["--home", str(home.path), "incident"])
    assert completed(context, context.command.params[0], name[:3]) == [name]
