"""A signal is never lost, whenever it arrives."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .harness import backend

OK = """
import signal
signal.signal(signal.SIGUSR1, lambda number, frame: None)

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_it_stops_whenever_it_is_told(tmp_path: Path, threads: int) -> None:
    """At the very moment when an answer is done and the next connection is waited for, too."""
    for number in range(30):
        with backend(tmp_path / str(number), OK, threads=threads) as site:
            for _ in range(number % 4):
                assert site.ask().body == site.http().body == b"ok"
            assert site.terminate() == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_signals_of_the_site_disturb_nothing(tmp_path: Path, threads: int) -> None:
    """A site's own handlers run, requests are answered, and nothing spins afterwards."""
    with backend(tmp_path, OK, threads=threads) as site:
        for _ in range(200):
            site.process.send_signal(signal.SIGUSR1)
            assert site.ask().body == b"ok"
        ticks = Path(f"/proc/{site.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        assert sum(map(int, ticks)) < 200  # two seconds of CPU, which a spinning thread has soon
        assert site.terminate() == 0
