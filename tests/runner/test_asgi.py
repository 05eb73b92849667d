"""ASGI sites: the scope they see, lifespan, WebSockets, and how they end."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import ENVIRON, WITHIN, Answer, Backend, backend, envelope, hand_over, receive_all, spec

APP = """
import asyncio, sys, time

seen = []

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            print(message["type"], flush=True)
            scope["state"]["began"] = True
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await globals()[scope["path"].rpartition("/")[2]](scope, receive, send)

async def answer(send, body, status=200):
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
    await send({"type": "http.response.body", "body": body})

async def body_of(receive):
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        if not message["more_body"]:
            return body

async def show(scope, receive, send):
    await answer(send, repr(scope).encode())

async def echo(scope, receive, send):
    await answer(send, await body_of(receive))

async def unwell(scope, receive, send):
    await answer(send, await body_of(receive), 503)

async def breaks(scope, receive, send):
    raise RuntimeError("no luck")

async def breaks_late(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"some", "more_body": True})
    raise RuntimeError("too late")

async def waits(scope, receive, send):
    print("waiting", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, lambda: open("gate").read())
    await answer(send, b"ok")

async def works_on(scope, receive, send):
    await answer(send, b"ok")
    print("working on", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, lambda: open("gate").read())
    print("done", flush=True)

async def streams_and_works_on(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"some", "more_body": True})
    await send({"type": "http.response.body", "body": b" more"})
    await asyncio.get_running_loop().run_in_executor(None, lambda: open("gate").read())
    print("done", flush=True)

async def hangs(scope, receive, send):
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled", flush=True)

async def blocks(scope, receive, send):
    time.sleep(3600)

async def streams(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.005)
    except OSError as error:
        print("told so", flush=True)
        raise ValueError("what a framework makes of it") from error

