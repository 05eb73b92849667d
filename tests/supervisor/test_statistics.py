"""What sites have used: counted over restarts of their processes and of the supervisor."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.sites.tally import MOST, Tallies, Tally, tally_of
from multisite.supervisor.accounts import Accounts
from multisite.supervisor.records import journal
from multisite.supervisor.records.journal import Journal
from tests.processes import is_running

from .harness import SupervisedHome, supervised, wait_until

APP = """
import time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/burn":
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
    start_response("500 Oh" if environ["PATH_INFO"] == "/fail" else "200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def used(home: SupervisedHome, name: str = "app") -> dict[str, object]:
    return home.state(name)


def leave(home: SupervisedHome) -> None:
    pid = home.pid
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_running(pid))


def test_figures_survive_processes_and_supervisors(tmp_path: Path) -> None:
    """Requests, errors, starts, cold starts, bytes, processor time, and when."""
    began = time.time()
    with supervised(tmp_path) as home:
        home.app("app", APP)
        for _ in range(5):
            assert home.get("app") == "ok"
        with pytest.raises(OSError, match="500"):
            home.get("app", "/fail")
        home.get("app", "/burn")
        first = used(home)
        assert (first["requests"], first["errors"], first["starts"], first["cold_starts"]) == (7, 1, 1, 1)
        assert 0.3 <= first["cpu"] < 10
        assert first["sent"] == 7 * 2
        assert (first["statuses"][2], first["statuses"][5]) == (6, 1)
        assert began <= first["first_start"] <= first["up_since"] <= first["last_use"] + 1 <= time.time() + 1
        (pid,) = first["pids"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in used(home)["pids"])
        assert home.get("app") == "ok"
        second = used(home)
        assert (second["requests"], second["errors"], second["starts"]) == (8, 1, 2)
        assert second["cpu"] >= first["cpu"]
        leave(home)
        (kept,) = Tallies(home.home).all().values()
        assert (kept.requests, kept.errors, kept.starts) == (8, 1, 2)
        assert kept.cpu >= second["cpu"] - 0.02
        assert 0 < kept.alive < time.time() - began
        assert home.get("app") == "ok"
        third = used(home)
        assert (third["requests"], third["errors"], third["starts"]) == (9, 1, 3)
        assert third["first_start"] == first["first_start"]


def test_a_restart_and_a_replacement_are_no_cold_starts(tmp_path: Path) -> None:
    """Nobody waited for those."""
    with supervised(tmp_path) as home:
        home.app("app", APP)
        home.get("app")
        (old,) = used(home)["pids"]
        home.client.ask({"do": "restart", "site": "app"})
        wait_until(lambda: used(home)["pids"] and old not in used(home)["pids"])
        assert (used(home)["starts"], used(home)["cold_starts"]) == (2, 1)
        home.client.ask({"do": "stop", "site": "app"})
        home.wait_for("app", "stopped")
        home.get("app")
        assert (used(home)["starts"], used(home)["cold_starts"]) == (3, 2)


def test_starts_have_a_kind_and_a_duration_and_ends_have_a_reason(tmp_path: Path) -> None:
    """A cold start, one for a new version, a crash, a stop and a start that fails."""
    with supervised(tmp_path) as home:
        folder = home.app("app", APP)
        home.get("app")
        (old,) = used(home)["pids"]
        home.client.ask({"do": "restart", "site": "app"})
        wait_until(lambda: used(home)["pids"] and old not in used(home)["pids"])
        (pid,) = used(home)["pids"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in used(home)["pids"])
        home.get("app")
        home.client.ask({"do": "stop", "site": "app"})
        home.wait_for("app", "stopped")
        found = used(home)
        assert found["starts_by_kind"] == {"cold": 2, "deploy": 1}
        assert found["stops_by_reason"] == {"restart": 1, "crash": 1, "asked": 1}
        assert (found["ready"], found["start_failures"]) == (3, 0)
        assert found["start_seconds"] > 0
        assert found["queued"] == 2
        (folder / "app.py").write_text("raise RuntimeError\n")
        home.client.ask({"do": "restart", "site": "app", "start": True})
        wait_until(lambda: used(home)["start_failures"])
        leave(home)
        kept = Tallies(home.home).all()["app"]
        assert kept.stops_by_reason == {"restart": 1, "crash": 1, "asked": 1}
        assert kept.start_failures >= 1


def noted(home: SupervisedHome, name: str) -> int | None:
    """How many requests of a site, all of them ended, another supervisor would find, if this one were killed now."""
    tally = Journal(home.home).read().get(name) or Tallies(home.home).all().get(name)
    return tally.requests if tally and sum(tally.statuses or ()) == tally.requests else None


