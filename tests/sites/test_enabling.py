"""Links in sites-enabled: the decisions, and what they do to real directories."""

from __future__ import annotations

import os
import pathlib

import pytest

from multisite.sites.enabling import EnablingError, PathState, Places, link_name, plan_disable, plan_enable, state_of

SOURCE = PathState("/h/sites-available/blog.ini", "file", real="/h/sites-available/blog.ini")
LINK = "/h/sites-enabled/blog.ini"


@pytest.fixture
def places(tmp_path: pathlib.Path) -> Places:
    (tmp_path / "sites-available").mkdir()
    (tmp_path / "sites-available/blog.ini").write_text("[service]\n")
    return Places.of(str(tmp_path), ("sites-enabled/*.ini",))


@pytest.mark.parametrize(
    ("found", "action"),
    [
        (PathState(LINK, "nothing"), "create"),
        (PathState(LINK, "dangling", "../gone.ini"), "replace"),
        (PathState(LINK, "loop", "blog.ini"), "replace"),
        (PathState(LINK, "link", real=SOURCE.real), "keep"),
        (PathState(LINK, "link", real="/elsewhere/blog.ini"), "refuse"),
        (PathState(LINK, "file", real=LINK), "refuse"),
        (PathState(LINK, "other"), "refuse"),
    ],
)
def test_what_stands_at_the_link_decides_how_a_site_is_enabled(found: PathState, action: str) -> None:
    assert plan_enable("blog", found, SOURCE).action == action


@pytest.mark.parametrize("kind", ["nothing", "dangling", "loop", "other"])
def test_a_site_file_that_cannot_be_read_is_not_enabled(kind: str) -> None:
    step = plan_enable("blog", PathState(LINK, "nothing"), PathState(SOURCE.path, kind))  # type: ignore[arg-type]
    assert step.action == "refuse"
    assert SOURCE.path in step.message


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("nothing", "keep"),
        ("link", "remove"),
        ("dangling", "remove"),
        ("loop", "remove"),
        ("file", "refuse"),
        ("other", "refuse"),
    ],
)
def test_only_links_are_ever_removed(kind: str, action: str) -> None:
    assert plan_disable("blog", PathState(LINK, kind)).action == action  # type: ignore[arg-type]


@pytest.mark.parametrize(("pattern", "name"), [("*.ini", "blog.ini"), ("*.conf", "blog.conf"), ("*", "blog.ini")])
def test_a_link_is_named_so_that_the_glob_finds_it(pattern: str, name: str) -> None:
    assert link_name(pattern, "blog") == name


def test_enabling_makes_a_relative_link_and_twice_is_once(places: Places) -> None:
    assert places.enable("blog").action == "create"
    assert os.readlink(places.link("blog")) == "../sites-available/blog.ini"
    before = os.lstat(places.link("blog")).st_mtime_ns
    assert places.enable("blog").action == "keep"
    assert os.lstat(places.link("blog")).st_mtime_ns == before
    assert os.listdir(places.enabled) == ["blog.ini"]


def test_the_link_is_relative_to_where_a_linked_directory_really_is(tmp_path: pathlib.Path) -> None:
    """Where sites-enabled is itself a link, the relative text starts from the directory behind it."""
    (tmp_path / "home/sites-available").mkdir(parents=True)
    (tmp_path / "home/sites-available/blog.ini").write_text("[service]\n")
    (tmp_path / "far/away/enabled").mkdir(parents=True)
    (tmp_path / "home/sites-enabled").symlink_to(tmp_path / "far/away/enabled")
    places = Places.of(str(tmp_path / "home"), ("sites-enabled/*.ini",))
    places.enable("blog")
    assert os.path.samefile(places.link("blog"), tmp_path / "home/sites-available/blog.ini")
    assert not os.path.isabs(os.readlink(places.link("blog")))


def test_a_dangling_link_is_replaced_in_one_step(places: Places) -> None:
    os.mkdir(places.enabled)
    os.symlink("../gone.ini", places.link("blog"))
    assert places.enable("blog").action == "replace"
    assert os.path.samefile(places.link("blog"), places.source("blog"))


def test_a_link_by_another_name_counts_as_enabled_and_is_found_for_disabling(places: Places) -> None:
    os.mkdir(places.enabled)
    other = os.path.join(places.enabled, "10-blog.ini")
    os.symlink("../sites-available/blog.ini", other)
    step = places.enable("blog")
    assert (step.action, step.path) == ("keep", other)
    assert places.disable("blog").action == "remove"
    assert os.listdir(places.enabled) == []


def test_a_regular_file_in_sites_enabled_survives_both_commands(places: Places) -> None:
    os.mkdir(places.enabled)
    pathlib.Path(places.link("blog")).write_text("mine")
    assert places.enable("blog").action == "refuse"
    assert places.disable("blog").action == "refuse"
    assert pathlib.Path(places.link("blog")).read_text() == "mine"


def test_links_that_loop_are_seen_as_such_and_can_be_removed(places: Places) -> None:
    os.mkdir(places.enabled)
    os.symlink("blog.ini", places.link("blog"))
    assert state_of(places.link("blog")).kind == "loop"
    assert places.disable("blog").action == "remove"


def test_links_go_beside_the_first_glob_that_names_a_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sites-available").mkdir()
    home = str(tmp_path / "etc-moya")
    places = Places.of(home, ("*/odd/*.ini", "../sites-enabled/*.ini"))
    assert places.enabled == str(tmp_path / "sites-enabled")
    assert places.available == str(tmp_path / "sites-available")


def test_a_home_whose_globs_name_no_directory_says_so(tmp_path: pathlib.Path) -> None:
    with pytest.raises(EnablingError, match="names no directory"):
        Places.of(str(tmp_path), ("*/x/*.ini",))
