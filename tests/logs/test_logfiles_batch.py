"""Lines of a log that come in quick succession."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from multisite.logs import logfiles
from multisite.logs.logfiles import AT_ONCE, MOST, Batch


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A moment that does not end before somebody flushes."""
    monkeypatch.setattr(logfiles, "MOMENT", 3600.0)
    monkeypatch.setattr(logfiles, "_flusher", logfiles._Flusher())
    yield


def batch(written: list[bytes], at_once: bool = False) -> Batch[int]:
    return Batch(lambda number: b"%d\n" % number, written.append, at_once)


def test_the_first_lines_of_a_moment_are_written_at_once_and_the_others_together(endless: None) -> None:
    written: list[bytes] = []
    lines = batch(written)
    for number in range(AT_ONCE + 3):
        lines.append(number)
    assert written == [b"%d\n" % number for number in range(AT_ONCE)]
    logfiles.flush()
    assert written[AT_ONCE:] == [b"4\n5\n6\n"]
    logfiles.flush()
    assert len(written) == AT_ONCE + 1


def test_no_more_wait_than_may(endless: None) -> None:
    written: list[bytes] = []
    lines = batch(written)
    for number in range(AT_ONCE + MOST):
        lines.append(number)
    assert b"".join(written).count(b"\n") == AT_ONCE + MOST


def test_what_waits_is_written_without_another_line() -> None:
    written: list[bytes] = []
    lines = batch(written)
    for number in range(100):
        lines.append(number)
    deadline = time.monotonic() + 60
    while b"".join(written).count(b"\n") < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert b"".join(written) == b"".join(b"%d\n" % number for number in range(100))


def test_who_flushes_waits_for_what_another_thread_is_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a process that ends meanwhile would take it along."""
    monkeypatch.setattr(logfiles, "_flusher", logfiles._Flusher())
    written: list[bytes] = []
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def write(data: bytes) -> None:
        if threading.current_thread().name == "multisite-log":
            begun.set()
            assert go.wait(60)
        written.append(data)

    lines = Batch(lambda number: b"%d\n" % number, write)
    for number in range(AT_ONCE + 1):
        lines.append(number)
    while not begun.wait(0.01):  # a line is written at once where a moment has ended in between
        lines.append(0)
    flushing = threading.Thread(target=lambda: (logfiles.flush(), done.set()))
    flushing.start()
    assert not done.wait(0.2)
    go.set()
    flushing.join(60)
    assert done.is_set()


def test_lines_of_many_threads_are_all_written_once() -> None:
    written: list[bytes] = []
    lines = batch(written)
    threads = [
        threading.Thread(target=lambda first=first: [lines.append(first + n) for n in range(5000)])
        for first in range(0, 40000, 5000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 60
    while b"".join(written).count(b"\n") < 40000 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(map(int, b"".join(written).split())) == list(range(40000))


def test_syslog_gets_each_by_itself(endless: None) -> None:
    written: list[bytes] = []
    lines = batch(written, at_once=True)
    for number in range(20):
        lines.append(number)
    assert len(written) == 20


AT_END = """
import os, sys
from multisite.logs import logfiles
lines = logfiles.Batch(lambda number: b"%d\\n" % number, lambda data: os.write(1, data))
for number in range(20):
    lines.append(number)
if os.fork() == 0:
    lines.append(100)
    sys.exit()
os.wait()
"""


def test_what_waits_is_written_at_the_end_and_by_one_process() -> None:
    """A child that was forked meanwhile writes its own lines, and none of its parent's."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", AT_END], capture_output=True, check=True, env=environ).stdout
    assert sorted(map(int, told.split())) == [*range(20), 100]
