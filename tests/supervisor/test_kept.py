"""What the supervisor keeps on disk: a full one loses nothing for good, and a killed writer leaves nothing for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multisite.sites import statefile
from multisite.sites.placement import Examined
from multisite.sites.placements import Placements, Row
from multisite.sites.statefile import StateFile
from multisite.supervisor.loop import Loop
from multisite.supervisor.prewarm import KIND, Warming
from multisite.supervisor.process.preloaders import Learned
from multisite.supervisor.promotion import Promotion
from multisite.supervisor.reexec import Keeper
from multisite.supervisor.site.supervised import SupervisedSite
from multisite.supervisor.upgrade import Upgrade
from tests.descriptors import all_open

from .harness import SupervisedHome

HOUR = 3600.0


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A disk without room, until the returned function is called."""
    made = statefile.tempfile.mkstemp

    def no_room(*_: Any, **_keys: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(statefile.tempfile, "mkstemp", no_room)
    yield lambda: monkeypatch.setattr(statefile.tempfile, "mkstemp", made)


def test_where_sites_live_is_written_when_there_is_room_again(home: SupervisedHome, full: Callable[[], None]) -> None:
    sites: Any = SimpleNamespace(home=home.home)
    promotion = Promotion(sites, str(home.path / "usage"), time.monotonic)
    promotion._put("blog", Row("1", Examined(), "in-process", "it is busy", 1.0))
    promotion._store()
    assert Placements(home.home).rows() == {}
    full()
    promotion._store()
    assert Placements(home.home).rows()["blog"].is_here


def test_what_is_imported_is_written_when_there_is_room_again(home: SupervisedHome, full: Callable[[], None]) -> None:
    learned = Learned(home.home)
    learned.of("python nobody").learn(["decimal"])
    learned.change()
    learned.keep()
    full()
    learned.keep()
    assert "decimal" in Learned(home.home).of("python nobody").modules


def test_an_hour_of_use_is_written_when_there_is_room_again(home: SupervisedHome, full: Callable[[], None]) -> None:
    """Not with the end of the next hour only, before which the supervisor may leave."""
    wall = [100 * 86400.0]
    warming = Warming(home.home, lambda: wall[0])
    site = SimpleNamespace(name="blog", warm="never")
    blog = SimpleNamespace(site=site, activity=SimpleNamespace(asked=5.0), pids=[], is_put_to_rest=False, is_due=None)
    for _ in range(2):
        warming.check_due([cast(SupervisedSite, blog)], 6.0)
        wall[0] += HOUR
    wall[0] -= HOUR
    full()
    warming.check_due([cast(SupervisedSite, blog)], 6.0)
    assert sum(StateFile(home.home, KIND).load()["blog"]) == pytest.approx(0.3)


def test_what_a_killed_process_has_half_written_is_swept_when_a_supervisor_starts(home: SupervisedHome) -> None:
    """What is being written just now, and what is not ours, stays."""
    folder = home.path / "state"
    folder.mkdir()
    for name, age in ((".state-old", 2 * HOUR), (".state-new", 1.0), ("precious", 2 * HOUR), (".other", 2 * HOUR)):
        (folder / name).write_text("half")
        os.utime(folder / name, (time.time() - age,) * 2)
    home.site("blog")
    home.ensure("blog")
    left = set(os.listdir(folder))
    assert {".state-new", "precious", ".other"} <= left
    assert ".state-old" not in left


def test_a_program_that_cannot_be_executed_leaves_no_file_open(
    home: SupervisedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be handed over is in a memory file, with what sites keep secret in their environment."""
    loop = Loop()
    upgrade = Upgrade(loop, str(home.path))
    monkeypatch.setattr("multisite.supervisor.upgrade.program.command", lambda *_words, **_more: ["/no/such/program"])
    here, before = os.getcwd(), all_open()
    keep = Keeper()
    kept = keep(os.dup(0))
    upgrade.execute({"number": 1}, keep)
    assert not os.get_inheritable(kept)
    os.close(kept)
    assert all_open() <= before
    assert os.getcwd() == here and not upgrade.is_due
    loop.close()
