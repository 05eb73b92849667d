"""Starts of sites are bounded by client address, in every way in which a worker passes requests on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .everyway import Reply, Way
from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

ASGI = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"here"})
"""
NAMES = ("a", "b", "c", "asgi")


@pytest.fixture(params=["gthread", "sync"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[HomeDir, Server]]:
    home = HomeDir(tmp_path).create()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "logo.svg").write_text("<svg/>")
    for name in (*NAMES, "free"):
        bound = {} if name == "free" else {"wakes_per_minute": "2"}
        where = home.site(name, ASGI if name == "asgi" else None, mode="spawned", **bound)
        more = f"[static]\n/static = {tmp_path}/files\n"
        home.ini(name, (home.path / "sites-available" / f"{name}.ini").read_text() + more)
        assert where
    with gunicorn(home, request.param, "--workers", "2") as server:
        yield home, server


@pytest.mark.parametrize("last", [True, False])
def test_a_client_starts_so_many_sites_and_no_more(served: tuple[HomeDir, Server], last: bool) -> None:
    home, server = served

    def ask(name: str, client: str = "192.0.2.1", target: str = "/", method: str = "GET") -> Reply:
        fields = (f"X-Forwarded-For: {client}", "Content-Length: 0")
        return Way("", f"{name}.test", server.port, says_close=last).ask(target, method, *fields)

    def state(name: str) -> str:
        (row,) = json.loads(home.multisite("--json", "list", name))["sites"]
        return str(row["state"])

    def again(name: str, client: str) -> int:
        """Stop a site and ask for it; a worker that has seen it run within a second takes it to be running."""
        home.multisite("stop", name)
        eventually(lambda: not home.processes(backends=True, of=name), PATIENCE, "it is stopped")
        return ask(name, client).status

    assert [ask("a").status, ask("asgi").status] == [200, 200]
    for _ in range(4):  # enough to meet both workers
        for method in ("GET", "POST"):
            refused = ask("b", method=method)
            assert refused.status == 429
            assert 0 < int(refused.all("Retry-After")[0]) <= 60
        assert ask("b", target="/static/logo.svg").body == b"<svg/>"
        assert ask("a").status == ask("asgi").status == 200  # these run
    assert state("b") == "stopped"
    assert ask("free").status == 200
    assert ask("b", "192.0.2.2").status == 200
    assert ask("b").status == 200  # another one has started it
    eventually(lambda: again("a", "192.0.2.1") == 429, PATIENCE, "a start counts, whoever stopped it")
    assert ask("a", "2001:db8:1:2::1").status == 200
    assert ask("c", "2001:db8:1:2::ffff").status == 200
    same = "2001:db8:1:2:3:4:5:6"
    eventually(lambda: again("c", same) == 429, PATIENCE, "a subscriber's network is one client")
    assert ask("c", "2001:db8:1:3::1").status == 200
    for name in NAMES:  # nobody goes past the workers
        assert not (home.runtime / "multisite" / "domains" / f"{name}.test").exists()
    assert (home.runtime / "multisite" / "domains" / "free.test").exists()


def test_a_client_cannot_pass_for_another(tmp_path: Path) -> None:
    home = HomeDir(tmp_path).create()
    trusts = "[service]\ntrusted_proxies = 192.0.2.9\n[supervisor]\nallow_root = yes\n"
    home.conf(f"[projects]\nread = sites-enabled/*.ini\n{trusts}")
    for name in ("a", "b"):
        home.site(name, mode="spawned", wakes_per_minute="1")
    with gunicorn(home, "gthread", "--workers", "1") as server:
        for number, (name, status) in enumerate((("a", 200), ("b", 429), ("b", 429))):
            way = Way("", f"{name}.test", server.port)
            assert way.ask("/", "GET", f"X-Forwarded-For: 198.51.100.{number}").status == status


def test_what_a_front_end_and_an_authority_ask_starts_no_site(tmp_path: Path) -> None:
    """A redirect to the canonical domain, a challenge, the question of Caddy, and `/health`; drained or not."""
    home = HomeDir(tmp_path).create()
    (tmp_path / "moya.conf").write_text(
        "[projects]\nread = sites-enabled/*.ini\n[service]\nstatus_domain = status.test\n"
        "[supervisor]\nallow_root = yes\n"
    )
    challenges = tmp_path / "files" / "acme-challenge"
    challenges.mkdir(parents=True)
    (challenges / "token").write_text("key")
    keys = {"mode": "spawned", "redirect_to_canonical": "yes"}
    home.site("plain", domains="plain.test, www.plain.test", **keys)
    home.site("asgi", ASGI, domains="asgi.test, www.asgi.test", **keys)
    for name in ("plain", "asgi"):
        file = home.path / "sites-available" / f"{name}.ini"
        home.ini(name, file.read_text() + f"[static]\n/.well-known = {tmp_path}/files\n")
    home.site("bare", mode="spawned")
    home.site("responder", mode="spawned", domains="bare.test", mount="/.well-known/acme-challenge/mine")
    with gunicorn(home, "gthread") as server:
        for command in ((), ("drain",)):
            if command:
                home.multisite(*command)
            for name in ("plain", "asgi"):
                assert server.ask(f"www.{name}.test", "/x?y=1").status == 301
                assert server.ask(f"{name}.test", "/.well-known/acme-challenge/token").text == "key"
                assert server.ask(f"{name}.test", "/.well-known/acme-challenge/other").status in (404, 503)
                asked = server.ask(f"localhost:{server.port}", f"/.multisite/ask?domain={name}.test")
                assert asked.status == 200
            assert server.ask("bare.test", "/.well-known/acme-challenge/token").status == 503
            assert server.ask("status.test", "/health").status == (503 if command else 200)
            rows = json.loads(home.multisite("--json", "list"))["sites"]
            assert {(row["state"], row["starts"] or 0) for row in rows} == {("stopped", 0)}
        assert server.ask("bare.test").text == "site bare"
        assert server.ask("bare.test", "/.well-known/acme-challenge/token").text == "site bare"
        assert server.ask("bare.test", "/.well-known/acme-challenge/mine/token").text == "site responder"
