"""The ways in which a worker answers a relayed request, for tests that hold for all of them.

``here`` is the thread that was called, as under any server. ``gthread`` and ``sync`` are gunicorn's workers, from which
the client's connection is taken: real workers that were never started, and a client at the other end of a socket.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn, ThreadWorker
from gunicorn.workers.sync import SyncWorker

from multisite.errors import MultisiteError, pages
from multisite.proxy import downstream, looprelay, syncrelay
from multisite.proxy import loop as relayloop
from multisite.proxy.limits import Pace
from multisite.sites.server import Worker
from tests import backends
from tests.backends import PATIENCE, Got

WAYS = ("here", "gthread", "sync")


class Way:
    """A gunicorn worker that is called as its own threads would call the application."""

    def __init__(self, kind: str, listener: socket.socket, cfg: Config, log: Logger) -> None:
        cfg.set("threads", 4)
        cls = SyncWorker if kind == "sync" else ThreadWorker
        self.worker = cls(1, os.getppid(), [listener], None, 30, cfg, log)
        self.is_sync = kind == "sync"
        self.errors: list[MultisiteError] = []  # told to a client, or the reason for a cut
        self.logged: list[str] = []

    @contextlib.contextmanager
    def begun(self, app: Any, environ: dict[str, Any]) -> Iterator[tuple[Got, Iterator[bytes]]]:
        """Make a request; yield status and headers, and the body that was not read yet."""
        self.errors.clear()
        ours, theirs = connected()
        with ours:
            environ = {**environ, "gunicorn.socket": theirs, "SERVER_SOFTWARE": "gunicorn/27.0.1"}
            environ.setdefault("RAW_URI", environ["PATH_INFO"])
            send_body(environ, ours, theirs)
            thread = threading.Thread(target=self._serve, args=(app, environ, theirs), daemon=True)
            thread.start()
            ours.settimeout(PATIENCE)
            hints = environ.get("wsgi.early_hints")
            answer = _Answer(ours, environ["REQUEST_METHOD"], hints)
            try:
                answer.begin()
                if self.errors and answer.status >= 400 and self.errors[-1].status == answer.status:
                    answer.read()
                    raise self.errors[-1]
                got = Got(f"{answer.status} {answer.reason}", self._fields(answer))
                yield got, self._pieces(answer)
            finally:
                answer.close()
                ours.close()
                thread.join(PATIENCE)
                assert not thread.is_alive(), "the worker's thread still waits"

    def _fields(self, answer: http.client.HTTPResponse) -> list[tuple[str, str]]:
        """The fields without those that every server adds or decides."""
        fields = answer.getheaders()
        assert dict(fields)["Connection"] == "close"
        names = [name for name, _ in fields]
        assert names.count("Date") == names.count("Server") == 1
        return [field for field in fields if field[0] not in ("Date", "Server", "Connection", "Transfer-Encoding")]

    def _pieces(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while piece := answer.read1(65536):
                yield piece
            assert not answer.length, "the body is shorter than its Content-Length"
        except (http.client.IncompleteRead, ConnectionResetError, AssertionError) as error:
            raise (self.errors or [error])[-1] from error

    def _serve(self, app: Any, environ: dict[str, Any], theirs: socket.socket) -> None:
        try:
            self._write(app, environ, theirs)
        except StopIteration:
            pass
        except OSError:
            pass
        except MultisiteError as error:
            self.errors.append(error)
            self._write(pages.for_error(error), environ, theirs)
        finally:
            self._end(theirs)

    def _write(self, app: Any, environ: dict[str, Any], theirs: socket.socket) -> None:
        """Answer as gunicorn's own writer would, for what is not written by others."""
        told: list[Any] = []
        body = app(environ, lambda status, headers, exc_info=None: told.extend((status, headers)))
        data = b"".join(body)
        status, headers = told
        lines = [f"HTTP/1.1 {status}", "Date: now", "Server: gunicorn", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        if "content-length" not in {name.lower() for name, _ in headers} and status[:3] not in ("204", "304"):
            lines.append(f"Content-Length: {len(data)}")
        theirs.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + data)

    def _end(self, theirs: socket.socket) -> None:
        """What each of them does when a connection ends."""
        if self.is_sync:
            close_graceful(theirs)
        else:
            connection = TConn(self.worker.cfg, theirs, ("192.0.2.1", 1), ("127.0.0.1", 80))
            connection.close(graceful=True)


