"""Plain HTTP: what is read here is what gunicorn would have read, and nothing else is read here."""

from __future__ import annotations

import random
from typing import Any

import pytest
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import create

from multisite.runner import requesthead
from multisite.runner.gunicorn_setup import DEFAULTS, UNBELIEVED, Settings


def of_gunicorn(raw: bytes) -> dict[str, Any] | None:
    """The strings of gunicorn's environ; None where it refuses the request."""
    cfg = Settings(workers=1)
    try:
        read = Request(cfg, IterUnreader([raw]), "", 1)
    except (ParseException, StopIteration):
        return None
    _, environ = create(read, None, "", "/site.sock", cfg)
    return {key: value for key, value in environ.items() if type(value) is str and key != "SERVER_SOFTWARE"}


def ours(raw: bytes) -> dict[str, Any] | None:
    head, end, _ = raw.partition(requesthead.END)
    return requesthead.environ_of(head, is_trusted=True) if end else None


def assert_same(raw: bytes) -> dict[str, Any] | None:
    """What was read here, which gunicorn has read in the same way."""
    read = ours(raw)
    if read is not None:
        theirs = of_gunicorn(raw)
        assert theirs is not None, raw
        theirs.pop(requesthead.PROXY, None)  # which nobody is told
        assert read == {**theirs, "REMOTE_ADDR": requesthead.TRUSTED_PEER}, raw
    return read


def lines(*more: str, first: str = "GET /a/b?c=d HTTP/1.1", host: str = "Host: site.test") -> bytes:
    return "".join(f"{line}\r\n" for line in (first, host, *more, "")).encode("latin-1")


