"""Where a site with mode = auto lives: the decision, what it is told, and what makes its code another version."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multisite.config.model import Home, Site, SupervisorOptions
from multisite.sites import changes, placement
from multisite.sites.placement import Examined, Facts, Heat, Placement, Saving
from multisite.sites.placements import Placements, Row

OPTIONS = SupervisorOptions()
CLEAN = Examined((), 0.035, 14 * 2**20, 256)
BUSY = Heat(requests=OPTIONS.promote_after)


def settled(found: Examined = CLEAN, heat: Heat = BUSY, *, here: bool = False, idle_timeout: float = 300.0) -> str:
    decided = placement.settle(found, heat, OPTIONS, here=here, idle_timeout=idle_timeout)
    return f"{decided.kind}: {decided.reason}"


def test_a_busy_site_that_no_other_thread_has_called_waits_for_that() -> None:
    """What only the main thread may do would fail for everybody."""
    reason = f"it is clean (14 MiB, 35 ms to import) so far; {placement.UNTRIED}"
    assert settled(replace(CLEAN, is_untried=True)) == f"spawned: {reason}"


def test_a_clean_light_and_busy_site_moves_in() -> None:
    """The reason has its figures."""
    assert settled() == "in-process: it is clean (14 MiB, 35 ms to import) and had 300 requests within a minute"


@pytest.mark.parametrize(
    ("found", "heat", "reason"),
    [
        (CLEAN, Heat(requests=299), "it is clean (14 MiB, 35 ms to import); it moves into the workers when it has 300"),
        (replace(CLEAN, findings=("changed the umask", "set a timer")), BUSY, "it changed the umask; it set a timer"),
        (replace(CLEAN, seconds=1.5), BUSY, "its import takes 1.5 s, more than share_import_time = 1 s"),
        (replace(CLEAN, memory=60 * 2**20), BUSY, "it takes 60 MiB, more than share_memory = 48 MiB"),
    ],
)
def test_what_keeps_a_site_in_a_process_of_its_own(found: Examined, heat: Heat, reason: str) -> None:
    """Each obstacle is a sentence."""
    assert settled(found, heat).startswith(f"spawned: {reason}")


@pytest.mark.parametrize(
    ("heat", "reason"),
    [
        (Heat(idle=300.0), "it left the workers after 5 min without a request"),
        (Heat(average=0.8), "its requests took 800 ms in the workers, more than share_request_time = 500 ms"),
    ],
)
def test_what_makes_a_site_leave(heat: Heat, reason: str) -> None:
    """A cold site leaves, and one that holds the workers' threads."""
    assert reason in settled(heat=heat, here=True)


def test_a_site_stays_though_it_is_no_longer_as_busy() -> None:
    """To move in takes more than to stay, so nothing moves to and fro."""
    assert settled(heat=Heat(requests=1, idle=200.0), here=True) == "in-process: "
    assert settled(heat=Heat(idle=1e6), here=True, idle_timeout=0.0) == "in-process: "


@pytest.mark.parametrize(
    ("found", "saving", "reason"),
    [
        (CLEAN, None, "its file does not say share = yes"),
        (CLEAN, Saving(), "it would fit into the workers; share = yes allows it"),
        (
            CLEAN,
            Saving(12 * 2**20, 0.00034),
            "it would fit into the workers: 12 MiB and 0.3 ms a request less; share = yes allows it",
        ),
        (CLEAN, Saving(0, 0.00001), "it would fit into the workers: 0.1 ms a request less; share = yes allows it"),
        (
            replace(CLEAN, findings=("set a timer",)),
            Saving(12 * 2**20),
            "its file does not say share = yes, and would not fit into the workers: it set a timer",
        ),
    ],
)
@pytest.mark.parametrize("here", [False, True])
def test_a_site_that_may_not_share_stays_out(found: Examined, saving: Saving | None, reason: str, here: bool) -> None:
    """However busy it is, and wherever it was before; it is told what sharing would save."""
    how = {"idle_timeout": 300.0, "share": False, "saving": saving}
    assert placement.settle(found, BUSY, OPTIONS, here=here, **how) == Placement("spawned", reason)


HERE = Facts("me", root=False, location_owner="me")
THREADED = replace(HERE, threads=4, has_siblings=True)
GREEN = replace(HERE, threads=placement.MANY)


@pytest.mark.parametrize(
    ("keys", "facts", "kind", "reason"),
    [
        ({}, HERE, "spawned", "its file does not say share = yes"),
        ({"share": True}, HERE, "in-process", "nothing in its file requires its own process"),
        ({"mode": "in-process"}, THREADED, "in-process", "its file says mode = in-process"),
        ({"application": "", "ini": ("production.ini",)}, THREADED, "in-process", "it is a Moya project"),
        ({"application": "", "ini": ("x.ini",), "mode": "spawned"}, HERE, "spawned", "its file says mode = spawned"),
        ({"mode": "in-process", "promised": ("threads",)}, HERE, "in-process", "its file says mode = in-process"),
        (
            {"share": True, "promised": ("threads",)},
            GREEN,
            "spawned",
            "its file says threads = 1, and a worker calls it many times at once",
        ),
        (
            {"mode": "in-process", "promised": ("processes",)},
            THREADED,
            "spawned",
            "its file says processes = 1, and the service has several workers",
        ),
        (
            {"mode": "in-process", "threads": 4, "promised": ("threads",)},
            THREADED,
            "in-process",
            "its file says mode = in-process",
        ),
        ({"mode": "in-process", "user": "me"}, HERE, "in-process", "its file says mode = in-process"),
        ({"mode": "in-process", "user": "you"}, HERE, "spawned", "it runs as user 'you' and the workers as 'me'"),
        ({"application": "", "static": {"/": ("/srv",)}}, THREADED, "in-process", "it has files and no application"),
    ],
)
def test_what_a_file_says_of_sharing(keys: dict[str, Any], facts: Facts, kind: str, reason: str) -> None:
    """A default that nobody has written is no promise."""
    site = Site(**{"file": "x.ini", "name": "x", "application": "app:application", **keys})
    assert placement.decide(site, Home("/home"), facts) == Placement(kind, reason)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=20))
