"""Whose connection can be taken, and what the server is left with."""

from __future__ import annotations

import errno
import signal
import socket
import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn

from multisite.proxy import downstream
from multisite.sites.server import Worker, find_worker
from tests.descriptors import all_open
from tests.ways import Way, connected, gunicorns_logger, taken


@pytest.fixture(params=["gthread", "sync"])
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    with taken(request.param, monkeypatch) as made:
        yield made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = connected()
    ours.settimeout(60)
    with ours, theirs:
        yield ours, theirs


def environ(sock: Any, **more: str) -> dict[str, Any]:
    return {"gunicorn.socket": sock, "SERVER_PROTOCOL": "HTTP/1.1", **more}


def test_the_server_ends_without_the_connection(worker: Way, pair: Any) -> None:
    """What it does at the end of a request neither fails nor reaches the client, who is answered later."""
    ours, theirs = pair
    found = downstream.connection(environ(theirs))
    assert found
    wire = found.opened(found.take_descriptor())
    if worker.is_sync:
        close_graceful(theirs)
    else:
        connection = TConn(worker.worker.cfg, theirs, ("", 0), ("", 0))
        connection.sock.setblocking(False)
        connection.close(graceful=True)
    wire.sendall(b"still there")
    assert ours.recv(100) == b"still there"
    wire.close()
    assert ours.recv(100) == b""


def test_closing_at_once_waits_for_nobody(worker: Way, pair: Any) -> None:
    ours, theirs = pair
    found = downstream.connection(environ(theirs))
    assert found
    assert found.send(b"all") == 3
    found.close()
    assert ours.recv(100) == b"all"
    assert ours.recv(100) == b""


@pytest.mark.parametrize(
    ("protocol", "said", "last"),
    [
        ("HTTP/1.0", None, True),
        ("HTTP/1.0", "keep-alive", False),
        ("HTTP/1.0", "Keep-Alive", False),
        ("HTTP/1.1", None, False),
        ("HTTP/1.1", "close", True),
        ("HTTP/1.1", "keep-alive, Close", True),
    ],
)
def test_a_connection_ends_when_it_says_so(worker: Way, pair: Any, protocol: str, said: str | None, last: bool) -> None:
    more = {"HTTP_CONNECTION": said} if said else {}
    found = downstream.connection(environ(pair[1], **{**more, "SERVER_PROTOCOL": protocol}))
    assert found
    assert found.said_last is last
    assert found.ends is (last or worker.is_sync)


def test_what_cannot_be_taken_is_left_alone(worker: Way, pair: Any) -> None:
    class Green(socket.socket):
        """As gevent's are."""

    Green.__module__ = "gevent._socket3"
    ours, theirs = pair
    assert downstream.connection({"SERVER_PROTOCOL": "HTTP/1.1"}) is None
    assert downstream.connection(environ(theirs, SERVER_PROTOCOL="HTTP/2.0")) is None
    with Green(fileno=theirs.detach()) as green:
        assert downstream.connection(environ(green)) is None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False) as encrypted:
        assert downstream.connection(environ(encrypted)) is None


@pytest.mark.parametrize(("key", "value"), [("protocol", "uwsgi"), ("certfile", __file__)])
def test_a_worker_that_speaks_something_else_keeps_its_connections(
    worker: Way, pair: Any, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    worker.worker.cfg.set(key, value)
    monkeypatch.setattr("multisite.sites.server._worker", Worker(worker.worker))
    assert downstream.connection(environ(pair[1])) is None


@pytest.mark.parametrize("kind", ["gunicorn.workers.base_async.AsyncWorker", "tests.Other"])
def test_a_worker_of_another_kind_keeps_its_connections(pair: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    cfg = Config()
    other = type(kind.rpartition(".")[2], (), {})()
    with gunicorns_logger(cfg) as log:
        other.__dict__.update(cfg=cfg, log=log, nr=0, max_requests=1, sockets=[])
        monkeypatch.setattr("multisite.sites.server._worker", Worker(other))
        assert downstream.connection(environ(pair[1])) is None


def test_the_worker_is_found_by_its_signal_handlers(worker: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multisite.sites.server._worker", None)
    before = signal.signal(signal.SIGTERM, worker.worker.handle_exit)
    try:
        found = find_worker()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found
    assert (found.is_single, found.threads) == ((True, 1) if worker.is_sync else (False, 4))
    assert found.grace == 30


def test_other_servers_have_no_such_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multisite.sites.server._worker", None)
    assert find_worker() is None


def test_the_hooks_of_the_configuration_are_still_called(worker: Way) -> None:
    called: list[str] = []
    worker.worker.cfg.set("worker_int", lambda worker: called.append("their int"))
    worker.worker.cfg.set("worker_exit", lambda arbiter, worker: called.append("their exit"))
    found = Worker(worker.worker)
    found.when_interrupted(lambda: called.append("our int"))
    found.when_ending(lambda: called.append("our exit"))
    worker.worker.cfg.worker_int(worker.worker)
    worker.worker.cfg.worker_exit(SimpleNamespace(), worker.worker)
    assert called == ["our int", "their int", "our exit", "their exit"]


def test_a_connection_that_cannot_be_taken_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the copy that was made before there was nothing to put in its place."""

    def no_pair() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("multisite.sites.server._end", None)
    monkeypatch.setattr(socket, "socketpair", no_pair)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as ours:
            before = all_open()
            with pytest.raises(OSError, match="Too many"):
                downstream.Connection(ours, SimpleNamespace(is_single=False), True).take_descriptor()  # type: ignore[arg-type]
            assert all_open() <= before
