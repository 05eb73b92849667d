"""Which folders and paths ``[projects] read`` names, and folders that are out of sight."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.config.read import read_home
from multisite.sites import catalogue, sitedir
from multisite.sites.sitedir import SiteDir

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach; the test runs as an ordinary user."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        if os.geteuid() == 0:
            os.chown(made, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(made)
        finally:
            os.seteuid(os.getuid())


def make(folder: Path, read: str = "sites-enabled/*.ini") -> None:
    (folder / "moya.conf").write_text(f"[projects]\nread = {read}\n[service]\nstate_dir = state\n")
    (folder / "sites-enabled").mkdir()
    for name in "ba":
        text = f"[service]\ndomains = {name}.test\napplication = a:b\n"
        (folder / "sites-enabled" / f"{name}.ini").write_text(text)


def test_paths_come_in_the_order_of_the_globs_sorted_within_each_and_once(folder: Path) -> None:
    make(folder, "sites-enabled/b*.ini, sites-enabled/*.ini")
    names = [os.path.basename(path) for path in sitedir.enabled_paths(read_home(str(folder)))]
    assert names == ["b.ini", "a.ini"]


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_becomes_unreadable_keeps_its_sites_and_is_told(folder: Path, mode: int) -> None:
    make(folder)
    sites = SiteDir(read_home(str(folder)))
    sites.scan()
    (folder / "sites-enabled").chmod(mode)
    try:
        sites.scan()
        assert sites.refresh(f"{folder}/sites-enabled/a.ini") is False
        (problem,) = sites.problems
        assert [entry.file.name for entry in sites.entries.values()] == ["a", "b"]
        assert not any(entry.broken for entry in sites.entries.values())
    finally:
        (folder / "sites-enabled").chmod(0o755)
    assert (problem.key, problem.severity) == ("read", "error")
    assert "permission denied" in problem.reason
    assert sites.scan() is True
    assert sites.problems == ()


def test_a_folder_that_is_not_there_is_a_warning(folder: Path) -> None:
    (folder / "moya.conf").write_text("")
    (problem,) = catalogue.read(read_home(str(folder))).problems
    assert f"there is no folder {folder}/sites-enabled" in problem.reason
    assert problem.severity == "warning"
