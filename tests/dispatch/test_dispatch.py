"""The dispatcher, through real files and real imports, with a clock that stands still."""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.config.read import read_home
from multisite.proxy import headers
from multisite.service import Service
from multisite.sites.failures import LastFailures
from tests.homes import HELLO, MOYA_CONF, TestHome, ask


@pytest.fixture
def home(tmp_path: Path) -> Iterator[TestHome]:
    home = TestHome(tmp_path)
    yield home
    for site in list(home.service._sites.values()):
        site.close()


def test_each_host_has_its_own_site(home: TestHome) -> None:
    home.hello("a")
    home.hello("b")
    assert [home.get(f"{name}.test").text for name in "abab"] == ["a", "b", "a", "b"]


def test_importing_the_service_opens_nothing(tmp_path: Path) -> None:
    service = Service(str(tmp_path / "nowhere"))
    assert repr(service) == "<Dispatcher 0 sites in use, 0 hosts remembered>"


def test_the_spelling_of_a_host_does_not_matter(home: TestHome) -> None:
    home.hello("a")
    for host in ("a.test", "A.TEST", "a.test:8000", "a.test.", "A.test.:80"):
        assert home.get(host).text == "a"


def test_an_unknown_host_is_404_and_a_bad_one_400_as_page_and_as_json(home: TestHome) -> None:
    home.hello("a")
    for host, status in (("zzz.test", 404), ("a..b", 400), ("x" * 10_000, 400), ("../etc", 400), ("a\x01b", 400)):
        page = home.get(host)
        assert (page.status, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
        answer = home.get(host, HTTP_ACCEPT="application/json")
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.text)["status"] == status


def test_without_a_host_header_the_servers_name_counts(home: TestHome) -> None:
    home.hello("a")
    assert home.get("", SERVER_NAME="a.test").text == "a"


def test_patterns_give_their_captures_to_the_site(home: TestHome) -> None:
    home.code(
        "a",
        app="""
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [repr((environ["multisite.captures"], environ["wsgiorg.routing_args"])).encode()]
    """,
    )
    home.ini("a", domains="{user}.a.test")
    assert home.get("ann.a.test").text == repr(({"user": "ann"}, ((), {"user": "ann"})))


