"""Who moves into the workers and who does not: what a process says, who it is, and what its neighbours have."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multisite.config.model import Site
from multisite.config.read import read_home
from multisite.sites import catalogue, changes
from multisite.sites.catalogue import Catalogue
from multisite.sites.placements import Placements, Row
from multisite.supervisor.lifecycle import State
from multisite.supervisor.promotion import HELD_FOR, LOOK_EVERY, Promotion

CLEAN = json.dumps({"findings": [], "seconds": 0.01, "memory": 2**20, "requests": 256})
CONF = """[projects]
read = sites-enabled/*.ini
[service]
state_dir = state
[defaults]
share = yes
[supervisor]
allow_root = yes
promote_after = 10
"""


class Crews:
    """A roster whose sites all have a process that is asked as often as a test says."""

    def __init__(self, path: Path) -> None:
        (path / "sites-enabled").mkdir()
        (path / "moya.conf").write_text(CONF)
        self.path, self.requests = path, 0
        self.home = read_home(str(path))

    def site(self, name: str) -> Site:
        folder = self.path / name
        folder.mkdir()
        (folder / "app.py").write_text("import helper\ndef application(*_):\n    pass\n")
        (folder / "helper.py").write_text(f"NAME = {name!r}\n")
        text = f"[service]\ndomains = {name}.test\nlocation = {folder}\napplication = app:application\n"
        (self.path / "sites-enabled" / f"{name}.ini").write_text(text)
        return self.catalogue.site(name)

    @property
    def catalogue(self) -> Catalogue:
        return catalogue.read(self.home)

    def get(self, name: str) -> Any:
        figures = SimpleNamespace(requests=self.requests, in_flight=1)
        return SimpleNamespace(
            backends=[1], pids=[1], state=State.RUNNING, figures=lambda: figures, ensure=str, is_due=True
        )

    crew = get


@pytest.fixture
def crews(tmp_path: Path) -> Crews:
    return Crews(tmp_path)


def placing_of(crews: Crews) -> Promotion:
    roster: Any = crews
    return Promotion(roster, str(crews.path / "usage"), lambda: 0.0)


def row(crews: Crews, name: str) -> Row:
    found = Placements(crews.home).of(name)
    assert found
    return found


def examined(placing: Promotion, crews: Crews, site: Site, told: str = CLEAN) -> None:
    placing.take_facts(site, changes.version_of(site, crews.home), told)


def busy(placing: Promotion, crews: Crews, now: float) -> None:
    """A minute's requests for all sites."""
    placing.tick(now)
    crews.requests += 100
    placing.tick(now + LOOK_EVERY)


def test_of_two_with_one_name_the_first_has_it(crews: Crews) -> None:
    """Both are busy at the same moment, and no worker has imported either of them yet."""
    first, second = crews.site("first"), crews.site("second")
    placing = placing_of(crews)
    for site in (first, second):
        examined(placing, crews, site)
    busy(placing, crews, 0.0)
    assert [row(crews, name).kind for name in ("first", "second")] == ["in-process", "spawned"]
    assert "clashes with the 'helper' of site 'first'" in row(crews, "second").reason


def test_who_is_refused_by_a_worker_leaves_and_may_come_again_later(crews: Crews) -> None:
    """A worker says why; an hour later the reason may be gone."""
    site = crews.site("blog")
    placing = placing_of(crews)
    examined(placing, crews, site)
    busy(placing, crews, 0.0)
    placing.refuse("blog", row(crews, "blog").version, "its module 'helper' clashes with another")
    busy(placing, crews, 10.0)
    found = row(crews, "blog")
    assert (found.kind, found.reason) == ("spawned", "its module 'helper' clashes with another")
    Placements(crews.home).store({"blog": Row(**{**vars_of(found), "since": found.since - HELD_FOR - 1})})
    busy(placing_of(crews), crews, 20.0)
    assert row(crews, "blog").is_here


def vars_of(found: Row) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Row.__slots__}


def test_changed_files_are_examined_first(crews: Crews) -> None:
    """What was found out holds for the version that it was found out about."""
    site = crews.site("blog")
    placing = placing_of(crews)
    examined(placing, crews, site)
    assert placing.wanted(site, crews.home) == ""
    (crews.path / "blog" / "app.py").write_text("# another one\n")
    assert placing.wanted(site, crews.home) == changes.version_of(site, crews.home)
    busy(placing, crews, 0.0)
    found = row(crews, "blog")
    assert found.kind == "spawned" and "changed since they were examined" in found.reason


def test_a_site_that_is_gone_is_forgotten(crews: Crews) -> None:
    """Its row would be another site's of that name."""
    site = crews.site("blog")
    placing = placing_of(crews)
    examined(placing, crews, site)
    placing.tick(0.0)
    (crews.path / "sites-enabled" / "blog.ini").unlink()
    placing.tick(LOOK_EVERY)
    assert Placements(crews.home).rows() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
def test_the_process_of_another_user_cannot_talk_its_site_in(crews: Crews) -> None:
    """Its user could change the code after the examination, or lie: it is not even heard."""
    site = crews.site("blog")
    os.chown(crews.path / "blog", 33, 33)
    placing = placing_of(crews)
    assert placing.wanted(site, crews.home) == ""
    busy(placing, crews, 0.0)
    found = row(crews, "blog")
    assert found.kind == "spawned" and found.reason == "it runs as user 'www-data' and the workers as 'root'"
    os.chown(crews.path / "blog", 0, 0)
    os.chmod(crews.path, 0o700)  # so that it runs as root
    assert placing.wanted(site, crews.home) == changes.version_of(site, crews.home)
