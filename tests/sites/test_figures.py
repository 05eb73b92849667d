"""The figures of one site are those of the workers and those of its own processes, each request once."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from multisite.dispatch import counted
from multisite.runner import board
from multisite.sites import figures
from multisite.sites.figures import Sums
from multisite.sites.tally import Tally, tally_of
from multisite.sites.usage import MEASURED, Counts
from tests.homes import TestHome

APP = """
def parts():
    yield b"12"
    raise RuntimeError("in the middle")

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("raised")
    status = {"/500": "500 Broken", "/404": "404 Not Found", "/302": "302 Found"}.get(path, "200 OK")
    start_response(status, [("Content-Type", "text/plain")])
    if path == "/cut":
        return parts()
    return iter([b"12345"]) if path == "/later" else [b"12345"]
"""
MIX = ("/", "/later", "/404", "/302", "/500", "/raise", "/cut")


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    made = TestHome(tmp_path)
    made.code("a", app=APP)
    made.ini("a")
    return made


def shown(home: TestHome, command: str) -> dict[str, Any]:
    from click.testing import CliRunner

    from multisite.cli import main

    run = CliRunner().invoke(main, ["--home", str(home.path), "--json", command], catch_exceptions=False)
    (row,) = json.loads(run.output)["sites"]
    return dict(row)


def ask(home: TestHome, path: str) -> None:
    try:
        home.get("a.test", path)
    except RuntimeError:
        assert path == "/cut"


def test_the_class_and_the_failure_of_every_request_are_known_beyond_those_that_are_measured(home: TestHome) -> None:
    """Pieces and lists, answers and errors of the app, before it has begun to answer and after."""
    for _ in range(MEASURED):
        ask(home, "/")
    for _ in range(40):
        for path in MIX:
            ask(home, path)
    row = shown(home, "status")
    assert row["statuses"] == {"1xx": 0, "2xx": MEASURED + 120, "3xx": 40, "4xx": 40, "5xx": 80}
    assert (row["requests"], row["errors"], row["in_flight"]) == (MEASURED + 280, 120, 0)
    assert sum(row["latencies"]) == MEASURED
    again = shown(home, "stats")
    assert {key: again[key] for key in ("requests", "errors", "statuses", "sent", "received")} == {
        key: row[key] for key in ("requests", "errors", "statuses", "sent", "received")
    }


def test_a_percentile_of_a_few_requests_is_none(home: TestHome) -> None:
    for _ in range(figures.ENOUGH - 1):
        home.get("a.test", "/")
    assert set(shown(home, "stats")["percentiles"].values()) == {None}
    home.get("a.test", "/")
    assert None not in shown(home, "stats")["percentiles"].values()


def test_servers_whose_responses_do_not_tell_their_status_are_asked_by_proxy() -> None:
    """The status is that of the last start_response, and no status is a failure only where there was one."""
    counts = Counts(memoryview(bytearray(board.SIZE)).cast("Q"))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("201 Created", [])
        counted.ended(counts, start_response.__self__.status)
        return []

    assert not counted.tells(lambda status, headers: None)
    seen: list[Any] = []
    counted.told(app)({}, lambda *answer: seen.append(answer[0]))
    record = board.record_of(bytes(counts.cells), 2**62)
    assert seen == ["201 Created"]
    assert record and record.statuses == (0, 0, 1, 0, 0, 0)


def test_no_status_is_lost_between_threads() -> None:
    counts = Counts(memoryview(bytearray(board.SIZE)).cast("Q"))
    threads = [threading.Thread(target=lambda: [counts.ended(200, True) for _ in range(20_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = board.record_of(bytes(counts.cells), 2**62)
    assert record and (record.statuses[2], record.errors) == (80_000, 80_000)


def test_what_is_relayed_is_counted_by_the_worker_and_by_no_other() -> None:
    """It is in flight in both."""
    sums = Sums(requests=10, errors=1, sent=100, in_flight=2)
    told = {"requests": 5, "errors": 2, "sent": 7, "in_flight": 3, "relayed_now": 2, "busy": 0.5}
    found = figures.counted(sums, told)
    assert (found["requests"], found["errors"], found["sent"], found["in_flight"]) == (15, 3, 107, 3)
    assert figures.counted(None, {})["requests"] == 0
    assert figures.counted(Sums(in_flight=2), {"requests": None, "in_flight": 3})["in_flight"] == 3


def test_a_tally_survives_and_one_of_an_earlier_release_has_no_requests() -> None:
    """Those were counted by the workers as well, which have them still."""
    tally = Tally(2, 1, 7, 1, latencies=(0,) * 19, statuses=(0, 0, 6, 0, 0, 1), starts_by_kind={"cold": 2}, ready=2)
    assert tally_of(json.loads(json.dumps(tally.as_dict()))) == tally
    old = {name: value for name, value in tally.as_dict().items() if name != "statuses"}
    found = tally_of(old)
    assert found and (found.starts, found.requests, found.errors, found.latencies) == (2, None, 0, ())
    strange = tally_of({"starts": 1, "starts_by_kind": {"cold": 1, "odd": 5}, "statuses": [1]})
    assert strange and (strange.starts_by_kind, strange.statuses) == ({"cold": 1}, ())
    assert (tally + tally).starts_by_kind == {"cold": 4}
