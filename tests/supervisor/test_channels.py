"""What processes say of themselves: each on a channel of its own, bounded, and nothing is lost for a neighbour."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from multisite.supervisor.notify import MOST, Channel
from multisite.supervisor.process import Identity

from .harness import SupervisedHome, as_user, supervised, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
OURSELVES = Identity(os.geteuid(), os.getegid())
HELLO = """
import os
{early}

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
"""
FLOODS = """
import threading
def flood():
    while True:
        try:
            os.write(5, b"STATUS=" + b"x" * 50000)
        except OSError:
            pass
threading.Thread(target=flood, daemon=True).start()
"""


def test_what_one_says_without_end_waits_and_what_another_says_does_not() -> None:
    """A second's share is taken; the rest fills a queue that nobody else has."""
    (loud, flooding), (calm, speaking) = Channel.pair(), Channel.pair()
    sent = 0
    with pytest.raises(BlockingIOError):
        for sent in range(100_000):
            flooding.send(b"X=1")
    speaking.send(b"READY=1\nSTATUS=\x1b[2Jx")
    assert len(loud.receive(5.0)) == MOST < sent
    assert loud.receive(5.5) == []
    assert loud.waits_until == 6.0
    assert len(loud.receive(6.0)) == MOST
    assert calm.receive(5.0) == [{"READY": "1", "STATUS": "\\x1b[2Jx"}]
    assert calm.waits_until == 0.0
    for one in (loud, calm, flooding, speaking):
        one.close()


def test_a_pair_is_over_when_nobody_can_speak_any_more() -> None:
    channel, theirs = Channel.pair()
    theirs.send(b"READY=1")
    theirs.close()
    assert channel.receive(1.0) == [{"READY": "1"}, {}]
    assert channel.is_over
    channel.close()


def test_who_speaks_at_a_path_is_waited_for_and_loses_nothing(tmp_path: Path) -> None:
    """Of more than its queue holds, too; an empty message ends nothing."""
    channel = Channel.at(str(tmp_path / "n"), OURSELVES)

    def speak() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(tmp_path / "n"))
            sender.send(b"")
            for number in range(3000):
                sender.send(b"N=%d" % number)

    thread = threading.Thread(target=speak)
    thread.start()
    told: list[str] = []
    for second in range(3001 // MOST + 1):
        wanted = min(3001, (second + 1) * MOST)
        wait_until(
            lambda: told.extend(one.get("N", "") for one in channel.receive(float(second))) or len(told) >= wanted
        )
    thread.join()
    assert told == ["", *map(str, range(3000))]
    channel.close()
    assert not (tmp_path / "n").exists()


@as_root
def test_a_path_is_the_sites_users_alone(open_path: Path) -> None:
    path = str(open_path / "n")
    channel = Channel.at(path, Identity(33, 33, change=True))

    def speak() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(path)
            return sender.send(b"READY=1") > 0

    assert as_user(65534, 65534, speak) == "PermissionError"
    assert channel.receive(1.0) == []
    assert as_user(33, 33, speak) is True
    assert channel.receive(1.0) == [{"READY": "1"}]
    status = os.stat(path)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 33)
    channel.close()


def test_no_channel_has_a_name_that_others_could_speak_to(home: SupervisedHome) -> None:
    """Nor does one site find that of another: the folder of the paths shows nothing."""
    home.app("a", HELLO.format(early=""))
    home.site("b")
    home.get("a")
    home.get("b")
    mine = f"multisite/{home.pid}/"
    assert mine not in Path("/proc/net/unix").read_text()
    folder = Path(home.rundir.path) / "notify"
    assert stat.S_IMODE(folder.stat().st_mode) & 0o066 == 0
    assert len(list(folder.iterdir())) == 1  # of the command
    home.client.ask({"do": "stop", "site": "b"})
    home.wait_for("b", "stopped")
    assert list(folder.iterdir()) == []


def test_a_site_that_speaks_without_end_hurts_nobody(home: SupervisedHome) -> None:
    """It is served itself; neighbours start meanwhile, and are not given up for what was not heard."""
    home.app("loud", HELLO.format(early=FLOODS))
    assert home.get("loud") == "hello"
    for number in range(3):
        home.app(f"calm{number}", HELLO.format(early=""), start_timeout="20")
        assert home.get(f"calm{number}") == "hello"
        home.wait_for(f"calm{number}", "running")
    home.wait_for("loud", "running")
    assert home.state("loud")["starts"] == 1


@pytest.mark.parametrize("early", ["os.close(5)", "os.close(5); kept = open('mine', 'wb')"], ids=["closed", "replaced"])
def test_a_site_that_answers_is_not_killed_for_what_it_did_not_say(home: SupervisedHome, early: str) -> None:
    """Nor is anything of ours written where its own file is now."""
    folder = home.app("mute", HELLO.format(early=early), start_timeout="1")
    path = home.ensure("mute")
    assert home.get("mute") == "hello"
    state = home.wait_for("mute", "running")
    assert (state["starts"], state["failure"]) == (1, None)
    assert home.get("mute") == "hello"
    assert home.ensure("mute") == path
    if (folder / "mine").exists():
        assert (folder / "mine").read_bytes() == b""


def test_a_site_that_does_not_answer_either_is_given_up(home: SupervisedHome) -> None:
    home.app("hangs", HELLO.format(early="os.close(5)\nimport time; time.sleep(600)"), start_timeout="1")
    with pytest.raises(OSError):
        home.get("hangs")
    assert "it was not ready within 1 s" in home.failed("hangs")["failure"]["failure"]


@as_root
def test_a_forked_process_has_a_channel_of_its_own(open_path: Path) -> None:
    """Made by a preloader of another user: what it says is heard as its own."""
    with supervised(open_path) as home:
        for name in ("one", "two", "three"):
            home.app(name, HELLO.format(early=""), user="www-data", python="/usr/bin/python3")
        for name in ("one", "two"):
            assert home.get(name) == "hello"
        wait_until(lambda: any(one["state"] == "ready" for one in home.status()["preloaders"]))
        assert home.get("three") == "hello"
        state = home.wait_for("three", "running")
        assert state["journey"]["way"].startswith("forked")
