"""Where a fork would not be what a plain start is, there is a plain start."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.processes import is_running

from .harness import SupervisedHome, supervised, wait_until
from .preloading import app, install, preloader, preloaders, said, virtualenv, warm_up, way

BEGUN = re.compile(r"preloader (\d+) for ")  # in the log, since it may be gone before the next look


def plain_because(home: SupervisedHome, name: str, reason: str, more: str = "", **keys: str) -> None:
    home.app(name, app(), more=more, **keys)
    home.get(name)
    assert reason in way(home, name)
    assert way(home, name).startswith("plain start: ")


def test_it_can_be_switched_off(warm: SupervisedHome) -> None:
    plain_because(warm, "off", "preload = no", preload="no")


def test_with_preload_no_in_moya_conf_there_is_none(tmp_path: Path) -> None:
    with supervised(tmp_path, "preload = no") as home:
        for name in ("first", "second", "third"):
            home.app(name, app())
            home.get(name)
        assert way(home, "third") == "plain start: preload = no"
        assert preloaders(home) == []


@pytest.mark.parametrize("variable", ["PYTHONWARNINGS = ignore", "PYTHONHASHSEED = 1", "LANG = C", "LC_ALL = C"])
def test_variables_that_the_interpreter_reads_are_heeded(warm: SupervisedHome, variable: str) -> None:
    name = variable.partition(" ")[0]
    plain_because(warm, name.lower(), name, more=f"[env]\n{variable}\n")


def test_a_variable_that_a_preloaded_module_has_read_is_heeded(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(tmp_path / "venv", coloured="import os\nCOLOUR = os.environ.get('COLOUR', 'none')")
    code = app("coloured decimal", "coloured.COLOUR")
    warm_up(home, code, python=python)
    home.app("third", code, more="[env]\nSHAPE = round\n", python=python)
    assert said(home, "third")["said"] == "none"
    assert way(home, "third").startswith("forked")
    home.app("fourth", code, more="[env]\nCOLOUR = blue\n", python=python)
    assert said(home, "fourth")["said"] == "blue"
    assert "COLOUR" in way(home, "fourth")


def test_a_site_with_a_module_of_the_same_name_gets_its_own(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(tmp_path / "venv", common="WHOSE = 'everybody'")
    code = app("common decimal", "common.WHOSE")
    warm_up(home, code, python=python)
    folder = home.app("third", code, python=python)
    (folder / "common.py").write_text("WHOSE = 'mine'")
    assert said(home, "third")["said"] == "mine"
    assert "its own 'common'" in way(home, "third")


def test_after_an_installation_the_next_start_has_what_is_new(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(tmp_path / "venv", common="VERSION = 1")
    code = app("common decimal", "common.VERSION")
    old = warm_up(home, code, python=python)
    install(tmp_path / "venv", common="VERSION = 22")
    home.app("third", code, python=python)
    assert said(home, "third")["said"] == 22
    assert "changed" in way(home, "third")
    wait_until(lambda: not is_running(old["pid"]))
    new = preloader(home)
    home.app("fourth", code, python=python)
    assert said(home, "fourth")["said"] == 22
    assert way(home, "fourth") == f"forked from process {new['pid']}"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone could be led astray")
def test_root_preloads_nothing_that_another_could_have_written(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(tmp_path / "venv", common="VALUE = 1")
    (module,) = (tmp_path / "venv").glob("lib/python*/site-packages/common.py")
    os.chown(module, 33, 33)
    for name in ("first", "second", "third"):
        home.app(name, app("common"), python=python)
        home.get(name)
    home.app("fourth", app("common"), python=python)

    def refused() -> bool:
        home.client.ask({"do": "stop", "site": "fourth"})
        home.get("fourth")
        return "others than root may write" in way(home, "fourth")

    wait_until(refused)
    assert preloaders(home) == []


def test_it_leaves_where_memory_is_short(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Idle sites go for the sake of the budget, and then a preloader that nobody was forked from."""
    with supervised(tmp_path, "memory_budget = 1M\nidle_timeout = 1h") as home:
        for name in ("first", "second"):
            home.app(name, app())
            home.get(name)
        said: list[str] = []
        begun = wait_until(lambda: said.append(capfd.readouterr().err) or BEGUN.search("".join(said)))
        wait_until(lambda: not is_running(int(begun[1])))
        assert preloaders(home) == []
