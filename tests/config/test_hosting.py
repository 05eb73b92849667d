"""One file for many hosts: names of instances, what placeholders stand for, which folders count."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.config import hosting
from multisite.config.domains import normalise
from multisite.config.read import checks, read_home
from multisite.errors import BadHost
from multisite.proxy.ignored import Ignored
from multisite.sites import catalogue
from multisite.sites import hosts as folders
from multisite.sites.catalogue import Catalogue
from tests.homes import TestHome

SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}(\.[A-Za-z0-9_-]{1,30}){0,3}", fullmatch=True).filter(
    lambda name: len(name) <= 64
)
many_hosts = st.lists(label, min_size=1, max_size=12).map(".".join).filter(lambda host: len(host) <= 253)


@given(names, many_hosts, names, many_hosts)
def test_an_instances_name_is_a_name_and_nobody_elses(one: str, host: str, other: str, another: str) -> None:
    """Two instances have one name only if they are the same; no file can give its site such a name."""
    name = hosting.instance_name(one, host)
    assert SITE_NAME.fullmatch(name)
    assert (name == hosting.instance_name(other, another)) == ((one, host) == (other, another))
    with pytest.raises(ValueError, match=r"'\.\.'"):
        checks.KNOWN["site"]["service"]["name"].cast(name)
    assert hosting.split_name(name) in ((one, host), (name, ""))


def test_a_short_name_can_be_read_back() -> None:
    """A cut one cannot, nor that of another site."""
    assert hosting.split_name("h..a.test") == ("h", "a.test")
    assert hosting.split_name("blog") == ("blog", "")
    assert hosting.split_name("x..y..a.test") == ("x..y..a.test", "")
    assert hosting.split_name(hosting.instance_name("h", "a" * 63 + ".test"))[1] == ""


@given(st.text(max_size=30))
def test_whatever_a_client_sends_stays_in_its_folder(raw: str) -> None:
    """What a host is replaced by is one component of a path, and no option of a command."""
    try:
        host = normalise(raw)
    except BadHost:
        return
    found = hosting.values(["*", "{*all}", "x{*rest}"], host)
    for value in (found or {}).values():
        assert value not in ("", ".", "..")
        assert "/" not in value and "\0" not in value and not value.startswith(("-", "."))
        assert os.path.dirname(os.path.normpath(f"/var/www/{value}")) == "/var/www"


@pytest.mark.parametrize("host", ["[::1]", "a.b"])
def test_a_host_that_can_be_no_folder_has_none(host: str) -> None:
    """IPv6 literals, and captures that are no name by themselves."""
    assert hosting.values(["*" if host[0] == "[" else "a{*rest}b"], host) is None


def test_what_stands_for_what() -> None:
    """The host, and what its own pattern captures; among several patterns the last that fits counts."""
    domains = ["*.a.test", "{user}.a.test", "{user}.{zone}.b.test"]
    assert hosting.values(domains, "x.a.test") == {"HOST": "x.a.test", "USER": "x"}
    assert hosting.names(domains) == ("HOST",)
    assert hosting.names(domains[1:]) == ("HOST", "USER")
    assert hosting.fill("/home/%USER/%HOST/100%", {"HOST": "h", "USER": "u"}) == "/home/u/h/100%"
    assert hosting.fill_command(("%USER", "%HOST", "%%USER"), {"HOST": "h", "USER": "u"}) == ("u", "%HOST", "%%USER")


# --- folders --------------------------------------------------------------------------------------------------------

FILE = """
[service]
domains = *.a.test, b.test
location = {www}/%HOST
application = wsgi:application
touch_reload = %HOST.txt
[env]
WHO = %HOST of %(name)s
[static]
/static = %(location)s/static
"""


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    home = TestHome(tmp_path)
    (tmp_path / "www").mkdir()
    home.ini("hosting", FILE.format(www=tmp_path / "www"))
    return home


def sites(home: TestHome) -> Catalogue:
    return catalogue.read(read_home(str(home.path)))


def test_an_instance_is_what_the_file_says_for_its_host(home: TestHome) -> None:
    """All values follow, and so do its name and its domain."""
    where = home.path / "www" / "x.a.test"
    where.mkdir()
    current = sites(home)
    assert current.problems == ()
    found = current.instance("hosting", "x.a.test")
    assert found
    entry, site = found
    assert (site.name, entry.file.name) == ("hosting..x.a.test",) * 2
    assert (site.host, site.template, site.domains) == ("x.a.test", "hosting", ("x.a.test",))
    assert site.location == str(where)
    assert site.env == {"WHO": "x.a.test of hosting..x.a.test"}
    assert site.touch_reload == (f"{where}/x.a.test.txt",)
    assert site.static == {"/static": (f"{where}/static",)}
    assert current.instance("hosting", "y.a.test") is None
    assert current.instance("other", "x.a.test") is None
    (home.path / "www" / "x.other.test").mkdir()
    assert current.instance("hosting", "x.other.test") is None  # not one of its domains


def test_a_link_to_a_neighbour_is_another_name_of_it(home: TestHome) -> None:
    """A link that leads elsewhere is a folder like any other; one that leads nowhere is none."""
    www = home.path / "www"
    for name in ("x.a.test", "elsewhere"):
        (www / name).mkdir()
    (www / "www.x.a.test").symlink_to("x.a.test")
    (www / "b.test").symlink_to("www.x.a.test")
    (www / "y.a.test").symlink_to("elsewhere")
    (www / "z.a.test").symlink_to("z.a.test")
    current = sites(home)
    names = {}
    for host in ("x.a.test", "www.x.a.test", "b.test", "y.a.test"):
        found = current.instance("hosting", host)
        names[host] = found and found[1].host
    assert names == {
        "x.a.test": "x.a.test",
        "www.x.a.test": "x.a.test",
        "b.test": "x.a.test",
        "y.a.test": "y.a.test",
    }
    assert current.instance("hosting", "z.a.test") is None


@pytest.mark.parametrize("link", [False, True], ids=["renamed", "a link that is led elsewhere"])
def test_a_folder_that_takes_the_place_of_another_is_another_version(home: TestHome, link: bool) -> None:
    """What is written into it is none; workers forget what they knew of it, whose files those were."""
    www = home.path / "www"
    for name in ("first", "second"):
        (www / name / "static").mkdir(parents=True)
        (www / name / "static" / "who.txt").write_text(name)
    where = www / "x.a.test"
    where.symlink_to("../www/first") if link else (www / "first").rename(where)
    stamp = stamp_of(home, "x.a.test")
    (where / "more.txt").touch()
    assert stamp_of(home, "x.a.test") == stamp
    home.ini("hosting", (home.path / "sites-available" / "hosting.ini").read_text() + "/ = %(location)s/static\n")
    stamp = stamp_of(home, "x.a.test")
    assert home.get("x.a.test", "/who.txt").text == "first"
    before = home.service._sites["hosting", "x.a.test"]
    if link:
        where.unlink()
        where.symlink_to("../www/second")
    else:
        where.rename(www / "old")
        (www / "second").rename(where)
    assert stamp_of(home, "x.a.test") != stamp
    home.later()
    assert home.get("x.a.test", "/who.txt").text == "second"  # the last one that the old version could have answered
    assert home.get("x.a.test", "/who.txt").text == "second"
    assert home.service._sites["hosting", "x.a.test"] is not before


def stamp_of(home: TestHome, host: str) -> tuple[int, ...]:
    found = sites(home).instance("hosting", host)
    assert found
    return tuple(found[0].stamp)


def test_the_application_is_found_in_the_folder(tmp_path: Path) -> None:
    """A usual name, else the only .wsgi file."""
    assert folders.application(str(tmp_path)) == ""
    assert folders.application(str(tmp_path / "nowhere")) == ""
    (tmp_path / "shop.wsgi").write_text("")
    assert folders.application(str(tmp_path)) == "shop.wsgi"
    (tmp_path / "more.wsgi").write_text("")
    assert folders.application(str(tmp_path)) == ""
    (tmp_path / "app.py").write_text("")
    assert folders.application(str(tmp_path)) == "app.py"
    (tmp_path / "wsgi.py").mkdir()
    assert folders.application(str(tmp_path)) == "app.py"
    (tmp_path / "wsgi.py").rmdir()
    (tmp_path / "wsgi.py").write_text("")
    assert folders.application(str(tmp_path)) == "wsgi.py"


def test_unknown_hosts_are_not_remembered_and_known_ones_within_bounds(
    home: TestHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of invented hosts leaves nothing behind; of a thousand folders so many are held as are allowed."""
    monkeypatch.setattr("multisite.dispatch.dispatcher.MOST_INSTANCES", 10)
    for number in range(40):
        (home.path / "www" / f"x{number}.a.test").mkdir()
        assert home.get(f"no{number}.a.test").status == 404
    assert home.service._memory == {}
    assert home.service._sites == {}
    for number in range(40):
        assert home.get(f"x{number}.a.test").status == 503  # no supervisor here
        assert len(home.service._sites) <= 11
        assert len(home.service._memory) <= 11


