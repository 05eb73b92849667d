"""Whoever has a request answers for it: whatever goes wrong, and wherever it is, its client gets an answer or a cut."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.config.endpoint import Endpoint
from multisite.errors import BackendUnavailable, ConnectFailed, NoAnswer, UpstreamError
from multisite.proxy import downstream, looprelay, syncrelay
from multisite.proxy import loop as relayloop
from multisite.proxy.body import Upload
from multisite.proxy.destination import NotNow
from multisite.proxy.loop import RelayLoop
from multisite.proxy.upstream import Exchange, connect
from multisite.proxy.wire.responses import Incoming
from multisite.sites.server import find_worker
from tests.backends import HELLO, PATIENCE, TEXT, Backend, Talk, eventually, read_all, saying, take
from tests.proxy.harness import Relayed
from tests.ways import Way, ask, call, connected, send_body, taken

BODY = b"".join(b"%08d" % number for number in range(1 << 19))  # 4 MiB, no two pieces alike


@pytest.fixture(params=["gthread", "sync"])
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """A worker that has no patience, so that everything goes to the loop."""
    with taken(request.param, monkeypatch) as made:
        yield made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """A sync worker that collects answers itself."""
    with taken("sync", monkeypatch, patience=0.005) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def older_objects_stay() -> Iterator[None]:
    """What is there already is not looked at again by each of the many collections."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class Later(Relayed):
    """Reaches its site by a helper only, which does what it is told."""

    def __init__(self, endpoint: Any, do: Callable[[], object]) -> None:
        super().__init__(endpoint)
        self.do = do

    def begin(self, environ: Any, upload: Any, hurry: bool) -> Exchange:
        if hurry:
            raise NotNow
        self.do()
        return super().begin(environ, upload, hurry)


class Explained(Relayed):
    """Asks a helper why there was no answer, who does what it is told."""

    def __init__(self, endpoint: Any, do: Callable[[], object]) -> None:
        super().__init__(endpoint)
        self.can_explain = True
        self.do = do

    def explain(self, error: Any) -> None:
        self.do()


def raising(error: BaseException) -> Callable[[], None]:
    def do() -> None:
        raise error

    return do


def trying(wire: socket.socket) -> None:
    """Answer whoever still listens."""
    take(wire)
    with contextlib.suppress(OSError):
        wire.sendall(HELLO)


# An event that nobody asked for


def refusing(sent: list[int]) -> Talk:
    """A backend that answers without reading the request, as much as is taken for a while, and closes."""

    def talk(wire: socket.socket) -> None:
        wire.recv(4096)
        wire.sendall(TEXT + b"\r\n")
        wire.settimeout(0.5)
        at = 0
        with contextlib.suppress(OSError):
            while at < len(BODY):
                at += wire.send(BODY[at : at + 65536])
        sent.append(at)

    return talk


@pytest.mark.parametrize("size", [0, 2_000_000])
@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_a_piece_that_the_client_has_not_taken_is_not_overwritten(
    tmp_path: Path, worker: Way, size: int, family: str
) -> None:
    """The backend refuses an upload and hangs up while its answer waits for a slow client."""
    sent: list[int] = []
    backend = Backend(tmp_path / "x.sock", refusing(sent))
    endpoint = backend.endpoint
    if family == "tcp":
        backend.listener.close()
        backend.listener = socket.create_server(("127.0.0.1", 0))
        endpoint = Endpoint.parse(f"http://127.0.0.1:{backend.listener.getsockname()[1]}")
    with backend:
        ours, theirs = connected()
        ours.settimeout(PATIENCE)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        environ: dict[str, Any] = {"wsgi.input": _Body(size)}
        if size:
            environ["CONTENT_LENGTH"] = str(size)
            send_body(environ, ours, theirs)
        call(Relayed(endpoint), theirs, **environ)
        eventually(lambda: sent)
        with ours:
            data = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := ours.recv(65536):
                    data += piece
    received = unchunked(data.partition(b"\r\n\r\n")[2])
    assert received == BODY[: len(received)]
    if family == "unix":  # of TCP a reset may take what was not received
        assert len(received) == sent[0]


class _Body:
    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


def unchunked(data: bytes) -> bytes:
    found, at = [], 0
    while (end := data.find(b"\r\n", at)) >= 0 and (size := int(data[at:end], 16)):
        found.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(found)


