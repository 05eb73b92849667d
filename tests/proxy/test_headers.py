"""Which header fields are passed on, and what an upstream is told about the client."""

from __future__ import annotations

from typing import Any

import pytest

from multisite.proxy import headers

CLIENT = {"REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "http", "HTTP_HOST": "a.example:8080"}
CLAIMS = [
    "HTTP_X_FORWARDED_FOR HTTP_X_CLIENT_IP HTTP_X_REAL_IP HTTP_FORWARDED",
    "HTTP_X_FORWARDED_HTTPS HTTP_X_FORWARDED_PROTO HTTP_X_FORWARDED_SCHEME HTTP_X_FORWARDED_SSL HTTP_X_HTTPS "
    "HTTP_X_SCHEME",
    "HTTP_X_FORWARDED_HOST HTTP_X_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_SERVER",
    "HTTP_X_SCRIPT_NAME HTTP_X_FORWARDED_SCRIPT_NAME HTTP_X_FORWARDED_PREFIX",
]


def sent(trusted: bool = False, **environ: Any) -> dict[str, str]:
    return dict(headers.to_upstream(CLIENT | environ, trusted))


@pytest.mark.parametrize("family", CLAIMS)
def test_what_a_stranger_claims_is_dropped_as_a_whole_family(family: str) -> None:
    claimed = dict.fromkeys(family.split(), "spoofed")
    assert "spoofed" not in sent(**claimed).values()
    assert not dict(headers.relayed(CLIENT | claimed, trusted=False)).keys() & claimed.keys()


@pytest.mark.parametrize("family", CLAIMS)
def test_what_a_trusted_front_end_says_is_kept(family: str) -> None:
    said = dict.fromkeys(family.split(), "203.0.113.9")
    assert all("203.0.113.9" in sent(trusted=True, **said)[key] for key in said)


def test_the_upstream_is_told_of_the_client() -> None:
    told = sent()
    assert told["HTTP_X_FORWARDED_FOR"] == "192.0.2.1"
    assert told["HTTP_X_FORWARDED_PROTO"] == "http"
    assert told["HTTP_X_FORWARDED_HOST"] == told["HTTP_HOST"] == "a.example:8080"
    assert told["HTTP_X_FORWARDED_PORT"] == "8080"


def test_a_trusted_peer_is_added_to_the_end_of_the_chain() -> None:
    told = sent(trusted=True, HTTP_X_FORWARDED_FOR="203.0.113.9, 10.0.0.1", HTTP_X_FORWARDED_PROTO="https")
    assert told["HTTP_X_FORWARDED_FOR"] == "203.0.113.9, 10.0.0.1, 192.0.2.1"
    assert told["HTTP_X_FORWARDED_PROTO"] == "https"


def test_the_port_is_the_one_that_the_client_used() -> None:
    https = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_HOST": "a.example", "SERVER_PORT": "8000"}
    assert sent(trusted=True, **https)["HTTP_X_FORWARDED_PORT"] == "443"
    assert sent(**https)["HTTP_X_FORWARDED_PORT"] == "80"
    assert sent(HTTP_HOST="[::1]")["HTTP_X_FORWARDED_PORT"] == "80"


def test_a_peer_without_an_address_is_not_named() -> None:
    assert "HTTP_X_FORWARDED_FOR" not in sent(REMOTE_ADDR="")
    assert (
        sent(trusted=True, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="203.0.113.9")["HTTP_X_FORWARDED_FOR"] == "203.0.113.9"
    )


def test_fields_of_one_connection_are_not_passed_on() -> None:
    hop = {
        "HTTP_CONNECTION": "close, X-Secret,  keep-alive",
        "HTTP_X_SECRET": "1",
        "HTTP_KEEP_ALIVE": "5",
        "HTTP_TE": "trailers",
        "HTTP_TRAILER": "x",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "HTTP_UPGRADE": "websocket",
        "HTTP_PROXY_AUTHORIZATION": "basic",
        "HTTP_PROXY_CONNECTION": "close",
        "HTTP_EXPECT": "100-continue",
        "HTTP_PROXY": "http://evil.example",
    }
    assert not sent(**hop).keys() & hop.keys()


def test_a_client_cannot_have_the_host_or_the_chain_dropped() -> None:
    told = sent(trusted=True, HTTP_CONNECTION="Host, X-Forwarded-For", HTTP_X_FORWARDED_FOR="203.0.113.9")
    assert told["HTTP_HOST"] == "a.example:8080"
    assert told["HTTP_X_FORWARDED_FOR"] == "203.0.113.9, 192.0.2.1"


def test_the_others_keep_their_order() -> None:
    environ = {"HTTP_B": "1", "HTTP_HOST": "h", "HTTP_A": "2", "CONTENT_TYPE": "text/plain", "wsgi.errors": None}
    assert [key for key, _ in headers.relayed(environ, trusted=True)] == ["HTTP_B", "HTTP_HOST", "HTTP_A"]


def test_names_of_fields_are_remembered_and_their_number_is_bounded() -> None:
    assert headers.name("HTTP_X_REAL_IP") == headers.name("HTTP_X_REAL_IP") == "X-Real-Ip"
    for number in range(2000):
        assert headers.name(f"HTTP_X_{number}") == f"X-{number}"
    assert len(headers._names) <= 1024


def test_what_is_known_to_claim_nothing_is_bounded_and_no_claim_is_among_it() -> None:
    for _ in range(2):
        assert headers.drop_claims({"HTTP_X_REAL_IP": "1"}) == ["HTTP_X_REAL_IP"]
    for number in range(2000):
        assert headers.drop_claims({f"HTTP_Y_{number}": "", "HTTP_X_REAL_IP": "1"}) == ["HTTP_X_REAL_IP"]
    assert len(headers._harmless) <= 1024


@pytest.mark.parametrize(
    ("upgrade", "connection", "passed_on"),
    [
        ("WebSocket", "keep-alive, Upgrade", "WebSocket"),
        ("websocket", "keep-alive", ""),
        ("h2c", "Upgrade", ""),
        ("", "Upgrade", ""),
    ],
)
def test_a_websocket_is_the_one_protocol_that_is_passed_on(upgrade: str, connection: str, passed_on: str) -> None:
    assert headers.upgrade_of({"HTTP_UPGRADE": upgrade, "HTTP_CONNECTION": connection}) == passed_on


def test_a_request_without_a_host_gets_the_servers_name() -> None:
    assert headers.host_field({"SERVER_NAME": "a", "SERVER_PORT": "80"}) == "a:80"
    assert headers.host_field({"SERVER_NAME": "a", "SERVER_PORT": ""}) == "a"


def test_what_an_environ_cannot_say() -> None:
    """Fields that came more than once, have an underscore, or are empty; in their order, by the key that joins them."""
    fields = [("HOST", "a.test"), ("COOKIE", "a=1"), ("X-A", "1"), ("COOKIE", "b=2"), ("X_A", "2"), ("X-B", "1, 2")]
    environ = {"HTTP_HOST": "a.test", "HTTP_COOKIE": "a=1,b=2", "HTTP_X_A": "1,2", "HTTP_X_B": "1, 2"}
    found = {"HTTP_COOKIE": [("cookie", "a=1"), ("cookie", "b=2")], "HTTP_X_A": [("x-a", "1"), ("x_a", "2")]}
    assert headers.said_apart(environ, fields) == found
    assert headers.said_apart({"CONTENT_TYPE": ""}, [("CONTENT-TYPE", "")]) == {"CONTENT_TYPE": [("content-type", "")]}
    assert headers.said_apart({"HTTP_X_A": "1"}, [("X_A", "1")]) == {"HTTP_X_A": [("x_a", "1")]}
    assert not headers.said_apart({"HTTP_X_A": "1,2", "CONTENT_TYPE": "a/b"}, [("X-A", "1,2"), ("CONTENT-TYPE", "a/b")])
    assert not headers.said_apart({"CONTENT_TYPE": ""}, [])


def test_what_was_taken_out_or_changed_stays_so() -> None:
    """A field that the dispatcher does not believe does not come back."""
    fields = [("X-FORWARDED-FOR", "1.2.3.4"), ("X-FORWARDED-FOR", "5.6.7.8"), ("X-A", "1"), ("X-A", "2")]
    assert headers.said_apart({"HTTP_X_A": "changed"}, fields) == {}


def test_cookies_are_never_joined_by_commas() -> None:
    """A server behind gets them apart, or, where it can be told of one only, as RFC 9113 says."""
    apart = {"HTTP_COOKIE": [("cookie", "a=1"), ("cookie", "b=2")], "HTTP_X_A": [("x-a", "1"), ("x-a", "2")]}
    environ = {"HTTP_HOST": "a.test", "HTTP_COOKIE": "a=1,b=2", "HTTP_X_A": "1,2", "HTTP_X_B": "3"}
    assert [field for field in headers.to_upstream(environ, False, apart) if "FORWARDED" not in field[0]] == [
        ("HTTP_HOST", "a.test"),
        ("HTTP_COOKIE", "a=1"),
        ("HTTP_COOKIE", "b=2"),
        ("HTTP_X_A", "1"),
        ("HTTP_X_A", "2"),
        ("HTTP_X_B", "3"),
    ]
    joined = dict(headers.to_variables(environ, False, apart))
    assert joined == environ | {"HTTP_COOKIE": "a=1; b=2"}
