"""The host of the status pages in a worker: `/health` before all else, and what a front end's requests need."""

from __future__ import annotations

import json
import pwd
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from multisite.config.read import read_home
from multisite.dispatch import statushost
from multisite.dispatch.peer import FrontEnds
from multisite.dispatch.statushost import administrators
from multisite.service import Service

from ..homes import MOYA_CONF, TestHome

CONF = MOYA_CONF.replace("[service]\n", "[service]\nstatus_domain = status.test\nstatus_token = letmein\n")


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    home = TestHome(tmp_path, CONF)
    home.hello("blog")
    return home


def ask(home: TestHome, path: str = "/", host: str = "status.test", **more: Any) -> tuple[int, str]:
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "HTTP_HOST": host, "REMOTE_ADDR": "127.0.0.1"}
    environ.update(more)
    setup_testing_defaults(environ)
    got: list[str] = []
    body = home.service(environ, lambda status, headers, exc_info=None: got.append(status))
    return int(got[-1][:3]), b"".join(body).decode()


def test_health_is_answered_before_the_sites_are_read(home: TestHome) -> None:
    (home.path / "sites-enabled" / "bad.ini").write_text("[service\n")
    assert ask(home, "/health") == (200, "ready\n")
    assert home.service._catalogue is None
    assert ask(home, "/health", host="STATUS.test:8000.".rstrip(".")) == (200, "ready\n")


def test_health_costs_no_look_up_and_wakes_nothing(home: TestHome) -> None:
    assert ask(home, "/", "blog.test")[0] == 200
    table, home.service._live.look_again = home.service._catalogue, None  # type: ignore[method-assign, assignment]
    assert ask(home, "/health", REMOTE_ADDR="203.0.113.9") == (200, "ready\n")
    assert home.service._catalogue is table


def test_a_home_that_cannot_be_used_is_not_ready(home: TestHome) -> None:
    (home.path / "moya.conf").write_text("[projects\n")
    assert ask(home, "/health")[0] == 503


def test_health_of_another_host_is_that_host_s(home: TestHome) -> None:
    assert ask(home, "/health", "blog.test") == (200, "blog")


def test_the_pages_are_there_for_this_machine_alone(home: TestHome) -> None:
    status, text = ask(home, "/status.json")
    assert status == 200 and [row["name"] for row in json.loads(text)["sites"]] == ["blog"]
    status, text = ask(home, "/metrics")
    assert status == 200 and 'multisite_site_state{site="blog"' in text
    assert ask(home, "/metrics", REMOTE_ADDR="203.0.113.9")[0] == 401
    assert ask(home, REMOTE_ADDR="203.0.113.9")[0] == 401
    assert ask(home, REMOTE_ADDR="203.0.113.9", HTTP_AUTHORIZATION="Bearer letmein")[0] == 200


FIELDS = ("X_FORWARDED_FOR", "FORWARDED", "X_REAL_IP", "VIA", "X_FORWARDED_HOST", "X_FORWARDED_PROTO")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("proxies", ["", "trusted_proxies = 10.0.0.1\n"])
def test_a_front_end_on_this_machine_stands_for_anybody(home: TestHome, field: str, proxies: str) -> None:
    """Even where it is not believed, so that its fields are dropped before anybody else sees them."""
    (home.path / "moya.conf").write_text(CONF.replace("[service]\n", f"[service]\n{proxies}"))
    assert ask(home, **{f"HTTP_{field}": "127.0.0.1"})[0] == 401
    assert ask(home, REMOTE_ADDR="", **{f"HTTP_{field}": "127.0.0.1"})[0] == 401
    assert ask(home, **{f"HTTP_{field}": "1.2.3.4"}, HTTP_AUTHORIZATION="Bearer letmein")[0] == 200


def test_a_server_that_hides_front_ends_lets_nobody_in_without_the_token(home: TestHome) -> None:
    assert ask(home, SERVER_SOFTWARE="waitress")[0] == 401
    assert ask(home, SERVER_SOFTWARE="waitress", HTTP_AUTHORIZATION="Bearer letmein")[0] == 200
    (home.path / "moya.conf").write_text(CONF.replace("status_token = letmein\n", ""))
    home.service = Service(str(home.path))
    assert ask(home, SERVER_SOFTWARE="waitress")[0] == 403


@pytest.mark.parametrize(
    ("account", "is_ours"), [("root", True), ("ann", True), ("www-data", False), ("nobody", False), (None, False)]
)
def test_a_connection_of_a_web_server_s_account_stands_for_anybody(
    home: TestHome, monkeypatch: pytest.MonkeyPatch, account: str | None, is_ours: bool
) -> None:
    """Without a header of the front end; `None` is an account without a name, as a container has."""
    user = 0 if account == "root" else 54321

    def named(number: int) -> Any:
        if account is None:
            raise KeyError(number)
        return pwd.struct_passwd((account, "x", number, number, "", "/", "/bin/sh"))

    monkeypatch.setattr(statushost, "owner_of", lambda environ: user)
    monkeypatch.setattr(FrontEnds, "has_tenants", lambda self: False)
    monkeypatch.setattr(pwd, "getpwuid", named)
    assert administrators(read_home(str(home.path)))({}) is is_ours


def test_the_domain_is_the_pages_even_if_a_site_claims_it(home: TestHome) -> None:
    home.hello("thief", domains="status.test, *.test")
    assert "<!doctype html>" in ask(home)[1]
    assert home.service._catalogue
    told = [problem for problem in home.service._catalogue.problems if problem.key == "domains"]
    assert [problem.value for problem in told] == ["status.test"] and "status pages" in told[0].reason
    assert ask(home, host="other.test") == (200, "thief")


def test_without_a_domain_there_are_none(tmp_path: Path) -> None:
    home = TestHome(tmp_path, MOYA_CONF)
    home.hello("blog")
    assert ask(home, "/health")[0] == 404
    assert ask(home, "/")[0] == 404


def test_an_edit_of_moya_conf_turns_them_on_and_off(home: TestHome) -> None:
    assert ask(home)[0] == 200
    (home.path / "moya.conf").write_text(MOYA_CONF)
    home.now += 2
    assert ask(home)[0] == 404