# An error that is none of ours


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("nobody thought of it"), b"500"),
        (RuntimeError("can't start new thread"), b"500"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), b"503"),
        (OSError(errno.EMFILE, "Too many open files"), b"503"),
        (OSError(errno.ENOBUFS, "No buffer space available"), b"503"),
        (OSError(errno.ENOSPC, "No space left on device"), b"503"),
        (PermissionError(errno.EACCES, "Permission denied"), b"500"),
        (ConnectFailed("nobody is there"), b"502"),
        (SystemExit(3), b"500"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else type(value).__name__,
)
def test_whatever_a_helper_runs_into_is_a_page(
    tmp_path: Path, worker: Way, error: BaseException, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Backend(tmp_path / "x.sock", saying(HELLO)) as backend:
        proxy = Later(backend.endpoint, raising(error))
        relayloop.current().start()
        before = descriptors()
        with ask(proxy) as wire:
            data = read_all(wire)
        assert data.startswith(b"HTTP/1.1 " + status)
        assert b"Incident " in data or b"Retry-After: " in data
        eventually(lambda: not proxy.places and descriptors() <= before + 1)  # a dead one is kept for gunicorn


def test_what_was_not_foreseen_is_in_the_log_under_the_incident_that_the_page_shows(
    tmp_path: Path, worker: Way, caplog: pytest.LogCaptureFixture
) -> None:
    with Backend(tmp_path / "x.sock", saying(HELLO)) as backend:
        with ask(Later(backend.endpoint, raising(ValueError("nobody thought of it")))) as wire:
            page = read_all(wire)
    incident = page.partition(b"Incident ")[2][:8].decode()
    (record,) = [record for record in caplog.records if incident in record.getMessage()]
    assert record.exc_info and "nobody thought of it" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("not foreseen"), b"502"), (BackendUnavailable("it crashed"), b"503")]
)
def test_whatever_is_learned_about_a_missing_answer_there_is_a_page(
    tmp_path: Path, worker: Way, error: Exception, status: bytes
) -> None:
    with Backend(tmp_path / "x.sock", lambda wire: take(wire) and None) as backend:  # type: ignore[func-returns-value]
        proxy = Explained(backend.endpoint, raising(error))
        with ask(proxy) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 " + status)
        eventually(lambda: not proxy.places)


