"""Nodes as mapping files, mappers and options write them."""

from __future__ import annotations

import pytest

from multisite.config import nodes
from multisite.config.values import CASTS


@pytest.mark.parametrize(
    ("text", "shown", "protocol", "modifiers"),
    [
        ("127.0.0.1:3031", "127.0.0.1:3031", "uwsgi", (0, 0)),
        ("127.0.0.1:3031,5", "127.0.0.1:3031", "uwsgi", (5, 0)),
        ("127.0.0.1:3031,5,7", "127.0.0.1:3031", "uwsgi", (5, 7)),
        ("[::1]:3031", "[::1]:3031", "uwsgi", (0, 0)),
        ("/run/x.sock", "/run/x.sock", "uwsgi", (0, 0)),
        ("unix:/run/x.sock,9", "/run/x.sock", "uwsgi", (9, 0)),
        ("@abstract", "@abstract", "uwsgi", (0, 0)),
        ("uwsgi://h:1", "h:1", "uwsgi", (0, 0)),
        ("http://h", "http://h:80", "http", (0, 0)),
        ("http+unix:/run/x.sock", "http+unix:/run/x.sock", "http", (0, 0)),
    ],
)
def test_forms(text: str, shown: str, protocol: str, modifiers: tuple[int, int]) -> None:
    node = nodes.parse(text)
    assert (str(node), node.endpoint.protocol, (node.modifier1, node.modifier2)) == (shown, protocol, modifiers)
    assert nodes.parse(shown).endpoint == node.endpoint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "HOST:PORT"),
        ("h", "the port is missing"),
        ("h:0", "between 1 and 65535"),
        ("h:1,256", "a modifier is"),
        ("h:1,x", "a modifier is"),
        ("h:1,1,1,1", "more than two"),
        ("ftp://h:1", "the protocol ftp is not supported"),
        ("a" * 300 + ":1", "longer than"),
        ("x/y", "HOST:PORT"),
    ],
)
def test_what_is_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        nodes.parse(text)


def test_several() -> None:
    assert [str(node) for node in nodes.parse_all("a:1|b:2,5| /c")] == ["a:1", "b:2", "/c"]
    with pytest.raises(ValueError, match="no address"):
        nodes.parse_all("|")
    with pytest.raises(ValueError, match="more than"):
        nodes.parse_all("|".join(["a:1"] * 300))


def test_an_option_lists_them() -> None:
    assert CASTS["nodes"]("10.0.0.5:3031, 10.0.0.6:3031,5, http://c") == (
        "10.0.0.5:3031",
        "10.0.0.6:3031,5",
        "http://c",
    )
    with pytest.raises(ValueError, match="http://c/d: it is not HOST:PORT"):
        CASTS["nodes"]("a:1, http://c/d")


def test_networks() -> None:
    assert CASTS["networks"]("10.0.0.0/8, ::1") == ("10.0.0.0/8", "::1")
    with pytest.raises(ValueError, match="10/33 is neither an address"):
        CASTS["networks"]("10/33")


def test_members_of_a_cluster() -> None:
    [one, two, three] = nodes.parse_machines(["10.0.0.1:8000", "Web.example.com:81 = 3", "[::1]:9"])
    assert (str(one), one.weight) == ("10.0.0.1:8000", 1)
    assert (str(two), two.weight) == ("web.example.com:81", 3)
    assert (str(three), three.host) == ("[::1]:9", "::1")
    assert CASTS["machines"]("10.0.0.1:8000, 10.0.0.2:8000=2") == ("10.0.0.1:8000", "10.0.0.2:8000=2")
    assert CASTS["machine"]("Web:1") == "web:1"


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (["a:1", "a:1=2"], "a:1 is listed twice"),
        (["a:1=0"], "a:1=0: a weight is a whole number from 1 to 256"),
        (["a:1=x"], "a weight"),
        (["a"], "a: the port is missing"),
        (["unix:/a"], "a node is ADDRESS:PORT"),
        (["http://a"], "a node is ADDRESS:PORT"),
        (["0.0.0.0:80"], "no address of one machine"),
        ([f"a:{port}" for port in range(1, 1002)], "more than 1000"),
    ],
)
def test_what_is_no_member(items: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        nodes.parse_machines(items)
