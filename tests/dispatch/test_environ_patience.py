"""How slow a client may be: the arithmetic of it, and who waits, in the workers and in the relay loop."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader

from multisite.dispatch.environ import Completed, Patience
from multisite.errors import TooSlow
from multisite.proxy import body as request_body
from multisite.proxy import limits as share_of_threads
from multisite.proxy import lingering
from multisite.proxy.body import Tempo
from multisite.proxy.limits import Share
from multisite.proxy.loop import RelayLoop
from multisite.sites.server import Threads
from tests.backends import PATIENCE, Backend
from tests.proxy.harness import Relayed
from tests.servers.harness import eventually
from tests.ways import connected, taken

# The arithmetic


def test_a_client_has_its_grace_and_then_a_rate_of_its_own() -> None:
    """Only the time in which it is waited for counts."""
    pace = Tempo(100)
    assert pace.deadline(1000.0) == 1000.0 + request_body.GRACE
    pace.came(1000, 1005.0)  # ten seconds more, five of them and those of the grace used
    assert pace.deadline(5000.0) == 5000.0 + request_body.GRACE + 10.0 - 5.0
    assert pace.deadline(5001.0) == 5000.0 + request_body.GRACE + 10.0 - 5.0  # it continues
    pace.came(10**9, 5002.0)
    assert pace.deadline(6000.0) == 6000.0 + request_body.SILENCE


def test_without_a_rate_only_silence_counts() -> None:
    pace = Tempo(0)
    pace.came(1, 0.0)
    assert pace.deadline(10.0) == 10.0 + request_body.SILENCE


# In the workers


@contextlib.contextmanager
def request(length: int | None, sent: bytes = b"") -> Iterator[tuple[socket.socket, dict[str, Any]]]:
    """A client, and the environ that gunicorn makes of its request."""
    ours, theirs = connected()
    with ours, theirs:
        ours.sendall(sent)
        unreader = SocketUnreader(theirs)
        if length is None:
            reader: Any = ChunkedReader(SimpleNamespace(unreader=unreader), unreader)
            said = {"HTTP_TRANSFER_ENCODING": "chunked"}
        else:
            reader, said = LengthReader(unreader, length), {"CONTENT_LENGTH": str(length)}
        yield ours, {"REQUEST_METHOD": "POST", "PATH_INFO": "/", **said, "wsgi.input": Body(reader)}


def reading(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [body]


def asked(app: Any, environ: dict[str, Any]) -> tuple[str, bytes]:
    told: list[str] = []
    body = b"".join(app(environ, lambda status, fields, exc_info=None: told.append(status)))
    return told[-1], body


FRAMED = {100: b"x" * 99, None: b"64\r\n" + b"x" * 99}


@pytest.mark.parametrize("length", list(FRAMED))
def test_a_body_that_is_too_slow_is_408(monkeypatch: pytest.MonkeyPatch, length: int | None) -> None:
    """The last byte of it never comes; the connection is gunicorn's again."""
    monkeypatch.setattr(request_body, "GRACE", 0.05)
    app = Completed(reading, None, Patience(10**9, Share()))
    with request(length, FRAMED[length]) as (_, environ):
        unreader = environ["wsgi.input"].reader
        status, _ = asked(app, environ)
        assert status.startswith("408 ")
        sock = getattr(unreader, "unreader", None) or unreader.req.unreader
        assert type(sock.sock) is socket.socket
        assert sock.sock.gettimeout() is None


@pytest.mark.parametrize("length", list(FRAMED))
def test_a_body_that_comes_is_waited_for(length: int | None) -> None:
    app = Completed(reading, None, Patience(500, Share()))
    with request(length, FRAMED[length]) as (client, environ):
        answers: list[tuple[str, bytes]] = []
        thread = threading.Thread(target=lambda: answers.append(asked(app, environ)))
        thread.start()
        client.sendall(b"y" if length else b"y\r\n0\r\n\r\n")
        thread.join(PATIENCE)
    assert answers == [("200 OK", b"x" * 99 + b"y")]


