"""The current configuration: read, checked for changes without a watcher, replaced as a whole.

Nothing runs between requests. A request that finds a look due makes a handful of stat
calls for all; every file is looked at only when a folder or moya.conf has changed, or
when a client asks for an unknown host, and then within a small share of the time.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator

from multisite.config.model import Home
from multisite.config.read import find_home, read_home
from multisite.errors import ConfigError, Problem
from multisite.logs import incidents, kept, past, servicelog
from multisite.sites import catalogue
from multisite.sites.catalogue import Catalogue
from multisite.sites.holdings import NOBODY, HoldingsFile
from multisite.sites.sitedir import SiteDir, stamp_of

LOOK_EVERY = 1.0  # seconds until the worker of a busy site knows of a change
_SCAN_SHARE = 20  # full looks that unknown hosts cause take at most 1/20 of the time
_SCAN_PAUSE = 0.05  # seconds between two such looks at least

_log = logging.getLogger("multisite.live")


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Stop the garbage collector: it would visit thousands of new sites again and again, none of them garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class LiveHome:
    """The catalogue of one home, kept current by its caller's `look`."""

    def __init__(self, home: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._asked_for = home
        self._clock = clock
        self._look_at = self._scan_at = 0.0
        self._home_stamp: tuple[int, ...] = ()
        self._logging: tuple[str, tuple[int, ...]] = ("", ())
        self._folder: SiteDir | None = None
        self._logging_problems: tuple[Problem, ...] = ()
        self._told: set[Problem] = set()
        self.catalogue: Catalogue | None = None

    def glance(self) -> Home:
        """Return what moya.conf says, without reading the sites.

        Raises:
            ConfigError: there is no usable home.
        """
        return read_home(find_home(self._asked_for))

    def open(self) -> Catalogue:
        """Read everything for the first time.

        Raises:
            ConfigError: there is no usable home; call again later.
        """
        home = self._read_home()
        with _no_collection():
            self._adopt(home)
        gc.freeze()  # these objects stay: no later collection has to visit them
        assert self.catalogue
        return self.catalogue

    @property
    def home(self) -> Home:
        """The home as moya.conf describes it; only after `open`."""
        assert self.catalogue
        return self.catalogue.home

    def check_due(self, now: float) -> bool:
        """Do what is due every second; True if there is a new catalogue."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_EVERY
        return self._look_at_folders()

    def look_again(self, at_once: bool = False) -> bool:
        """Look for the site that an unknown host may belong to; True if there is a new catalogue.

        Args:
            at_once: its file has just been written, so the limit of time does not apply.
        """
        if self._look_at_folders():
            return True
        if self._clock() < self._scan_at and not at_once:
            return False
        return self._scan() and self._install()

    def refresh(self, path: str) -> bool:
        """Look at one site's own file; True if there is a new catalogue."""
        assert self._folder
        self._folder.flush()
        return self._folder.refresh(path) and self._install()

    def renew(self, path: str) -> bool:
        """Look at the folders, at moya.conf and at one site's own file; True if there is a new catalogue."""
        return self._look_at_folders() or self.refresh(path)

    def _look_at_folders(self) -> bool:
        assert self._folder
        if not self._folder.folders_changed():
            return False
        home = self._changed_home()
        if home:
            self._adopt(home)
            return True
        return self._scan() and self._install()

    def _scan(self) -> bool:
        assert self._folder
        begun = self._clock()
        changed = self._folder.scan()
        ended = self._clock()
        self._scan_at = ended + max(_SCAN_PAUSE, _SCAN_SHARE * (ended - begun))
        return changed

    def _read_home(self) -> Home:
        path = find_home(self._asked_for)
        self._home_stamp = stamp_of(os.path.join(path, "moya.conf"))
        return read_home(path)

    def _changed_home(self) -> Home | None:
        """Return the home if moya.conf has changed and can be used."""
        assert self._folder
        if stamp_of(self._folder.home.file) == self._home_stamp:
            return None
        try:
            return self._read_home()
        except ConfigError as error:
            for problem in error.problems:
                _log.error("%s %s (the last good version stays)", problem.id, problem)
            return None

    def _adopt(self, home: Home) -> None:
        """Serve `home` from now on."""
        self._configure_logging(home)
        kept.begin(home.state_dir)
        incidents.begin(home.state_dir)
        past.begin(home.state_dir)
        os.environ.update(home.env)
        self._folder = SiteDir(home, known=self._folder, clock=self._clock)
        self._scan()
        self._install()

    def _configure_logging(self, home: Home) -> None:
        path = os.path.join(home.path, home.projects.logging)
        current = (path, stamp_of(path))
        if current != self._logging:
            self._logging = current
            self._logging_problems = servicelog.configure(home)

    def _install(self) -> bool:
        assert self._folder
        folder, file = self._folder, HoldingsFile(self._folder.home)
        ours = self.catalogue.holdings if self.catalogue else NOBODY
        with file.locked():
            held = file.load().above(ours)
            self.catalogue = catalogue.build(folder.entries.values(), folder.home, held, folder.problems)
            file.keep(self.catalogue.holdings)
        self._tell((*self._logging_problems, *self.catalogue.problems))
        _log.info("%s sites, from %s", len(self.catalogue.entries), self._folder.home.path)
        return True

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        """Log each problem once, until it is gone."""
        for problem in dict.fromkeys(problems):
            if problem not in self._told:
                _log.log(logging.ERROR if problem.is_error else logging.WARNING, "%s %s", problem.id, problem)
        self._told = set(problems)