def test_a_process_may_say_anything_of_its_site(told: object) -> None:
    """What cannot be meant so is not believed, and the rest is bounded."""
    document = {"findings": told, "seconds": told, "memory": 1, "requests": 1}
    for text in (json.dumps(told), json.dumps(document), json.dumps({**document, "seconds": 1})):
        found = placement.heard(text)
        assert found is None or len(found.findings) <= placement.MOST
        assert found is None or all(len(one) <= placement.LONGEST and one.isprintable() for one in found.findings)


@pytest.mark.parametrize(
    "told", ["", "x", "[" * 50_000, '{"findings": [], "seconds": 1e999, "memory": 0, "requests": 0}']
)
def test_nonsense_is_not_heard(told: str) -> None:
    """Nothing is raised either."""
    assert placement.heard(told) is None


def test_rows_are_kept_and_read_again(tmp_path: Path) -> None:
    """A worker reads what the supervisor wrote, and nothing that is no row."""
    home = Home(str(tmp_path), str(tmp_path / "moya.conf"), environ={"XDG_STATE_HOME": str(tmp_path)})
    row = Row("abc", CLEAN, "in-process", "it is clean", 12.0, saving=Saving(2**20, 0.0003))
    ours, theirs = Placements(home), Placements(home)
    assert theirs.of("blog") is None
    assert ours.store({"blog": row})
    assert theirs.of("blog") == row and row.is_here
    assert ours._file.store({"blog": {"version": 1}})
    assert theirs.of("blog") is None


def test_a_version_is_what_the_files_are(tmp_path: Path) -> None:
    """Sources, the site's file and a request to reload change it; data files and caches do not."""
    (tmp_path / "package").mkdir()
    (tmp_path / "app.py").write_text("")
    ini = tmp_path / "site.ini"
    ini.write_text("")
    site, home = Site(file=str(ini), name="blog", location=str(tmp_path)), Home(str(tmp_path))
    seen = {changes.version_of(site, home)}
    (tmp_path / "data.db").write_text("x")
    (tmp_path / "__pycache__").mkdir()
    assert changes.version_of(site, home) in seen
    (tmp_path / "tmp").mkdir()
    for number, name in enumerate(("app.py", "package/views.py", "site.ini", "tmp/restart.txt"), 1):
        (tmp_path / name).write_text("# new")
        os.utime(tmp_path / name, (number, number))
        seen.add(changes.version_of(site, home))
        assert len(seen) == number + 1, name


def test_a_version_is_another_one_when_the_files_are_and_the_same_when_they_are_again(tmp_path: Path) -> None:
    """A roll-back by a link, with times that tell nothing."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "app.py").write_text("")
        os.utime(tmp_path / release / "app.py", (5, 5))
    (tmp_path / "site.ini").write_text("")
    site = Site(file=str(tmp_path / "site.ini"), name="blog", location=str(tmp_path / "current"))
    versions = []
    for release in ("one", "two", "one"):
        (tmp_path / "new").symlink_to(release)
        os.replace(tmp_path / "new", tmp_path / "current")
        versions.append(changes.version_of(site, Home(str(tmp_path))))
    assert versions[0] == versions[2] != versions[1]
    (tmp_path / "copy.py").write_text("")
    os.utime(tmp_path / "copy.py", (5, 5))
    os.replace(tmp_path / "copy.py", tmp_path / "one" / "app.py")
    assert changes.version_of(site, Home(str(tmp_path))) != versions[0]


def test_the_look_at_a_tree_is_bounded_and_follows_no_link_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a web of links, nor a loop, nor a large folder, nor what is beside it costs more than so many names."""
    monkeypatch.setattr(changes, "LONGEST_LOOK", math.inf)  # a busy machine takes as long as it takes
    top, outside = tmp_path / "site", tmp_path / "outside"
    for folder in (top / "package", top / "data", outside):
        folder.mkdir(parents=True)
    (outside / "app.py").write_text("")
    (top / "package" / "views.py").write_text("")
    for number in range(50):
        (top / f"a{number}").symlink_to("package")
        (top / "package" / f"b{number}").symlink_to("..")
        (top / f"out{number}").symlink_to(outside)
    for number in range(changes.MOST_IN_FOLDER + 100):
        (top / "data" / f"{number:05}.txt").touch()
    (top / "zoo").mkdir()
    (top / "zoo" / "last.py").write_text("")
    found = [line for line in changes._source_below(str(top)) if ".py " in line]
    assert sorted(line.split()[0].rpartition("/")[2] for line in found) == ["last.py", "views.py"]
    site = Site(file="x.ini", name="x", location=str(top))
    assert {os.path.basename(path) for path, _ in changes.times(site)} == {"last.py", "views.py"}


def test_the_look_at_a_tree_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.py").write_text("")
    monkeypatch.setattr(changes, "LONGEST_LOOK", -1.0)
    assert list(changes._source_below(str(tmp_path))) == []
