"""Addresses of endpoints as they are written in site files."""

from __future__ import annotations

import pytest

from multisite.config.endpoint import Endpoint


@pytest.mark.parametrize(
    ("text", "endpoint", "again"),
    [
        ("unix:/run/x.sock", Endpoint("http", path="/run/x.sock"), "http+unix:/run/x.sock"),
        ("http+unix:/run/x.sock", Endpoint("http", path="/run/x.sock"), "http+unix:/run/x.sock"),
        ("unix:///run/x.sock", Endpoint("http", path="/run/x.sock"), "http+unix:/run/x.sock"),
        ("uwsgi+unix:/run/x y.sock", Endpoint("uwsgi", path="/run/x y.sock"), "uwsgi+unix:/run/x y.sock"),
        ("unix:@node", Endpoint("http", path="\0node"), "http+unix:@node"),
        ("http://10.0.0.5:8000", Endpoint("http", host="10.0.0.5", port=8000), "http://10.0.0.5:8000"),
        ("http://node.example/", Endpoint("http", host="node.example", port=80), "http://node.example:80"),
        ("http://[::1]:8000", Endpoint("http", host="::1", port=8000), "http://[::1]:8000"),
        ("uwsgi://10.0.0.6:3031", Endpoint("uwsgi", host="10.0.0.6", port=3031), "uwsgi://10.0.0.6:3031"),
    ],
)
def test_an_endpoint_is_read_and_written(text: str, endpoint: Endpoint, again: str) -> None:
    """What is read can be written, and read again."""
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == again
    assert Endpoint.parse(again) == endpoint


def test_an_endpoint_without_a_protocol_gets_the_one_it_is_read_for() -> None:
    assert Endpoint.parse("10.0.0.5:3031", "uwsgi") == Endpoint("uwsgi", host="10.0.0.5", port=3031)
    assert Endpoint.parse("unix:/a", "uwsgi") == Endpoint("uwsgi", path="/a")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://10.0.0.5", "the protocol https is not supported"),
        ("fastcgi+unix:/x", "the protocol fastcgi is not supported"),
        ("http://10.0.0.5/app", "a path cannot be given"),
        ("http://user@10.0.0.5", "HOST:PORT"),
        ("uwsgi://10.0.0.6", "the port is missing"),
        ("http://10.0.0.5:70000", "between 1 and 65535"),
        ("http://10.0.0.5:0", "between 1 and 65535"),
        ("unix:run/x.sock", "absolute"),
        ("unix:/run/\0x", "absolute"),
        ("", "HOST:PORT"),
    ],
)
def test_what_is_no_endpoint_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Endpoint.parse(text)