def send_body(environ: dict[str, Any], ours: socket.socket, theirs: socket.socket) -> None:
    """Have the client send the body, and the server read it as gunicorn does."""
    source, unreader = environ["wsgi.input"], SocketUnreader(theirs)
    length = str(environ.get("CONTENT_LENGTH", ""))
    if "HTTP_TRANSFER_ENCODING" in environ and environ.get("wsgi.input_terminated"):
        environ["wsgi.input"] = Body(ChunkedReader(SimpleNamespace(unreader=unreader), unreader))
    elif length.isascii() and length.isdigit():
        environ["wsgi.input"] = Body(LengthReader(unreader, int(length)))
    else:
        return

    def send() -> None:
        with contextlib.suppress(OSError):  # the server need not take it
            left = int(length or 0)
            while piece := source.read(65536):
                left -= len(piece)
                ours.sendall(piece if length else b"%x\r\n%b\r\n" % (len(piece), piece))
            if not length:
                ours.sendall(b"0\r\n\r\n")
            elif left > 0:
                ours.shutdown(socket.SHUT_WR)

    if length and int(length) <= 65536:
        send()  # it is there when the request is looked at
    else:
        threading.Thread(target=send, daemon=True).start()


class _Answer(http.client.HTTPResponse):
    """As a client reads it, early hints included."""

    def __init__(self, wire: socket.socket, method: str, hints: Any) -> None:
        super().__init__(wire, method=method)
        self._hints = hints

    def _read_status(self) -> Any:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status != 103:
                return version, status, reason
            fields = http.client.parse_headers(self.fp)
            if self._hints:
                self._hints(fields.items())


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection: a client's, and the one that a server accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


class _Empty:
    def read(self, size: int = -1) -> bytes:
        return b""


ENVIRON = {
    "SERVER_SOFTWARE": "gunicorn/27.0.1",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "RAW_URI": "/",
    "REMOTE_ADDR": "192.0.2.1",
    "wsgi.url_scheme": "http",
    "wsgi.input": _Empty(),
}


def call(app: Any, theirs: socket.socket, **more: Any) -> None:
    """Make a request whose connection is taken."""
    with pytest.raises(downstream.Ended):
        app({**ENVIRON, "gunicorn.socket": theirs, **more}, None)
    theirs.close()  # what gunicorn has of it


def ask(app: Any, **more: Any) -> socket.socket:
    """Make a request whose connection is taken; return the client's end."""
    ours, theirs = connected()
    ours.settimeout(PATIENCE)
    call(app, theirs, **more)
    return ours


@pytest.fixture
def loop() -> Iterator[relayloop.RelayLoop]:
    """A relay loop of the test's own."""
    made = relayloop.RelayLoop()
    yield made
    made.stop()
    if made._thread:
        made._thread.join(PATIENCE)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have `backends.get` and `backends.begun` go this way."""
    if request.param == "here":
        yield "here"
        return
    with taken(request.param, monkeypatch, patience=0.005 if request.param == "sync" else 0.0) as made:
        monkeypatch.setattr(backends, "WAY", made)
        yield request.param


@contextlib.contextmanager
def gunicorns_logger(cfg: Config) -> Iterator[Logger]:
    """As a worker has it; the process's own loggers are put back afterwards."""
    loggers = [logging.getLogger(name) for name in ("gunicorn.error", "gunicorn.access")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    try:
        yield Logger(cfg)
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


@contextlib.contextmanager
def taken(kind: str, monkeypatch: pytest.MonkeyPatch, patience: float = 0.0) -> Iterator[Way]:
    """A worker whose connections are taken, with a relay loop of its own."""
    cfg = Config()
    with socket.create_server(("127.0.0.1", 0)) as listener, gunicorns_logger(cfg) as log:
        made = Way(kind, listener, cfg, log)
        monkeypatch.setattr("multisite.sites.server._worker", Worker(made.worker))
        monkeypatch.setattr(relayloop, "_loop", None)
        monkeypatch.setattr(syncrelay, "_current", None)
        monkeypatch.setattr(Pace.__init__, "__defaults__", (patience,))
        told, page = looprelay.LoopRelay._tell, looprelay.LoopRelay._page

        def tell(self: Any, error: MultisiteError) -> None:
            made.errors.append(error)
            told(self, error)

        def tell_page(self: Any, error: MultisiteError) -> None:
            made.errors.append(error)
            page(self, error)

        monkeypatch.setattr(looprelay.LoopRelay, "_tell", tell)
        monkeypatch.setattr(looprelay.LoopRelay, "_page", tell_page)
        yield made
        loop = relayloop._loop
        if loop:
            loop.finish(PATIENCE)
            assert not loop.in_flight, "something is still in flight"