def test_a_site_waits_with_its_share_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four threads two slow clients have one each; the next is refused, and who has sent everything is served."""
    monkeypatch.setattr(share_of_threads, "YOUNG", 0.0)
    threads = Threads(4)
    share = Share(lambda: threads)
    app = Completed(reading, None, Patience(500, share))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(request(10, b"123")) for _ in range(2)]
        waiting = [threading.Thread(target=asked, args=(app, environ)) for _, environ in slow]
        for thread in waiting:
            thread.start()
        eventually(lambda: threads.held == 2, PATIENCE, "both wait")
        with request(10, b"123") as (_, environ):
            assert asked(app, environ)[0].startswith("503 ")
        with request(10, b"0123456789") as (_, environ):
            assert asked(app, environ) == ("200 OK", b"0123456789")
        for client, _ in slow:
            client.sendall(b"4567890")
        for thread in waiting:
            thread.join(PATIENCE)
    assert threads.held == 0


# In the relay loop


@pytest.mark.parametrize("kind", ["sync", "gthread"])
@pytest.mark.parametrize("speaks", ["http", "uwsgi"])
def test_a_body_that_is_too_slow_is_408_in_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, speaks: str
) -> None:
    """Whether the backend has begun with it, or is to be told its length first."""
    monkeypatch.setattr(request_body, "GRACE", 0.05)

    def talk(wire: socket.socket) -> None:
        while wire.recv(65536):
            pass

    hold = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"x" * 10
        hold.wait(PATIENCE)
        yield b""

    body = pieces()
    source = SimpleNamespace(read=lambda size: next(body))
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True, "wsgi.input": source}
    environ |= {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "QUERY_STRING": "", "SCRIPT_NAME": "", "REMOTE_ADDR": ""}
    environ |= {"SERVER_NAME": "x", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}
    with taken(kind, monkeypatch) as way, Backend(tmp_path / "x.sock", talk) as backend:
        proxy = Relayed(backend.endpoint, speaks=speaks, upload_rate=10**9)
        with pytest.raises(TooSlow), way.begun(proxy, environ):
            pass
        hold.set()
        assert backend.connections == (0 if speaks == "uwsgi" else 1)


# The end of a connection


class _Bounds:
    """A loop in this thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **bounds: float) -> None:
        for name, value in bounds.items():
            monkeypatch.setattr(lingering, name, value)
        self.loop = RelayLoop()
        self.places: set[object] = set()

    def close(self, wire: socket.socket, expects_more: bool) -> None:
        wire.setblocking(False)
        lingering.close(self.loop, self.places, wire, expects_more)

    def turn(self) -> None:
        while self.loop.in_flight:
            self.loop._turn(0.05)


@pytest.mark.parametrize("bounds", [{"SILENCE": 0.05}, {"LONGEST": 0.05}], ids=str)
def test_a_client_that_goes_on_is_passed_over_for_a_while(
    monkeypatch: pytest.MonkeyPatch, bounds: dict[str, float]
) -> None:
    here = _Bounds(monkeypatch, **bounds)
    ours, theirs = connected()
    with ours:
        here.close(theirs, expects_more=True)
        assert ours.recv(1) == b""  # it learns at once
        ours.sendall(b"x" * 100000)
        assert len(here.places) == 1
        here.turn()
    assert not here.places


def test_not_more_than_so_many_bytes_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    here = _Bounds(monkeypatch, MOST=100000)
    ours, theirs = connected()
    with ours:
        sender = threading.Thread(target=_flood, args=(ours,))
        sender.start()
        here.close(theirs, expects_more=True)
        here.turn()
        sender.join(PATIENCE)
        assert not sender.is_alive()


def _flood(wire: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            wire.sendall(b"x" * 65536)


def test_who_has_said_all_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    here = _Bounds(monkeypatch)
    ours, theirs = connected()
    with ours:
        here.close(theirs, expects_more=False)
        assert not here.loop.in_flight
        assert ours.recv(1) == b""
