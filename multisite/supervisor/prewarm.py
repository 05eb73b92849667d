"""Which sites should run before anyone asks for them, by their files (`warm`) and their habits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from multisite.config import times
from multisite.config.model import Home
from multisite.config.values import WARM
from multisite.sites import sharing
from multisite.sites.catalogue import Catalogue
from multisite.sites.statefile import StateFile
from multisite.supervisor.reexec import PART, Handed, kept
from multisite.supervisor.site.supervised import SupervisedSite

NEVER, PREDICTED, ALWAYS = WARM
RECENT = 5.0  # seconds between two looks at most, with a margin
KIND = "habits"


class Warming(Handed):
    """Marks sites as due.

    Args:
        home: its state directory keeps the habits.
        wall: returns Unix seconds.
        local: converts these to local time.
    """

    KEPT = kept("_begun _has_news", _habits=PART)
    ANEW = ("_file", "_wall", "_local", "_sites")

    def __init__(
        self,
        home: Home,
        wall: Callable[[], float] = time.time,
        local: Callable[[float], time.struct_time] = time.localtime,
    ) -> None:
        self._file = StateFile(home, KIND, guides_us=True)
        self._habits = Habits(self._file.load())
        self._wall, self._local = wall, local
        self._sites: dict[str, str] = {}
        self._begun: set[str] = set()
        self._has_news = False  # not written to disk yet

    def install(self, catalogue: Catalogue) -> None:
        """Follow a new catalogue: which of its sites have their own processes, and may run before anyone asks."""
        default = catalogue.home.defaults.get("warm", NEVER)
        self._sites = {}
        for name, entry in catalogue.entries.items():
            wanted = entry.file.values.get("service", {}).get("warm", default)
            if wanted == NEVER or entry.broken or catalogue.hosting(name):
                continue
            site = catalogue.site(name)
            if sharing.place(site, catalogue.home).kind == "spawned" or sharing.is_examined(site, catalogue.home):
                self._sites[name] = wanted

    def wanted(self) -> list[str]:
        """Return the sites that should run now; instances of a hosting site are known once they are supervised."""
        wall = self._wall()
        sites = self._sites.items()
        return [name for name, warm in sites if self._is_on(warm, wall) or self._habits.is_due(name, wall)]

    def check_due(self, sites: Iterable[SupervisedSite], now: float) -> None:
        """Learn when sites are used, and mark those that are due.

        Args:
            sites: those that are supervised and still enabled.
            now: monotonic seconds.
        """
        sites = list(sites)
        wall = self._wall()
        used = [one.site.name for one in sites if one.activity.asked and now - one.activity.asked < RECENT]
        self._has_news |= self._habits.note_use(wall, used)
        if self._has_news:
            self._has_news = not self._file.store(self._habits.as_json())
        for supervised in sites:
            supervised.stays = self._is_on(supervised.site.warm, wall)
            supervised.is_due = not supervised.is_put_to_rest and self._is_due(supervised, wall)

    def _is_on(self, warm: str, wall: float) -> bool:
        """Tell whether a site should run now, or soon, by its file alone."""
        if warm in WARM:
            return warm == ALWAYS
        told, moments = times.parse_hours(warm), (self._local(wall), self._local(wall + LEAD))
        return any(times.hold(told, at.tm_wday, at.tm_hour * 60 + at.tm_min) for at in moments)

    def _is_due(self, supervised: SupervisedSite, wall: float) -> bool:
        name = supervised.site.name
        if supervised.site.warm != PREDICTED:
            return supervised.stays
        if not self._habits.is_due(name, wall):
            self._begun.discard(name)
            return False
        if supervised.pids:
            self._begun.add(name)  # once for each such hour: if no request comes it is stopped like any other
        return name not in self._begun


HOURS = 24
LEARNING = 0.3
EXPECTED_FROM = 0.5
LEAD = 120.0  # seconds before the hour at which a process is started
FORGOTTEN_BELOW = 0.05
MOST_SITES = 10_000


class Habits(Handed):
    """The usage of all sites by day and hour.

    Args:
        known: an earlier result of `as_json`; anything else counts as nothing.
        local: converts Unix seconds to local time.
    """

    KEPT = kept("_days _used _hour")
    ANEW = ("_local",)

    def __init__(self, known: Any = None, local: Callable[[float], time.struct_time] = time.localtime) -> None:
        self._days: dict[str, list[float]] = _believed(known)
        self._used: set[str] = set()
        self._hour: list[int] = []  # since 1970, and of the local day
        self._local = local

    def note_use(self, wall: float, used: Iterable[str]) -> bool:
        """Note which sites were used a moment ago; tells whether anything was learned.

        Args:
            wall: Unix seconds now.
            used: by name.
        """
        hour = [int(wall // 3600), self._local(wall).tm_hour]
        over = bool(self._hour) and hour[0] != self._hour[0]
        if over:
            self._learn(self._hour[1])
        self._hour = hour
        self._used.update(used)
        return over

    def _learn(self, hour: int) -> None:
        """End an hour of the day."""
        for name in self._used - self._days.keys():
            if len(self._days) < MOST_SITES:
                self._days[name] = [0.0] * HOURS
        for name, day in list(self._days.items()):
            day[hour] += LEARNING * ((name in self._used) - day[hour])
            if max(day) < FORGOTTEN_BELOW:
                del self._days[name]
        self._used.clear()

    def is_due(self, name: str, wall: float) -> bool:
        """Tell whether an hour begins soon in which the site is usually used."""
        now, soon = self._local(wall), self._local(wall + LEAD)
        day = self._days.get(name)
        return bool(day) and now.tm_hour != soon.tm_hour and self._days[name][soon.tm_hour] >= EXPECTED_FROM

    def as_json(self) -> dict[str, list[float]]:
        """Return what a successor learns from."""
        return {name: [round(share, 3) for share in day] for name, day in self._days.items()}


def _believed(known: Any) -> dict[str, list[float]]:
    pairs = known.items() if isinstance(known, dict) else ()
    return {str(name): list(map(float, day)) for name, day in list(pairs)[:MOST_SITES] if _is_day(day)}


def _is_day(day: Any) -> bool:
    return isinstance(day, list) and len(day) == HOURS and all(isinstance(one, int | float) for one in day)
