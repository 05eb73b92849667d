"""The loop that waits for whom no worker waits: with real sockets, and a real worker that was never started."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.errors import BackendUnavailable, SiteBusy
from multisite.logs.requests import KEY
from multisite.proxy import downstream, looprelay
from multisite.proxy import loop as relayloop
from multisite.proxy.loop import RelayLoop
from tests.backends import HELLO, PATIENCE, TEXT, Backend, eventually, read_all, saying, take
from tests.proxy.harness import Relayed
from tests.ways import ENVIRON, Way, ask, connected, taken


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """A worker of threads that has no patience, so that everything goes to the loop."""
    with taken("gthread", monkeypatch) as made:
        yield made


# Clients


def test_a_client_that_leaves_frees_the_backend_at_once(tmp_path: Path, worker: Way) -> None:
    """Nothing was answered, and nothing needs to be."""
    freed = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        assert wire.recv(1) == b""
        freed.set()

    with Backend(tmp_path / "x.sock", talk) as backend:
        wire = ask(Relayed(backend.endpoint))
        eventually(lambda: relayloop.current().in_flight)
        wire.close()
        assert freed.wait(PATIENCE)


def test_a_client_that_has_said_all_is_still_there(tmp_path: Path, worker: Way) -> None:
    """It closed its side behind its request: that is not leaving."""
    go = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        assert go.wait(PATIENCE)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend:
        ours, theirs = connected()
        ours.shutdown(socket.SHUT_WR)
        eventually(lambda: downstream.has_left(theirs))
        with pytest.raises(downstream.Ended):
            Relayed(backend.endpoint)({**ENVIRON, "gunicorn.socket": theirs}, None)
        go.set()
        with ours:
            assert read_all(ours).endswith(b"hello")


def test_a_client_that_takes_nothing_is_given_up(tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its backend with it, though there is more to say than fits into any buffer."""
    monkeypatch.setattr(looprelay, "CLIENT_TIMEOUT", 0.1)
    freed = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        with contextlib.suppress(OSError):
            wire.sendall(TEXT + b"\r\n")
            while True:
                wire.sendall(bytes(65536))
        freed.set()

    with Backend(tmp_path / "x.sock", talk) as backend, ask(Relayed(backend.endpoint)):
        assert freed.wait(PATIENCE)


def test_a_slow_client_takes_no_memory(tmp_path: Path, worker: Way) -> None:
    """At most one piece of 64 KiB is held; the backend has to wait for the client."""
    said = [0]
    go = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"Content-Length: %d\r\n\r\n" % (64 << 20))
        wire.setblocking(False)
        left = 64 << 20
        while left:
            try:
                sent = wire.send(bytes(min(left, 65536)))
            except BlockingIOError:
                go.wait(0.01)
                continue
            left -= sent
            said[0] += sent

    with Backend(tmp_path / "x.sock", talk) as backend:
        tracemalloc.start()
        with ask(Relayed(backend.endpoint)) as wire:
            eventually(lambda: said[0])
            before = -1
            while before != said[0]:  # until nothing moves any more
                before = said[0]
                time.sleep(0.2)
            assert said[0] < 32 << 20
            got = 0
            while piece := wire.recv(1 << 20):
                got += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert got > 64 << 20
    assert peak < 8 << 20  # our own reading of 1 MiB included


def test_an_http_1_0_client_sees_a_cut_by_a_reset(tmp_path: Path, worker: Way) -> None:
    """Its answer has neither chunks nor a length, and ends with the connection."""

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        go.wait(PATIENCE)

    go = threading.Event()
    with Backend(tmp_path / "x.sock", talk) as backend:
        with ask(Relayed(backend.endpoint), SERVER_PROTOCOL="HTTP/1.0") as wire:
            data = b""
            while not data.endswith(b"hello"):
                data += wire.recv(65536)
            assert data.startswith(b"HTTP/1.0 200 OK\r\n")
            assert b"chunked" not in data
            go.set()
            with pytest.raises(ConnectionResetError):
                wire.recv(1)


@pytest.mark.parametrize("taken_by_client", [True, False], ids=["all of it", "a part of it"])
def test_such_a_cut_is_never_a_clean_end(tmp_path: Path, worker: Way, taken_by_client: bool) -> None:
    """Nor while some of what came before is still to be sent to a client that is slow."""

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):  # until the client has no room
            wire.settimeout(0.2)
            for _ in range(1 if taken_by_client else 1000):
                wire.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        cut.set()

    cut = threading.Event()
    with (
        Backend(tmp_path / "x.sock", talk) as backend,
        ask(Relayed(backend.endpoint), SERVER_PROTOCOL="HTTP/1.0") as wire,
    ):
        assert cut.wait(PATIENCE)
        with pytest.raises(ConnectionResetError):
            while wire.recv(65536):
                pass


