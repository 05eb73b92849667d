"""The state of a site whose last start failed: one word and one exit status, whoever is asked and whenever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from multisite.cli import main
from multisite.config.read import read_home
from multisite.sites.failures import of_starts
from multisite.sites.tally import Tally
from multisite.status.inventory import Inventory

REASON = "start: exited with code 3 before it was ready (tried twice)"
MOYA_CONF = "[service]\nstate_dir = state\ntemp_dir = temp\nruntime_dir = run\n[supervisor]\nallow_root = yes\n"
SITE = "[service]\ndomains = bad.test\nmode = spawned\ncommand = /bin/false\nlocation = {}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a site whose last start failed."""
    for folder in ("sites-enabled", "temp", "code"):
        (tmp_path / folder).mkdir()
    (tmp_path / "moya.conf").write_text(MOYA_CONF)
    (tmp_path / "sites-enabled" / "bad.ini").write_text(SITE.format(tmp_path / "code"))
    of_starts(read_home(str(tmp_path))).note("bad", REASON, "3fa9c1d2", serving=False)
    return tmp_path


def run(home: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the document of a command."""
    done = CliRunner().invoke(main, ["--json", "--home", str(home), *words])
    return done.exit_code, json.loads(done.stdout)


def supervise(monkeypatch: pytest.MonkeyPatch, state: str, **known: Any) -> None:
    """Have a supervisor that knows the site to be in a state."""
    pids = [] if state in ("stopped", "backoff", "fatal") else [4711]
    site: dict[str, Any] = {**Tally().as_dict(), "state": state, "host": "", "template": "", "pids": pids, "waiting": 0}
    site |= {"in_flight": 0, "memory": 0, "idle": None, "up_since": None, "working": False, "journey": None}
    site |= {"relayed_now": 0, "requests_in_flight": [], "failure": None, "replace_failure": "", **known}
    itself = {"pid": 4711, "servers": [], "version": "1", "up_since": 0.0}
    monkeypatch.setattr(Inventory, "_asked", ({"supervisor": itself, "preloaders": [], "sites": {"bad": site}}, ""))


@pytest.mark.parametrize("state", ["", "stopped", "starting", "stopping", "backoff", "fatal"])
@pytest.mark.parametrize("remembered", [True, False], ids=["its supervisor", "the next supervisor"])
def test_a_site_that_has_not_served_since_its_failed_start_cannot_start(
    home: Path, monkeypatch: pytest.MonkeyPatch, state: str, remembered: bool
) -> None:
    """In the pause, after it, and while another attempt is made; at rest too."""
    journey = {"failure": REASON, "incident": "3fa9c1d2", "steps": [], "output": [], "way": ""}
    if state:
        supervise(monkeypatch, state, failure=journey if remembered else None)
    code, document = run(home, "explain", "bad")
    (row,) = run(home, "list")[1]["sites"]
    word = state if state in ("backoff", "fatal") else "broken"
    assert (code, document["state"], row["state"]) == (1, word, word)
    assert run(home, "list")[0] == run(home, "status")[0] == run(home, "status", "bad", "--failed")[0] == 3
    shown = CliRunner().invoke(main, ["--home", str(home), "status"]).stdout
    assert f"bad: cannot start, incident 3fa9c1d2: {REASON}" in " ".join(shown.split())


@pytest.mark.parametrize("state", ["running", "draining"])
def test_one_that_serves_is_well(home: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    supervise(monkeypatch, state)
    code, document = run(home, "explain", "bad")
    assert (code, document["state"], run(home, "status")[0]) == (0, state, 0)


@pytest.mark.parametrize("state", ["stopped", "starting"])
def test_one_that_crashed_while_it_served_may_start(home: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    of_starts(read_home(str(home))).note("bad", "exited with code 9", "3fa9c1d2", serving=False, crashed=True)
    supervise(monkeypatch, state)
    code, document = run(home, "explain", "bad")
    assert (code, document["state"], run(home, "status")[0]) == (0, state, 0)