PLAIN = [
    lines(),
    lines(first="GET / HTTP/1.0"),
    lines(first="POST /a%20b/%C3%BC%2f%zz%4?x=%20&y=?/# HTTP/1.1".replace("#", "")),
    lines("Content-Length: 12", "Content-Type: text/plain", first="PUT /;a=b,c:d/[x]{} HTTP/1.1"),
    lines("Upgrade: websocket", "Connection: Upgrade"),
    lines("X-Twice: a", "x-twice: b", "Cookie: a=b", "Cookie: c=d"),
    lines("X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.9"),
    lines("X-Forwarded-Proto: http", "X-Forwarded-Ssl: off"),
    lines("X-Forwarded-SSL: on", host="Host: site.test:8443"),
    lines(host="Host: [::1]:80"),
    lines(host="Host:site.test\t"),
    lines("X-Empty:", "X-Latin: \xe9\xff", "X-Tab: a\tb"),
    lines("Connection: keep-alive", "Keep-Alive: 5", "Te: trailers"),
]
ODD = [
    lines(host="X-A: no host"),
    lines(host="Host: "),
    lines(first="GET //a HTTP/1.1"),
    lines(first="GET http://site.test/ HTTP/1.1"),
    lines(first="OPTIONS * HTTP/1.1"),
    lines(first="GET /a#b HTTP/1.1"),
    lines(first="get / HTTP/1.1"),
    lines(first="GET / HTTP/2.0"),
    lines(first="GET  / HTTP/1.1"),
    lines(first="GET /\xe9 HTTP/1.1"),
    lines("Host: other.test"),
    lines("Content-Length: 1", "Content-Length: 1"),
    lines("Content-Length: 1, 1"),
    lines("Content-Length: +1"),
    lines("Content-Length: \xb2"),
    lines("Content-Length: 1", "Transfer-Encoding: chunked"),
    lines("Transfer-Encoding: chunked"),
    lines("Expect: 100-continue"),
    lines("X_A: underscore"),
    lines("X-A: a", " folded"),
    lines("X-A : space"),
    lines("no colon"),
    lines(": no name"),
    lines("X-A: nul\0"),
    lines("X-A: bare\nX-B: lines"),
    lines("X-A: bare\rX-B: returns"),
    lines("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"),
    lines("X-Forwarded-Proto: https", "X-Forwarded-Proto: http"),
    lines("X-A: " + "a" * 5000),
    lines(*["X-A: a"] * 95),
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"\x16\x03\x01\x02\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("raw", PLAIN)
def test_plain_requests_are_read(raw: bytes) -> None:
    """As gunicorn reads them, to the last variable."""
    assert assert_same(raw) is not None


@pytest.mark.parametrize("raw", ODD)
def test_all_others_are_left_to_gunicorn(raw: bytes) -> None:
    """Whether they are dangerous, wrong, or merely unusual."""
    assert ours(raw) is None


NAMES = ["Host", "host", "Content-Length", "CONTENT-TYPE", "Transfer-Encoding", "Connection", "X-Forwarded-Proto",
         "X-Forwarded-Ssl", "Cookie", "SCRIPT_NAME", "Script-Name", "Expect", "X-A", "Proxy"]  # fmt: skip
VALUES = ["site.test", "a:1:2", "5", "0", "chunked", "https", "on", "close", "100-continue", "x, y"]
METHODS = ["OPTIONS", "CONNECT", "Get", "G", "X" * 21, "A-B"]
VERSIONS = ["HTTP/1.2", "HTTP/1.1 ", "http/1.1", "HTTP/11"]
ENDS = ["\n", "\r", "\r\n ", "\r\n\t", "\r\n\r\n"]


class Heads:
    """Requests that are nearly right, by chance: Hypothesis takes fifty times as long for each."""

    def __init__(self) -> None:
        self._random = random.Random()

    def make(self) -> bytes:
        some = self._random.choice
        method, version = (
            self._mostly(["GET", "POST", "HEAD"], METHODS),
            self._mostly(["HTTP/1.1", "HTTP/1.0"], VERSIONS),
        )
        made = [f"{method} {self._target()} {version}{self._end()}"]
        made += ["Host: site.test\r\n"] * some([0, 1, 1])
        for _ in range(self._random.randrange(6)):
            name = self._mostly(NAMES, [self._text("aB-_ :\t!é", 5)])
            value = self._mostly(VALUES, [self._text("aB ,:\t\r\n\0\x7fé\x85\xa0%", 8)])
            made.append(f"{name}:{some(['', ' ', chr(9) + ' '])}{value}{self._end()}")
        return "".join([*made, "\r\n"]).encode("latin-1")

    def _target(self) -> str:
        return self._mostly(["/" + self._text("/aB%2f?:;@[]é.*", 12)], ["*", "a:1", "//", "/ ", "/#", "/" + chr(92)])

    def _end(self) -> str:
        return self._mostly(["\r\n"], ENDS)

    def _mostly(self, right: list[str], odd: list[str]) -> str:
        return self._random.choice(right if self._random.random() < 0.9 else odd)

    def _text(self, alphabet: str, most: int) -> str:
        return "".join(self._random.choices(alphabet, k=self._random.randrange(most + 1)))


@pytest.mark.parametrize("raw", [lines("X-A:\x0b"), lines("X-A:\xa0b"), lines("X-A: \x85")])
def test_white_space_is_what_gunicorn_takes_for_it(raw: bytes) -> None:
    assert_same(raw)


def test_nothing_is_read_otherwise_than_by_gunicorn() -> None:
    """Whatever is accepted here, gunicorn accepts, and understands it in the same way."""
    made = Heads()
    assert sum(assert_same(made.make()) is not None for _ in range(6000)) > 100


def test_what_nobody_believes_is_not_there() -> None:
    """Whole families of fields go, in the site's eyes they were never sent; gunicorn is told to heed none."""
    claims = ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Anything: x", "X-Real-IP: 1.2.3.4",
              "Forwarded: for=1.2.3.4", "X-Scheme: https", "X-Script-Name: /x", "X-Kept: y"]  # fmt: skip
    head = lines(*claims).partition(requesthead.END)[0]
    read = requesthead.environ_of(head, is_trusted=False)
    assert read is not None
    assert [key for key in read if key.startswith("HTTP_")] == ["HTTP_HOST", "HTTP_X_KEPT"]
    assert (read["REMOTE_ADDR"], read["wsgi.url_scheme"]) == ("", "http")
    believed = requesthead.environ_of(head, is_trusted=True)
    assert believed is not None and len(believed) == len(read) + 7
    assert (believed["REMOTE_ADDR"], believed["wsgi.url_scheme"]) == ("127.0.0.1", "https")


@pytest.mark.parametrize("is_trusted", [True, False])
def test_nobody_chooses_the_proxy_of_what_a_site_asks_for(is_trusted: bool) -> None:
    """CGI-like programs would take it from HTTP_PROXY (CVE-2016-5387)."""
    read = requesthead.environ_of(
        lines("Proxy: http://evil.test", "X-Kept: y").partition(requesthead.END)[0], is_trusted
    )
    assert read is not None and requesthead.PROXY not in read and read["HTTP_X_KEPT"] == "y"


def test_the_settings_are_gunicorns() -> None:
    """What is written down of its settings has their values, and the rest is asked for."""
    from gunicorn.config import Config

    theirs = Config()
    assert {name: getattr(theirs, name) for name in DEFAULTS} == DEFAULTS
    assert UNBELIEVED.keys() <= DEFAULTS.keys()
    assert Settings().backlog == theirs.backlog
    assert Settings(workers=7).workers == 7
    with pytest.raises(AttributeError):
        _ = Settings().no_such_setting
    schemes = {f"HTTP_{name.replace('-', '_')}": word for name, word in theirs.secure_scheme_headers.items()}
    assert dict(requesthead.SCHEMES) == schemes
