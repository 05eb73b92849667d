"""What becomes of an answer on its way out: its pieces, its end, and what is counted."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import ENVIRON, WITHIN, Answer, Backend, backend, envelope, hand_over, receive_all

APP = """
import os, time

def hints_late(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "10")])
    write(b"begun ")
    environ["wsgi.early_hints"]([("Link", "</a.css>")])
    return [b"done"]

def bad_hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "a\\r\\nX-Evil: yes")])

def breaks(environ, start_response):
    raise RuntimeError("no luck")

def twice(environ, start_response):
    lengths = environ["QUERY_STRING"].split("&")
    start_response("200 OK", [("Content-Length", length) for length in lengths])
    return [b"hello"]

def short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"hello"]

def too_much(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "5")])
    if environ["QUERY_STRING"] == "written":
        write(b"hello world")
        return []
    return [b"hello world"] if environ["QUERY_STRING"] == "list" else iter([b"hel", b"lo wor", b"ld"])

def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a.css>")])
    return exact(environ, start_response)

def exact(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"he", b"llo"]

def empty_first(environ, start_response):
    start_response("200 OK", [])
    yield b""
    raise RuntimeError("nothing was sent")

def of_a_connection(environ, start_response):
    names = ["Connection", "Keep-Alive", "Proxy-Authenticate", "TE", "Trailers", "Transfer-Encoding", "Upgrade"]
    start_response("200 OK", [(name, "x") for name in names] + [("Content-Length", "0"), ("X-A", "b")])
    return []

def big(environ, start_response):
    start_response("200 OK", [("Content-Length", str(5_000_000))])
    return [b"x" * 5_000_000]

def file(environ, start_response):
    start_response("200 OK", [("Content-Length", str(os.path.getsize("large")))])
    return environ["wsgi.file_wrapper"](open("large", "rb"))

def reads(environ, start_response):
    data = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]

def drips(environ, start_response):
    start_response("200 OK", [])
    yield b"x"
    while not os.path.exists("gone"):
        time.sleep(0.005)
    yield b"y"

def writes_and_reads(environ, start_response):
    start_response("200 OK", [])(b"begun")
    return [environ["wsgi.input"].read()]

def child(environ, start_response):
    import subprocess
    start_response("200 OK", [])
    found = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False).stdout
    return [found.encode()]

def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "large").write_bytes(os.urandom(5_000_000))
    with backend(folder, APP) as started:
        yield started


def counted(site: Backend, path: str, **variables: str) -> tuple[Any, int, int]:
    """What comes back, how many errors were counted, and how many bytes sent."""
    before = site.wait_for(in_flight=0)
    with site.connect() as client:
        path_info, _, query = path.partition("?")
        client.sendall(envelope({**ENVIRON, "PATH_INFO": path_info, "QUERY_STRING": query, **variables}))
        raw = receive_all(client)
    after = site.wait_for(in_flight=0, requests=before.requests + 1)
    return raw, after.errors - before.errors, after.sent - before.sent


def test_an_answer_shorter_than_it_says_is_a_failure(site: Backend) -> None:
    """One that is whole is none, nor one whose body is not sent."""
    for path, method, failures in (("/short", "GET", 1), ("/exact", "GET", 0), ("/short", "HEAD", 0)):
        assert counted(site, path, REQUEST_METHOD=method)[1] == failures, (path, method)


@pytest.mark.parametrize("how", ["list", "pieces", "written"])
def test_what_goes_beyond_the_length_is_not_sent(site: Backend, how: str) -> None:
    """A front end would take it for the next answer."""
    assert counted(site, f"/too_much?{how}")[0].endswith(b"\r\n\r\nhello")


def test_a_body_that_nobody_reads_costs_no_client_its_answer(site: Backend) -> None:
    with site.connect() as client:
        client.sendall(envelope({**ENVIRON, "PATH_INFO": "/exact", "CONTENT_LENGTH": "2000000"}, bytes(2_000_000)))
        assert receive_all(client).endswith(b"hello")


def test_bytes_are_counted_however_they_are_sent(site: Backend) -> None:
    """In one call, in several while the client takes them, and by the kernel."""
    for path in ("/exact", "/big", "/file"):
        raw, _, sent = counted(site, path)
        assert sent == len(Answer(raw, "GET").body), path


def test_bytes_that_come_are_counted(site: Backend) -> None:
    """Those of the body, in one piece or in many."""
    for size in (3, 500_000):
        before = site.wait_for(in_flight=0)
        data = envelope({**ENVIRON, "PATH_INFO": "/reads", "CONTENT_LENGTH": str(size)}, b"x" * size)
        with site.connect() as client:
            threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
            assert receive_all(client).endswith(b"xxx")
        after = site.wait_for(in_flight=0, requests=before.requests + 1)
        assert after.received - before.received == size


