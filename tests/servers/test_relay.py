"""A relay between real servers: in front gunicorn, behind it gunicorn (HTTP) or uWSGI (uwsgi)."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from wsgiref.validate import validator

import pytest

from multisite.config.endpoint import Endpoint
from tests.backends import get
from tests.proxy.harness import Relayed

from .harness import PACKAGE_ROOT, PATIENCE, Server, eventually, find_program, free_port, not_tested, send_raw
from .system_python import uwsgi_of_debian

pytestmark = pytest.mark.servers

APP = '''
import hashlib, json, os, time
from pathlib import Path

HERE = Path(__file__).parent


def application(environ, start_response):
    kind = environ["PATH_INFO"].strip("/").partition("/")[0]
    return KINDS.get(kind, tell)(environ, start_response)


def tell(environ, start_response):
    """What arrived, and the digest of its body."""
    digest, size = hashlib.sha256(), 0
    wanted = int(environ.get("CONTENT_LENGTH") or -1)
    while size != wanted:
        data = environ["wsgi.input"].read(65536 if wanted < 0 else min(65536, wanted - size))
        if not data:
            break
        digest.update(data)
        size += len(data)
    strings = {key: value for key, value in environ.items() if type(value) is str}
    body = json.dumps({"environ": strings, "digest": digest.hexdigest(), "size": size}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", [*headers, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def nothing(environ, start_response):
    start_response("204 No Content", [])
    return []


def unchanged(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"')])
    return []


def stream(environ, start_response):
    """5 MiB without a length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (bytes([65 + number % 26]) * 65536 for number in range(80))


def short(environ, start_response):
    """Less than was said."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1000")])
    yield b"less"
    os._exit(1)


def endless(environ, start_response):
    """Until the client leaves, which is written down."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        while True:
            yield b"x" * 65536
    finally:
        (HERE / "left").touch()


def hints(environ, start_response):
    if "wsgi.early_hints" in environ:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def refuse(environ, start_response):
    """Answer without reading the body."""
    start_response("413 Too Large", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"no"]


KINDS = {"204": nothing, "304": unchanged, "stream": stream, "short": short, "endless": endless, "hints": hints,
         "refuse": refuse}