async def floods(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    open("gate").read()
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
    except OSError:
        print("told so", flush=True)

async def hurries(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    open("gate").read()
    for _ in range(200):
        if seen:
            break
        time.sleep(0.02)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body", "body": b"shared" if seen else b"alone"})

async def passes(scope, receive, send):
    seen.append(True)
    await answer(send, b"ok")

async def leaves(scope, receive, send):
    print("waiting", flush=True)
    while (await receive())["type"] != "http.disconnect":
        pass
    print("the client left", flush=True)

"""
SPEC = spec("app", "app")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("site"), APP, spec=SPEC) as started:
        yield started


def scope_of(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = ast.literal_eval(answer.body.decode())
    return found


def test_the_scope_of_a_relayed_request(site: Backend) -> None:
    """Client, server, scheme, mount and headers are those that the dispatcher saw, and nothing is added."""
    scope = scope_of(
        site.ask("/m%C3%BC/a%2Fb/show?q=%20", SCRIPT_NAME="/m\xc3\xbc", HTTP_X_FORWARDED_PROTO="http", HTTP_X_A="1,2")
    )
    assert (scope["type"], scope["method"], scope["scheme"], scope["http_version"]) == ("http", "GET", "https", "1.1")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/mü/a/b/show",
        b"/m%C3%BC/a%2Fb/show",
        b"q=%20",
    )
    assert (scope["root_path"], scope["client"], scope["server"]) == ("/mü", ("203.0.113.9", 4711), ("site.test", 443))
    assert scope["headers"] == [(b"host", b"site.test"), (b"x-forwarded-proto", b"http"), (b"x-a", b"1,2")]
    assert scope["state"] == {"began": True}


def test_the_scope_is_that_of_plain_http(site: Backend) -> None:
    """Both ways give the same keys, and the same of what a request says itself."""
    direct = scope_of(site.http("/show?a", **{"X-B": "c"}))
    relayed = scope_of(site.ask("/show?a", HTTP_CONNECTION="close", HTTP_X_B="c", **{"wsgi.url_scheme": "http"}))
    for scope in (direct, relayed):
        del scope["client"], scope["server"]
    assert relayed == direct


def test_a_target_is_made_where_there_is_none(site: Backend) -> None:
    """Of its parts, if the server in front does not give it."""
    scope = scope_of(site.ask("/", PATH_INFO="/x\xc3\xa9 ?/show", QUERY_STRING="a=b", RAW_URI=""))
    assert (scope["path"], scope["query_string"]) == ("/xé ?/show", b"a=b")


@pytest.mark.parametrize("variable", ["RAW_URI", "REQUEST_URI"])
def test_a_target_that_names_a_host(site: Backend, variable: str) -> None:
    """What comes after the host is the target, as it was written."""
    asked = {"RAW_URI": "", variable: "http://site.test/x%2fy/%C3%A9//show?a=b%20"}
    scope = scope_of(site.ask("/", PATH_INFO="/x/y/\xc3\xa9//show", **asked))
    assert (scope["path"], scope["raw_path"]) == ("/x/y/é//show", b"/x%2fy/%C3%A9//show")
    assert scope["query_string"] == b"a=b%20"


def test_a_client_of_http_1_0_without_a_host(site: Backend) -> None:
    """Its version is seen, and its answer whole."""
    variables = {**ENVIRON, "SERVER_PROTOCOL": "HTTP/1.0", "PATH_INFO": "/show", "RAW_URI": "/show"}
    del variables["HTTP_HOST"]
    scope = scope_of(site.exchange(envelope(variables)))
    assert (scope["http_version"], scope["headers"]) == ("1.0", [])


@pytest.mark.parametrize("size", [0, 1, 100_000, 20 << 20])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_go_in_and_out(site: Backend, size: int, is_chunked: bool) -> None:
    """Of any size, with or without a length."""
    body = os.urandom(size)
    variables = {**ENVIRON, "REQUEST_METHOD": "POST", "RAW_URI": "/echo"}
    if is_chunked:
        framed = (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n"
        sent = envelope({**variables, "HTTP_TRANSFER_ENCODING": "chunked", "multisite.body": "chunked"}, framed)
    else:
        sent = envelope({**variables, "CONTENT_LENGTH": str(size)}, body)
    with site.connect() as client:
        threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
        answer = Answer(receive_all(client), "POST")
    assert answer.body == body and answer.has_length
    assert answer.headers.get_all("X-A") == ["1", "2"]


@pytest.mark.parametrize("cut", [1, 3, 5, 40])
def test_an_envelope_may_arrive_in_pieces(site: Backend, cut: int) -> None:
    """Wherever it is cut."""
    sent = envelope({**ENVIRON, "REQUEST_METHOD": "POST", "RAW_URI": "/echo", "CONTENT_LENGTH": "3"}, b"abc")
    with site.connect() as client:
        for start in range(0, len(sent), cut):
            client.sendall(sent[start : start + cut])
        assert Answer(receive_all(client), "POST").body == b"abc"


def test_errors_are_counted_and_shown(site: Backend) -> None:
    """500 with an incident for the visitor, the traceback for the log, one more error on the board."""
    before = site.wait_for(in_flight=0)
    answer = site.ask("/breaks")
    incident = re.search(r"Incident ([0-9a-f]{8})\n", answer.body.decode())
    assert answer.status == 500 and incident
    assert f"incident {incident[1]}: Error handling GET " in site.log
    after = site.wait_for(in_flight=0)
    assert (after.requests, after.errors) == (before.requests + 1, before.errors + 1)
    assert "RuntimeError: no luck" in site.log


def test_an_answer_that_was_cut_short_shows(site: Backend) -> None:
    """The chunks do not end."""
    with pytest.raises(Exception, match="IncompleteRead"):
        site.ask("/breaks_late")


def test_nonsense_costs_its_connection_only(site: Backend) -> None:
    """It is closed, and the log says why."""
    with site.connect() as client:
        client.sendall(b"\x01\xff\xff\xff\xff")
        assert receive_all(client) == b""
    assert "Cannot read a request" in site.log


def test_a_client_that_leaves_frees_the_app(site: Backend) -> None:
    """The app is told."""
    client = site.connect()
    client.sendall(envelope({**ENVIRON, "RAW_URI": "/leaves"}))
    site.wait_for(in_flight=1)
    client.close()
    site.wait_for(in_flight=0)
    assert "the client left" in site.log


def test_what_comes_of_a_client_that_has_left_is_no_error(site: Backend) -> None:
    """Neither in the log nor in the count of errors, whatever the framework makes of it."""
    before = site.wait_for(in_flight=0)
    with site.connect() as client:
        client.sendall(envelope({**ENVIRON, "PATH_INFO": "/streams", "RAW_URI": "/streams"}))
        client.recv(100)
    after = site.wait_for(in_flight=0, requests=before.requests + 1)
    assert "told so" in site.log
    assert after.errors == before.errors
    assert "what a framework makes of it" not in site.log


def _relayed(site: Backend, path: str) -> socket.socket:
    client = site.connect()
    client.sendall(envelope({**ENVIRON, "RAW_URI": path}))
    return client


def _direct(site: Backend, path: str) -> socket.socket:
    client = site.connect()
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
    return client


def _closing(site: Backend, path: str) -> socket.socket:
    client = site.connect()
    client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    return client


def _handed_over(site: Backend, path: str) -> socket.socket:
    ours, theirs = socket.socketpair()
    ours.settimeout(WITHIN)
    hand_over(site, {**ENVIRON, "RAW_URI": path, "SERVER_PROTOCOL": "HTTP/1.0"}, theirs)
    return ours


@pytest.mark.parametrize("way", [_relayed, _direct, _closing, _handed_over])
def test_an_app_that_does_nothing_but_send_learns_that_its_client_has_left(
    tmp_path: Path, way: Callable[[Backend, str], socket.socket]
) -> None:
    """Although it never waits for anything, and a client that has left never makes it wait."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP, spec=SPEC) as site:
        with way(site, "/floods") as client:
            _until(client, b"first")
        (tmp_path / "gate").write_text("open")
        site.wait_for(in_flight=0)
        assert "told so" in site.log
        assert "socket.send() raised" not in site.log
        assert site.ask("/echo").status == 200


@pytest.mark.parametrize("way", [_relayed, _direct, _closing, _handed_over])
def test_an_app_that_does_nothing_but_send_does_not_hold_up_others(
    tmp_path: Path, way: Callable[[Backend, str], socket.socket]
) -> None:
    """Although its client takes all at once."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP, spec=SPEC) as site, way(site, "/hurries") as client:
        with (tmp_path / "gate").open("w"):
            other = way(site, "/passes")
        with other:
            assert _until(other, b"ok")
        assert _until(client, b"shared")


@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
def test_the_version_is_the_clients(site: Backend, version: str) -> None:
    """Whatever is spoken between the dispatcher and the site."""
    assert scope_of(site.ask("/show", SERVER_PROTOCOL=f"HTTP/{version}"))["http_version"] == version


def test_what_was_said_of_the_scheme_has_been_judged(site: Backend) -> None:
    """By the server in front, whose word holds; what contradicts it is no bad request here."""
    said = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_SSL": "off", "wsgi.url_scheme": "http"}
    scope = scope_of(site.exchange(envelope({**ENVIRON, **said, "RAW_URI": "/show"})))
    assert scope["scheme"] == "http"
    assert {(b"x-forwarded-proto", b"https"), (b"x-forwarded-ssl", b"off")} <= set(scope["headers"])


def test_fields_that_a_variable_joins(site: Backend) -> None:
    """They are as the dispatcher saw them: apart, by their own names, in order."""
    apart = {
        "HTTP_COOKIE": [["cookie", "a=1"], ["cookie", "b=2"]],
        "HTTP_X_A": [["x_a", "1"], ["x-a", "2"]],
        "CONTENT_TYPE": [["content-type", ""]],
    }
    joined = {"HTTP_COOKIE": "a=1,b=2", "HTTP_X_A": "1,2", "CONTENT_TYPE": "", "RAW_URI": "/show"}
    scope = scope_of(site.exchange(envelope({**ENVIRON, **joined, "multisite.apart": apart})))
    assert [each for each in scope["headers"] if each[0] != b"host"] == [
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"x_a", b"1"),
        (b"x-a", b"2"),
        (b"content-type", b""),
    ]


def test_it_finishes_what_is_in_flight_and_says_goodbye_to_the_app(tmp_path: Path) -> None:
    """SIGTERM: the request is answered, lifespan ends, the socket stays where it is."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP, spec=SPEC) as site:
        client = site.connect()
        client.sendall(envelope({**ENVIRON, "RAW_URI": "/waits"}))
        site.wait_for(in_flight=1)
        site.process.send_signal(signal.SIGTERM)
        assert site.notice().startswith("STOPPING=1")
        (tmp_path / "gate").write_text("open")
        assert Answer(receive_all(client), "GET").body == b"ok"
        assert site.exit() == 0
        assert site.log.split() == ["lifespan.startup", "waiting", "lifespan.shutdown"]
        assert os.path.exists(site.socket_path)


@pytest.mark.parametrize("ending", ["asked to end", "after so many requests"])
@pytest.mark.parametrize("way", [_relayed, _direct, _closing, _handed_over])
def test_what_the_application_does_after_its_answer_is_in_flight(
    tmp_path: Path, way: Callable[[Backend, str], socket.socket], ending: str
) -> None:
    """It is waited for although the client has its answer and has left, and lifespan ends after it."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP, spec=SPEC, max_requests=1 if "many" in ending else 0) as site:
        with way(site, "/works_on") as client:
            assert _until(client, b"ok")
        if site.job["max_requests"]:
            assert site.ask("/show").status == 200  # the first that has ended
        else:
            site.process.send_signal(signal.SIGTERM)
        assert site.notice().startswith("STOPPING=1")
        assert site.record().in_flight == 1
        (tmp_path / "gate").write_text("open")
        assert site.exit() == 0
        assert site.record().in_flight == 0
        assert site.log.split("\n")[1:4] == ["working on", "done", "lifespan.shutdown"]


def _until(client: socket.socket, end: bytes) -> bytes:
    """Read until the answer is whole; its end may be told in a chunk of its own."""
    data = b""
    while end not in data:
        more = client.recv(65536)
        assert more, data
        data += more
    return data


@pytest.mark.parametrize("way", [_closing, _handed_over])
def test_the_end_of_an_answer_does_not_wait_for_what_comes_after_it(
    tmp_path: Path, way: Callable[[Backend, str], socket.socket]
) -> None:
    """Where only the end of the connection tells it."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP, spec=SPEC) as site:
        with way(site, "/streams_and_works_on") as client:
            assert receive_all(client).endswith(b"some more")
        assert site.record().in_flight == 1
        (tmp_path / "gate").write_text("open")
        site.wait_for(in_flight=0)
        assert "done" in site.log


def test_a_call_for_nobody_ends_some_time(tmp_path: Path) -> None:
    """It has given no answer, its client has left, and it does not listen: it is cancelled after request_timeout."""
    with backend(tmp_path, APP, spec=SPEC, request_timeout=1.0) as site:
        with _relayed(site, "/hangs"):
            site.wait_for(in_flight=1)
        site.wait_for(in_flight=0)
        assert "cancelled" in site.log


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM]])
def test_at_once_means_at_once(tmp_path: Path, signals: list[signal.Signals]) -> None:
    """SIGQUIT and a second SIGTERM wait for nothing."""
    os.mkfifo(tmp_path / "gate")
    with backend(tmp_path, APP, spec=SPEC) as site:
        client = site.connect()
        client.sendall(envelope({**ENVIRON, "RAW_URI": "/waits"}))
        site.wait_for(in_flight=1)
        for number in signals[:-1]:
            site.process.send_signal(number)
            assert site.notice().startswith("STOPPING=1")
        site.process.send_signal(signals[-1])
        assert site.exit() == 0