def test_a_supervisor_that_is_killed_has_counted_for_the_next(tmp_path: Path) -> None:
    """Requests, statuses, starts and ends; nothing is there twice, however often that happens."""
    wanted = 0
    with supervised(tmp_path) as home:
        home.app("app", APP)
        for killed in range(3):
            for _ in range(5):
                home.get("app")
            with pytest.raises(OSError, match="500"):
                home.get("app", "/fail")
            wanted += 6
            wait_until(lambda: noted(home, "app") == wanted)
            pid = home.pid
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not is_running(pid))
            home.get("app")
            wanted += 1
            wait_until(lambda: sum(used(home)["statuses"]) == wanted)
            found = used(home)
            assert (found["requests"], found["errors"], found["starts"]) == (wanted, killed + 1, killed + 2)
            assert found["statuses"] == [0, 0, wanted - killed - 1, 0, 0, killed + 1]
            assert found["starts_by_kind"] == {"cold": killed + 2}


def test_time_without_a_processor_delays_no_count(tmp_path: Path) -> None:
    """Only what following costs makes it rarer: the next look of one that took long is as soon as any other."""
    followed = Accounts(SupervisedHome(tmp_path).home)
    begun = time.monotonic() - 1000
    followed.follow_at = begun
    followed.follow((), begun)
    assert followed.follow_at - begun < 500


@given(st.binary(max_size=4 * journal.PLACE))
def test_a_journal_of_nonsense_says_nothing(data: bytes) -> None:
    assert list(journal._places(data)) == []


@pytest.mark.parametrize("order", ["aaab", "aabb", "abab", "abaabb", "abcabcabc"])
def test_a_journal_that_was_torn_has_what_was_there_before(tmp_path: Path, order: str) -> None:
    """The two places of a record are written in turn, whatever is written of other sites meanwhile."""
    home = SupervisedHome(tmp_path).home
    writer, counts = Journal(home), Counter[str]()

    def found() -> dict[str, int | None]:
        return {name: tally.requests for name, tally in Journal(home).read().items()}

    for name in order:
        counts[name] += 1
        writer.put(name, Tally(1, requests=counts[name], statuses=(0,) * 6))
    assert found() == counts
    whole = Path(writer.path).read_bytes()
    for name, count in counts.items():
        newest = b'[%d,"%s"' % (order.rindex(name) + 1, name.encode())
        Path(writer.path).write_bytes(whole.replace(newest, b"[0" + newest[2:]))
        assert found() == +Counter({**counts, name: count - 1})
    writer.clear()
    assert found() == {}


def test_what_a_process_finishes_after_its_site_was_disabled_counts(tmp_path: Path) -> None:
    """Its scoreboard is read until it is gone, and kept."""
    with supervised(tmp_path) as home:
        home.app("app", APP)
        home.get("app")
        (tmp_path / "sites-enabled" / "app.ini").unlink()
        wait_until(lambda: "app" not in home.status()["sites"])
        leave(home)
        assert Tallies(home.home).all()["app"].requests == 1


def test_a_server_of_its_own_counts_no_requests(tmp_path: Path) -> None:
    """It is reported as unknown, not as none; what the kernel knows is reported."""
    with supervised(tmp_path) as home:
        home.site("own")
        home.get("own")
        found = used(home, "own")
        assert found["requests"] is None
        assert (found["starts"], found["cold_starts"]) == (1, 1)
        assert found["cpu"] > 0


# --- the document ---------------------------------------------------------------------------------------------------


def test_tallies_add_up() -> None:
    """Unknown is not zero, and never is not the earliest time."""
    assert Tally(1, 1, None) + Tally(2, 0, None) == Tally(3, 1, None)
    assert (Tally(requests=2, first_start=5.0, last_use=7.0) + Tally(1, first_start=0.0, last_use=6.0)) == Tally(
        1, requests=2, first_start=5.0, last_use=7.0
    )


@pytest.mark.parametrize("row", [None, 7, {"starts": "many"}, {"requests": []}, {"cpu": None}])
def test_a_document_of_another_shape_is_left_out(row: object) -> None:
    """It is a cache of figures, no configuration."""
    assert tally_of(row) is None


def test_the_document_is_replaced_whole_and_bounded(tmp_path: Path) -> None:
    """Of too many sites, those that were used last are remembered."""
    home = SupervisedHome(tmp_path).home
    tallies = {f"s{number}": Tally(1, last_use=float(number)) for number in range(MOST + 5)}
    assert Tallies(home).keep(tallies)
    found = Tallies(home).all()
    assert len(found) == MOST
    assert "s4" not in found and "s5" in found
    (file,) = Path(home.state_dir).glob("statistics-*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(json.dumps({"a": {"starts": 1, "of another release": 2}, "b": 3}))
    assert Tallies(home).all() == {"a": Tally(1)}