'''

FRONT = """
import os
from multisite.config.endpoint import Endpoint
from functools import partial
from multisite.proxy.balancer import Balancer, Upstream
from multisite.proxy.destination import Proxy
from multisite.proxy.relay import relay

application = partial(relay, Balancer([Upstream(Proxy(Endpoint.parse(os.environ["ENDPOINT"])))]))
"""

STREAM = b"".join(bytes([65 + number % 26]) * 65536 for number in range(80))


def environ(**more: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GUNICORN_", "PYTEST_", "XDG_"))}
    return inherited | {"PYTHONPATH": str(PACKAGE_ROOT), "PYTHONUNBUFFERED": "1"} | more


def gunicorn(place: Path, source: str, name: str, *options: str, **env: str) -> Server:
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(source)
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--chdir", str(place)]
    argv += ["--no-control-socket", "--workers", "2", *options, f"{name}:application"]
    return Server(argv, port, place / f"{name}.log", environ(**env))


def uwsgi(place: Path, endpoint: str) -> Server:
    place.mkdir(exist_ok=True)
    (place / "app.py").write_text(APP)
    beside = find_program("uwsgi")
    built = beside and Path(beside).parent == Path(sys.executable).parent
    argv = [beside if built and beside else uwsgi_of_debian(), *([] if built else ["--plugin", "python3"])]
    port = free_port()
    argv += [
        "--master",
        "--die-on-term",
        "--processes",
        "2",
        "--buffer-size",
        "65535",
        "--wsgi-file",
        str(place / "app.py"),
    ]
    argv += ["--http-socket", f"127.0.0.1:{port}", "--socket", endpoint.partition("://")[2], "--need-app"]
    return Server(argv, port, place / "uwsgi.log", environ())


@pytest.fixture(scope="module", params=["http", "uwsgi"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A running backend: its endpoint, and where it is."""
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "http":
        with gunicorn(place, APP, "app") as server:
            yield f"http://127.0.0.1:{server.port}", place
    else:
        endpoint = f"uwsgi://127.0.0.1:{free_port()}"
        with uwsgi(place, endpoint):
            yield endpoint, place


@pytest.fixture(scope="module", params=["sync", "gthread", "gevent"])
def front(request: pytest.FixtureRequest, backend: tuple[str, Path]) -> Iterator[Server]:
    """gunicorn with a relay to the backend for its only application."""
    if request.param == "gevent":
        importlib.util.find_spec("gevent") or not_tested("gevent: not installed")
    with ExitStack() as stack:
        options = ["--worker-class", request.param, *(["--threads", "4"] if request.param == "gthread" else [])]
        place = backend[1] / request.param
        yield stack.enter_context(gunicorn(place, FRONT, "front", *options, ENDPOINT=backend[0]))


def told(body: bytes) -> dict[str, str]:
    return dict(json.loads(body)["environ"])


def request(server: Server, method: str, path: str, body: object = None, **headers: str) -> http.client.HTTPResponse:
    wire = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    chunked = not isinstance(body, bytes | None)
    wire.request(method, path, body, {"Host": "a.test", **headers}, encode_chunked=chunked)  # type: ignore[arg-type]
    return wire.getresponse()


def test_the_relay_is_a_valid_application(backend: tuple[str, Path]) -> None:
    """Both sides of PEP 3333, checked."""
    proxy = validator(Relayed(Endpoint.parse(backend[0])))
    answer = get(proxy, HTTP_HOST="a.test", RAW_URI="/a%2Fb", PATH_INFO="/a/b", body=b"data", REQUEST_METHOD="POST")
    assert answer.status == "200 OK"
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]
    assert json.loads(answer.body)["digest"] == hashlib.sha256(b"data").hexdigest()


def test_method_path_query_and_headers_arrive(front: Server, backend: tuple[str, Path]) -> None:
    answer = request(front, "DELETE", "/a%2Fb//c;d%20e?x=%20&y", **{"Cookie": "a=b", "X-Forwarded-For": "spoofed"})
    found = told(answer.read())
    raw = "/a%2Fb//c;d%20e?x=%20&y"
    assert found["REQUEST_METHOD"] == "DELETE"
    assert found.get("RAW_URI", found.get("REQUEST_URI")) == raw
    assert found["PATH_INFO"] == "/a/b//c;d e"
    assert (found["QUERY_STRING"], found["HTTP_COOKIE"], found["HTTP_HOST"]) == ("x=%20&y", "a=b", "a.test")
    if backend[0].startswith("uwsgi"):  # which says it in variables
        assert (found["REMOTE_ADDR"], "HTTP_X_FORWARDED_FOR" in found) == ("127.0.0.1", False)
    else:
        assert found["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert len(answer.headers.get_all("Date")) == 1
    assert len(answer.headers.get_all("Server")) == 1


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_arrive(front: Server, size: int, chunked: bool) -> None:
    body = os.urandom(size)
    sent = iter([body[at : at + 50000] for at in range(0, size, 50000)]) if chunked else body
    answer = json.loads(request(front, "POST", "/", sent).read())
    assert (answer["size"], answer["digest"]) == (size, hashlib.sha256(body).hexdigest())


def test_answers_come_back(front: Server) -> None:
    head = request(front, "HEAD", "/")
    assert (head.status, head.read()) == (200, b"")
    assert int(head.headers["Content-Length"]) > 0
    assert request(front, "GET", "/204").status == 204
    unchanged = request(front, "GET", "/304")
    assert (unchanged.status, unchanged.headers["ETag"]) == (304, '"x"')
    assert request(front, "GET", "/stream").read() == STREAM


def test_a_body_that_nobody_wants_does_not_hold_up_the_answer(front: Server) -> None:
    """Enough for the kernel's buffers, so that the client can say it all."""
    answer = request(front, "POST", "/refuse", b"x" * 100000)
    assert (answer.status, answer.read()) == (413, b"no")


def test_a_backend_that_dies_in_its_answer_shows(front: Server) -> None:
    answer = request(front, "GET", "/short")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    eventually(lambda: request(front, "GET", "/204").status == 204, PATIENCE, "a new worker answers")


def test_a_client_that_leaves_frees_the_backend(front: Server, backend: tuple[str, Path]) -> None:
    left = backend[1] / "left"
    left.unlink(missing_ok=True)
    answer = request(front, "GET", "/endless")
    assert answer.read(100000)
    answer.close()
    eventually(left.exists, PATIENCE, "the application is closed")


def test_early_hints_come_through(front: Server, backend: tuple[str, Path]) -> None:
    raw = send_raw(front.port, b"GET /hints HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    assert raw.endswith(b"ok")
    if backend[0].startswith("http"):  # uWSGI has no early hints
        assert raw.startswith(b"HTTP/1.1 103 ")
        assert b"Link: </a.css>; rel=preload\r\n" in raw


def test_a_client_that_expects_100_gets_it_once(front: Server) -> None:
    head = "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", front.port), timeout=PATIENCE) as wire:
        wire.sendall(head.encode())
        assert wire.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"data")
        answer = b""
        while block := wire.recv(65536):
            answer += block
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert hashlib.sha256(b"data").hexdigest().encode() in answer