class _Seen:
    """A visit that notes how it ends."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, int, bool]] = []

    def answered(self, sent_at: float, now: float, times: str) -> None:
        pass

    def done(self, status: int, sent: int, cut: bool = False) -> None:
        self.ends.append((status, sent, cut))


def test_a_cut_is_counted_whatever_was_still_to_be_sent(tmp_path: Path, worker: Way) -> None:
    """The client is slow, and takes the rest of what came after the site is gone."""

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):  # until the client has no room
            wire.settimeout(0.2)
            while True:
                wire.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    seen = _Seen()
    with Backend(tmp_path / "x.sock", talk) as backend, ask(Relayed(backend.endpoint), **{KEY: seen}) as wire:
        assert backend.ended.wait(PATIENCE)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while block := wire.recv(1 << 20):
                got = (got + block)[-100:]
        eventually(lambda: seen.ends)
    assert not got.endswith(b"\r\n0\r\n\r\n")
    assert [cut for _, _, cut in seen.ends] == [True]


ENDS = {
    "whole": (TEXT + b"Content-Length: 5\r\n\r\nhello", (200, 5, False)),
    "short": (TEXT + b"Content-Length: 9\r\n\r\nhello", (200, 5, True)),
    "no last chunk": (TEXT + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", (200, 5, True)),
    "too long": (TEXT + b"Content-Length: 5\r\n\r\nhello, world", (200, 5, False)),
}


@pytest.mark.parametrize("kind", ["gthread", "sync"])
@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize("patience", [0.0, 5.0], ids=["loop", "thread"])
@pytest.mark.parametrize("end", list(ENDS))
def test_how_an_answer_ends_is_seen_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, protocol: str, patience: float, end: str
) -> None:
    """Not one byte goes out beyond its length, and a short one has failed, whoever passes it on."""
    answer, counted = ENDS[end]
    seen = _Seen()
    with taken(kind, monkeypatch, patience), Backend(tmp_path / "x.sock", saying(answer)) as backend:
        with ask(Relayed(backend.endpoint), SERVER_PROTOCOL=protocol, HTTP_CONNECTION="close", **{KEY: seen}) as wire:
            got = b""
            with contextlib.suppress(ConnectionResetError):
                while block := wire.recv(65536):
                    got += block
        eventually(lambda: seen.ends)
    assert seen.ends == [counted]
    body = got.partition(b"\r\n\r\n")[2]
    assert body in (b"hello", b"5\r\nhello\r\n")


# The queue of a site


def test_a_request_that_nobody_took_is_503_and_one_that_somebody_did_is_504(tmp_path: Path, worker: Way) -> None:
    """Only the second may have been executed."""
    read = threading.Event()
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        if read.is_set():
            take(wire)
        release.wait(PATIENCE)

    with Backend(tmp_path / "x.sock", talk) as backend:
        with ask(Relayed(backend.endpoint, request_timeout=0.2, most_waiting=5)) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 503 ")
        read.set()
        with ask(Relayed(backend.endpoint, request_timeout=2.0, most_waiting=5)) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 504 ")
        release.set()


def test_the_time_in_the_queue_does_not_count_as_the_sites(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was taken late has its whole time from then on."""
    monkeypatch.setattr(looprelay, "LOOK_AT_QUEUE", 0.01)
    waited_till: list[float] = []

    def talk(wire: socket.socket) -> None:
        time.sleep(0.5)
        waited_till.append(time.monotonic())
        take(wire)
        wire.recv(1)

    with Backend(tmp_path / "x.sock", talk) as backend:
        with ask(Relayed(backend.endpoint, request_timeout=2.0, most_waiting=5)) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 504 ")
            assert time.monotonic() - waited_till[0] > 1.8