def test_it_leaves_after_so_many_requests(tmp_path: Path) -> None:
    """And its status is 0."""
    with backend(tmp_path, APP, spec=SPEC, max_requests=5) as site:
        assert [site.ask("/show").status for _ in range(5)] == [200] * 5
        assert site.exit() == 0


def test_a_blocked_event_loop_is_shown_and_ended(tmp_path: Path) -> None:
    """The stack of what blocks it is in the log; the status is 4."""
    with backend(tmp_path, APP, spec=SPEC, request_timeout=3.0) as site:
        with site.connect() as client:
            client.sendall(envelope({**ENVIRON, "RAW_URI": "/blocks"}))
            assert site.exit() == 4
        assert "no progress for 3 s with the event loop" in site.log
        assert "in blocks" in site.log


def test_an_app_that_refuses_to_start(tmp_path: Path) -> None:
    """lifespan.startup.failed is a failed start, with its reason."""
    code = """
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
    """
    with backend(tmp_path, code, spec=SPEC, wait=False) as site:
        assert site.exit() == 3
        assert "no database" in site.log
        assert "no database" in [site.notice(), site.notice()][-1]


def test_an_app_without_lifespan(tmp_path: Path) -> None:
    """Most know nothing of it."""
    code = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
    """
    with backend(tmp_path, code, spec=SPEC) as site:
        assert site.ask().status == 204


CLAIMS = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https", "X-Real-Ip": "198.51.100.7", "X-B": "c"}


@pytest.mark.parametrize("is_trusted", [True, False])
def test_what_a_front_end_says_of_its_client(tmp_path: Path, is_trusted: bool) -> None:
    """Straight from it: believed if it is a trusted proxy, and never seen by the site if it is not."""
    with backend(tmp_path, APP, spec=SPEC, trusts_front_end=is_trusted) as site:
        scope = scope_of(site.http("/show", **CLAIMS))
        names = [name.decode() for name, _ in scope["headers"]]
        if is_trusted:
            assert (scope["client"], scope["scheme"]) == (("127.0.0.1", 0), "https")
            assert names == ["host", "connection", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "x-b"]
        else:
            assert (scope["client"], scope["scheme"]) == (None, "http")
            assert names == ["host", "connection", "x-b"]


def test_captures_of_a_pattern(site: Backend) -> None:
    """What the host's pattern captured is in the scope, and no header can put it there."""
    assert scope_of(site.ask("/show", **{"multisite.captures": {"user": "ann"}}))["multisite.captures"] == {
        "user": "ann"
    }
    scope = scope_of(site.http("/show", **{"Multisite.captures": "x", "Multisite-Captures": "x"}))
    assert "multisite.captures" not in scope


