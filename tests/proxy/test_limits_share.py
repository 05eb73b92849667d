"""Threads that have to wait: what one site may hold of them."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import pytest

from multisite.errors import NoAnswer, SiteBusy, UpstreamProtocolError
from multisite.proxy import limits
from multisite.proxy.limits import Share
from multisite.sites import server
from multisite.sites.server import Threads
from tests.backends import Backend, saying
from tests.proxy.harness import Relayed


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every site is slow at once, and nobody waits for a thread."""
    monkeypatch.setattr(limits, "YOUNG", -1.0)
    monkeypatch.setattr(limits, "MOMENT", 0.0)


def held(site: Share) -> list[Callable[[], None]]:
    """Take as many threads as the site may have."""
    releases = []
    with pytest.raises(SiteBusy) as caught:
        while True:
            releases.append(site.take_thread())
    assert caught.value.status == 503
    assert caught.value.retry_after
    return releases


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("count", "one", "other"), [(2, 1, 1), (8, 4, 2), (9, 5, 2), (16, 8, 4), (15, 8, 4)])
def test_a_slow_site_holds_half_and_the_next_half_of_the_rest(count: int, one: int, other: int) -> None:
    pool = Threads(count)
    first, second, third = (Share(lambda: pool) for _ in range(3))
    assert len(held(first)) == one
    assert len(held(second)) == other
    if count > 2:
        assert held(third)
        assert pool.held < count


@pytest.mark.usefixtures("impatient")
def test_what_is_given_back_can_be_taken_again() -> None:
    pool = Threads(8)
    site = Share(lambda: pool)
    for release in held(site):
        release()
    assert pool.held == 0
    assert len(held(site)) == 4


def test_a_quick_site_may_have_all_but_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "YOUNG", 1000.0)
    monkeypatch.setattr(limits, "MOMENT", 0.0)
    pool = Threads(8)
    assert len(held(Share(lambda: pool))) == 6


def test_a_quick_site_waits_a_moment_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads ask at once; each gets its turn, though only six may be in at a time."""
    monkeypatch.setattr(limits, "YOUNG", 1000.0)
    monkeypatch.setattr(limits, "MOMENT", 60.0)
    pool = Threads(8)
    site = Share(lambda: pool)
    most, failures = [0], []

    def work() -> None:
        try:
            for _ in range(200):
                release = site.take_thread()
                most[0] = max(most[0], pool.held)
                release()
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=work) for _ in range(8)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not failures
    assert pool.held == 0
    assert 0 < most[0] <= 6


def test_a_share_is_given_back_once() -> None:
    """However often; a server may close an answer after an error has done so."""
    pool = Threads(8)
    site = Share(lambda: pool)
    first, _second = site.take_thread(), site.take_thread()
    for _ in range(3):
        first()
    assert pool.held == 1


def _leaves(*_: object) -> None:
    raise ConnectionResetError("the client left")


@pytest.mark.parametrize("how", ["whole", "closed", "cut", "refused", "gone"])
def test_a_thread_is_free_again_whatever_happens(tmp_path: Path, how: str) -> None:
    """And the server gets the error that ended its request."""
    pool = Threads(8)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000 if how != "cut" else 100_000)
    talk = saying(b"" if how == "refused" else answer)

    def polite(wire: socket.socket) -> None:
        with contextlib.suppress(OSError):
            talk(wire)

    environ: dict[str, object] = {"wsgi.input": io.BytesIO(), "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1"}
    setup_testing_defaults(environ)
    with Backend(tmp_path / "x.sock", polite) as backend:
        proxy = Relayed(backend.endpoint, share=Share(lambda: pool))
        expected = {"refused": NoAnswer, "gone": ConnectionResetError, "cut": UpstreamProtocolError}.get(how)
        with pytest.raises(expected) if expected else contextlib.nullcontext():
            body = proxy(environ, _leaves if how == "gone" else lambda *told: None)
            assert pool.held == 1
            if how == "closed":
                body.close()  # type: ignore[attr-defined]
            for _ in body if how != "closed" else ():
                pass
            body.close()  # type: ignore[attr-defined]
        assert pool.held == 0


def test_without_a_number_there_is_no_bound() -> None:
    site = Share()
    releases = [site.take_thread() for _ in range(1000)]
    for release in releases:
        release()


def test_a_server_that_says_nothing_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_known", None)
    assert server.of_this_server() is None


@pytest.mark.parametrize(
    "arguments", [["granian", "--blocking-threads", "6", "x:y"], ["granian", "--blocking-threads=6", "x:y"]]
)
def test_granian_says_it_in_its_command_line(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(server, "_known", None)
    monkeypatch.setattr("sys.argv", arguments)
    found = server.of_this_server()
    assert found
    assert found.count == 6
