"""Connections of gunicorn's that a site's own thread closes while their worker does."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from multisite.proxy.waiting import slowclients

Pair = tuple[socket.socket, socket.socket]


class Sites(socket.socket):
    """A connection that a site's thread closes at the moment at which it is shut down, or made to wait."""

    __module__ = "socket"  # as those that gunicorn accepts

    def shutdown(self, how: int) -> None:
        super().shutdown(how)
        self._close_elsewhere()

    def setblocking(self, flag: bool) -> None:
        super().setblocking(flag)
        self._close_elsewhere()

    def _close_elsewhere(self) -> None:
        thread = threading.Thread(target=self.close)
        thread.start()
        thread.join()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The site's end, and the client's."""
    ours, client = socket.socketpair()
    client.settimeout(60)
    with Sites(ours.family, ours.type, ours.proto, fileno=ours.detach()) as sock, client:
        yield sock, client


def gunicorns(*_: Any) -> NoReturn:
    raise AssertionError("gunicorn would wait for the client")


def close(sock: socket.socket) -> None:
    slowclients._close(gunicorns, sock)


def test_one_that_is_closed_meanwhile_ends_no_worker(pair: Pair) -> None:
    sock, client = pair
    close(sock)
    assert client.recv(1) == b""


def test_one_that_is_closed_already_ends_no_worker(pair: Pair) -> None:
    sock, client = pair
    sock.close()
    close(sock)
    close(sock)
    assert client.recv(1) == b""


def test_a_site_that_closes_it_later_closes_nothing_else(pair: Pair) -> None:
    """Somebody else may have the number of the descriptor by then."""
    sock, client = pair
    number = sock.fileno()
    client.close()
    close(sock)
    with socket.socket() as other:
        if other.fileno() != number:
            os.dup2(other.fileno(), number)
        sock.close()
        os.fstat(number)
        if other.fileno() != number:
            os.close(number)


def test_what_the_client_sends_on_is_passed_over_elsewhere(pair: Pair) -> None:
    """Until it has seen the end: nothing of the answer is lost with a reset."""
    sock, client = pair
    sock.send(b"answer")
    client.send(b"more")
    close(sock)
    client.send(b"and more")
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_gunicorn_has_something_to_close(pair: Pair, when: str) -> None:
    """It would count the end of a connection twice, and wait for too few of them at the end of a worker."""
    sock, client = pair

    def handled(conn: Any) -> bool:
        if when == "before":
            sock.close()
        return False

    read_ahead = SimpleNamespace(unreader=SimpleNamespace(buf=io.BytesIO(b"GET /")))
    conn = SimpleNamespace(sock=sock, parser=read_ahead)
    assert slowclients._handle(object(), handled, conn) is False
    conn.sock.setblocking(True)
    close(conn.sock)
    assert client.recv(1) == b""
