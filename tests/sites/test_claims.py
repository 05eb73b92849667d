from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from multisite.config.model import Home
from multisite.errors import NeedsProcess
from multisite.sites.claims import DJANGO, Ledger, conflict, importable_names
from multisite.sites.statefile import StateFile
from tests.servers.harness import eventually


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(state(tmp_path), lambda site, names: True)


def state(path: Path) -> StateFile:
    (path / "moya.conf").touch()
    home = Home(str(path), str(path / "moya.conf"), environ={"XDG_STATE_HOME": str(path / "state")})
    return StateFile(home, "claims")


def test_a_folder_offers_its_modules_and_packages_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "app.py",
        "helper.py",
        f"fast{EXTENSION_SUFFIXES[0]}",
        "another.cpython-999-x86_64-linux-gnu.so",
        "fast2.abi3.so",
        "not-a-name.py",
        "gunicorn.conf.py",
        "notes.txt",
        "x.pyc",
    ):
        (tmp_path / name).touch()
    for name in (
        "package/__init__.py",
        "space/module.py",
        "templates/page.html",
        "__pycache__/app.py",
        "tests/test_x.py",
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert importable_names(str(tmp_path)) == {"app", "helper", "fast", "fast2", "package", "space"}


def test_a_folder_that_is_gone_offers_nothing(tmp_path: Path) -> None:
    assert importable_names(str(tmp_path / "gone")) == set()


def test_the_same_directory_is_no_conflict() -> None:
    assert conflict({"app": "/a"}, {"other": {"app": "/a"}}) == ""


def test_a_conflict_names_module_and_site() -> None:
    reason = conflict({"helper": "/a"}, {"other": {"helper": "/b"}})
    assert "'helper'" in reason
    assert "'other'" in reason


def test_a_conflict_names_all_modules_that_clash() -> None:
    names = {"app": "/a", "helper": "/a", "own": "/a"}
    reason = conflict(names, {"other": {"app": "/b", "helper": "/b"}})
    assert "its modules 'app', 'helper' clash with those of site 'other'" in reason


def test_only_one_django_project() -> None:
    assert "second Django project" in conflict({DJANGO: "/a"}, {"other": {DJANGO: "/b"}})


def test_the_first_site_gets_a_name_and_the_later_one_is_told(ledger: Ledger) -> None:
    ledger.acquire("a", {"helper": "/a"})
    with pytest.raises(NeedsProcess, match="'helper' of site 'a'"):
        ledger.acquire("b", {"helper": "/b"})
    ledger.acquire("a", {"helper": "/a", "more": "/a"})


def test_released_names_are_free(ledger: Ledger) -> None:
    ledger.acquire("a", {"helper": "/a"})
    ledger.release(["a"])
    ledger.acquire("b", {"helper": "/b"})
    assert ledger.others("") == {"b": {"helper": "/b"}}


def test_claims_of_a_site_that_is_no_more_do_not_count(tmp_path: Path) -> None:
    live = {"a", "b"}
    ledger = Ledger(state(tmp_path), lambda site, names: site in live)
    ledger.acquire("a", {"helper": "/a"})
    live.remove("a")
    ledger.acquire("b", {"helper": "/b"})


def test_all_processes_see_one_ledger(tmp_path: Path) -> None:
    first, second = (Ledger(state(tmp_path), lambda site, names: True) for _ in range(2))
    first.acquire("a", {"helper": "/a"})
    with pytest.raises(NeedsProcess):
        second.acquire("b", {"helper": "/b"})


CLAIMANT = """
import sys
from pathlib import Path
from multisite.sites.claims import Ledger
from multisite.config.model import Home
from multisite.sites.statefile import StateFile

folder, site = sys.argv[1:]
home = Home(folder, folder + "/moya.conf", environ={"XDG_STATE_HOME": folder + "/state"})


def is_live(name, names):
    if site == "slow":
        Path(folder, "looks").touch()
        Path(folder, "gate").read_text()
    return True


Ledger(StateFile(home, "claims"), is_live).acquire(site, {site: "/" + site})
"""


def test_no_process_forgets_what_another_takes_at_once(tmp_path: Path) -> None:
    """One has looked at the claims, and has not written its own, when another wants some."""
    file = state(tmp_path)
    file.store({"claims": {"old": {"x": "/old"}}})
    os.mkfifo(tmp_path / "gate")
    argv = [sys.executable, "-c", CLAIMANT, str(tmp_path)]
    with subprocess.Popen([*argv, "slow"]) as slow:
        eventually((tmp_path / "looks").exists)
        with subprocess.Popen([*argv, "quick"]) as quick:
            eventually(lambda: quick.poll() is not None or waits_for_a_lock(quick.pid))
            (tmp_path / "gate").write_text("open")
            assert (slow.wait(60), quick.wait(60)) == (0, 0)
    assert set(file.load()["claims"]) == {"old", "slow", "quick"}


def waits_for_a_lock(pid: int) -> bool:
    """As proc_locks(5) shows it."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any("->" in fields and str(pid) in fields for fields in lines)


@pytest.mark.parametrize("junk", ["", "[]", "{", '{"claims": []}', '{"claims": {"a": 1}}', "\0"])
def test_a_damaged_ledger_is_an_empty_one(tmp_path: Path, junk: str) -> None:
    file = state(tmp_path)
    file.store({})
    Path(file.path).write_text(junk)
    Ledger(file, lambda site, names: True).acquire("a", {"x": "/a"})
    assert json.loads(Path(file.path).read_text()) == {"claims": {"a": {"x": "/a"}}}


def test_a_ledger_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    file = state(tmp_path)
    file.store({"claims": {"a": {"x": "/a"}}})
    assert Path(file.path).stat().st_mode & 0o777 == 0o600
    Path(file.path).chmod(0o666)
    assert file.load() is None


def test_without_a_state_directory_a_worker_still_keeps_its_own_sites_apart(tmp_path: Path) -> None:
    file = state(tmp_path)
    (tmp_path / "state").write_text("a file where the directory should be")
    ledger = Ledger(file, lambda site, names: True)
    ledger.acquire("a", {"helper": "/a"})
    with pytest.raises(NeedsProcess):
        ledger.acquire("b", {"helper": "/b"})
