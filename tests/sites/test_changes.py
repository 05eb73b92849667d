"""What tells the files that reload a site from those that were loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from multisite.config.model import Site
from multisite.config.read import read_home
from multisite.sites import changes
from multisite.sites.changes import QUIET, Watched

LONG_AGO, TOMORROW = 1_700_000_000, 4_000_000_000


def replaced(path: Path) -> None:
    """Another file of the same size and time, as ``rsync -a`` leaves it."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    os.replace(other, path)


def linked(path: Path) -> None:
    """A link to another file takes its place."""
    target = path.with_name("target")
    shutil.copy2(path, target)
    path.unlink()
    path.symlink_to(target)


CHANGES: dict[str, Callable[[Path], object]] = {
    "newer": os.utime,
    "older": lambda path: os.utime(path, (LONG_AGO - 1, LONG_AGO - 1)),
    "of 1970": lambda path: os.utime(path, (0, 0)),
    "of tomorrow": lambda path: os.utime(path, (TOMORROW, TOMORROW)),
    "larger": lambda path: (path.write_text("more"), os.utime(path, (LONG_AGO, LONG_AGO))),
    "another inode": replaced,
    "a link": linked,
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "release" / "tmp").mkdir(parents=True)
    (tmp_path / "current").symlink_to("release")
    location = tmp_path / "current"
    for path in (location / "tmp/restart.txt", location / "touched"):
        path.write_text("")
        os.utime(path, (LONG_AGO, LONG_AGO))
    (tmp_path / "a.ini").write_text("")
    (tmp_path / "temp/moyasrv").mkdir(parents=True)
    keys = {"location": str(location), "touch_reload": (f"{location}/touched",)}
    return Site(str(tmp_path / "a.ini"), name="a", **keys)  # type: ignore[arg-type]


@pytest.fixture
def looked(site: Site, tmp_path: Path) -> Callable[[float], bool]:
    """Look at the files at a time."""
    (tmp_path / "moya.conf").write_text("[service]\ntemp_dir = temp\n")
    home = read_home(str(tmp_path))
    one = Watched()
    one.begin(changes.files(site, home))

    def look(now: float) -> bool:
        is_due = one.is_due(changes.files(site, home), now)
        if is_due:
            one.take_change()
        return is_due

    return look


@pytest.mark.parametrize("name", ["tmp/restart.txt", "touched"])
@pytest.mark.parametrize("change", CHANGES)
def test_another_file_is_a_change_and_the_same_is_none(
    site: Site, looked: Callable[[float], bool], name: str, change: str
) -> None:
    """One change, whichever way its time has gone, and back again is another one."""
    path = Path(site.location) / name
    assert not looked(0.0)
    CHANGES[change](path)
    assert looked(1.0) or looked(1.0 + QUIET)
    assert not looked(3.0) and not looked(4.0)


def test_what_is_gone_asks_for_nothing_and_counts_when_it_is_back_as_another(
    site: Site, looked: Callable[[float], bool], tmp_path: Path
) -> None:
    path, aside = Path(site.location) / "touched", tmp_path / "aside"
    os.rename(path, aside)
    assert not looked(0.0) and not looked(1.0)
    os.rename(aside, path)
    assert not looked(2.0) and not looked(3.0)
    os.rename(path, aside)
    assert not looked(4.0)
    path.write_text("")
    os.utime(path, (LONG_AGO - 1, LONG_AGO - 1))
    assert looked(5.0)


def test_a_file_that_comes_is_a_change(site: Site, looked: Callable[[float], bool], tmp_path: Path) -> None:
    changes = tmp_path / "temp/moyasrv/a.changes"
    changes.touch()
    os.utime(changes, (LONG_AGO, LONG_AGO))
    assert looked(0.0)
    os.utime(changes, (5, 5))
    assert looked(1.0)
    (Path(site.location) / "tmp/always_restart.txt").touch()
    assert not looked(2.0) and looked(2.0 + QUIET)


def test_a_release_that_is_linked_in_and_out_is_a_change_each_time(
    looked: Callable[[float], bool], tmp_path: Path
) -> None:
    """Also where it has no trigger files, or the same ones: a copy of a release, or a hard link."""
    shutil.copytree(tmp_path / "release", tmp_path / "copy", copy_function=os.link)
    (tmp_path / "empty").mkdir()
    now = 0.0
    for target in ("copy", "release", "empty", "release"):
        (tmp_path / "new").symlink_to(target)
        os.replace(tmp_path / "new", tmp_path / "current")
        now += 1
        assert looked(now), target
        assert not looked(now + 0.1), target


def test_what_changes_back_before_it_is_taken_is_no_change(site: Site, looked: Callable[[float], bool]) -> None:
    path = Path(site.location) / "touched"
    os.utime(path, (TOMORROW, TOMORROW))
    assert not looked(0.0)
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert not looked(QUIET) and not looked(2 * QUIET)


def test_a_file_that_is_written_again_and_again_waits_for_its_last_time(
    site: Site, looked: Callable[[float], bool]
) -> None:
    path = Path(site.location) / "touched"
    for number in range(5):
        os.utime(path, (TOMORROW - number, TOMORROW - number))
        assert not looked(number * QUIET)
    assert looked(5 * QUIET)
