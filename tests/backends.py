"""Backends made of a few lines, however badly they behave, and a server of one request over `wsgiref.validate`."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from multisite.config.endpoint import Endpoint

PATIENCE = 60  # seconds after which a test that waits has failed

TEXT = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"  # an answer as far as its length
HELLO = TEXT + b"Content-Length: 5\r\n\r\nhello"

Talk = Callable[[socket.socket], None]


class Backend:
    """Listens on a unix socket and lets `talk` have each connection, in a thread of its own."""

    def __init__(self, path: Path, talk: Talk, backlog: int = 16) -> None:
        self.path = path
        self.endpoint = Endpoint("http", path=str(path))
        self.talk = talk
        self.taken: list[bytes] = []  # what `take` read, by connection
        self.connections = 0
        self.failures: list[BaseException] = []
        self.ended = threading.Event()  # set whenever `talk` is through with a connection
        self._threads: list[threading.Thread] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(backlog)

    def __enter__(self) -> Backend:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)  # whoever is in the queue already is taken
        self.listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a backend still talks"
        for failure in self.failures:
            raise failure

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                wire, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, wire)

    def _serve(self, wire: socket.socket) -> None:
        wire.settimeout(PATIENCE)
        try:
            with wire:
                self.talk(wire)
        except BaseException as failure:
            self.failures.append(failure)
        finally:
            self.ended.set()


def take(wire: socket.socket) -> bytes:
    """Read a whole HTTP request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(wire)
    head, _, body = data.partition(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while not body.endswith(b"0\r\n\r\n"):
            body += _some(wire)
    elif b"content-length:" in lower:
        length = int(lower.partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            body += _some(wire)
    return head + b"\r\n\r\n" + body


def _some(wire: socket.socket) -> bytes:
    data = wire.recv(65536)
    assert data, "the relay ended its request early"
    return data


def exactly(wire: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += _some(wire) if size - len(data) >= 65536 else wire.recv(size - len(data))
    return data


def take_envelope(wire: socket.socket) -> tuple[dict[str, str], bytes]:
    """Read a request as our own runner does: its variables, and its body as it was sent."""
    assert wire.recv(1) == b"\x01"
    variables = json.loads(exactly(wire, struct.unpack(">I", exactly(wire, 4))[0]))
    if variables.pop("multisite.body", "") == "chunked":
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += _some(wire)
        return variables, body
    return variables, exactly(wire, int(variables.get("CONTENT_LENGTH") or 0))


def read_all(wire: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    wire.settimeout(PATIENCE)
    data = b""
    while piece := wire.recv(65536):
        data += piece
    return data


def eventually(question: Callable[[], object]) -> None:
    """Ask until the answer is true."""
    deadline = time.monotonic() + PATIENCE
    while not question():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def saying(answer: bytes, *, piecewise: bool = False) -> Talk:
    """Take the request, then say `answer`, at once or byte by byte, and close."""

    def talk(wire: socket.socket) -> None:
        take(wire)
        for part in (answer[i : i + 1] for i in range(len(answer))) if piecewise else [answer]:
            wire.sendall(part)

    return talk


@dataclass
class Got:
    """The answer to one request."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    pieces: list[bytes] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


WAY: Any = None  # how requests are made, where a test does not care (see `tests.ways`)


@contextlib.contextmanager
def begun(app: Any, **environ: Any) -> Iterator[tuple[Got, Iterator[bytes]]]:
    """Make a request; yield status and headers, and the body that was not read yet."""
    full: dict[str, Any] = {"QUERY_STRING": "", "SCRIPT_NAME": "", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"}
    body = environ.pop("body", b"")
    if body:
        full["CONTENT_LENGTH"] = str(len(body))
    full["wsgi.input"] = io.BytesIO(body)
    full |= environ
    full = {key: value for key, value in full.items() if value is not None}
    if WAY:
        full.setdefault("SERVER_PROTOCOL", "HTTP/1.1")
    setup_testing_defaults(full)
    if WAY:
        with WAY.begun(app, full) as answer:
            yield answer
        return
    got = Got("", [])

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        got.status, got.headers = status, headers
        return lambda data: None

    answer = validator(app)(full, start_response)
    try:
        yield got, iter(answer)
    finally:
        answer.close()


def get(app: Any, **environ: Any) -> Got:
    """Make a request and read the whole answer."""
    with begun(app, **environ) as (got, pieces):
        got.pieces = list(pieces)
    got.body = b"".join(got.pieces)
    return got
