"""What processes report about themselves: each on its own channel, bounded, and no neighbour loses anything."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from multisite.runner.report import Notifier
from multisite.supervisor.notify import LONGEST, MOST, Channel
from multisite.supervisor.process.spec import Identity
from multisite.supervisor.reexec import Keeper

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
TORN = r"""
if not os.path.exists("done"):
    open("done", "w").close()
    os.write(5, b"READY=1\nX=" + b"x" * 60000)
    os.kill(os.getpid(), 9)
"""
SOCKETS = """
import json, os

def application(environ, start_response):
    held = []
    for name in os.listdir("/proc/self/fd"):
        try:
            held.append(os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass
    start_response("200 OK", [])
    return [json.dumps([name for name in held if name.startswith("socket:")]).encode()]
"""


def test_what_one_says_without_end_waits_and_what_another_says_does_not() -> None:
    """A second's share is taken; the rest fills a queue that nobody else has."""
    (loud, flooding), (calm, speaking) = Channel.pipe(), Channel.pipe()
    sent = 0
    with pytest.raises(BlockingIOError):
        for sent in range(100_000):
            os.write(flooding, b"N=%d\n\n" % sent)
    os.write(speaking, b"READY=1\nSTATUS=\x1b[2Jx\n\n")
    heard = loud.receive(5.0)
    assert 0 < len(heard) <= MOST < sent
    assert (loud.receive(5.5), loud.waits_until, loud.has_more) == ([], 6.0, True)
    for second in range(6, sent):
        heard += loud.receive(float(second))
        if not loud.waits_until:
            break
    assert [int(one["N"]) for one in heard] == list(range(sent))
    assert not loud.has_more
    assert calm.receive(5.0) == [{"READY": "1", "STATUS": "\\x1b[2Jx"}]
    assert calm.waits_until == 0.0
    for channel, theirs in ((loud, flooding), (calm, speaking)):
        channel.close()
        os.close(theirs)


def test_a_pipe_is_over_when_nobody_can_speak_any_more() -> None:
    """What was begun then, and never ended, was not said."""
    channel, theirs = Channel.pipe()
    os.write(theirs, b"READY=1\n\nSTATUS=half a")
    os.close(theirs)
    assert channel.receive(1.0) == [{"READY": "1"}]
    assert channel.is_over
    channel.close()


def test_what_never_ends_is_read_within_bounds_and_forgotten() -> None:
    """A second's share of pieces is read, no more of them is kept than one message may have; the next one is heard."""
    channel, theirs = Channel.pipe()
    taken = 0
    for _ in range(MOST):
        with pytest.raises(BlockingIOError):
            while True:
                os.write(theirs, b"X" * 4096)
        assert channel.receive(1.0) == []
        taken += 1
        assert len(channel._begun) < 2 * LONGEST
        if channel.waits_until:
            break
    assert taken <= MOST
    assert channel.receive(1.9) == []
    channel.receive(2.0)
    os.write(theirs, b"\n\nREADY=1\n\n")
    assert channel.receive(3.0)[-1] == {"READY": "1"}
    channel.close()
    os.close(theirs)


def test_a_message_may_come_in_pieces_and_the_next_program_goes_on_with_them() -> None:
    channel, theirs = Channel.pipe()
    said = b"MODULES=\xc3\xa9 b\n\nREADY=1\n\n"
    heard = []
    for place in range(len(said)):
        os.write(theirs, said[place : place + 1])
        heard += channel.receive(float(place))
        state = json.loads(json.dumps(channel.pack(os.dup)))  # type: ignore[arg-type]
        channel.close()
        channel = Channel.taken_over(state)
    assert heard == [{"MODULES": "é b"}, {"READY": "1"}]
    channel.close()
    os.close(theirs)


def test_the_pair_of_sockets_of_an_older_program_goes_on() -> None:
    """Its state names no pipe, and its messages have no end of their own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    state = {"is_over": False, "_second": 0, "_taken": 0, "socket": Keeper()(ours.detach()), "path": ""}
    channel = Channel.taken_over(json.loads(json.dumps(state)))
    theirs.send(b"READY=1")
    theirs.send(b"STOPPING=1\nRECYCLES=1\n\n")
    theirs.close()
    assert channel.receive(1.0) == [{"READY": "1"}, {"STOPPING": "1", "RECYCLES": "1"}, {}]
    assert channel.is_over
    channel.close()


def test_several_threads_of_a_runner_speak_one_after_another_however_slowly_they_are_heard() -> None:
    """More than the pipe holds at once, long and short; nothing is lost, torn or mixed."""
    channel, theirs = Channel.pipe()
    notifier = Notifier(theirs)
    texts = [f"{number} " + "x" * size for number, size in enumerate((10, 5_000, 40_000, 60_000) * 5)]
    threads = [threading.Thread(target=notifier.modules, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard: list[str] = []
    for second in range(1000):
        heard += [one["MODULES"] for one in channel.receive(float(second))]
        notifier.flush()
        if len(heard) == len(texts):
            break
    assert sorted(heard) == sorted(texts)
    channel.close()
    os.close(theirs)


def test_a_runner_goes_on_when_nobody_listens_any_more() -> None:
    """Or had listened for too long: nothing waits, and what cannot be said is forgotten."""
    channel, theirs = Channel.pipe()
    notifier = Notifier(theirs)
    for _ in range(5):
        notifier.modules("x" * 60_000)
    channel.close()
    notifier.ready()
    assert not notifier._waiting
    os.close(theirs)
    notifier.ready()
    assert not notifier._waiting


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
    assert len(list(folder.iterdir())) == 2  # of the command, and of the site itself beside our runner
    for name in ("a", "b"):
        home.client.ask({"do": "stop", "site": name})
        home.wait_for(name, "stopped")
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


def test_a_process_of_a_site_has_two_sockets_that_are_ours_and_its_word_is_not_one(home: SupervisedHome) -> None:
    """The listening one, and the connection; whatever else it holds of ours is a pipe or a file in memory."""
    home.app("counts", SOCKETS)
    assert len(json.loads(home.get("counts"))) == 2
    held = [os.readlink(one) for one in Path(f"/proc/{home.state('counts')['pids'][0]}/fd").iterdir()]
    assert sum(name.startswith("socket:") for name in held) == 1


def test_a_process_that_is_killed_in_the_middle_of_a_word_has_not_said_it(home: SupervisedHome) -> None:
    """The next one begins with its own channel."""
    home.app("torn", HELLO.format(early=TORN))
    assert home.get("torn") == "hello"
    state = home.wait_for("torn", "running")
    assert state["starts"] == 2


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
