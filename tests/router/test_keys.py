"""By what the node of a request is looked up."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.router import keys


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("example.com", ("example.com",)),
        ("EXAMPLE.com.", ("example.com",)),
        ("example.com:8000", ("example.com:8000", "example.com")),
        ("example.com:08000", ("example.com:8000", "example.com")),
        ("[::1]:80", ("[::1]:80", "[::1]")),
        ("bücher.example", ("xn--bcher-kva.example",)),
        ("", ()),
        ("..", ()),
        ("a/b", ()),
        ("example.com:99999", ()),
    ],
)
def test_hosts(raw: str, found: tuple[str, ...]) -> None:
    assert keys.keys_of_host(raw) == found


def test_the_order_is_the_fastrouters() -> None:
    environ = {"UWSGI_FASTROUTER_KEY": "named", "HTTP_HOST": "host.example", "SERVER_NAME": "server.example"}
    assert keys.keys_of(environ, True) == ("named",)
    assert keys.keys_of(environ, False) == ("host.example",)
    assert keys.keys_of(environ, False, "told.example") == ("told.example",)
    assert keys.keys_of({**environ, "UWSGI_FASTROUTER_KEY": ""}, True) == ("host.example",)
    assert keys.keys_of({**environ, "HTTP_HOST": ""}, False) == ("server.example",)
    assert keys.keys_of({}, False) == ()


def test_a_key_that_is_sent_is_found_however_it_is_written() -> None:
    """Files and announcements are kept in the normal form of hosts; a socket may be named in any way."""
    assert keys.keys_of({"UWSGI_FASTROUTER_KEY": "MyApp"}, True) == ("MyApp", "myapp")
    assert keys.normal("MyApp") == "myapp"
    assert keys.keys_of({"UWSGI_FASTROUTER_KEY": "Example.com:80"}, True)[1:] == ("example.com:80", "example.com")


@pytest.mark.parametrize("sent", ["../x", "a/b", "..", ".", "a b", "a\nb", "a,5", "a|b", "x" * 256, "\ud800", "a\x85"])
def test_a_bad_key_is_none(sent: str) -> None:
    """Its request has no key at all: the host is not what the front end meant."""
    assert keys.keys_of({"UWSGI_FASTROUTER_KEY": sent, "HTTP_HOST": "host.example"}, True) == ()
    with pytest.raises(ValueError, match="a key is"):
        keys.normal(sent)


def test_the_longest() -> None:
    assert keys.is_key("x" * 255)
    assert not keys.is_key("x" * 256)
    assert not keys.is_key("ü" * 128)


@given(st.text(max_size=300), st.booleans())
def test_no_key_leads_out_of_a_folder(text: str, trusted: bool) -> None:
    for key in keys.keys_of({"UWSGI_FASTROUTER_KEY": text, "HTTP_HOST": text}, trusted):
        assert 0 < len(key.encode()) <= keys.LONGEST
        assert os.path.normpath(f"/run/{key}") == f"/run/{key}"
        assert os.path.dirname(f"/run/{key}") == "/run"
        assert not set(key) & set("\0\n,|")
