"""Sites that run without having been asked for: always, or by the hour of the day."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import cast

import pytest

from multisite.sites.statefile import StateFile
from multisite.supervisor.prewarm import HOURS, KIND, LEAD, MOST_SITES, Habits, Warming
from multisite.supervisor.site.supervised import SupervisedSite
from tests.supervisor.harness import SupervisedHome, wait_until

HOUR, DAY = 3600.0, 86400.0
APP = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"here"]
"""


def of_days(used: dict[int, set[str]], days: int, habits: Habits | None = None, first: int = 0) -> Habits:
    """Live through days on which sites are used at certain hours, in UTC."""
    habits = habits or Habits(local=time.gmtime)
    for day in range(first, first + days):
        for hour in range(HOURS):
            for minute in (0, 20, 40):
                habits.note_use(day * DAY + hour * HOUR + minute * 60, used.get(hour, set()) if minute == 20 else ())
    habits.note_use((first + days) * DAY, ())
    return habits


def due(habits: Habits, name: str, day: int) -> list[int]:
    """The hours shortly before which a site is due."""
    return [hour for hour in range(HOURS) if habits.is_due(name, day * DAY + hour * HOUR - LEAD / 2)]


def test_hours_of_most_days_are_expected() -> None:
    habits = of_days({9: {"shop"}, 14: {"shop", "blog"}}, 3)
    assert due(habits, "shop", 4) == [9, 14]
    assert due(habits, "blog", 4) == [14]
    assert due(habits, "never", 4) == []
    assert not habits.is_due("shop", 4 * DAY + 9 * HOUR - 2 * LEAD)
    assert not habits.is_due("shop", 4 * DAY + 9 * HOUR + 60)


def test_one_day_is_no_habit_and_two_days_without_end_one() -> None:
    assert due(of_days({9: {"shop"}}, 1), "shop", 2) == []
    habits = of_days({9: {"shop"}}, 3)
    assert due(of_days({}, 2, habits, first=3), "shop", 6) == []


def test_what_is_not_used_is_forgotten_and_what_is_kept_is_bounded() -> None:
    habits = of_days({9: {"shop"}}, 2)
    of_days({}, 12, habits, first=2)
    assert habits.as_json() == {}
    many = of_days({9: {f"s{number}" for number in range(MOST_SITES + 5)}}, 1)
    assert len(many.as_json()) == MOST_SITES


def test_hours_without_a_supervisor_are_no_hours_without_use() -> None:
    habits = of_days({9: {"shop"}}, 3)
    again = Habits(json.loads(json.dumps(habits.as_json())), local=time.gmtime)
    again.note_use(10 * DAY, ())
    again.note_use(20 * DAY + 5 * HOUR, ())
    assert due(again, "shop", 21) == [9]


@pytest.mark.parametrize("junk", [None, [], {"shop": [1]}, {"shop": ["x"] * 24}, {"shop": {}}])
def test_junk_is_no_habit(junk: object) -> None:
    assert Habits(junk).as_json() == {}


def test_a_site_that_is_always_warm_runs_unasked_and_again_when_it_ends(home: SupervisedHome) -> None:
    home.app("blog", APP, warm="always", idle_timeout="1s")
    home.site("other")
    home.ensure("other")
    first = home.wait_for("blog", "running")
    assert (first["starts"], first["cold_starts"]) == (1, 0)
    wait_until(lambda: home.state("blog")["idle"] > 1.5)
    assert home.state("blog")["pids"] == first["pids"]
    assert home.get("blog") == "here"
    home.client.ask({"do": "stop", "site": "blog"})
    home.wait_for("blog", "stopped")
    home.client.ask({"do": "reload"})
    home.status()
    assert home.state("blog")["state"] == "stopped"
    assert home.get("blog") == "here"
    (home.path / "sites-enabled" / "blog.ini").unlink()
    wait_until(lambda: "blog" not in home.status()["sites"])


def test_a_site_runs_in_the_hours_that_its_file_names(home: SupervisedHome) -> None:
    """From two minutes before them; and it stays until they are over, unless somebody stops it."""
    monday = 4 * DAY  # 5 January 1970
    wall = [monday]
    warming = Warming(home.home, lambda: wall[0], time.gmtime)
    site = SimpleNamespace(name="blog", warm="mon-fri 8-18, sat 22-2")
    blog = SimpleNamespace(site=site, activity=SimpleNamespace(asked=0.0), pids=[], is_put_to_rest=False)

    def seen(day: int, hour: float) -> tuple[bool, bool]:
        wall[0] = monday + day * DAY + hour * HOUR
        warming.check_due([cast(SupervisedSite, blog)], 0.0)
        return blog.is_due, blog.stays

    for day in range(5):
        assert seen(day, 7.9) == (False, False)
        assert seen(day, 8 - LEAD / HOUR) == seen(day, 8) == seen(day, 17.99) == (True, True)
        assert seen(day, 18) == seen(day, 23) == (False, False)
    assert seen(5, 12) == (False, False)
    assert seen(5, 22) == seen(6, 1.99) == (True, True)
    assert seen(6, 2) == seen(6, 22) == (False, False)
    blog.is_put_to_rest = True
    assert seen(0, 12) == (False, True)


def test_a_site_in_its_hours_is_started_unasked_and_not_stopped_as_idle(home: SupervisedHome) -> None:
    home.app("blog", APP, warm="sun-sat 0-24", idle_timeout="1s")
    home.site("other")
    home.ensure("other")
    first = home.wait_for("blog", "running")
    assert first["cold_starts"] == 0
    wait_until(lambda: home.state("blog")["idle"] > 1.5)
    assert home.state("blog")["pids"] == first["pids"]
    day = time.strftime("%a", time.localtime(time.time() + 2 * DAY)).lower()
    home.app("blog", APP, warm=f"{day} 8-9", idle_timeout="1s")
    home.client.ask({"do": "reload"})
    home.wait_for("blog", "stopped")


def test_a_site_is_due_once_for_each_hour_in_which_it_is_expected(home: SupervisedHome) -> None:
    """If nobody comes it is stopped as any other, and not started again for that hour."""
    StateFile(home.home, KIND, guides_us=True).store({"blog": [1.0] * HOURS})
    wall = [100 * DAY + 9 * HOUR - 2 * LEAD]
    warming = Warming(home.home, lambda: wall[0])
    site = SimpleNamespace(name="blog", warm="predicted")
    blog = SimpleNamespace(site=site, activity=SimpleNamespace(asked=0.0), pids=[], is_put_to_rest=False, is_due=None)

    def is_due(later: float, *pids: int) -> bool:
        wall[0] += later
        blog.pids = list(pids)
        warming.check_due([cast(SupervisedSite, blog)], 0.0)
        return bool(blog.is_due)

    assert not is_due(0)
    assert is_due(LEAD + 1)
    assert not is_due(1, 4711)
    assert not is_due(1)
    assert not is_due(LEAD)
    assert is_due(HOUR - LEAD)
    blog.is_put_to_rest = True
    assert not is_due(1)


def test_an_hour_that_is_over_is_kept(home: SupervisedHome) -> None:
    wall = [100 * DAY]
    warming = Warming(home.home, lambda: wall[0])
    site = SimpleNamespace(name="blog", warm="never")
    blog = SimpleNamespace(site=site, activity=SimpleNamespace(asked=5.0), pids=[], is_put_to_rest=False, is_due=None)
    for _ in range(2):
        warming.check_due([cast(SupervisedSite, blog)], 6.0)
        wall[0] += HOUR
    assert sum(StateFile(home.home, KIND).load()["blog"]) == pytest.approx(0.3)
