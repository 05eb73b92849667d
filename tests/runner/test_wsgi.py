"""What a WSGI app sees and what its answer becomes, in a real process."""

from __future__ import annotations

import ast
import http.client
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import ENVIRON, Answer, Backend, backend, envelope, receive_all

APP = '''
import json, os, subprocess, sys
from wsgiref.validate import validator

def show(environ, start_response):
    """The environ, strings as they are."""
    shown = {key: value if type(value) is str else [repr(value)] for key, value in environ.items()}
    shown["wsgi.input_terminated"] = repr(environ["wsgi.input_terminated"])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]

def echo(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")])
    source = environ["wsgi.input"]
    return iter(lambda: source.read(65536), b"")

def length(environ, start_response):
    body = b"hello"
    start_response("200 OK", [("Content-Length", "5"), ("Connection", "keep-alive"), ("Transfer-Encoding", "chunked")])
    return [body]

def none(environ, start_response):
    start_response(environ["QUERY_STRING"] + " X", [("X-A", "b")])
    return []

def pieces(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"first ")
    def rest():
        yield b""
        yield b"second "
        yield b"third"
    return rest()

def many(environ, start_response):
    start_response("200 OK", [])
    return [b"a", b"", b"b"]

def breaks(environ, start_response):
    raise RuntimeError("no luck")

def leaves(environ, start_response):
    sys.exit("left")

def breaks_late(environ, start_response):
    start_response("200 OK", [])
    yield b"some"
    raise RuntimeError("too late")

def short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"some"]

def long(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"some"]

def changes_its_mind(environ, start_response):
    start_response("200 OK", [("X-A", "b")])
    try:
        raise ValueError
    except ValueError:
        start_response("503 Later", [("Content-Length", "2")], sys.exc_info())
    return [b"no"]

def no_answer(environ, start_response):
    return [b"x"]

def not_bytes(environ, start_response):
    start_response("200 OK", [])
    return ["text"]

def splits(environ, start_response):
    start_response("200 OK", [("X-A", "b\\r\\nX-Evil: yes")])
    return []

class Closing(list):
    def close(self):
        print("closed once", file=sys.stderr)

def closes(environ, start_response):
    start_response("200 OK", [("Content-Length", "1")])
    return Closing([b"x"])

def file(environ, start_response):
    size = os.path.getsize("big")
    start_response("200 OK", [("Content-Length", str(size))] if environ["QUERY_STRING"] else [])
    return environ["wsgi.file_wrapper"](open("big", "rb"))

def memory_file(environ, start_response):
    import io
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 20000))

def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    start_response("200 OK", [("Content-Length", "0")])
    return []

def big(environ, start_response):
    start_response("200 OK", [("Content-Length", str(30 << 20))])
    return (b"x" * 65536 for _ in range(480))

def process(environ, start_response):
    start_response("200 OK", [])
    open_files = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True).stdout
    return [json.dumps({"environ": dict(os.environ), "path": sys.path, "argv": sys.argv, "cwd": os.getcwd(),
                        "modules": sorted(sys.modules), "child": open_files}).encode()]

def spawns(environ, start_response):
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(abs, [-3])
    start_response("200 OK", [])
    return [str(found).encode()]

def valid(environ, start_response):
    return validator(lambda environ, start_response: (
        environ["wsgi.input"].read(3), environ["wsgi.input"].readline(), environ["wsgi.errors"].write("noted\\n"),
        start_response("200 OK", [("Content-Type", "text/plain")]), [b"valid"])[-1])(environ, start_response)

def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One process for all of this module's requests: what one of them breaks, the others would show."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "big").write_bytes(os.urandom(3 << 20))
    with backend(folder, APP) as started:
        yield started


def test_a_site_sees_what_it_sees_under_gunicorn(site: Backend) -> None:
    """Of the same request, the environ has the same keys and values, save the connection, which is not the client's."""
    direct = site.http("/show?a=b%2F", "POST", b"abc", **{"X-A-B": "c", "Content-Type": "text/x", "X-Twice": "1"}).json
    strings = {key: value for key, value in direct.items() if type(value) is str and key != "wsgi.input_terminated"}
    relayed = site.exchange(envelope(strings, b"abc"), "POST").json
    assert direct.pop("gunicorn.socket")
    assert sorted(relayed) == sorted(direct)
    objects = ("wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.early_hints")
    for key in objects:
        assert relayed.pop(key) and direct.pop(key)
    assert relayed == direct


def test_the_client_is_told_apart_from_the_dispatcher(site: Backend) -> None:
    """Address, port, scheme and mount are those that the dispatcher saw, and no header is added."""
    seen = site.ask("/show", SCRIPT_NAME="/api", HTTP_COOKIE="a=b").json
    assert {key: seen[key] for key in ENVIRON} == {
        **ENVIRON,
        "PATH_INFO": "/show",
        "RAW_URI": "/show",
        "SCRIPT_NAME": "/api",
    }
    assert [key for key in seen if key.startswith("HTTP_")] == ["HTTP_HOST", "HTTP_COOKIE"]
    assert not [key for key in seen if "multisite" in key.lower()]


@pytest.mark.parametrize("size", [0, 1, 10_000, 100_000, 20 << 20])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_go_in_and_out(site: Backend, size: int, is_chunked: bool) -> None:
    """Of any size, with or without a length, whole and unchanged."""
    body = os.urandom(size)
    if is_chunked:
        framed = (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n"
        sent = envelope(
            {**ENVIRON, "REQUEST_METHOD": "POST", "PATH_INFO": "/echo", "multisite.body": "chunked"}, framed
        )
    else:
        sent = envelope({**ENVIRON, "REQUEST_METHOD": "POST", "PATH_INFO": "/echo", "CONTENT_LENGTH": str(size)}, body)
    with site.connect() as client:
        threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
        answer = Answer(receive_all(client), "POST")
    assert answer.body == body
    assert answer.headers.get_all("X-A") == ["1", "2"]


def test_a_length_is_kept_and_hop_by_hop_headers_are_not(site: Backend) -> None:
    """What concerns a connection is not the app's to say."""
    answer = site.ask("/length")
    assert (answer.body, answer.headers.items()) == (b"hello", [("Content-Length", "5")])


@pytest.mark.parametrize("status", ["200", "204", "304"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_without_a_body(site: Backend, status: str, method: str) -> None:
    """HEAD, 204 and 304 end with their head; an empty answer of another kind says that it is empty."""
    answer = site.ask(f"/none?{status}", REQUEST_METHOD=method)
    assert (answer.status, answer.body, answer.headers["X-A"]) == (int(status), b"", "b")
    is_framed = (status, method) == ("200", "GET")
    assert ("Transfer-Encoding" in answer.headers) is is_framed
    assert answer.raw.endswith(b"\r\n\r\n0\r\n\r\n" if is_framed else b"X-A: b\r\n\r\n")


def test_head_does_not_send_what_the_app_returns(site: Backend) -> None:
    """The length stays, the body goes."""
    answer = site.ask("/length", REQUEST_METHOD="HEAD")
    assert answer.headers["Content-Length"] == "5"
    assert answer.raw.endswith(b"\r\n\r\n")


def test_write_and_pieces_come_in_order(site: Backend) -> None:
    """Each non-empty piece is a chunk of its own, sent when it is there."""
    answer = site.ask("/pieces")
    assert answer.body == b"first second third"
    assert answer.raw.count(b"\r\n\r\n6\r\nfirst \r\n7\r\nsecond \r\n5\r\nthird\r\n0\r\n\r\n") == 1
    assert site.ask("/many").body == b"ab"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/breaks", "RuntimeError: no luck"),
        ("/leaves", "SystemExit: left"),
        ("/no_answer", "start_response()"),
        ("/not_bytes", "bytes"),
        ("/splits", "X-A"),
    ],
)
def test_an_error_of_the_app_is_a_500(site: Backend, path: str, told: str) -> None:
    """The visitor gets an incident; the log has it, the request and the traceback, without our own frames."""
    before = site.wait_for(in_flight=0).errors
    answer = site.ask(path, HTTP_HOST="site.test")
    assert answer.status == 500
    assert told.encode() not in answer.raw
    incident = re.search(rb"<small>Incident ([0-9a-f]{8})</small>", answer.body)
    assert incident and f"incident {incident[1].decode()}: Error handling GET site.test{path}\n" in site.log
    assert told in site.log
    assert site.wait_for(in_flight=0).errors == before + 1


def test_our_frames_are_not_in_the_log(site: Backend) -> None:
    """A traceback begins with the site's own code."""
    site.ask("/breaks")
    traceback = site.log.rpartition("Traceback (most recent call last):\n")[2]
    assert traceback.lstrip().startswith(f'File "{site.job["location"]}/app.py"')


@pytest.mark.parametrize("path", ["/breaks_late", "/short"])
def test_an_answer_that_was_cut_short_shows(site: Backend, path: str) -> None:
    """No client takes it for whole: the end of the chunks, or the rest of the length, is missing."""
    with pytest.raises(http.client.IncompleteRead):
        site.ask(path)


def test_an_answer_is_no_longer_than_announced(site: Backend) -> None:
    """What is too much is left out, as gunicorn does."""
    assert site.ask("/long").body == b"so"


def test_the_app_may_change_its_answer_before_it_is_sent(site: Backend) -> None:
    """start_response with exc_info replaces the first answer (PEP 3333)."""
    answer = site.ask("/changes_its_mind")
    assert (answer.status, answer.body, "X-A" in answer.headers) == (503, b"no", False)


def test_what_the_app_returned_is_closed(site: Backend) -> None:
    """Once for each request."""
    before = site.log.count("closed once")
    site.ask("/closes")
    assert site.log.count("closed once") == before + 1


@pytest.mark.parametrize("path", ["/file", "/file?length"])
def test_a_file_is_sent_by_the_kernel(site: Backend, path: str) -> None:
    """Whole, with or without a length; not at all for HEAD."""
    answer = site.ask(path)
    assert answer.body == (Path(site.job["location"]) / "big").read_bytes()
    assert answer.has_length
    assert site.ask(path, REQUEST_METHOD="HEAD").body == b""


def test_a_file_that_is_none_is_sent_piece_by_piece(site: Backend) -> None:
    """An object with read() is enough for wsgi.file_wrapper."""
    assert site.ask("/memory_file").body == b"x" * 20000


def test_early_hints(site: Backend) -> None:
    """They come before the answer, and not at all for a client of HTTP/1.0."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"
    assert site.exchange(envelope({**ENVIRON, "PATH_INFO": "/hints"})).raw.startswith(hint)
    old = site.exchange(envelope({**ENVIRON, "PATH_INFO": "/hints", "SERVER_PROTOCOL": "HTTP/1.0"}))
    assert old.raw.startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_whole_of_pep_3333(site: Backend) -> None:
    """wsgiref's validator has nothing to say, and what the app writes to wsgi.errors is in the log."""
    answer = site.ask("/valid", b"abcdef\nxyz", REQUEST_METHOD="POST")
    assert (answer.status, answer.body) == (200, b"valid"), site.log
    assert "noted" in site.log


def test_a_client_that_leaves_is_no_error(site: Backend) -> None:
    """The app is not blamed, and the process goes on."""
    before = site.wait_for(in_flight=0)
    with site.connect() as client:
        client.sendall(envelope({**ENVIRON, "PATH_INFO": "/big"}))
        client.recv(1000)
    after = site.wait_for(in_flight=0, requests=before.requests + 1)
    assert after.sent - before.sent < 30 << 20
    assert "BrokenPipe" not in site.log and "ConnectionReset" not in site.log


def test_an_answer_arrives_although_nobody_reads_the_body(site: Backend) -> None:
    """The rest of the body is taken and thrown away; closing early would reset the connection."""
    with site.connect() as client:
        client.sendall(envelope({**ENVIRON, "PATH_INFO": "/length", "CONTENT_LENGTH": str(1 << 30)}, b"x" * 100_000))
        head = client.recv(1000)
        client.sendall(b"x" * 300_000)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and head.endswith(b"hello")


def test_a_connection_without_a_request_is_not_counted(site: Backend) -> None:
    """A probe is no use of the site."""
    before = site.wait_for(in_flight=0).requests
    site.connect().close()
    assert site.ask("/length").status == 200
    assert site.wait_for(in_flight=0).requests == before + 1


def test_nonsense_costs_its_connection_only(site: Backend) -> None:
    """The other side is our own dispatcher; when it is not, it gets no answer and the log says so."""
    with site.connect() as client:
        client.sendall(b"\x01\xff\xff\xff\xff")
        assert receive_all(client) == b""
    assert "Cannot read a request" in site.log
    assert site.ask("/length").status == 200


def test_plain_http(site: Backend) -> None:
    """A front end comes straight to the socket: gunicorn answers it, nonsense with 400."""
    assert site.http("/length").body == b"hello"
    assert site.http("/echo", "POST", b"y" * 100_000).body == b"y" * 100_000
    assert site.http("/file").body == (Path(site.job["location"]) / "big").read_bytes()
    assert site.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status == 400


def test_errors_in_plain_http_are_counted(site: Backend) -> None:
    """Those of the app, whichever language brought the request."""
    before = site.wait_for(in_flight=0)
    assert site.http("/breaks").status == 500
    after = site.wait_for(in_flight=0)
    assert (after.requests, after.errors) == (before.requests + 1, before.errors + 1)


def test_nothing_of_ours_is_seen(site: Backend) -> None:
    """The environment, the import path and the descriptors are the site's; only gunicorn can be imported."""
    seen = site.ask("/process").json
    assert not [name for name in seen["environ"] if name.startswith(("LISTEN", "NOTIFY", "MULTISITE", "GUNICORN"))]
    assert seen["path"][0] == seen["cwd"] == site.job["location"]
    assert not [path for path in seen["path"] if path.endswith("runner")]
    assert not [name for name in seen["modules"] if name.split(".")[0] in ("multisite", "typing_extensions", "click")]
    assert "socket:" not in seen["child"]


def test_a_site_may_spawn_processes(site: Backend) -> None:
    """multiprocessing imports the main program again; nothing is started by that."""
    assert site.ask("/spawns").body == b"[3]"


def test_the_socket_is_not_ours_to_remove(tmp_path: Path) -> None:
    """It stays, and goes on listening, when the process leaves."""
    with backend(tmp_path, APP) as site:
        assert site.terminate() == 0
        with site.connect() as client:
            client.sendall(b"x")
            assert site.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_threads_and_processes_are_told(tmp_path: Path) -> None:
    """wsgi.multithread and wsgi.multiprocess say how this site runs, in both languages."""
    with backend(tmp_path, APP, threads=3, processes=2) as site:
        for seen in (site.ask("/show").json, site.http("/show").json):
            assert ast.literal_eval(seen["wsgi.multithread"][0]) and ast.literal_eval(seen["wsgi.multiprocess"][0])


def test_an_old_protocol_is_seen(site: Backend) -> None:
    """The version is the client's."""
    assert json.loads(site.ask("/show", SERVER_PROTOCOL="HTTP/1.0").body)["SERVER_PROTOCOL"] == "HTTP/1.0"


CLAIMS = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https", "X-Real-Ip": "198.51.100.7", "X-B": "c"}


@pytest.mark.parametrize("is_odd", [False, True])
@pytest.mark.parametrize("is_trusted", [True, False])
def test_what_a_front_end_says_of_its_client(tmp_path: Path, is_trusted: bool, is_odd: bool) -> None:
    """Straight from it: believed if it is a trusted proxy, never seen by the site if it is not; whoever reads it."""
    with backend(tmp_path, APP, trusts_front_end=is_trusted) as site:
        seen = site.http("/show", **CLAIMS, **({"X-Odd!": "gunicorn reads this"} if is_odd else {})).json
        shown = (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["SERVER_PORT"], seen.get("HTTP_X_FORWARDED_FOR"))
        assert shown == (("127.0.0.1", "https", "443", "198.51.100.7") if is_trusted else ("", "http", "80", None))
        assert ("HTTP_X_REAL_IP" in seen, seen["HTTP_X_B"]) == (is_trusted, "c")


def test_both_readers_show_the_same(site: Backend) -> None:
    """A plain request and one that gunicorn has to read differ in nothing that the site can see."""
    plain = site.http("/show?a=%20", "POST", b"abc", **CLAIMS).json
    odd = site.http("/show?a=%20", "POST", b"abc", **CLAIMS, **{"X-Odd!": "x"}).json
    assert odd.pop("HTTP_X_ODD!") == "x"
    for key in ("gunicorn.socket", "wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.early_hints"):
        assert plain.pop(key) and odd.pop(key)
    assert plain == odd


def test_captures_of_a_pattern(site: Backend) -> None:
    """What the host's pattern captured is where the dispatcher's own sites find it, and no header can put it there."""
    seen = site.ask("/show", **{"multisite.captures": {"user": "ann"}}).json
    assert seen["multisite.captures"] == ["{'user': 'ann'}"]
    assert seen["wsgiorg.routing_args"] == ["((), {'user': 'ann'})"]
    for answer in (site.http("/show", **{"Multisite.captures": "x"}), site.ask("/show", HTTP_MULTISITE_CAPTURES="x")):
        assert "multisite.captures" not in answer.json


def test_plain_requests_need_no_gunicorn(tmp_path: Path) -> None:
    """Its modules are loaded by the first request that is anything but plain."""
    with backend(tmp_path, APP) as site:
        (tmp_path / "big").write_bytes(b"x")
        for answer in (site.ask("/process"), site.http("/process"), site.http("/process", "POST", b"x")):
            assert [name for name in answer.json["modules"] if name.startswith("gunicorn")] == ["gunicorn"]
        assert "gunicorn.http" in site.http("/process", **{"X-Odd!": "x"}).json["modules"]
        assert site.http("/process").headers["Connection"] == "close"


def test_pipelined_requests_are_not_taken_for_a_body(site: Backend) -> None:
    """One request on each connection; what follows it is dropped, and hurts nobody."""
    two = b"GET /length HTTP/1.1\r\nHost: a\r\n\r\n" * 2
    assert site.exchange(two).body == b"hello"
    post = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /length HTTP/1.1\r\n\r\n"
    assert site.exchange(post, "POST").body == b"abc"
