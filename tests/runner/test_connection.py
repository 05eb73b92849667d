"""The clock of a request: stopped while its peer is waited for, and running again whatever comes of that."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from multisite.runner.connection import FOREVER, RequestConnection

from .harness import WITHIN

MORE = b"x" * (8 << 20)  # than any buffer takes


@pytest.fixture
def both() -> Iterator[tuple[RequestConnection, socket.socket]]:
    """A connection and its peer."""
    ours, peer = socket.socketpair()
    with RequestConnection(ours.family, ours.type, ours.proto, ours.detach()) as connection, peer:
        connection.limit = WITHIN
        yield connection, peer


def send(connection: RequestConnection, folder: Path) -> object:
    return connection.sendall(MORE)


def send_a_file(connection: RequestConnection, folder: Path) -> object:
    (folder / "file").write_bytes(MORE)
    with (folder / "file").open("rb") as file:
        return connection.sendfile(file)


def receive(connection: RequestConnection, folder: Path) -> object:
    return connection.recv(10)


def receive_first(connection: RequestConnection, folder: Path) -> object:
    return connection.first()


def leave(peer: socket.socket) -> None:
    peer.close()


def cut(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_RDWR)


def go_on(peer: socket.socket) -> None:
    peer.sendall(b"more")
    peer.shutdown(socket.SHUT_WR)
    while peer.recv(1 << 20):
        pass


WAITS = (send, send_a_file, receive, receive_first)


@pytest.mark.parametrize("then", [leave, cut, go_on])
@pytest.mark.parametrize("wait", WAITS)
def test_it_runs_again_when_the_wait_is_over(
    both: tuple[RequestConnection, socket.socket],
    tmp_path: Path,
    wait: Callable[[RequestConnection, Path], object],
    then: Callable[[socket.socket], None],
) -> None:
    connection, peer = both
    stopped = threading.Event()

    def other_end() -> None:
        deadline = time.monotonic() + WITHIN
        while connection.since != FOREVER and time.monotonic() < deadline:
            time.sleep(0.001)
        if connection.since == FOREVER:
            stopped.set()
        with contextlib.suppress(OSError):  # the connection may be closed before all of it
            then(peer)

    thread = threading.Thread(target=other_end)
    thread.start()
    try:
        wait(connection, tmp_path)
    except OSError:
        assert connection.gone
    assert stopped.is_set() and connection.since <= time.monotonic()
    connection.close()
    thread.join()


@pytest.mark.parametrize("wait", WAITS)
def test_it_runs_again_when_the_peer_was_too_slow(
    both: tuple[RequestConnection, socket.socket], tmp_path: Path, wait: Callable[[RequestConnection, Path], object]
) -> None:
    connection, _peer = both
    connection.limit = 0.05
    with pytest.raises(TimeoutError):
        wait(connection, tmp_path)
    assert connection.gone and connection.since <= time.monotonic()


@pytest.mark.parametrize("wait", [send, receive])
def test_a_wait_that_cannot_begin_stops_nothing(
    both: tuple[RequestConnection, socket.socket],
    tmp_path: Path,
    wait: Callable[[RequestConnection, Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, _peer = both

    def broken(*_arguments: object) -> None:
        raise OSError("the site has closed it")

    monkeypatch.setattr("os.set_blocking", broken)
    with pytest.raises(OSError, match="the site has closed it"):
        wait(connection, tmp_path)
    assert connection.since <= time.monotonic()
