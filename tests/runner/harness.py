"""Backends started as the supervisor starts them, and both languages that they understand."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gunicorn

from multisite.runner import board
from multisite.supervisor.notify import END

SCRIPT = Path(board.__file__).with_name("__main__.py")
GUNICORN = str(Path(gunicorn.__file__).parent)
WITHIN = 60.0  # seconds, on a machine that has other things to do
QUEUE = 128
SLOTS = 4

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "RAW_URI": "/",
    "QUERY_STRING": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "site.test",
    "SERVER_PORT": "443",
    "SERVER_SOFTWARE": "gunicorn/27",
    "REMOTE_ADDR": "203.0.113.9",
    "REMOTE_PORT": "4711",
    "wsgi.url_scheme": "https",
    "HTTP_HOST": "site.test",
}


def envelope(variables: dict[str, Any], body: bytes = b"") -> bytes:
    """A request as the dispatcher sends it."""
    head = json.dumps(variables).encode()
    return b"\x01" + len(head).to_bytes(4, "big") + head + body


def hand_over(site: Backend, variables: dict[str, Any], client: socket.socket, body: bytes = b"") -> None:
    """Give the site the client's own connection, as the dispatcher does, and let go of it."""
    with site.connect() as connection:
        socket.send_fds(connection, [b"\x02" + envelope(variables, body)[1:]], [client.fileno()])
    client.close()


def spec(target: str, attribute: str = "", kind: str = "module", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "target": target, "attribute": attribute, "args": None, "kwargs": None, **more}


class Answer:
    """What came back on one connection."""

    def __init__(self, raw: bytes, method: str) -> None:
        self.raw = raw
        response = http.client.HTTPResponse(_Bytes(raw), method=method)  # type: ignore[arg-type]
        response.begin()
        self.status = response.status
        self.headers = response.headers
        self.has_length = "content-length" in self.headers or self.headers.get("transfer-encoding") == "chunked"
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Bytes:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> Any:
        import io

        return io.BytesIO(self._raw)


class Backend:
    """One process of a site, with the supervisor's ends of its descriptors."""

    def __init__(self, folder: Path, python: str = sys.executable, **job: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.socket_path = str(folder / "site.sock")
        self.board = os.memfd_create("board")
        os.ftruncate(self.board, SLOTS * board.SIZE)
        self.log_path = folder / "log"
        self.job = {
            "name": "site",
            "spec": spec("app"),
            "location": str(folder),
            "worker": "auto",
            "threads": 1,
            "gunicorn": GUNICORN,
            "notify": 5,
            "board": 6,
            "slot": 0,
            **job,
        }
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket_path)
        self.listener.listen(QUEUE)
        self.notices, self.speaks = os.pipe()
        os.set_blocking(self.speaks, False)
        self._said = b""
        self.told: list[str] = []
        self.began = time.monotonic()
        self.process = self._start(python, folder)

    def _start(self, python: str, folder: Path) -> subprocess.Popen[bytes]:
        memory = os.memfd_create("job")
        os.write(memory, json.dumps(self.job).encode())
        environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", **self.job.get("env", {})}
        environ |= {"LISTEN_FDS": "1", "MULTISITE_JOB": "4"}
        # A descriptor that is already in its place would keep its close-on-exec flag, so all go the long way.
        given = (self.listener.fileno(), memory, self.speaks, self.board)
        far = [fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in given]
        places = " ".join(f"{place}<&{each}" for place, each in enumerate(far, 3))
        shell = f'LISTEN_PID=$$; export LISTEN_PID; exec "$@" {places}'
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", shell, "sh", python, "-u", str(SCRIPT)],
                env=environ,
                cwd=self.job["location"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=far,
            )
        for each in (memory, *far):
            os.close(each)
        return process

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_ready(self) -> float:
        """Seconds from the start to READY=1."""
        while not any(notice.startswith("READY=1") for notice in self.told):
            notice = self.next_notice(0.05)
            if notice:
                self.told.append(notice)
            elif self.process.poll() is not None:
                raise AssertionError(f"exit {self.process.returncode}:\n{self.log}")
            assert time.monotonic() < self.began + WITHIN, self.log
        return time.monotonic() - self.began

    def notice(self) -> str:
        """The next thing that it tells."""
        notice = self.next_notice(WITHIN)
        assert notice, "it tells nothing"
        return notice

    def next_notice(self, within: float) -> str:
        """The next thing that it tells; "" if it tells none for so many seconds."""
        while END not in self._said:
            if not select.select([self.notices], [], [], within)[0]:
                return ""
            self._said += os.read(self.notices, 65536)
        notice, _, self._said = self._said.partition(END)
        return notice.decode()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(WITHIN)
        client.connect(self.socket_path)
        return client

    def exchange(self, data: bytes, method: str = "GET") -> Answer:
        with self.connect() as client:
            client.sendall(data)
            return Answer(receive_all(client), method)

    def ask(self, path: str = "/", body: bytes = b"", **variables: str) -> Answer:
        """One request in an envelope."""
        path_info, _, query = path.partition("?")
        asked = {**ENVIRON, "PATH_INFO": path_info, "RAW_URI": path, "QUERY_STRING": query, **variables}
        if body and "multisite.body" not in asked:
            asked["CONTENT_LENGTH"] = str(len(body))
        return self.exchange(envelope(asked, body), asked["REQUEST_METHOD"])

    def http(self, path: str = "/", method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        """One request in HTTP."""
        headers = {"Host": "site.test", "Connection": "close", **headers}
        if body:
            headers["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return self.exchange(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body, method)

    def record(self, slot: int = 0) -> board.Record:
        found = board.read(self.board, slot)
        assert found is not None
        return found

    def wait_for(self, slot: int = 0, **wanted: int) -> board.Record:
        """The record, once it says what is wanted."""
        deadline = time.monotonic() + WITHIN
        while True:
            record = self.record(slot)
            if all(getattr(record, name) == value for name, value in wanted.items()):
                return record
            assert time.monotonic() < deadline, f"{record} never had {wanted}, exit {self.process.poll()}:\n{self.log}"
            time.sleep(0.005)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.exit()

    def exit(self) -> int:
        return self.process.wait(WITHIN)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listener.close()
        for descriptor in (self.notices, self.speaks, self.board):
            os.close(descriptor)


def receive_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


@contextmanager
def backend(
    folder: Path, code: str = "", python: str = sys.executable, wait: bool = True, **job: Any
) -> Iterator[Backend]:
    """A backend of `code`, which is written to app.py."""
    if code:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.py").write_text(textwrap.dedent(code))
    started = Backend(folder, python, **job)
    try:
        if wait:
            started.wait_ready()
        yield started
    finally:
        started.close()