@pytest.mark.parametrize("peer", ["127.0.0.1", "", "203.0.113.9", "nonsense"])
def test_only_trusted_peers_may_speak_for_others(home: TestHome, peer: str) -> None:
    """What anybody else says about another client is never seen by a site, by whole families."""
    home.code(
        "a",
        app="""
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [" ".join(sorted(key for key in environ if key.startswith("HTTP_"))).encode()]
    """,
    )
    home.ini("a")
    claims = ("FORWARDED", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_WHATEVER", "X_REAL_IP", "X_SCRIPT_NAME")
    others = ("ACCEPT", "HOST", "X_A", "X_FORWARDEDFOR", "X_REAL_IPS")
    named = {f"HTTP_{name}": "x" for name in (*claims, *others) if name != "HOST"}
    for _ in range(3):  # the first one goes the long way
        seen = home.get("a.test", REMOTE_ADDR=peer, **named).text.split()
        wanted = [*others, *claims] if peer in ("127.0.0.1", "") else others
        assert seen == sorted(f"HTTP_{name}" for name in wanted)


def test_invented_fields_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of fields are remembered up to a bound, and dropped claims are never among them."""
    monkeypatch.setattr(headers, "_harmless", set())
    for number in range(5000):
        environ = {f"HTTP_X_{number}": "x", f"HTTP_X_FORWARDED_{number}": "x"}
        headers.drop_claims(environ)
        assert list(environ) == [f"HTTP_X_{number}"]
    assert len(headers._harmless) <= 1024


MOUNTED = """
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [("{0} %s %s" % (environ["SCRIPT_NAME"], environ["PATH_INFO"])).encode()]
"""


def test_sites_share_a_domain_by_mount(home: TestHome) -> None:
    for name, mount in (("root", "/"), ("api", "/api"), ("v2", "/api/v2")):
        home.code(name, app=MOUNTED.replace("{0}", name))
        home.ini(name, domains="m.test", mount=mount)
    paths = ("/", "/x", "/api", "/api/y", "/apiary", "/api/v2/z", "/api/v23", "/api/v2.x/y")
    assert {path: home.get("m.test", path).text for path in paths} == {
        "/": "root  /",
        "/x": "root  /x",
        "/api": "api /api ",
        "/api/y": "api /api /y",
        "/apiary": "root  /apiary",
        "/api/v2/z": "v2 /api/v2 /z",
        "/api/v23": "api /api /v23",
        "/api/v2.x/y": "api /api /v2.x/y",
    }


def test_a_path_that_no_mount_covers_is_404(home: TestHome) -> None:
    home.hello("a", mount="/only")
    assert home.get("a.test", "/only").status == 200
    assert home.get("a.test", "/other").status == 404


def test_the_default_site_answers_unknown_hosts(home: TestHome, tmp_path: Path) -> None:
    home = TestHome(tmp_path, MOYA_CONF.replace("[service]\n", "[service]\ndefault_site = a\n"))
    home.hello("a")
    assert home.get("whatever.test").text == "a"
    assert home.get("bad..host").status == 400


def test_the_canonical_domain_is_redirected_to(home: TestHome) -> None:
    home.hello("a", domains="www.a.test, a.test", redirect_to_canonical="yes")
    assert home.get("www.a.test").text == "a"
    answer = home.get("a.test:8000", "/x y", QUERY_STRING="q=1")
    assert (answer.status, answer.headers["location"]) == (301, "http://www.a.test:8000/x%20y?q=1")
    assert home.get("a.test", REQUEST_METHOD="POST").status == 308


def test_the_hosts_header_of_a_front_end_is_believed_from_trusted_peers_only(home: TestHome, tmp_path: Path) -> None:
    conf = MOYA_CONF.replace(
        "[service]\n", "[service]\nhost_header = X-Canonical-Host\ntrusted_proxies = 127.0.0.1, 10.0.0.0/8, unix\n"
    )
    home = TestHome(tmp_path, conf)
    home.hello("a")
    home.hello("b")
    for peer, answer in (
        ("127.0.0.1", "b"),
        ("10.1.2.3", "b"),
        ("", "b"),
        ("::ffff:10.0.0.1", "b"),
        ("192.0.2.1", "a"),
        ("junk", "a"),
    ):
        assert home.get("a.test", REMOTE_ADDR=peer, HTTP_X_CANONICAL_HOST="b.test").text == answer
    assert home.get("a.test").text == "a"


def test_an_import_error_costs_one_site_and_hides_its_reason(home: TestHome, caplog: pytest.LogCaptureFixture) -> None:
    home.hello("good")
    home.code("bad", app="import nothing_of_that_name")
    home.ini("bad")
    answer = home.get("bad.test")
    assert answer.status == 500
    assert "nothing_of_that_name" not in answer.text
    record = next(r for r in caplog.records if "incident" in r.getMessage())
    assert record.getMessage().split()[2].rstrip(":") in answer.text
    assert record.site == "bad"  # type: ignore[attr-defined]
    assert "nothing_of_that_name" in caplog.text
    assert home.get("good.test").text == "good"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"location": "/no/such/place"}, "[service] location = /no/such/place: there is no such directory"),
        ({"application": "gone:app"}, "[service] application = gone:app: there is no module 'gone'"),
        ({"threads": "many"}, "[service] threads = many: is not a whole number"),
    ],
)
def test_the_line_of_an_incident_says_file_section_key_and_reason(
    home: TestHome, caplog: pytest.LogCaptureFixture, keys: dict[str, str], told: str
) -> None:
    home.code("bad", app="")
    file = home.ini("bad", **keys)
    assert home.get("bad.test").status == 500
    line = next(r.getMessage() for r in caplog.records if " incident " in r.getMessage())
    assert file.name in line
    assert told in line


def test_in_debug_mode_the_page_shows_the_traceback(home: TestHome) -> None:
    home.code("bad", app="import nothing_of_that_name")
    home.ini("bad")
    service = Service(str(home.path), debug=True)
    assert "nothing_of_that_name" in ask(service, "bad.test").text


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(3)",
        "1/0",
        "application = 42",
        "x = 1",
        "def application(:",
        "raise KeyboardInterrupt if 0 else OSError('x')",
    ],
)
def test_whatever_an_import_does_it_costs_that_site_only(home: TestHome, code: str) -> None:
    home.hello("good")
    home.code("bad", app=code)
    home.ini("bad")
    assert home.get("bad.test").status == 500
    assert home.get("good.test").text == "good"


@pytest.mark.parametrize("failure", ["raise ValueError('private')", "import sys; sys.exit('private')"])
def test_an_exception_while_answering_is_a_500_with_an_incident(home: TestHome, failure: str) -> None:
    home.code(
        "bad",
        app=f"""
        def application(environ, start_response):
            {failure}
    """,
    )
    home.ini("bad")
    answer = home.get("bad.test")
    assert answer.status == 500
    assert "private" not in answer.text


def test_a_failed_import_is_tried_again_when_its_file_changes(home: TestHome) -> None:
    home.code("a", app="1/0")
    home.ini("a")
    assert home.get("a.test").status == 500
    home.code("a", app=HELLO.format(text="mended"))
    assert home.get("a.test").status == 500  # nothing is looked at within a second
    home.later()
    assert home.get("a.test").text == "mended"


def test_a_failed_import_is_tried_again_after_a_growing_pause(home: TestHome) -> None:
    home.code(
        "a",
        app="""
        import os
        os.environ["TRIES"] = str(int(os.environ.get("TRIES", 0)) + 1)
        open(TRIES, "a").write("x")
        1/0
    """.replace("TRIES, ", repr(str(home.path / "tries")) + ", "),
    )
    home.ini("a")
    for _ in range(100):
        home.get("a.test")
        home.later(1.0)
    tries = (home.path / "tries").read_text()
    assert 6 <= len(tries) <= 9  # at 0, 1, 3, 7, 15, 31, 63 seconds, then once a minute


def test_an_error_in_a_file_is_told_once_until_there_is_another_file(
    home: TestHome, caplog: pytest.LogCaptureFixture
) -> None:
    home.hello("a")
    home.ini("a", "[service]\ndomains = a.test\nlocation = /nowhere/at/all\nnonsense = 1\n")
    for _ in range(10):
        assert home.get("a.test").status == 500
        home.later(60.0)
    assert caplog.text.count("MS231") == 1
    home.ini("a")
    home.later()
    assert home.get("a.test").text == "a"


def test_a_new_site_is_served_by_its_first_request_and_a_removed_one_is_404(home: TestHome) -> None:
    home.hello("a")
    assert home.get("a.test").text == "a"
    for n in range(20):
        home.hello(f"n{n}")
        assert home.get(f"n{n}.test").text == f"n{n}"
        home.disable(f"n{n}")
        home.later()
        assert home.get(f"n{n}.test").status == 404
        assert home.get("a.test").text == "a"


def test_a_new_exact_domain_beats_a_pattern_at_once(home: TestHome) -> None:
    home.hello("wild", domains="*.w.test")
    assert home.get("a.w.test").text == "wild"
    home.hello("exact", domains="b.w.test")
    assert home.get("b.w.test").text == "exact"


def test_a_new_site_is_served_at_once_where_the_default_site_answered(tmp_path: Path) -> None:
    home = TestHome(tmp_path, MOYA_CONF.replace("[service]\n", "[service]\ndefault_site = any\n"))
    home.hello("any")
    assert home.get("new.test").text == "any"
    home.hello("new")
    assert home.get("new.test").text == "new"
    home.disable("new")
    home.later()
    assert home.get("new.test").text == "any"


def test_a_changed_site_file_is_live_within_a_second(home: TestHome) -> None:
    home.hello("a")
    assert home.get("a.test").text == "a"
    home.code("a", app=HELLO.format(text="two"))
    home.ini("a", domains="a.test, also.test")
    assert home.get("a.test").text == "a"
    home.later()
    assert [home.get(host).text for host in ("a.test", "also.test")] == ["two", "two"]


def test_a_domain_added_to_a_file_in_place_is_found_by_its_first_request(home: TestHome) -> None:
    """No folder has changed, and no look is due: the unknown host alone has all files looked at."""
    home.hello("a")
    for folder in (home.path / "moya.conf", home.path / "sites-enabled"):
        os.utime(folder, (1, 1))  # what is fresh is looked at once more anyway
    assert home.get("a.test").text == "a"
    home.ini("a", domains="a.test, also.test")
    assert home.get("also.test").status == 404  # such a look has only just been
    home.later(0.06)
    assert home.get("also.test").text == "a"


def test_an_edit_that_does_not_parse_leaves_the_last_good_version(
    home: TestHome, caplog: pytest.LogCaptureFixture
) -> None:
    home.hello("a")
    assert home.get("a.test").text == "a"
    home.ini("a", "[service\ndomains == ")
    for _ in range(3):
        home.later()
        assert home.get("a.test").text == "a"
    assert "a.ini" in caplog.text
    fresh = TestHome(home.path)  # another worker, started later, knows it from the cache
    fresh_answer = fresh.service
    assert ask(fresh_answer, "a.test").text == "a"


def test_an_edit_that_does_not_parse_reloads_nothing(home: TestHome) -> None:
    """What its files hold meanwhile is not loaded either, until a good version is there."""
    home.hello("a")
    assert home.get("a.test").text == "a"
    home.code("a", app=HELLO.format(text="two"))
    for bad in ("[service\n", "[service]\ndomains = a.test\nnonsense = 1\n", "\0"):
        home.ini("a", bad)
        home.hello("witness", text=f"witness {len(bad)}")
        for _ in range(2):
            home.later()
            assert home.get("a.test").text == "a"
    home.ini("a")
    home.later()
    assert home.get("a.test").text == "two"


def test_a_problem_is_logged_once_and_once_more_when_it_comes_back(
    home: TestHome, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else changes meanwhile: of a site's file, and of moya.conf."""

    def told(what: str) -> int:
        return sum(what in record.getMessage() for record in caplog.records if record.name == "multisite.live")

    def change(number: int) -> None:
        home.hello(f"other{number}")
        home.later()
        assert home.get(f"other{number}.test").text == f"other{number}"
        assert home.get("a.test").text == "a"

    home.hello("a")
    assert home.get("a.test").text == "a"
    conf = home.path / "moya.conf"
    good = conf.read_text()
    for times in (1, 2):
        home.ini("a", "[service]\ndomains = a.test\nnonsense = 1\n")
        conf.write_text(good + "[broken\n")
        for number in range(3):
            change(10 * times + number)
            assert (told("nonsense"), told("[broken")) == (times, times)
        home.ini("a")
        conf.write_text(good)
        change(10 * times + 3)


def test_a_site_that_never_parsed_answers_500_where_its_domains_can_be_read(home: TestHome) -> None:
    home.code("a", app=HELLO.format(text="a"))
    home.ini("a", mode="sideways")
    answer = home.get("a.test")
    assert answer.status == 500
    home.ini("a")
    home.later()
    assert home.get("a.test").text == "a"


@pytest.mark.parametrize("trigger", ["ini", "touch_reload", "restart.txt", "changes"])
def test_a_site_is_reloaded_by(home: TestHome, trigger: str) -> None:
    home.hello("a", touch_reload="app.py" if trigger == "touch_reload" else "")
    (home.path / "sites/a/tmp").mkdir()
    (home.path / "temp/moyasrv").mkdir()
    assert home.get("a.test").text == "a"
    home.code("a", app=HELLO.format(text="b"))  # same length, same second: no .pyc may hide it
    home.later()
    if trigger != "touch_reload":
        assert home.get("a.test").text == "a"
    path = {
        "ini": home.path / "sites-available/a.ini",
        "touch_reload": home.path / "sites/a/app.py",
        "restart.txt": home.path / "sites/a/tmp/restart.txt",
        "changes": home.path / "temp/moyasrv/a.changes",
    }[trigger]
    path.exists() or path.touch()
    os.utime(path, (5, 5))
    home.later()
    assert home.get("a.test").text == "b"


def test_what_anybody_may_touch_reloads_nothing(home: TestHome) -> None:
    home.hello("a")
    changes = home.path / "temp/moyasrv/a.changes"
    changes.parent.mkdir()
    assert home.get("a.test").text == "a"
    home.code("a", app=HELLO.format(text="b"))
    os.utime(home.path / "sites-enabled/a.ini", (5, 5), follow_symlinks=False)
    if os.geteuid() == 0:
        changes.touch()
        os.chown(changes, 65534, -1)
    home.later()
    assert home.get("a.test").text == "a"


def test_always_restart_reloads_before_each_request(home: TestHome) -> None:
    home.hello("a")
    (home.path / "sites/a/tmp").mkdir()
    (home.path / "sites/a/tmp/always_restart.txt").touch()
    assert home.get("a.test").text == "a"
    for text in "xyz":
        home.code("a", app=HELLO.format(text=text))
        assert home.get("a.test").text == text


def test_a_reload_that_fails_keeps_the_old_application_and_is_tried_again(
    home: TestHome, caplog: pytest.LogCaptureFixture
) -> None:
    home.code("a", app="import helper\napplication = helper.application", helper=HELLO.format(text="one"))
    home.ini("a", touch_reload="app.py")
    assert home.get("a.test").text == "one"
    home.code("a", app="import helper\n1/0", helper=HELLO.format(text="two"))
    os.utime(home.path / "sites/a/app.py", (5, 5))
    home.later()
    assert home.get("a.test").text == "one"
    assert "old application keeps serving" in caplog.text
    assert "one" in sys.modules["helper"].__dict__["application"].__code__.co_consts
    home.code("a", app="import helper\napplication = helper.application")
    home.later()
    assert home.get("a.test").text == "two"


def test_a_change_is_taken_when_nothing_more_changes(home: TestHome) -> None:
    """Who writes a tree touches many files, and git holds a lock meanwhile."""
    home.hello("a", touch_reload="app.py")
    assert home.get("a.test").text == "a"
    for text in "xyz":
        home.code("a", app=HELLO.format(text=text))
        os.utime(home.path / "sites/a/app.py", (2e9 + ord(text),) * 2)  # the clock of another machine
        home.later()
        assert home.get("a.test").text == "a"
    (home.path / "sites/a/.git").mkdir()
    lock = home.path / "sites/a/.git/index.lock"
    lock.touch()
    home.later()
    assert home.get("a.test").text == "a"
    os.utime(lock, (5, 5))  # forgotten long ago
    home.later()
    assert home.get("a.test").text == "z"


@pytest.mark.parametrize(
    "bad", ['start_response("503 No", []); return []', "1/0", "raise SystemExit", "return []"], ids=str
)
def test_a_new_application_has_to_answer_the_smoke_request(home: TestHome, bad: str) -> None:
    """It is asked below the mount of the canonical domain; without a good answer the old one keeps serving."""
    home.code("a", app=HELLO.format(text="a"))
    home.ini("a", smoke_path="/health?x=1", touch_reload="app.py", mount="/m", domains="*.z.test, a.test")
    assert home.get("a.test", "/m/").text == "a"
    code = f"""
        def application(environ, start_response):
            asked = environ["HTTP_HOST"], environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["QUERY_STRING"]
            assert asked == ("a.test", "/m", "/health", "x=1")
            {bad}
    """
    home.code("a", app=code)
    os.utime(home.path / "sites/a/app.py", (5, 5))
    home.later()
    assert home.get("a.test", "/m/").text == "a"
    assert (
        "smoke request GET /m/health?x=1" in next(iter(LastFailures(read_home(str(home.path))).all().values())).reason
    )
    home.code("a", app=HELLO.format(text="b"))
    home.later()
    assert home.get("a.test", "/m/").text == "b"


def test_two_sites_that_are_both_app_py_share(home: TestHome) -> None:
    for name in "ab":
        home.hello(name, application="app:application")
    assert [home.get(f"{n}.test").text for n in "abab"] == ["a", "b", "a", "b"]


def test_sites_that_are_app_py_share_where_their_other_modules_differ(home: TestHome) -> None:
    for name in "ab":
        home.code(name, app=f"from {name}_helper import application", **{f"{name}_helper": HELLO.format(text=name)})
        home.ini(name, application="app:application")
    assert [home.get(f"{n}.test").text for n in "abab"] == ["a", "b", "a", "b"]


def test_an_app_py_that_the_sites_own_modules_import_is_claimed(home: TestHome) -> None:
    for name in "ab":
        views = "def answer():\n    from app import TEXT\n    return TEXT.encode()\n"
        app = f"""
            import {name}_views
            TEXT = "{name}"
            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [{name}_views.answer()]
            """
        home.code(name, app=app, **{f"{name}_views": views})
        home.ini(name, application="app:application")
    assert home.get("a.test").text == "a"
    assert "its module 'app' clashes" in html.unescape(home.get("b.test").text)
    assert home.get("a.test").text == "a"


def test_a_clash_of_modules_is_told_and_never_mixed_up(home: TestHome) -> None:
    for name in "ab":
        home.code(name, app="from helper import application", helper=HELLO.format(text=name))
        home.ini(name)
    assert home.get("a.test").text == "a"
    answer = home.get("b.test")
    assert answer.status == 503
    assert "its module 'helper' clashes with the 'helper' of site 'a'" in html.unescape(answer.text)
    home.disable("a")
    home.later()
    assert home.get("a.test").status == 404
    assert home.get("b.test").text == "b"


def test_a_site_does_not_see_its_neighbours_modules(home: TestHome) -> None:
    home.code("a", app="from local_settings import application", local_settings=HELLO.format(text="a"))
    home.code(
        "b",
        main="""
        try:
            from local_settings import application
        except ImportError:
            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"b"]
    """,
        more="",
    )
    home.ini("a")
    home.ini("b", application="main:application")
    assert home.get("a.test").text == "a"
    assert home.get("b.test").text == "b"


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("[env]\nA = 1\n", "[env]"),
        ("python = /srv/venv\n", "Python"),
        ("user = nobody-of-that-name\n", "user"),
        ("mode = spawned\n", "mode = spawned"),
        ("memory_limit = 10M\n", "memory_limit"),
    ],
)
def test_a_site_that_may_not_share_is_not_imported_and_says_why(home: TestHome, extra: str, reason: str) -> None:
    home.code("a", app="raise AssertionError('imported')")
    home.ini(
        "a", f"[service]\ndomains = a.test\nlocation = {home.path}/sites/a\napplication = app:application\n{extra}"
    )
    answer = home.get("a.test", HTTP_ACCEPT="application/json")
    assert answer.status == 503
    assert reason in json.loads(answer.text)["text"]
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused as root")
def test_root_serves_no_site_unless_allowed(tmp_path: Path) -> None:
    home = TestHome(tmp_path, MOYA_CONF.replace("allow_root = yes", "allow_root = no"))
    home.hello("a")
    answer = home.get("a.test")
    assert answer.status == 503
    assert "allow_root" in answer.text


