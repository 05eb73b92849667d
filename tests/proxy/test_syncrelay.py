"""The one thread of a sync worker: whose turn it is, and what becomes of answers that it does not come back for."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.proxy import downstream, syncrelay
from multisite.sites.server import find_worker
from tests.backends import PATIENCE, Backend, read_all, saying, take
from tests.proxy.harness import Relayed
from tests.ways import Way, connected, taken

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    with taken("sync", monkeypatch, patience=0.005) as made:
        yield made


@pytest.fixture
def somebody(worker: Way) -> Iterator[socket.socket]:
    """Another client, who waits to be accepted."""
    with socket.create_connection(worker.worker.sockets[0].getsockname()) as other:
        yield other


def call(proxy: Relayed, wire: socket.socket, **more: Any) -> None:
    """Call the application in this thread, as a sync worker would; it must leave the connection to others."""
    environ = {
        "gunicorn.socket": wire,
        "SERVER_SOFTWARE": "gunicorn/27.0.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        **more,
    }
    with pytest.raises(downstream.Ended):
        proxy(environ, lambda *told: pytest.fail("nothing is left for gunicorn to say"))
    assert wire.fileno() == -1


def test_a_worker_waits_for_an_answer_if_nobody_else_wants_anything(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another client the answer is there when the call returns, and no loop was needed."""
    monkeypatch.setattr(syncrelay, "PATIENCE", PATIENCE)
    with Backend(tmp_path / "x.sock", saying(HELLO)) as backend:
        ours, theirs = connected()
        call(Relayed(backend.endpoint), theirs)
        assert not syncrelay.of(find_worker())._requests  # type: ignore[arg-type]
        with ours:
            assert read_all(ours).endswith(b"hello")


def test_it_leaves_when_somebody_is_at_the_door(
    tmp_path: Path, worker: Way, somebody: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that comes later is passed on though the worker never returns."""
    monkeypatch.setattr(syncrelay, "PATIENCE", PATIENCE)
    go = threading.Event()

    def talk(wire: socket.socket) -> None:
        take(wire)
        assert go.wait(PATIENCE)
        wire.sendall(HELLO)

    with Backend(tmp_path / "x.sock", talk) as backend:
        ours, theirs = connected()
        call(Relayed(backend.endpoint), theirs)  # returns, though there is no answer
        go.set()
        with ours:
            assert read_all(ours).endswith(b"hello")


def test_it_collects_the_answers_to_earlier_requests(
    tmp_path: Path, worker: Way, somebody: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many requests, each sent before the last was answered; every client gets the answer to its own."""
    monkeypatch.setattr(syncrelay, "MOMENT", 1.0)  # so that the loop helps with none of them
    monkeypatch.setattr(syncrelay, "QUIET", 0)

    def talk(wire: socket.socket) -> None:
        number = take(wire).partition(b" /")[2].partition(b" ")[0]
        wire.sendall(SMALL + number)

    with Backend(tmp_path / "x.sock", talk, backlog=64) as backend, contextlib.ExitStack() as stack:
        proxy = Relayed(backend.endpoint)
        clients = []
        for number in range(30):
            ours, theirs = connected()
            clients.append(stack.enter_context(ours))
            call(proxy, theirs, RAW_URI=f"/{number:02}", PATH_INFO=f"/{number:02}")
        somebody.close()
        accepted, _ = worker.worker.sockets[0].accept()
        accepted.close()
        ours, theirs = connected()
        clients.append(stack.enter_context(ours))
        monkeypatch.setattr(syncrelay, "PATIENCE", PATIENCE)
        call(proxy, theirs, RAW_URI="/30", PATH_INFO="/30")
        assert [read_all(wire)[-2:] for wire in clients] == [b"%02d" % number for number in range(31)]


def test_an_answer_that_does_not_fit_goes_on_elsewhere(
    tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncrelay, "PATIENCE", PATIENCE)
    body = bytes(1 << 20)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with Backend(tmp_path / "x.sock", saying(answer)) as backend:
        ours, theirs = connected()
        call(Relayed(backend.endpoint), theirs)
        with ours:
            assert read_all(ours).endswith(body)


def test_a_client_that_takes_nothing_holds_up_nobody(tmp_path: Path, worker: Way) -> None:
    """What does not fit into the connection's buffer is sent by the loop."""
    body = b"x" * 60000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with Backend(tmp_path / "x.sock", saying(answer)) as backend:
        ours, theirs = connected()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        call(Relayed(backend.endpoint), theirs)
        with ours:
            assert read_all(ours).endswith(body)


def test_errors_are_the_loops_to_tell(tmp_path: Path, worker: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncrelay, "PATIENCE", PATIENCE)
    with Backend(tmp_path / "x.sock", saying(b"nonsense\r\n\r\n")) as backend:
        ours, theirs = connected()
        call(Relayed(backend.endpoint), theirs)
        with ours:
            assert read_all(ours).startswith(b"HTTP/1.1 502 ")
