"""Whom gunicorn believes counts for nothing where `trusted_proxies` does not name him, in every way to a site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .everyway import ASGI, WSGI, Way, every_way, reply

pytestmark = pytest.mark.servers

#: whoever comes is believed, and may say anything by gunicorn's means
GUNICORN = """
forwarded_allow_ips = "*"
proxy_allow_ips = "*"
proxy_protocol = "auto"
secure_scheme_headers = {"X-FORWARDED-PROTO": "https", "X-ARR-SSL": "yes"}
forwarder_headers = "SCRIPT_NAME,PATH_INFO,REMOTE_USER"
"""
WSGI_APP = """
import json


def application(environ, start_response):
    told = {key: value for key, value in environ.items() if isinstance(value, str)}
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
ASGI_APP = """
import json


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    told = {"HTTP_" + name.decode().upper().replace("-", "_"): value.decode() for name, value in scope["headers"]}
    told |= {"PATH_INFO": scope["path"], "SCRIPT_NAME": scope["root_path"], "wsgi.url_scheme": scope["scheme"]}
    told["REMOTE_ADDR"] = scope["client"][0] if scope["client"] else ""
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
CLAIMS = (
    *("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-ARR-SSL: yes", "X-Forwarded-Prefix: /evil"),
    *(
        "SCRIPT_NAME: /x",
        "PATH_INFO: /evil",
        "REMOTE_USER: root",
        "Forwarded: for=203.0.113.9",
        "X-Real-IP: 203.0.113.9",
    ),
    *("X-Canonical-Host: nobody.test", "X-Script-Name: /evil", "Remote-User: root"),
)
OWN_SOCKETS = {"own-socket", "asgi-own-socket"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gunicorn") / "gunicorn.conf.py"
    path.write_text(GUNICORN)
    return path


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory, settings: Path) -> Iterator[dict[str, Way]]:
    service = "trusted_proxies = 192.0.2.1\nhost_header = X-Canonical-Host"
    options = ("--config", str(settings))
    with every_way(tmp_path_factory.mktemp("ways"), WSGI_APP, ASGI_APP, options=options, service=service) as found:
        yield found


@pytest.mark.parametrize("name", [*WSGI, *ASGI])
def test_nothing_is_left_of_what_a_stranger_says(strangers: dict[str, Way], name: str) -> None:
    way = strangers[name]
    for _ in range(3):  # the first request takes another way through the dispatcher than those after it
        answer = way.ask("/x/%61?y", "GET", *CLAIMS)
        assert answer.status == 200
        told = json.loads(answer.body)
        assert (told["wsgi.url_scheme"], told["SCRIPT_NAME"], told["PATH_INFO"]) == ("http", "", "/x/a")
        assert told["REMOTE_ADDR"] == ("" if name in OWN_SOCKETS else "127.0.0.1")
        allowed = {"HTTP_REMOTE_USER", "HTTP_X_ARR_SSL"} if name in OWN_SOCKETS else set()
        left = {key for key, value in told.items() if key.startswith("HTTP_") and ("203" in value or "evil" in value)}
        assert not left
        known = {"HTTP_X_FORWARDED_PROTO", "HTTP_SCRIPT_NAME", "HTTP_PATH_INFO", "HTTP_REMOTE_USER", "HTTP_X_ARR_SSL"}
        assert not (known | {"HTTP_X_CANONICAL_HOST"}) & told.keys() - allowed


@pytest.mark.parametrize("name", [name for name in (*WSGI, *ASGI) if name not in OWN_SOCKETS])
@pytest.mark.parametrize("claimed", ["198.51.100.7", "192.0.2.1"])
def test_a_stranger_introduces_nobody(strangers: dict[str, Way], name: str, claimed: str) -> None:
    """By a line of the PROXY protocol, not even somebody who is trusted."""
    way = strangers[name]
    with way.connect() as wire:
        wire.sendall(f"PROXY TCP4 {claimed} 127.0.0.1 1 2\r\n".encode() + way.head("/x", "GET", *CLAIMS))
        told = json.loads(reply(wire).body)
    assert told["REMOTE_ADDR"] == "127.0.0.1"
    assert not [key for key in told if key.startswith("PROXY_")]
    assert "203.0.113.9" not in told.values() and told["wsgi.url_scheme"] == "http"


@pytest.fixture(scope="module")
def friends(tmp_path_factory: pytest.TempPathFactory, settings: Path) -> Iterator[dict[str, Way]]:
    options = ("--config", str(settings))
    with every_way(tmp_path_factory.mktemp("ways"), WSGI_APP, options=options, service="") as found:
        yield found


@pytest.mark.parametrize("name", WSGI)
def test_a_trusted_peer_is_believed(friends: dict[str, Way], name: str) -> None:
    told = json.loads(friends[name].ask("/x", "GET", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https").body)
    assert (told["HTTP_X_FORWARDED_FOR"], told["wsgi.url_scheme"]) == ("203.0.113.9", "https")


@pytest.mark.parametrize("name", [name for name in WSGI if name not in OWN_SOCKETS])
def test_who_is_introduced_by_a_trusted_peer_is_himself_a_stranger(friends: dict[str, Way], name: str) -> None:
    way = friends[name]
    for claimed in ("198.51.100.7", "198.51.100.8"):
        with way.connect() as wire:
            head = way.head("/x", "GET", *CLAIMS)
            wire.sendall(f"PROXY TCP4 {claimed} 127.0.0.1 1 2\r\n".encode() + head)
            told = json.loads(reply(wire).body)
        assert told["REMOTE_ADDR"] == claimed
        assert "203.0.113.9" not in told.values() and told["wsgi.url_scheme"] == "http"