def test_the_state_that_an_import_changes_is_put_back(home: TestHome, caplog: pytest.LogCaptureFixture) -> None:
    cwd, environ, path = os.getcwd(), dict(os.environ), list(sys.path)
    home.code(
        "a",
        app="import os, sys\nos.chdir('/')\nos.environ['LEAK'] = '1'\n"
        + f"sys.path.insert(0, {str(home.path / 'lib')!r})\n"
        + HELLO.format(text="a"),
    )
    home.ini("a")
    assert home.get("a.test").text == "a"
    assert (os.getcwd(), dict(os.environ), sys.path) == (cwd, environ, path)
    warning = next(record.getMessage() for record in caplog.records if "LEAK" in record.getMessage())
    assert "a" in warning


def test_a_wsgi_file_that_extends_the_path_finds_its_modules_later_too(home: TestHome) -> None:
    lib = home.path / "lib"
    lib.mkdir()
    (lib / "lazy_part.py").write_text("TEXT = b'lazy'")
    script = home.path / "site.wsgi"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(lib)!r})
def application(environ, start_response):
    import lazy_part
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [lazy_part.TEXT]
""")
    home.ini("a", f"[service]\ndomains = a.test\napplication = {script}\n")
    assert home.get("a.test").text == "lazy"
    assert str(lib) not in sys.path


def test_a_home_that_cannot_be_used_is_503_until_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = TestHome(tmp_path / "home")
    (home.path / "moya.conf").write_text("this is [not INI\n= at all")
    home.hello("a")
    for _ in range(3):
        assert home.get("a.test").status == 503
    assert caplog.text.count("cannot serve any site") == 1
    (home.path / "moya.conf").write_text(MOYA_CONF)
    home.later()
    assert home.get("a.test").text == "a"


def test_a_moya_conf_that_breaks_leaves_the_last_good_version(home: TestHome) -> None:
    home.hello("a")
    assert home.get("a.test").text == "a"
    (home.path / "moya.conf").write_text("this is [not INI\n= at all")
    home.later()
    assert home.get("a.test").text == "a"


def test_a_domain_claimed_twice_stays_with_the_site_that_has_it(
    home: TestHome, caplog: pytest.LogCaptureFixture
) -> None:
    home.hello("b", domains="d.test")
    assert home.get("d.test").text == "b"
    home.hello("a", domains="d.test, a.test")  # earlier in the order of names
    assert home.get("a.test").text == "a"
    assert home.get("d.test").text == "b"
    assert "a.ini" in caplog.text
    assert "b.ini" in caplog.text


def test_two_files_with_one_name_are_both_named(home: TestHome, caplog: pytest.LogCaptureFixture) -> None:
    home.hello("a", name="same")
    home.hello("b", name="same")
    assert home.get("a.test").text == "a"
    assert home.get("b.test").status == 500
    assert "a.ini" in caplog.text
    assert "b.ini" in caplog.text
    home.ini("b", name="other")
    home.later()
    assert home.get("b.test").text == "b"


def test_remembered_hosts_are_bounded(home: TestHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multisite.dispatch.dispatcher.MOST_HOSTS", 50)
    home.hello("a", domains="*.w.test")
    for n in range(60):
        assert home.service({"HTTP_HOST": f"h{n}.w.test", "PATH_INFO": "/"}, lambda *a: None)
        assert len(home.service._memory) == (n % 50) + 1


def test_the_last_good_version_is_that_of_all_workers(home: TestHome) -> None:
    """A worker that was idle while a good edit came still keeps that edit when the next one is bad."""
    home.hello("a")
    idle = TestHome(home.path)
    assert [home.get("a.test").text, idle.get("a.test").text] == ["a", "a"]
    home.code("a", app=HELLO.format(text="two"))
    home.ini("a", domains="a.test, new.test")
    os.utime(home.path / "sites-available/a.ini", ns=(2**61, 2**61))
    home.later()
    assert home.get("a.test").text == "two"
    home.ini("a", "[service\n==")
    os.utime(home.path / "sites-available/a.ini", ns=(2**61 + 1, 2**61 + 1))
    idle.later()
    assert idle.get("a.test").text == "two"
    assert idle.get("new.test").text == "two"


def test_modules_with_a_dash_are_imported_by_the_workers(home: TestHome) -> None:
    """Alone, as a package, and where another file of the site imports it by its name; each site has its own."""
    for site in ("one", "two"):
        home.code(site, **{"my-app": HELLO.format(text=site)})
        home.ini(site, application="my-app:application")
    home.code("pack", **{"my-site": ""})
    (home.path / "sites/pack/my-site.py").unlink()
    (home.path / "sites/pack/my-site").mkdir()
    (home.path / "sites/pack/my-site/wsgi.py").write_text(HELLO.format(text="pack"))
    home.ini("pack", application="my-site.wsgi:application")
    code = {"the-app": HELLO.format(text="lazy") + "import other\n"}
    home.code("lazy", **code, other="import importlib\ndef late():\n    return importlib.import_module('the-app')\n")
    home.ini("lazy", application="the-app:application")
    for name in ("one", "two", "pack", "lazy"):
        assert home.get(f"{name}.test").text == name