def test_a_helper_that_does_not_come_back_is_waited_for_so_long_only(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it begins after that is ended."""
    monkeypatch.setattr(looprelay, "HELPER_TIMEOUT", 0.1)
    go, freed = threading.Event(), threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        assert wire.recv(1) == b""
        freed.set()

    with Backend(tmp_path / "x.sock", talk) as backend:
        with ask(Later(backend.endpoint, lambda: go.wait(4 * PATIENCE))) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 503 ")
        with ask(Explained(backend.endpoint, lambda: go.wait(PATIENCE))):
            go.set()
            assert freed.wait(PATIENCE)


def test_a_missing_answer_is_told_though_nobody_learns_why(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looprelay, "HELPER_TIMEOUT", 0.1)
    go = threading.Event()
    with Backend(tmp_path / "x.sock", lambda wire: take(wire) and None) as backend:  # type: ignore[func-returns-value]
        with ask(Explained(backend.endpoint, lambda: go.wait(4 * PATIENCE))) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 502 ")
        go.set()


def test_a_client_that_leaves_while_a_helper_is_at_it_is_noticed(tmp_path: Path, worker: Way) -> None:
    go, freed = threading.Event(), threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        assert wire.recv(1) == b""
        freed.set()

    with Backend(tmp_path / "x.sock", talk) as backend:
        proxy = Later(backend.endpoint, lambda: go.wait(PATIENCE))
        wire = ask(proxy)
        assert proxy.places
        wire.close()
        eventually(lambda: not proxy.places)
        go.set()
        assert freed.wait(PATIENCE)


def test_too_many_errands_are_a_page(tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multisite.proxy.errands.MOST_ERRANDS", 0)
    with Backend(tmp_path / "x.sock", saying(HELLO)) as backend:
        proxy = Later(backend.endpoint, lambda: None)
        with ask(proxy) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 503 ")
        eventually(lambda: not proxy.places)


# When the system has run out of something


def test_without_a_thread_for_the_loop_there_is_a_page(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request tries again."""

    def start(self: threading.Thread) -> None:
        if self.name == "multisite-relay":
            raise RuntimeError("can't start new thread")
        started(self)

    started = threading.Thread.start
    with Backend(tmp_path / "x.sock", trying) as backend:
        proxy = Relayed(backend.endpoint)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            before = descriptors()
            with ask(proxy) as wire:
                assert read_all(wire).startswith(b"HTTP/1.1 503 ")
            eventually(lambda: not proxy.places)
            eventually(lambda: descriptors() <= before + 3)  # those of the loop itself, and a dead one
        with ask(proxy) as wire:
            assert read_all(wire).endswith(b"hello")


def test_without_a_descriptor_for_the_loop_there_is_a_page(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    def epoll(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with Backend(tmp_path / "x.sock", trying) as backend:
        proxy = Relayed(backend.endpoint)
        with monkeypatch.context() as patch:
            patch.setattr(select, "epoll", epoll)
            with ask(proxy) as wire:
                assert read_all(wire).startswith(b"HTTP/1.1 503 ")
        with ask(proxy) as wire:
            assert read_all(wire).endswith(b"hello")


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_connection_that_cannot_be_watched_gets_a_page(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """/proc/sys/fs/epoll/max_user_watches bounds how many can; the loop lives on."""
    go = threading.Event()
    watched, calls = RelayLoop.watch, [0]

    def watch(self: RelayLoop, watcher: Any, descriptor: int, events: int, before: int) -> None:
        if not before and events:
            calls[0] += 1
            if calls[0] == fails_at:
                raise OSError(errno.ENOSPC, "No space left on device")
        watched(self, watcher, descriptor, events, before)

    def talk(wire: socket.socket) -> None:
        take(wire)
        go.wait(PATIENCE)
        with contextlib.suppress(OSError):
            wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend:
        proxy = Relayed(backend.endpoint)
        before = descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(RelayLoop, "watch", watch)
            with ask(proxy) as first, ask(proxy) as second:
                go.set()
                answers = sorted(read_all(wire)[:12] for wire in (first, second))
        assert answers == [b"HTTP/1.1 200", b"HTTP/1.1 503"]
        eventually(lambda: not proxy.places)
        eventually(lambda: descriptors() <= before + 3)


def test_an_error_in_the_loop_costs_its_own_request_only(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = looprelay.LoopRelay._receive

    def receive(self: Any) -> None:
        if "bad" in self._environ["RAW_URI"]:
            raise ZeroDivisionError
        received(self)

    monkeypatch.setattr(looprelay.LoopRelay, "_receive", receive)
    with Backend(tmp_path / "x.sock", trying) as backend:
        proxy = Relayed(backend.endpoint)
        with ask(proxy, RAW_URI="/bad") as bad, ask(proxy) as good:
            assert read_all(bad).startswith(b"HTTP/1.1 500 ")
            assert read_all(good).endswith(b"hello")


def test_one_that_cannot_even_be_ended_costs_itself_only(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections are closed, and the loop serves the next."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with Backend(tmp_path / "x.sock", trying) as backend:
        proxy = Relayed(backend.endpoint)
        with monkeypatch.context() as patch:
            patch.setattr(looprelay.LoopRelay, "_receive", fail)
            patch.setattr(looprelay.LoopRelay, "_fail", fail)
            patch.setattr(looprelay.LoopRelay, "abort", fail)
            with ask(proxy) as wire:
                with contextlib.suppress(ConnectionResetError):
                    assert read_all(wire) == b""
        with ask(proxy) as wire:
            assert read_all(wire).endswith(b"hello")


def test_an_answer_that_only_one_thread_collects_is_answered_for(
    tmp_path: Path, patient: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong there, with one request of several in hand, is a page for that one."""
    monkeypatch.setattr(syncrelay, "PATIENCE", PATIENCE)
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(syncrelay.SyncRelay, "_send", lambda self, request: 1 / 0)
        with Backend(tmp_path / "x.sock", trying) as backend, ask(Relayed(backend.endpoint)) as wire:
            assert read_all(wire).startswith(b"HTTP/1.1 500 ")
    with Backend(tmp_path / "y.sock", trying) as backend, ask(Relayed(backend.endpoint)) as wire:
        assert read_all(wire).endswith(b"hello")
    assert descriptors() <= before + 2


def test_what_a_single_worker_has_in_hand_is_a_page_where_there_can_be_no_loop(
    tmp_path: Path, patient: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    def current() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    go = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        go.wait(PATIENCE)

    with Backend(tmp_path / "x.sock", talk) as backend:
        proxy = Relayed(backend.endpoint)
        somebody = socket.create_connection(patient.worker.sockets[0].getsockname())
        with somebody, monkeypatch.context() as patch:
            patch.setattr(relayloop, "current", current)
            with ask(proxy) as wire:
                assert read_all(wire).startswith(b"HTTP/1.1 503 ")
        go.set()
    assert not syncrelay.of(find_worker())._requests  # type: ignore[arg-type]


def test_a_part_that_was_sent_is_followed_by_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that does not fit, and no descriptor to go on with it elsewhere: it is cut, and shows that."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + BODY[:60000]
    with taken("gthread", monkeypatch, patience=PATIENCE):
        with Backend(tmp_path / "x.sock", saying(answer)) as backend:
            ours, theirs = connected()
            ours.settimeout(PATIENCE)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            with monkeypatch.context() as patch:
                none_left = raising(OSError(errno.EMFILE, "none"))
                patch.setattr(downstream.Connection, "take_descriptor", lambda self: none_left())
                call(Relayed(backend.endpoint), theirs, HTTP_CONNECTION="close")
            with ours:
                data = b""
                with contextlib.suppress(ConnectionResetError):
                    while piece := ours.recv(65536):
                        data += piece
    body = data.partition(b"\r\n\r\n")[2]
    assert len(body) < 60000
    assert body == BODY[: len(body)]


class _Failing:
    """A connection whose every call fails in one way."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def send(self, *_: object) -> int:
        raise self.error

    recv = send


def test_a_request_that_cannot_be_sent_on_is_told(tmp_path: Path) -> None:
    """Where memory is short: an endpoint that wants no more is something else."""
    backend = Backend(tmp_path / "x.sock", trying)  # in whose queue the request stays
    with backend.listener:
        exchange = Exchange(backend.endpoint, 1.0, b"GET / HTTP/1.1\r\n\r\n", Upload(b"", None), 1.0)
        real, exchange._out = exchange._sock, b"more"
        with real:
            exchange._sock = _Failing(OSError(errno.ENOBUFS, "No buffer space available"))  # type: ignore[assignment]
            with pytest.raises(UpstreamError):
                exchange.push()
            exchange._sock = _Failing(BrokenPipeError())  # type: ignore[assignment]
            exchange.push()
            assert not exchange.sending


def test_an_answer_that_cannot_be_received_is_told(tmp_path: Path) -> None:
    backend = Backend(tmp_path / "x.sock", trying)  # in whose queue the request stays
    with backend.listener:
        exchange = Exchange(backend.endpoint, 1.0, b"GET / HTTP/1.1\r\n\r\n", Upload(b"", None), 1.0)
        with exchange._sock:
            exchange._sock = _Failing(OSError(errno.ENOMEM, "Cannot allocate memory"))  # type: ignore[assignment]
            with pytest.raises(UpstreamError):
                exchange.collect(Incoming("GET"))
            assert not exchange.was_reset
            exchange._sock = _Failing(ConnectionResetError())  # type: ignore[assignment]
            with pytest.raises(NoAnswer, match="reset"):
                exchange.collect(Incoming("GET"))
            assert exchange.was_reset


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_want_of_descriptors_is_no_fault_of_an_upstream(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    def no_socket(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("multisite.proxy.upstream._new", no_socket)
    endpoint = Endpoint.parse("unix:/run/x.sock" if family == "unix" else "http://127.0.0.1:1")
    with pytest.raises(BackendUnavailable):
        connect(endpoint, 1.0)


# The end of a process


def test_all_that_is_under_way_goes_on_in_the_next(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the loop, in its inbox, with a helper, or waiting for one: nothing is lost between two places."""
    monkeypatch.setattr("multisite.proxy.errands.MOST_THREADS", 1)
    go, begun, asked = threading.Event(), threading.Event(), threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        go.wait(PATIENCE)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend, contextlib.ExitStack() as stack:
        loop = relayloop.current()
        wires = [stack.enter_context(ask(Relayed(backend.endpoint)))]
        helped = Later(backend.endpoint, lambda: begun.set() or asked.wait(PATIENCE))  # type: ignore[func-returns-value]
        wires.append(stack.enter_context(ask(helped)))  # with the only helper
        assert begun.wait(PATIENCE)
        wires += [stack.enter_context(ask(helped)) for _ in range(3)]  # which the others wait for
        eventually(lambda: len(loop._helpers._errands) == 3)
        threading.Timer(0.1, asked.set).start()
        loop.finish_errands(time.monotonic() + PATIENCE)
        loop.park()
        wires.append(stack.enter_context(ask(Relayed(backend.endpoint))))  # in the inbox
        go.set()
        loop.drain(time.monotonic() + PATIENCE)
        assert all(read_all(wire).endswith(b"hello") for wire in wires)


def test_what_a_single_worker_has_in_hand_goes_on_in_the_next(
    tmp_path: Path, patient: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncrelay, "MOMENT", PATIENCE)  # so that the loop takes nothing of its own accord
    go = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        go.wait(PATIENCE)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend, contextlib.ExitStack() as stack:
        stack.enter_context(socket.create_connection(patient.worker.sockets[0].getsockname()))  # who is at the door
        wires = [stack.enter_context(ask(Relayed(backend.endpoint))) for _ in range(3)]
        assert len(syncrelay.of(find_worker())._requests) == 3  # type: ignore[arg-type]
        loop = relayloop.current()
        loop.park()
        go.set()
        loop.drain(time.monotonic() + PATIENCE)
        assert all(read_all(wire).endswith(b"hello") for wire in wires)


def test_a_loop_that_has_just_begun_can_be_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = threading.Event()

    class Late(RelayLoop):
        def run(self) -> None:
            begin.wait(PATIENCE)
            super().run()

    loop = Late()
    loop.call(lambda: None)
    threading.Timer(0.1, begin.set).start()
    loop.park()
    assert loop.is_parked


def test_what_the_grace_cuts_shows_it_and_is_counted(
    tmp_path: Path, worker: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client sees a reset, and its visit ends, before the process does."""
    ended: list[tuple[int, bool]] = []

    class Visit:
        def answered(self, sent_at: float, now: float, times: str) -> None:
            pass

        def done(self, status: int, sent: int, cut: bool = False) -> None:
            ended.append((status, cut))

    def talk(wire: socket.socket) -> None:
        take(wire)
        wire.sendall(TEXT + b"\r\nhello")
        go.wait(PATIENCE)

    go = threading.Event()
    with Backend(tmp_path / "x.sock", talk) as backend:
        more = {"SERVER_PROTOCOL": "HTTP/1.0", "multisite.visit": Visit()}
        with ask(Relayed(backend.endpoint), **more) as wire, ask(Relayed(backend.endpoint), **more) as other:
            for each in (wire, other):
                data = b""
                while not data.endswith(b"hello"):
                    data += each.recv(65536)
            relayloop.current().finish(0.0)
            assert ended == [(200, True)] * 2
            for each in (wire, other):
                with pytest.raises(ConnectionResetError):
                    each.recv(1)
        go.set()


def test_an_answer_shorter_than_it_says_has_failed(tmp_path: Path, worker: Way) -> None:
    """Though all that came of it was passed on."""
    ended: list[tuple[int, bool]] = []

    class Visit:
        def answered(self, sent_at: float, now: float, times: str) -> None:
            pass

        def done(self, status: int, sent: int, cut: bool = False) -> None:
            ended.append((sent, cut))

    with Backend(tmp_path / "x.sock", saying(TEXT + b"Content-Length: 9\r\n\r\nhello")) as backend:
        with ask(Relayed(backend.endpoint), **{"multisite.visit": Visit()}) as wire:
            assert read_all(wire).endswith(b"hello")
        eventually(lambda: ended)
    assert ended == [(5, True)]


def test_a_child_that_a_site_makes_holds_no_clients(
    tmp_path: Path, patient: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the worker has in hand, too: the end of an HTTP/1.0 answer is that of the connection."""
    monkeypatch.setattr(syncrelay, "MOMENT", PATIENCE)
    go = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        go.wait(PATIENCE)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend, contextlib.ExitStack() as stack:
        stack.enter_context(socket.create_connection(patient.worker.sockets[0].getsockname()))
        wire = stack.enter_context(ask(Relayed(backend.endpoint), SERVER_PROTOCOL="HTTP/1.0"))
        assert len(syncrelay.of(find_worker())._requests) == 1  # type: ignore[arg-type]
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # until the parent is through
            os._exit(0)
        os.close(reading)
        go.set()
        relayloop.current().call(syncrelay.of(find_worker())._net.leave)  # type: ignore[arg-type]
        assert read_all(wire).endswith(b"hello")
        os.close(writing)
        os.waitpid(child, 0)