def test_a_request_that_was_taken_has_its_own_time(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it might have waited in the queue; and a process that leaves when that time is over has hung."""
    monkeypatch.setattr(looprelay, "LOOK_AT_QUEUE", 0.01)
    leave = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        leave.wait(PATIENCE)

    with Backend(tmp_path / "x.sock", talk) as backend:
        with ask(Relayed(backend.endpoint, request_timeout=PATIENCE, patience=0.2, most_waiting=5)) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 504 ")
        leave.set()
    with Backend(tmp_path / "y.sock", lambda wire: (take(wire), time.sleep(0.3))) as backend:
        with ask(Relayed(backend.endpoint, request_timeout=PATIENCE, patience=0.2)) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 504 ")


def test_more_than_may_wait_are_refused_at_once(tmp_path: Path, worker: Way) -> None:
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        release.wait(PATIENCE)
        take(wire)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend, contextlib.ExitStack() as stack:
        proxy = Relayed(backend.endpoint, most_waiting=3)
        waiting = [stack.enter_context(ask(proxy)) for _ in range(3)]
        ours, theirs = connected()
        with ours, theirs, pytest.raises(SiteBusy):
            proxy({**ENVIRON, "gunicorn.socket": theirs}, None)
        release.set()
        assert all(read_all(wire).endswith(b"hello") for wire in waiting)
        with ask(proxy) as wire:
            assert read_all(wire).endswith(b"hello")


def test_a_request_whose_taking_another_one_noticed_keeps_its_time(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue makes newcomers look at all that wait."""
    monkeypatch.setattr(looprelay, "LOOK_AT_QUEUE", 0.2)
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        release.wait(PATIENCE)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend:
        proxy = Relayed(backend.endpoint, most_waiting=1)
        with ask(proxy) as wire:
            eventually(lambda: proxy.places)
            eventually(lambda: all(each.is_taken() for each in list(proxy.queue._waiting)))
            proxy.queue.check()
            assert not select.select([wire], [], [], 0.6)[0]
            release.set()
            assert read_all(wire).endswith(b"hello")


def test_requests_that_were_taken_do_not_wait(tmp_path: Path, worker: Way) -> None:
    """Ten long answers under way are no queue."""
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        release.wait(PATIENCE)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend, contextlib.ExitStack() as stack:
        proxy = Relayed(backend.endpoint, most_waiting=2)
        waiting = []
        for number in range(10):
            waiting.append(stack.enter_context(ask(proxy)))
            eventually(lambda number=number: backend.connections > number)  # type: ignore[misc]
            eventually(lambda: not [each for each in list(proxy.queue._waiting) if not each.is_taken()])
        release.set()
        assert all(read_all(wire).endswith(b"hello") for wire in waiting)


def test_one_site_cannot_take_every_descriptor(tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have another place in the loop while it holds fewer than are free."""
    monkeypatch.setattr(relayloop.current(), "room", 40)
    release = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        release.wait(PATIENCE)
        wire.sendall(HELLO)

    with (
        Backend(tmp_path / "x.sock", talk, backlog=64) as backend,
        Backend(tmp_path / "y.sock", saying(HELLO)) as other,
        contextlib.ExitStack() as stack,
    ):
        proxy = Relayed(backend.endpoint)
        waiting = []
        with pytest.raises(SiteBusy):
            while True:
                waiting.append(stack.enter_context(ask(proxy)))
                eventually(lambda: len(proxy.places) == len(waiting))
        assert len(waiting) == 20
        with ask(Relayed(other.endpoint)) as wire:
            assert read_all(wire).endswith(b"hello")
        release.set()
        assert all(read_all(wire).endswith(b"hello") for wire in waiting)
        eventually(lambda: not proxy.places)


def test_no_descriptor_is_503(tmp_path: Path, worker: Way) -> None:
    backend = Backend(tmp_path / "x.sock", saying(HELLO))
    proxy = Relayed(backend.endpoint)
    ours, theirs = connected()
    environ = {**ENVIRON, "gunicorn.socket": theirs}
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        most = max(map(int, os.listdir("/proc/self/fd"))) + 10
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(BackendUnavailable):
            proxy(environ, None)
        os.close(held.pop())
        with pytest.raises(BackendUnavailable):  # one for the backend, none for the client's connection
            proxy(environ, None)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    ours.close()
    theirs.close()
    backend.listener.close()


# Reaching a site


def test_what_takes_time_is_done_by_a_helper(tmp_path: Path, worker: Way) -> None:
    """The worker's thread is free while the supervisor is asked; the request is sent once it has answered."""
    go = threading.Event()
    asked = threading.Event()
    backends: list[Backend] = []

    def reconnect() -> None:
        asked.set()
        assert go.wait(PATIENCE)
        backends.append(stack.enter_context(Backend(tmp_path / "x.sock", saying(HELLO))))

    with contextlib.ExitStack() as stack:
        backend = Backend(tmp_path / "gone.sock", saying(HELLO))
        proxy = Relayed(backend.endpoint, reconnect=reconnect)
        proxy.proxy.endpoint = type(backend.endpoint)("http", path=str(tmp_path / "x.sock"))
        wire = stack.enter_context(ask(proxy))  # returns before anybody listens
        assert asked.wait(PATIENCE)
        go.set()
        assert read_all(wire).endswith(b"hello")


# The loop itself


class _Watcher:
    """Notes what it is told."""

    def __init__(self, loop: RelayLoop, wait: float = math.inf, fails: bool = False) -> None:
        self.deadline = time.monotonic() + wait
        self.timer: Any = None
        self.told: list[str] = []
        self.fails = fails
        self._loop = loop

    def ready(self, descriptor: int, events: int) -> None:
        self.told.append("ready")
        if self.fails:
            raise RuntimeError
        os.read(descriptor, 100)

    def expired(self, now: float) -> None:
        self.told.append("expired")
        self.deadline = math.inf
        if self.fails:
            raise RuntimeError
        self._loop.remove(self)

    def failed(self, error: Exception) -> None:
        self.told.append("failed")
        self.abort()

    def leave(self) -> None:
        self.told.append("left")

    def abort(self) -> None:
        self.told.append("aborted")
        self._loop.remove(self)

    def let_go(self) -> None:
        self.told.append("let go")


def test_deadlines_are_kept_and_may_be_moved(loop: RelayLoop) -> None:
    watchers = early, late, moved = _Watcher(loop, 0.05), _Watcher(loop, 0.1), _Watcher(loop, 0.01)

    def start() -> None:
        for watcher in watchers:
            loop.add(watcher)
        moved.deadline = time.monotonic() + 0.2

    loop.call(start)
    eventually(lambda: all(watcher.told for watcher in watchers))
    assert early.told == late.told == moved.told == ["expired"]
    eventually(lambda: not loop.in_flight)


def test_an_earlier_deadline_is_noticed(loop: RelayLoop) -> None:
    watcher = _Watcher(loop, 1000)
    loop.call(lambda: loop.add(watcher))

    def hurry() -> None:
        watcher.deadline = time.monotonic()
        loop.schedule(watcher)

    loop.call(hurry)
    eventually(lambda: watcher.told)


def test_one_that_fails_is_aborted_and_the_others_go_on(loop: RelayLoop) -> None:
    bad, good, slow = _Watcher(loop, fails=True), _Watcher(loop), _Watcher(loop, 0.05, fails=True)
    pipes = [os.pipe(), os.pipe()]

    def start() -> None:
        for watcher, (reading, _) in zip((bad, good), pipes, strict=True):
            loop.add(watcher)
            loop.watch(watcher, reading, 1, 0)
        loop.add(slow)

    loop.call(start)
    for _, writing in pipes:
        os.write(writing, b"x")
    eventually(lambda: bad.told[1:] and good.told and slow.told[1:])
    assert bad.told[:3] == ["ready", "failed", "aborted"]
    assert slow.told == ["expired", "failed", "aborted"]
    loop.call(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    os.write(pipes[1][1], b"x")
    eventually(lambda: len(good.told) == 2)
    for pipe in pipes:
        for descriptor in pipe:
            os.close(descriptor)


def test_the_end_of_a_process_waits_for_what_is_in_flight(loop: RelayLoop) -> None:
    watcher = _Watcher(loop, 0.2)
    loop.call(lambda: loop.add(watcher))
    loop.finish(PATIENCE)
    assert watcher.told == ["left", "expired"]


def test_but_not_longer_than_it_may(loop: RelayLoop) -> None:
    watcher = _Watcher(loop)
    loop.call(lambda: loop.add(watcher))
    loop.finish(0.05)
    assert watcher.told == ["left", "aborted"]


def test_a_forked_child_lets_go_of_its_parents_clients(tmp_path: Path, worker: Way) -> None:
    """Else a client would wait for as long as a child lives that a site in the worker has forked."""
    go = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        assert go.wait(PATIENCE)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend:
        with ask(Relayed(backend.endpoint), SERVER_PROTOCOL="HTTP/1.0") as wire:
            eventually(lambda: relayloop.current().in_flight)
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.close(writing)
                os.read(reading, 1)  # until the parent is through
                os._exit(0)
            os.close(reading)
            go.set()
            assert read_all(wire).endswith(b"hello")  # the end is the end of the connection
            os.close(writing)
            os.waitpid(child, 0)
