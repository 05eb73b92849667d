"""A failure in the supervisor's loop costs its own work and a moment; the loop keeps running."""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.supervisor import control, loop
from multisite.supervisor.control import Caller, Control
from multisite.supervisor.loop import Loop
from tests.descriptors import all_open

from .harness import SERVER, SupervisedHome, ask, wait_until


@pytest.fixture
def turning() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def ready() -> Iterator[int]:
    """A descriptor that can be read all the time."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    yield reader
    os.close(reader)
    os.close(writer)


def test_a_callback_that_fails_is_set_aside_for_a_while_and_nobody_else_notices(
    turning: Loop, ready: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "SET_ASIDE", 0.2)
    other, calls = os.dup(ready), []

    def fail(_events: int) -> None:
        calls.append("fails")
        raise OSError(24, "Too many open files")

    turning.watch(ready, fail)
    turning.watch(other, lambda _events: calls.append("other"))
    turning.turn(0.0)
    assert sorted(calls) == ["fails", "other"]
    assert not turning.watches(ready)
    turning.turn(0.0)
    assert calls.count("fails") == 1 and calls.count("other") == 2
    turning.forget(other)
    wait_until(lambda: (turning.turn(1.0), calls.count("fails") >= 3)[1])  # it need not be read for the time to come
    os.close(other)
    told = [record for record in caplog.records if record.exc_info]
    assert len(told) == 1 and "Too many open files" in caplog.text  # one place is logged once in a while


def test_one_that_is_well_again_is_watched_as_before(
    turning: Loop, ready: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SET_ASIDE", 0.01)
    failures, calls = [1, 2], []

    def recover(_events: int) -> None:
        calls.append(1)
        if failures:
            raise ValueError(failures.pop())

    turning.watch(ready, recover)
    wait_until(lambda: (turning.turn(0.5), len(calls) == 3)[1])
    turning.turn(0.0)
    turning.turn(0.0)
    assert len(calls) == 5


def test_what_was_set_aside_and_forgotten_or_closed_does_not_come_back(
    turning: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be another's by then."""
    monkeypatch.setattr(loop, "SET_ASIDE", 0.0)
    calls = []

    def fail(_events: int) -> None:
        calls.append(1)
        raise ValueError

    for end in ("forgotten", "closed"):
        ours, theirs = socket.socketpair()
        theirs.close()
        turning.watch(ours, fail)
        turning.turn(0.0)
        if end == "forgotten":
            turning.forget(ours)
        ours.close()
        turning.turn(0.0)
    assert len(calls) == 2


def test_it_does_not_turn_like_mad_while_something_fails(turning: Loop, ready: int) -> None:
    began = turning.now()
    for _ in range(3):
        assert not turning.attempt(int, "no number")
        turning.turn(0.0)
    assert turning.now() - began >= 2 * loop.BREATH


def test_an_error_of_a_command_is_answered_and_the_connection_lives(
    turning: Loop, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SET_ASIDE", 0.0)

    def answer(request: dict[str, object], _connection: Caller) -> dict[str, object]:
        return {"done": request["do"]}

    asked = Control(str(tmp_path / "c"), turning, answer)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "c"))
        client.settimeout(0.01)
        assert _told(turning, client, b"{}")["status"] == 500
        assert _told(turning, client, b'{"do": "x"}') == {"done": "x"}
    assert "KeyError" in caplog.text
    asked.close()


def _told(turning: Loop, client: socket.socket, question: bytes) -> dict[str, object]:
    client.sendall(question + b"\n")

    def told() -> bytes:
        turning.turn(0.05)
        try:
            return client.recv(65536)
        except TimeoutError:
            return b""

    return dict(json.loads(wait_until(told)))


def test_a_socket_that_cannot_be_bound_costs_no_descriptor(
    turning: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried once a second."""
    before = all_open()
    for _ in range(5):
        with pytest.raises(OSError):
            Control(str(tmp_path / "missing" / "c"), turning, lambda *_: None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(control.os, "replace", full)
    for _ in range(5):
        with pytest.raises(OSError):
            Control(str(tmp_path / "c"), turning, lambda *_: None)
    assert all_open() <= before
    assert os.listdir(tmp_path) == []


def test_who_turns_somebody_away_with_the_last_descriptor_closes_no_other_ones(
    turning: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one in reserve cannot be had again when the machine has none; its old number is soon another's."""
    asked = Control(str(tmp_path / "c"), turning, lambda *_: None)
    opened = os.open
    monkeypatch.setattr(control.os, "open", _none_left)
    asked._turn_away()
    monkeypatch.setattr(control.os, "open", opened)
    mine = [os.dup(0) for _ in range(4)]
    asked._turn_away()
    asked.close()
    for descriptor in mine:
        os.fstat(descriptor)
        os.close(descriptor)


def _none_left(*_: object) -> int:
    raise OSError(23, "Too many open files in system")


def test_a_supervisor_without_descriptors_for_a_while_goes_on(home: SupervisedHome) -> None:
    """Everything in its turn that opens a file fails meanwhile; then it serves as before, and notices what happened."""
    home.site("blog", SERVER)
    first = home.get("blog")
    supervisor, path = home.pid, home.ensure("blog")
    limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, limits[1]))
    home.site("blog", SERVER, more="[env]\nGREETING = moin\n")
    with pytest.raises(OSError):
        ask(path, "/die")
    wait_until(lambda: not os.path.exists(f"/proc/{first.split()[0]}"))  # it has been waited for, in a turn
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: home.get("blog").endswith("moin"))
    assert home.pid == supervisor


def test_errors_are_the_loggers_of_the_service(turning: Loop, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "multisite.supervisor"):
        turning.attempt(int, "no number")
    assert [record.name for record in caplog.records] == ["multisite.supervisor"]
