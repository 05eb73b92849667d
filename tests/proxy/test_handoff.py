"""Handing over: from the worker's side to a real process of a site."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.config.endpoint import Endpoint
from multisite.errors import BackendUnavailable, ConnectFailed, RequestTooLarge
from multisite.proxy import handoff
from multisite.proxy.handoff import LARGEST, fits, hand_over, is_allowed
from tests.runner.harness import ENVIRON, WITHIN, Answer, Backend, backend, receive_all

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")

ECHO = """
def application(environ, start_response):
    body = environ["wsgi.input"].read() or environ["HTTP_HOST"].encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("site"), ECHO) as started:
        yield started


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, ours = socket.socketpair()
    client.settimeout(WITHIN)
    with client, ours:
        yield client, ours


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach, as pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="multisite-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


def endpoint_of(path: str) -> Endpoint:
    return Endpoint.parse("unix:" + path)


@pytest.mark.parametrize("size", [0, 1, 10_000, LARGEST])
def test_a_request_is_handed_over(site: Backend, pair: tuple[socket.socket, socket.socket], size: int) -> None:
    """The client gets the whole answer, and objects of the environ are not sent along."""
    client, ours = pair
    body = os.urandom(size)
    environ = {**ENVIRON, "CONTENT_LENGTH": str(size), "wsgi.input": object(), "gunicorn.socket": ours}
    hand_over(environ, body, ours.fileno(), endpoint_of(site.socket_path))
    ours.close()
    assert Answer(receive_all(client), "GET").body == (body or b"site.test")


def test_what_is_small_enough() -> None:
    """Larger bodies are relayed."""
    assert fits(b"x" * LARGEST) and not fits(b"x" * (LARGEST + 1))


def test_nobody_is_there(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    """The connection is still ours, and can be answered in another way."""
    client, ours = pair
    with pytest.raises(ConnectFailed):
        hand_over(ENVIRON, b"", ours.fileno(), endpoint_of(str(tmp_path / "none")))
    ours.sendall(b"still here")
    assert client.recv(100) == b"still here"


def test_the_queue_is_full(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    """Requests that are handed over wait with the others, and no more of them than may."""
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with pytest.raises(BackendUnavailable):
            for _ in range(10):
                hand_over(ENVIRON, b"", pair[1].fileno(), endpoint_of(path))


def test_variables_that_are_too_large(site: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
    """They are refused before anything is sent."""
    environ = {**ENVIRON, "HTTP_X": "x" * (1 << 20)}
    with pytest.raises(RequestTooLarge):
        hand_over(environ, b"", pair[1].fileno(), endpoint_of(site.socket_path))


def test_what_is_not_taken_as_a_whole(
    site: Backend, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a request is never run, and the worker knows that it was half."""
    before = site.wait_for(in_flight=0).errors
    environ = {**ENVIRON, "HTTP_X": "x" * 800_000}
    with pytest.raises(RequestTooLarge):
        hand_over(environ, b"", pair[1].fileno(), endpoint_of(site.socket_path))
    monkeypatch.setattr(handoff, "MOST", 1 << 20)
    with pytest.raises(ConnectFailed):
        hand_over(environ, b"", pair[1].fileno(), endpoint_of(site.socket_path))
    pair[1].sendall(b"still ours")
    assert pair[0].recv(100) == b"still ours"
    assert site.wait_for(in_flight=0).errors == before


EXHAUSTED = """
import os, resource, socket, sys
from multisite.config.endpoint import Endpoint
from multisite.errors import ConnectFailed
from multisite.proxy.handoff import hand_over

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
os.chmod(sys.argv[1], 0o666)
os.setgid(65534)
os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
client = os.open("/dev/null", os.O_RDONLY)
environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
for number in range(40):
    try:
        hand_over(environ, b"", client, Endpoint.parse("unix:" + sys.argv[1]))
    except ConnectFailed as error:
        print(number, error)
        break
os.fstat(client)
"""


@as_root
def test_too_many_descriptors_are_under_way(open_folder: Path) -> None:
    """The kernel bounds what a user has in queues (RLIMIT_NOFILE); what is beyond it can be relayed."""
    argv = [sys.executable, "-c", EXHAUSTED, str(open_folder / "queue")]
    env = {"PYTHONPATH": str(Path(handoff.__file__).parents[1])}
    done = subprocess.run(argv, env=env, capture_output=True, check=False)
    number, _, reason = done.stdout.decode().partition(" ")
    assert number and 10 < int(number) < 30, done.stderr.decode()
    assert "Too many references" in reason


@as_root
def test_who_may_be_given_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself only who is the same user, and not where that is root: root's sites have users of their own."""
    path = tmp_path / "socket"
    path.touch()
    own = os.geteuid()
    assert is_allowed("yes", "/none") and not is_allowed("no", str(path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    os.chown(path, 1000, -1)
    assert is_allowed("auto", str(path))
    os.chown(path, 1001, -1)
    assert not is_allowed("auto", str(path))
    os.chown(path, own, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not is_allowed("auto", str(path))