def test_gunicorns_settings_are_not_loaded(tmp_path: Path) -> None:
    """What a request and a WebSocket need of them is written down; its modules for other things stay away."""
    code = """
    import sys
    async def app(scope, receive, send):
        found = [name for name in ("gunicorn.config", "gunicorn.glogging", "argparse") if name in sys.modules]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": repr(found).encode()})
    """
    with backend(tmp_path, code, spec=SPEC) as site:
        for _ in range(2):
            assert site.ask().body == site.http().body == b"[]"


def test_what_is_answered_is_counted(site: Backend) -> None:
    """Each byte, in heads and in bodies of any size, and each answer that says that the site failed."""
    for path, status, failures in (("/echo", 200, 0), ("/unwell", 503, 1)):
        for size in (0, 10, 300_000):
            before = site.wait_for(in_flight=0)
            variables = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "RAW_URI": path, "CONTENT_LENGTH": str(size)}
            answer = site.exchange(envelope({**ENVIRON, **variables}, b"x" * size), "POST")
            assert (answer.status, len(answer.body)) == (status, size)
            after = site.wait_for(in_flight=0, requests=before.requests + 1)
            assert after.errors == before.errors + failures
            assert after.sent - before.sent == len(answer.body), (path, size)


def test_a_request_that_is_no_use_is_counted_as_such(site: Backend) -> None:
    """It does not put off the site's rest."""
    site.ask("/show")
    before = site.wait_for(in_flight=0)
    data = bytearray(envelope({**ENVIRON, "PATH_INFO": "/show", "RAW_URI": "/show"}))
    data[1] |= 0x80
    assert site.exchange(bytes(data)).status == 200
    after = site.wait_for(in_flight=0, requests=before.requests + 1)
    assert (after.last_use, after.quiet) == (before.last_use, 0)
