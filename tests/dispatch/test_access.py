"""Who is let into a site: addresses and users, and what the site learns of them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from multisite.config.model import Home, ServiceOptions
from multisite.config.site import Site
from multisite.dispatch.access import AccessCheck
from multisite.errors import AccessUnknown, Forbidden, Unauthorized

SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="


def guard(
    files: Any = None, proxies: tuple[str, ...] = ("127.0.0.1", "10.0.0.0/8", "unix"), **keys: Any
) -> AccessCheck:
    home = Home("/nowhere", service=ServiceOptions(trusted_proxies=proxies))
    return AccessCheck(Site("blog.ini", name="blog", **keys), home, files)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


ALLOW = ("192.0.2.0/24", "2001:db8::1")
ADDRESSES = [  # peer, chain, whether it is let in
    ("192.0.2.7", "", True),
    ("::ffff:192.0.2.7", "", True),
    ("2001:db8::1", "", True),
    ("2001:db8::1%eth0", "", True),
    ("2001:db8::2", "", False),
    ("198.51.100.1", "", False),
    ("198.51.100.1", "192.0.2.7", False),  # who is not trusted speaks for nobody
    ("127.0.0.1", "192.0.2.7", True),
    ("127.0.0.1", " 192.0.2.7 ", True),
    ("127.0.0.1", "192.0.2.7, 198.51.100.1", False),  # what the client itself sent comes first
    ("127.0.0.1", "198.51.100.1, 192.0.2.7", True),
    ("127.0.0.1", "192.0.2.7, 10.1.1.1", True),  # a front end behind a front end
    ("127.0.0.1", "192.0.2.7, 198.51.100.1, 10.1.1.1", False),
    ("127.0.0.1", "", False),
    ("127.0.0.1", "192.0.2.7,", False),
    ("127.0.0.1", "192.0.2.7, ,10.1.1.1", False),
    ("127.0.0.1", "192.0.2.7:80", False),
    ("127.0.0.1", "unknown", False),
    ("", "192.0.2.7", True),  # of a unix socket
    ("", "", False),
    ("nonsense", "", False),
]


@pytest.mark.parametrize(("peer", "chain", "is_let_in"), ADDRESSES)
def test_addresses(peer: str, chain: str, is_let_in: bool) -> None:
    environ = {"REMOTE_ADDR": peer, "PATH_INFO": "/"} | ({"HTTP_X_FORWARDED_FOR": chain} if chain else {})
    try:
        assert guard(allow=ALLOW)(environ, None) is None
    except Forbidden:
        assert not is_let_in
    else:
        assert is_let_in


def test_a_unix_socket_that_is_not_trusted_speaks_for_nobody() -> None:
    with pytest.raises(Forbidden):
        guard(allow=ALLOW, proxies=("127.0.0.1",))({"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "192.0.2.7"}, None)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text(f"ann:{SHA}\nzoë:{SHA}\n")
    return path


@pytest.mark.parametrize("field", [None, basic("ann", "no"), basic("bob", "secret"), "Bearer x", "Basic ?"])
def test_who_has_no_password_is_asked_for_one(users: Path, field: str | None) -> None:
    environ = {"PATH_INFO": "/"} | ({"HTTP_AUTHORIZATION": field} if field else {})
    with pytest.raises(Unauthorized) as raised:
        guard(htpasswd=str(users))(environ, None)
    assert raised.value.headers == (("WWW-Authenticate", 'Basic realm="blog", charset="UTF-8"'),)


def test_the_site_learns_the_user_and_not_the_password(users: Path) -> None:
    """Whatever the client says about itself."""
    environ = {"PATH_INFO": "/", "HTTP_AUTHORIZATION": basic("zoë", "secret"), "HTTP_X_REMOTE_USER": "root"}
    assert guard(htpasswd=str(users))(environ, None) is None
    name = "zoë".encode().decode("latin-1")
    assert environ == {"PATH_INFO": "/", "REMOTE_USER": name, "AUTH_TYPE": "Basic", "HTTP_X_REMOTE_USER": name}


def test_both_have_to_hold(users: Path) -> None:
    inside, outside = {"REMOTE_ADDR": "192.0.2.7"}, {"REMOTE_ADDR": "198.51.100.1"}
    authorized = {"HTTP_AUTHORIZATION": basic("ann", "secret")}
    check = guard(allow=ALLOW, htpasswd=str(users))
    assert check(inside | authorized, None) is None
    with pytest.raises(Forbidden):
        check(outside | authorized, None)
    with pytest.raises(Unauthorized):
        check(dict(inside), None)


def test_without_its_file_nobody_is_let_in(users: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is anybody who was, and it is logged once."""
    check = guard(htpasswd=str(users))
    authorized = {"HTTP_AUTHORIZATION": basic("ann", "secret")}
    assert check(dict(authorized), None) is None
    kept = users.read_text()
    users.unlink()
    for environ in (dict(authorized), {}, dict(authorized)):
        with pytest.raises(AccessUnknown):
            check(environ, None)
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert "all visitors are refused" in told[0]
    assert str(users) in told[0]
    users.write_text(kept)
    assert check(dict(authorized), None) is None


def test_a_certificate_authority_needs_no_password(users: Path) -> None:
    """Where the file is there: nothing else below the path is let through, nor reaches the application."""
    asked = []

    def files(environ: dict[str, Any], start_response: Any) -> list[bytes] | None:
        asked.append(environ["PATH_INFO"])
        return [b"token"] if environ["PATH_INFO"].endswith("a_token-1") else None

    check = guard(files, htpasswd=str(users), allow=ALLOW)
    assert check({"PATH_INFO": "/.well-known/acme-challenge/a_token-1", "REMOTE_ADDR": "198.51.100.1"}, None)
    for path in ("none", "../a_token-1", "x/../a_token-1", "x/a_token-1", "", "a_token-1/"):
        with pytest.raises(Forbidden):
            check({"PATH_INFO": f"/.well-known/acme-challenge/{path}", "REMOTE_ADDR": "198.51.100.1"}, None)
    assert asked == ["/.well-known/acme-challenge/a_token-1", "/.well-known/acme-challenge/none"]
    with pytest.raises(Forbidden):
        guard(None, allow=ALLOW)({"PATH_INFO": "/.well-known/acme-challenge/a_token-1", "REMOTE_ADDR": "::2"}, None)
    with pytest.raises(Forbidden):  # an authority asks at the root of the host
        check({"SCRIPT_NAME": "/x", "PATH_INFO": "/.well-known/acme-challenge/a_token-1", "REMOTE_ADDR": "::2"}, None)
