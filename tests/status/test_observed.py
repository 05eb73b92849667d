"""What the pages know of a real home: figures of now, judgements that are renewed when something changes."""

from __future__ import annotations

import cProfile
import pstats
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from multisite.sites.catalogue import Catalogue, ledger
from multisite.sites.claims import Ledger
from multisite.status import observed
from multisite.status.observed import NOT_YET, Observed
from multisite.status.settings import MASK

from ..homes import TestHome


class Clock:
    def __init__(self) -> None:
        self.now, self.step = 100.0, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    home = TestHome(tmp_path)
    home.hello("blog")
    home.hello("shop")
    home.ini("off", enable=False)
    return home


def read(home: TestHome) -> Catalogue:
    catalogue = home.service._live.open()
    return catalogue


def states(watched: Observed) -> dict[str, str]:
    return {row["name"]: row["state"] for row in watched.document()["sites"]}


def test_it_is_the_document_of_the_command(home: TestHome) -> None:
    catalogue = read(home)
    watched = Observed(lambda: catalogue)
    assert set(states(watched)) == {"blog", "shop", "off"}
    assert watched.document()["unseen"] == 0


def test_one_look_serves_all_who_ask_at_once(home: TestHome) -> None:
    catalogue, clock = read(home), Clock()
    watched = Observed(lambda: catalogue, clock)
    first = watched.document()
    assert watched.document() is first
    clock.now += observed.FRESH + 1
    assert watched.document() is not first


def test_a_site_is_judged_again_when_its_file_changes(home: TestHome) -> None:
    catalogue, clock = read(home), Clock()
    watched = Observed(lambda: catalogue, clock)
    assert states(watched)["blog"] != "broken"
    home.ini("blog", application="nothing_like_it:application")
    assert home.service._live.renew(catalogue.entries["blog"].path)
    assert home.service._live.catalogue
    catalogue = home.service._live.catalogue
    clock.now += observed.FRESH + 0.1
    assert states(watched)["blog"] == "broken"


def test_many_sites_are_judged_little_by_little(home: TestHome, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, clock = read(home), Clock()
    clock.step = observed.AT_FIRST  # each look at the clock is as long as a request may take
    monkeypatch.setattr(Observed, "_keep_judging", lambda self: None)
    watched = Observed(lambda: catalogue, clock)
    told = watched.document()
    assert told["unseen"] == 2
    assert {row["reason"] for row in told["sites"] if row["enabled"]} == {NOT_YET}
    clock.step = 0.0
    clock.now += observed.FRESH + 0.1
    assert watched.document()["unseen"] == 0


def test_no_value_of_the_environment_is_shown(home: TestHome) -> None:
    location = home.path / "sites" / "blog"
    url = "postgres://me:hunter2@db/x"
    home.ini(
        "blog",
        f"[service]\ndomains = blog.test\nlocation = {location}\napplication = app:application\n"
        f"[env]\nHARMLESS = yes-it-is\nDATABASE = {url}\n[logging]\naccess = /tmp/a.log\n",
    )
    catalogue = read(home)
    watched = Observed(lambda: catalogue)
    row = next(row for row in watched.document()["sites"] if row["name"] == "blog")
    detail = watched.detail(row)
    shown = {key: (value, where) for key, value, where in detail["settings"]}
    assert shown["[env] HARMLESS"][0] == shown["[env] DATABASE"][0] == MASK
    assert shown["domains"] == ("blog.test", "sites-enabled/blog.ini:2")
    assert "hunter2" not in str(detail) and "yes-it-is" not in str(detail)


# What a thousand sites cost


def looks(work: Callable[[], object]) -> Counter[str]:
    """Count the files that are opened, and the looks at places, while something is done."""
    profile = cProfile.Profile()
    profile.runcall(work)
    found: Counter[str] = Counter()
    for (_, _, name), (_, calls, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        word = re.fullmatch(r"<built-in method (?:posix|io)\.(open|stat|lstat|access|listdir|scandir)>", name)
        if word:
            found["open" if word[1] == "open" else "look"] += calls
    return found


def test_what_a_look_at_many_sites_costs_follows_their_number_and_is_little(tmp_path: Path) -> None:
    """A document opens no file of a site that has been judged, and judging one looks at some places only.

    The sites claim modules in the workers, which each of them is compared with.
    """
    costs = []
    for number in (10, 30):
        home = TestHome(tmp_path / str(number))
        for index in range(number):
            home.hello(f"site{index}")
        catalogue, clock = read(home), Clock()
        for name in catalogue.entries:
            claiming(catalogue).acquire(name, {f"{name}_app": f"{home.path}/sites/{name}"})
        watched = Observed(lambda catalogue=catalogue: catalogue, clock)  # type: ignore[misc]
        first = looks(watched.document)
        assert watched.document()["unseen"] == 0
        clock.now += observed.FRESH + 1
        costs.append((first, looks(watched.document)))
    (first_10, again_10), (first_30, again_30) = costs
    assert again_30["open"] == again_10["open"]
    assert again_30["look"] - again_10["look"] <= 20 * 3
    assert first_30["open"] - first_10["open"] <= 20 * 6
    assert first_30["look"] - first_10["look"] <= 20 * 60


def claiming(catalogue: Catalogue) -> Ledger:
    return ledger(catalogue.home, lambda: catalogue)
