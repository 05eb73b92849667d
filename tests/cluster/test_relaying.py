"""What a node says about a client of a request that it relays, and who is believed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from multisite.cluster import relaying
from multisite.cluster.relaying import FIELD, RELAYED, VALID_FOR, BadSignature, receive, sign

KEY = b"k" * 40
HERE = "10.0.0.2:8000"
NOW = 1_800_000_000.0


def request(**more: Any) -> dict[str, Any]:
    """A request as the first node has it."""
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/blog",
        "PATH_INFO": "/entry/\xc3\xa9",
        "QUERY_STRING": "a=1",
        "HTTP_HOST": "blog.example.com",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "4711",
        "wsgi.url_scheme": "https",
        **more,
    }


def arrived(**more: Any) -> dict[str, Any]:
    """The same at the second node: its peer is the first one."""
    return request(**{"REMOTE_ADDR": "10.0.0.1", "REMOTE_PORT": "999", "wsgi.url_scheme": "http", **more})


def test_the_second_node_knows_what_the_first_one_knew() -> None:
    first = request(REMOTE_USER="ann", HTTP_X_FORWARDED_FOR="198.51.100.9")
    second = arrived(HTTP_X_FORWARDED_FOR="198.51.100.9, 192.0.2.7", HTTP_X_FORWARDED_PROTO="http")
    receive(second, sign(first, KEY, HERE, NOW), KEY, HERE, NOW)
    assert second.pop(RELAYED)
    assert second.pop("AUTH_TYPE") == "Basic"
    assert second == first


def test_each_node_counts_how_often_a_request_has_been_relayed() -> None:
    """A node that drains passes on what came from another one, and the next node knows."""
    second, third = arrived(), arrived()
    receive(second, sign(request(), KEY, HERE, NOW), KEY, HERE, NOW)
    receive(third, sign(second, KEY, "10.0.0.3:8000", NOW), KEY, "10.0.0.3:8000", NOW)
    assert (second[RELAYED], third[RELAYED]) == (1, 2)
    assert {**third, RELAYED: 1} == second


@pytest.mark.parametrize(
    "changed",
    [
        {"REQUEST_METHOD": "GET"},
        {"PATH_INFO": "/admin"},
        {"QUERY_STRING": "a=2"},
        {"HTTP_HOST": "other.example.com"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_signature_is_for_one_request(changed: dict[str, str]) -> None:
    field, second = sign(request(), KEY, HERE, NOW), arrived(**changed)
    before = dict(second)
    with pytest.raises(BadSignature):
        receive(second, field, KEY, HERE, NOW)
    assert second == before


@pytest.mark.parametrize(
    ("key", "here", "later", "reason"),
    [
        (b"x" * 40, HERE, 0.0, "key_file"),
        (KEY, "10.0.0.3:8000", 0.0, "for the node 10.0.0.2:8000"),
        (KEY, HERE, VALID_FOR + 1, "set the clocks"),
        (KEY, HERE, -VALID_FOR - 1, "set the clocks"),
    ],
)
def test_who_is_not_believed(key: bytes, here: str, later: float, reason: str) -> None:
    with pytest.raises(BadSignature, match=reason):
        receive(arrived(), sign(request(), KEY, HERE, NOW), key, here, NOW + later)


@pytest.mark.parametrize("field", ["", ".", "x", "e30.", "e30.\xff", "a.b.c", "." * 20000])
def test_nonsense_is_refused(field: str) -> None:
    with pytest.raises(BadSignature):
        receive(arrived(**{FIELD: field}), field, KEY, HERE, NOW)


TOLD = {"to": HERE, "at": NOW, "address": "192.0.2.7", "port": "4711", "scheme": "https", "user": "", "claims": {}}


def field_of(told: object, environ: dict[str, Any]) -> str:
    """A field with a good signature, whatever is in it."""
    text = base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
    return f"{text}.{relaying._signature(text, environ, KEY)}"


@pytest.mark.parametrize(
    "told",
    [[], 1, {}, {"to": HERE}, {**TOLD, "at": "x"}, {**TOLD, "at": float("nan")}, {**TOLD, "claims": [1]}],
    ids=str,
)
def test_what_another_version_signs_is_refused(told: object) -> None:
    second = arrived()
    with pytest.raises(BadSignature):
        receive(second, field_of(told, second), KEY, HERE, NOW)
    assert second == arrived()


def test_a_node_can_claim_nothing_but_claims() -> None:
    second = arrived()
    receive(second, field_of({**TOLD, "claims": {"wsgi.input": "x", "HTTP_X_REAL_IP": "1"}}, second), KEY, HERE, NOW)
    assert second == request(HTTP_X_REAL_IP="1", **{RELAYED: True})


def test_who_is_signed_in_at_the_second_node_only_is_not_signed_in() -> None:
    second = arrived(REMOTE_USER="node", AUTH_TYPE="Basic")
    receive(second, sign(request(REMOTE_PORT=""), KEY, HERE, NOW), KEY, HERE, NOW)
    assert not second.keys() & {"REMOTE_USER", "AUTH_TYPE", "REMOTE_PORT"}