def test_hosts_of_one_file_by_mounts(home: TestHome) -> None:
    """A second file may answer below a path, for hosts that have no folder as well."""
    home.hello("api", domains="*.a.test", mount="/api")
    (home.path / "www" / "x.a.test").mkdir()
    assert home.get("x.a.test", "/api/y").text == "api"
    assert home.get("no.a.test", "/api/y").text == "api"
    assert home.get("no.a.test").status == 404
    assert len(home.service._memory) == 1
    assert home.get("x.a.test").status == 503


# --- what is no use of a site ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "matches"),
    [
        ({"PATH_INFO": "/health"}, True),
        ({"PATH_INFO": "/healthy"}, False),
        ({"SCRIPT_NAME": "/api", "PATH_INFO": "/status/deep"}, True),
        ({"PATH_INFO": "/", "HTTP_USER_AGENT": "Mozilla/5.0 (compatible; GoogleBot/2.1)"}, True),
        ({"PATH_INFO": "/", "HTTP_USER_AGENT": "Uptime-Kuma 2/robot"}, True),
        ({"PATH_INFO": "/", "HTTP_USER_AGENT": "Mozilla/5.0"}, False),
        ({"PATH_INFO": "/x\n/health"}, False),
        ({}, False),
    ],
)
def test_requests_that_do_not_count(environ: dict[str, str], matches: bool) -> None:
    """Whole paths by pattern, parts of agents in any case."""
    ignored = Ignored(("/health", "/api/status/*"), ("googlebot", "Uptime*robot"))
    assert ignored and ignored.matches(environ) == matches


def test_without_patterns_every_request_counts() -> None:
    """And nothing is looked at."""
    assert not Ignored((), ())


def test_a_folder_of_files_is_served_by_the_workers(home: TestHome) -> None:
    """Where the file has [static] and the folder no application; one that has one is a site as usual."""
    home.ini(
        "hosting",
        f"[service]\ndomains = *.a.test\nlocation = {home.path}/www/%HOST\n[static]\ncheck = %(location)s/public\n",
    )
    for name in ("x", "y"):
        public = home.path / "www" / f"{name}.a.test" / "public"
        public.mkdir(parents=True)
        (public / "hello.txt").write_text(f"files of {name}")
    (home.path / "www" / "y.a.test" / "wsgi.py").write_text("")
    assert home.get("x.a.test", "/hello.txt").text == "files of x"
    assert home.get("x.a.test", "/nothing.txt").status == 404
    assert home.get("y.a.test", "/hello.txt").text == "files of y"
    assert home.get("y.a.test", "/nothing.txt").status == 503  # no supervisor here
    assert home.get("z.a.test", "/hello.txt").status == 404
