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


class Sites:
    """Sites that all have a process that is asked as often as a test says."""

    def __init__(self, path: Path) -> None:
        (path / "sites-enabled").mkdir()
        (path / "moya.conf").write_text(CONF)
        self.path, self.requests, self.says_busy = path, 0, False
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
            backends=[1],
            pids=[1],
            state=State.RUNNING,
            figures=lambda: figures,
            ensure=str,
            is_due=True,
            says_busy=self.says_busy,
        )

    supervise = get


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return Sites(tmp_path)


def promotion_of(sites: Sites) -> Promotion:
    found: Any = sites
    return Promotion(found, str(sites.path / "usage"), lambda: 0.0)


def row(sites: Sites, name: str) -> Row:
    found = Placements(sites.home).of(name)
    assert found
    return found


def examined(promotion: Promotion, sites: Sites, site: Site, told: str = CLEAN) -> None:
    promotion.take_facts(site, changes.version_of(site, sites.home), told)


def busy(promotion: Promotion, sites: Sites, now: float) -> None:
    """A minute's requests for all sites."""
    promotion.tick(now)
    sites.requests += 100
    promotion.tick(now + LOOK_EVERY)


def test_of_two_with_one_name_the_first_has_it(sites: Sites) -> None:
    """Both are busy at the same moment, and no worker has imported either of them yet."""
    first, second = sites.site("first"), sites.site("second")
    promotion = promotion_of(sites)
    for site in (first, second):
        examined(promotion, sites, site)
    busy(promotion, sites, 0.0)
    assert [row(sites, name).kind for name in ("first", "second")] == ["in-process", "spawned"]
    assert "clashes with the 'helper' of site 'first'" in row(sites, "second").reason


def test_who_is_refused_by_a_worker_leaves_and_may_come_again_later(sites: Sites) -> None:
    """A worker says why; an hour later the reason may be gone."""
    site = sites.site("blog")
    promotion = promotion_of(sites)
    examined(promotion, sites, site)
    busy(promotion, sites, 0.0)
    promotion.refuse("blog", row(sites, "blog").version, "its module 'helper' clashes with another")
    busy(promotion, sites, 10.0)
    found = row(sites, "blog")
    assert (found.kind, found.reason) == ("spawned", "its module 'helper' clashes with another")
    Placements(sites.home).store({"blog": Row(**{**vars_of(found), "since": found.since - HELD_FOR - 1})})
    busy(promotion_of(sites), sites, 20.0)
    assert row(sites, "blog").is_here


def vars_of(found: Row) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Row.__slots__}


def test_who_is_at_work_in_its_own_process_stays_there(sites: Sites) -> None:
    """And moves in when it is done."""
    site = sites.site("blog")
    promotion = promotion_of(sites)
    examined(promotion, sites, site)
    sites.says_busy = True
    busy(promotion, sites, 0.0)
    assert row(sites, "blog").kind == "spawned"
    assert "at work without a request" in row(sites, "blog").reason
    sites.says_busy = False
    busy(promotion, sites, 100.0)
    assert row(sites, "blog").kind == "in-process"


def test_changed_files_are_examined_first(sites: Sites) -> None:
    """What was found out holds for the version that it was found out about."""
    site = sites.site("blog")
    promotion = promotion_of(sites)
    examined(promotion, sites, site)
    assert promotion.wanted(site, sites.home) == ""
    (sites.path / "blog" / "app.py").write_text("# another one\n")
    assert promotion.wanted(site, sites.home) == changes.version_of(site, sites.home)
    busy(promotion, sites, 0.0)
    found = row(sites, "blog")
    assert found.kind == "spawned" and "changed since they were examined" in found.reason


def test_a_site_that_is_gone_is_forgotten(sites: Sites) -> None:
    """Its row would be another site's of that name."""
    site = sites.site("blog")
    promotion = promotion_of(sites)
    examined(promotion, sites, site)
    promotion.tick(0.0)
    (sites.path / "sites-enabled" / "blog.ini").unlink()
    promotion.tick(LOOK_EVERY)
    assert Placements(sites.home).rows() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
def test_the_process_of_another_user_cannot_talk_its_site_in(sites: Sites) -> None:
    """Its user could change the code after the examination, or lie: it is not even heard."""
    site = sites.site("blog")
    os.chown(sites.path / "blog", 33, 33)
    promotion = promotion_of(sites)
    assert promotion.wanted(site, sites.home) == ""
    busy(promotion, sites, 0.0)
    found = row(sites, "blog")
    assert found.kind == "spawned" and found.reason == "it runs as user 'www-data' and the workers as 'root'"
    os.chown(sites.path / "blog", 0, 0)
    os.chmod(sites.path, 0o700)  # so that it runs as root
    assert promotion.wanted(site, sites.home) == changes.version_of(site, sites.home)
