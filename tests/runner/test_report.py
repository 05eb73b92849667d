"""What a process tells of its application's exceptions: each to the log, a bounded share to the supervisor."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import pytest

from multisite.runner.report import BURST, LONGEST, LONGEST_TRACEBACK, Notifier
from multisite.supervisor.notify import Channel


@pytest.fixture
def told() -> Iterator[tuple[Notifier, Channel]]:
    channel, descriptor = Channel.pipe()
    yield Notifier(descriptor), channel
    os.close(descriptor)
    channel.close()


def raised(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def incidents(channel: Channel) -> list[list[str]]:
    """All that has arrived, whatever the second allows."""
    messages = [one for second in range(100) for one in channel.receive(float(second))]
    return [json.loads(one["INCIDENT"]) for one in messages]


def test_a_flood_costs_the_supervisor_a_bounded_share(
    told: tuple[Notifier, Channel], capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever was not told has the incident of the one before."""
    notifier, channel = told
    shown = [notifier.raised(raised("x"), "GET", "a.test", f"/{number}") for number in range(40 * BURST)]
    known = [one[0] for one in incidents(channel)]
    assert list(dict.fromkeys(shown)) == known
    assert BURST <= len(known) < 20 * BURST
    assert re.findall("MS616 incident ([0-9a-f]{8}): Error handling GET a.test/", capfd.readouterr().err) == shown


def test_the_same_failure_of_a_moment_is_one_incident(told: tuple[Notifier, Channel]) -> None:
    notifier, channel = told
    shown = [notifier.raised(error, "GET", "a.test", "/") for error in [raised("x")] * 3 + [raised("y")] * 3]
    assert [one[0] for one in incidents(channel)] == list(dict.fromkeys(shown))


def test_what_is_told_is_bounded_and_one_message(
    told: tuple[Notifier, Channel], capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing in a request or in an exception can end the message, or a line of the log about it."""
    notifier, channel = told
    hostile = "\n\nREADY=1\n\n\x1b[2J" + "é" * 10_000
    notifier.raised(raised(hostile), "GET" + hostile, "a.test" + hostile, "/" + hostile)
    ((_, method, host, path, cause, trace),) = incidents(channel)
    assert (len(method), len(host), len(path), len(cause), len(trace)) == (20, *[LONGEST] * 3, LONGEST_TRACEBACK)
    assert cause.startswith("ValueError: READY=1")
    assert capfd.readouterr().err.splitlines()[0].startswith("MS616 incident ")
