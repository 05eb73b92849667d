"""Whether a host is ours: asked by this machine's front end, and by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from multisite.dispatch.ask import PATH
from tests.homes import TestHome


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    home = TestHome(tmp_path)
    home.hello("blog", domains="blog.test, *.blog.test")
    return home


def asked(home: TestHome, query: str, host: str = "127.0.0.1:8000", **environ: str) -> int:
    return home.get(host, PATH, QUERY_STRING=query, **environ).status


@pytest.mark.parametrize(
    ("domain", "status"),
    [("blog.test", 200), ("BLOG.test.", 200), ("x.blog.test", 200), ("other.test", 404), ("..", 404), ("", 404)],
)
def test_ask(home: TestHome, domain: str, status: int) -> None:
    assert asked(home, f"domain={domain}") == status


@pytest.mark.parametrize("query", ["", "domain", "domain=blog.test&domain=other.test", "host=blog.test"])
def test_a_question_names_one_domain(home: TestHome, query: str) -> None:
    assert asked(home, query) == 404


def test_a_site_that_is_enabled_counts_at_once(home: TestHome) -> None:
    """No certificate is refused because a second has not passed."""
    assert asked(home, "domain=late.test") == 404
    home.hello("late")
    assert asked(home, "domain=late.test") == 200


@pytest.mark.parametrize(
    "environ", [{"REMOTE_ADDR": "10.0.0.7"}, {"HTTP_X_FORWARDED_FOR": "10.0.0.7"}, {"HTTP_FORWARDED": "for=10.0.0.7"}]
)
def test_only_this_machine_asks(home: TestHome, environ: dict[str, str]) -> None:
    assert asked(home, "domain=blog.test", **environ) == 404


def test_a_unix_socket_is_this_machine(home: TestHome) -> None:
    assert asked(home, "domain=blog.test", REMOTE_ADDR="") == 200


def test_other_hosts_are_not_touched(home: TestHome) -> None:
    """The path is a site's own on the hosts that it claims, and the default site's elsewhere."""
    assert home.get("blog.test", PATH).text == "blog"
    assert asked(home, "domain=nothing.test", host="blog.test:80") == 200
    home.hello("local", domains="127.0.0.1")
    home.later()
    for _ in range(2):
        assert home.get("127.0.0.1:8000", PATH, QUERY_STRING="domain=blog.test").text == "local"


def test_the_default_site_claims_no_host(tmp_path: Path) -> None:
    conf = "[projects]\nread = sites-enabled/*.ini\n[service]\nstate_dir = state\ndefault_site = any\n"
    home = TestHome(tmp_path, conf + "[defaults]\nshare = yes\n[supervisor]\nallow_root = yes\n")
    home.hello("any")
    assert asked(home, "domain=other.test") == 404
    assert home.get("other.test").text == "any"


def test_a_hosting_site_claims_the_hosts_that_have_a_folder(home: TestHome) -> None:
    """A pattern alone would have certificates fetched for any name under it."""
    home.code("hosted/one.test")
    home.ini("hosting", domains="*.test", location=str(home.path / "sites" / "hosted" / "%HOST"))
    assert asked(home, "domain=one.test") == 200
    assert asked(home, "domain=two.test") == 404
