"""A site with ``mode = auto`` moves in and out of a worker as the document of the supervisor says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.dispatch.site import LINGERS
from multisite.sites import changes
from multisite.sites.placement import Examined
from multisite.sites.placements import Placements, Row
from tests.homes import MOYA_CONF, TestHome

APP = """
def application(environ, start_response):
    from moving_late import TEXT
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [TEXT]
"""


def beside(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Stands for the relay to the site's process."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"beside"]


class Home(TestHome):
    """A home whose document of placements the tests write, and that needs no supervisor."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, MOYA_CONF.replace("examine = no", "examine = yes"))
        self.service._elsewhere = lambda site, home: beside
        self.code("a", app=APP, moving_late="TEXT = b'here'")
        self.ini("a", mode="auto")
        assert self.get("nobody.test").status == 404
        assert self.service._reach
        self.service._reach._ask_at = math.inf  # there is one, as far as the worker knows

    def decide(self, here: bool) -> str:
        """Have a decision made about the site; returns who answers a second later."""
        current = self.service._catalogue
        assert current
        site, home = current.site("a"), current.home
        version = changes.version_of(site, home)
        kind = "in-process" if here else "spawned"
        assert Placements(home).store({"a": Row(version, Examined(), kind, "", self.now)})
        self.later()
        return self.get("a.test").text


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    for site in list(home.service._sites.values()):
        site.close()


def test_it_is_beside_until_it_is_decided_and_again_when_that_is_taken_back(home: Home) -> None:
    assert home.get("a.test").text == "beside"
    assert [home.decide(here) for here in (True, True, False, False, True)] == [
        *("here", "here", "beside", "beside", "here")
    ]


def test_a_site_that_cannot_be_imported_stays_beside_and_says_so(home: Home) -> None:
    told: list[tuple[str, ...]] = []
    assert home.get("a.test").text == "beside"
    site = home.service._sites[("a", "")]
    assert site._auto
    site._auto.tell = lambda home, command, **more: told.append((command, more["why"]))  # type: ignore[method-assign]
    home.code("a", app="1 / 0")
    assert [home.decide(True), home.decide(False)] == ["beside", "beside"]
    assert [command for command, _ in told] == ["refuse"]
    assert "ZeroDivisionError" in told[0][1]


def test_what_a_site_has_left_is_not_taken_from_it_when_it_is_back(home: Home) -> None:
    """It left, its file had it come back at once for good, and then the time of its old modules was over."""
    assert home.decide(True) == "here"
    assert home.decide(False) == "beside"
    home.ini("a", mode="in-process", request_timeout="1")
    home.later()
    assert home.get("a.test").text == "here"
    home.later(2 * LINGERS + 600)
    assert home.get("nobody.test").status == 404  # which sweeps
    assert home.get("a.test").text == "here"
    home.later()
    assert home.get("a.test").text == "here"