@pytest.mark.parametrize(("path", "asked"), [("/drips", {}), ("/writes_and_reads", {"CONTENT_LENGTH": "100"})])
def test_a_client_that_leaves_is_no_failure(site: Backend, path: str, asked: dict[str, str]) -> None:
    """Neither while it is sent to in small pieces, nor while its body is read and its answer lies unread."""
    before = site.wait_for(in_flight=0)
    with site.connect() as client:
        client.sendall(envelope({**ENVIRON, "PATH_INFO": path, **asked}, b"half" if asked else b""))
        assert client.recv(1, socket.MSG_PEEK)
    Path(site.job["location"], "gone").touch()
    after = site.wait_for(in_flight=0, requests=before.requests + 1)
    assert after.errors == before.errors
    assert "ConnectionReset" not in site.log and "BrokenPipe" not in site.log


def test_a_client_that_never_stops_sending_is_not_waited_for(site: Backend) -> None:
    """Its answer was sent; what nobody reads of its body is thrown away for a while."""
    before = site.wait_for(in_flight=0)
    with site.connect() as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(envelope({**ENVIRON, "PATH_INFO": "/exact", "CONTENT_LENGTH": str(1 << 50)}))
        until = time.monotonic() + WITHIN
        while time.monotonic() < until:
            client.sendall(b"x" * 65536)
    site.wait_for(in_flight=0, requests=before.requests + 1)


def test_hints_come_before_the_answer_or_not_at_all(site: Backend) -> None:
    """In its middle they would be taken for a part of it."""
    assert counted(site, "/hints_late")[0].endswith(b"\r\n\r\nbegun done")
    assert counted(site, "/hints")[0].startswith(b"HTTP/1.1 103 ")
    assert counted(site, "/hints", SERVER_PROTOCOL="HTTP/1.0")[0].startswith(b"HTTP/1.1 200 ")
    raw, failures, _ = counted(site, "/bad_hints")
    assert raw.startswith(b"HTTP/1.1 500 ") and b"X-Evil" not in raw and failures == 1


def test_an_empty_piece_sends_nothing(site: Backend) -> None:
    """Not even the head: what fails after it is a 500."""
    assert counted(site, "/empty_first")[0].startswith(b"HTTP/1.1 500 ")


def test_a_page_of_ours_has_no_body_for_head(site: Backend) -> None:
    """Its length is told all the same."""
    raw, failures, _ = counted(site, "/breaks", REQUEST_METHOD="HEAD")
    assert raw.startswith(b"HTTP/1.1 500 ") and raw.endswith(b"\r\n\r\n") and failures == 1
    assert b"Content-Length: 0\r\n" not in raw


@pytest.mark.parametrize(("lengths", "status"), [("5", 200), ("5&5", 200), ("5&6", 500), ("-5", 500), ("5,5", 500)])
def test_lengths_agree_and_are_numbers(site: Backend, lengths: str, status: int) -> None:
    """Whoever reads two would choose one (RFC 9112 section 6.3)."""
    assert counted(site, f"/twice?{lengths}")[0].startswith(b"HTTP/1.1 %d " % status)


def test_fields_of_a_connection_are_left_out(site: Backend) -> None:
    """PEP 3333 forbids them to an application."""
    raw = counted(site, "/of_a_connection")[0]
    assert raw == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\r\n\r\n"


def test_a_request_that_is_no_use_is_counted_as_such(site: Backend) -> None:
    """It does not put off the site's rest."""
    site.ask("/exact")
    before = site.wait_for(in_flight=0)
    data = bytearray(envelope({**ENVIRON, "PATH_INFO": "/exact"}))
    data[1] |= 0x80
    assert site.exchange(bytes(data)).body == b"hello"
    after = site.wait_for(in_flight=0, requests=before.requests + 1)
    assert (after.last_use, after.quiet) == (before.last_use, 0)


def test_a_clients_connection_is_no_childs(site: Backend) -> None:
    """A program that the site executes has no more of our connections than before, where a client was handed over."""
    listening = site.ask("/child").body.count(b"socket:")  # which the harness itself leaves open
    client, ours = socket.socketpair()
    with client:
        hand_over(site, {**ENVIRON, "PATH_INFO": "/child"}, ours)
        assert receive_all(client).count(b"socket:") == listening


def test_a_cut_answer_of_http_1_0_shows(tmp_path: Path) -> None:
    """Where the client is the dispatcher, by its chunks."""
    with backend(tmp_path, APP) as site, pytest.raises(http.client.IncompleteRead):
        site.ask("/short", SERVER_PROTOCOL="HTTP/1.0")
