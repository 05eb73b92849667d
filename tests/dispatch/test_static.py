"""Files served without the application: `[static]` of a site."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.config import filerules
from multisite.config.filerules import Expiry, MediaTypes, best_coding, freshness
from multisite.config.model import Home, Site
from multisite.config.read import read_site
from multisite.dispatch.static import StaticFiles
from multisite.dispatch.static.answers import MOST_RANGES
from multisite.dispatch.static.files import Prefixes, names
from tests.descriptors import all_open
from tests.homes import Answer, TestHome, ask

CANARY = "canary: nobody may read this"
SITE = """[service]
domains = a.test
location = {location}
application = app:application
{keys}
[static]
{static}
"""


class StaticHome(TestHome):
    """A home whose site `a` answers "app" where no file does."""

    def serve(self, static: str, **keys: str) -> None:
        lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
        location = self.path / "sites" / "a"
        self.ini("a", SITE.format(location=location, static=static, keys=lines))
        self.later()

    def ask(self, path: str, method: str = "GET", **environ: Any) -> Answer:
        return self.get("a.test", path, REQUEST_METHOD=method, **environ)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[StaticHome]:
    made = StaticHome(tmp_path)
    made.hello("a", "app")
    made.serve("/static = static")
    yield made


@pytest.fixture
def files(home: StaticHome) -> Path:
    folder = home.path / "sites" / "a" / "static"
    (folder / "docs").mkdir(parents=True)
    (folder / "hello.css").write_text("a { color: red }")
    (folder / "docs" / "index.html").write_text("the index")
    return folder


# --- which file -----------------------------------------------------------------------------------------------------


def test_a_file_below_a_prefix_is_served_with_what_caches_need(home: StaticHome, files: Path) -> None:
    got = home.ask("/static/hello.css")
    assert (got.status, got.text) == (200, "a { color: red }")
    assert got.headers["content-type"] == "text/css; charset=utf-8"
    assert got.headers["content-length"] == "16"
    assert got.headers["etag"].startswith('"')
    assert got.headers["last-modified"].endswith(" GMT")
    assert "cache-control" not in got.headers


@pytest.mark.parametrize("path", ["/", "/staticfoo", "/other/hello.css", "/hello.css", "//static/hello.css"])
def test_what_is_under_no_prefix_is_the_applications(home: StaticHome, files: Path, path: str) -> None:
    assert home.ask(path).text == "app"


def test_a_missing_file_under_a_prefix_is_a_404_page_of_ours(home: StaticHome, files: Path) -> None:
    got = home.ask("/static/none.css")
    assert got.status == 404
    assert "no file at this address" in got.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_files_can_only_be_read(home: StaticHome, files: Path, method: str) -> None:
    got = home.ask("/static/hello.css", method)
    assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


def test_a_head_request_gets_the_same_fields_and_no_body(home: StaticHome, files: Path) -> None:
    whole, head = home.ask("/static/hello.css"), home.ask("/static/hello.css", "HEAD")
    assert head.body == b""
    assert head.headers == whole.headers


def test_the_first_of_several_folders_that_has_the_file_answers(home: StaticHome, files: Path) -> None:
    more = files.parent / "more"
    more.mkdir()
    (more / "hello.css").write_text("second")
    (more / "only.css").write_text("only here")
    home.serve("/static = static, more, none")
    assert home.ask("/static/hello.css").text == "a { color: red }"
    assert home.ask("/static/only.css").text == "only here"


def test_the_longest_prefix_wins(home: StaticHome, files: Path) -> None:
    home.serve("/static = none\n/static/docs = static/docs\n/ = static/docs")
    assert home.ask("/static/docs/index.html").text == "the index"
    assert home.ask("/static/hello.css").status == 404
    assert home.ask("/").text == "the index"


def test_a_prefix_may_be_one_file(home: StaticHome, files: Path) -> None:
    home.serve("/favicon.ico = static/hello.css")
    assert home.ask("/favicon.ico").text == "a { color: red }"
    assert home.ask("/favicon.ico/").status == 404
    assert home.ask("/favicon.ico/more").status == 404


def test_a_prefix_counts_from_the_mount_of_the_site(home: StaticHome, files: Path) -> None:
    home.serve("/static = static", mount="/below")
    assert home.ask("/below/static/hello.css").status == 200
    assert home.ask("/below/static/docs").headers["location"] == "/below/static/docs/"


def test_a_prefix_may_have_letters_of_any_language(home: StaticHome, files: Path) -> None:
    home.serve("/bücher = static")
    assert home.ask("/bücher/hello.css".encode().decode("latin-1")).status == 200


def test_check_is_tried_before_the_application_and_falls_through(home: StaticHome, files: Path) -> None:
    home.serve("check = static")
    assert home.ask("/hello.css").text == "a { color: red }"
    assert home.ask("/docs/").text == "the index"
    assert home.ask("/hello.css", "POST").text == "app"
    for path in ("/", "/none.css", "/../hello.css", "/hello.css/", "/hello.css/x", "/" + 300 * "x"):
        assert home.ask(path).text == "app", path


def test_a_file_that_may_not_be_read_is_the_applications_under_check_and_403_under_a_prefix(
    home: StaticHome, files: Path
) -> None:
    (files / "out").symlink_to("/etc/passwd")
    home.serve("check = static\n/static = static")
    assert home.ask("/out").text == "app"
    assert home.ask("/static/out").status == 403


def test_a_folder_is_its_index_and_without_its_slash_the_way_there(home: StaticHome, files: Path) -> None:
    assert home.ask("/static/docs/").text == "the index"
    got = home.ask("/static/docs", QUERY_STRING="a=b")
    assert (got.status, got.headers["location"]) == (301, "/static/docs/?a=b")
    assert home.ask("/static/").status == 404
    assert home.ask("/static").status == 404


def test_the_names_of_the_index_are_an_option(home: StaticHome, files: Path) -> None:
    home.serve("/static = static", static_index="none.html, hello.css")
    assert home.ask("/static/").text == "a { color: red }"
    home.serve("/static = static", static_index="")
    assert home.ask("/static/docs/").status == 404
    assert home.ask("/static/docs").status == 404


def test_a_site_may_be_files_and_nothing_else(home: StaticHome, files: Path) -> None:
    home.ini("b", f"[service]\ndomains = b.test\nlocation = {files}\n[static]\n/ = .\n/x = docs")
    home.ini("c", f"[service]\ndomains = c.test\n[static]\n/x = {files}")
    home.later()
    assert home.get("b.test", "/hello.css").status == 200
    assert home.get("b.test", "/x/").text == "the index"
    assert home.get("c.test", "/x/hello.css").status == 200
    assert home.get("c.test", "/").status == 404


def test_files_need_neither_the_application_nor_its_process(home: StaticHome, files: Path) -> None:
    home.code("a", app="raise RuntimeError('imported')")
    home.serve("/static = static", mode="spawned")
    assert home.ask("/static/hello.css").status == 200
    home.serve("/static = static")
    assert home.ask("/static/hello.css").status == 200
    assert home.ask("/").status == 500


def test_an_edit_of_static_is_live(home: StaticHome, files: Path) -> None:
    assert home.ask("/").text == "app"
    home.serve("/files = static")
    assert home.ask("/files/hello.css").status == 200
    assert home.ask("/static/hello.css").text == "app"


def test_the_newest_content_is_served_at_once(home: StaticHome, files: Path) -> None:
    before = home.ask("/static/hello.css")
    (files / "hello.css").write_text("b { color: red }")
    os.utime(files / "hello.css", ns=(1, 1))
    after = home.ask("/static/hello.css")
    assert after.text == "b { color: red }"
    assert after.headers["etag"] != before.headers["etag"]


# --- conditions and parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", ["HTTP_IF_NONE_MATCH", "weak", "list", "star", "HTTP_IF_MODIFIED_SINCE", "later", "other form"]
)
def test_a_client_that_has_the_file_gets_304(home: StaticHome, files: Path, field: str) -> None:
    os.utime(files / "hello.css", (784111777, 784111777))
    etag = home.ask("/static/hello.css").headers["etag"]
    conditions = {
        "HTTP_IF_NONE_MATCH": {"HTTP_IF_NONE_MATCH": etag, "HTTP_IF_MODIFIED_SINCE": "Sun, 06 Nov 1984 08:49:37 GMT"},
        "weak": {"HTTP_IF_NONE_MATCH": "W/" + etag},
        "list": {"HTTP_IF_NONE_MATCH": f'"a", {etag}'},
        "star": {"HTTP_IF_NONE_MATCH": "*"},
        "HTTP_IF_MODIFIED_SINCE": {"HTTP_IF_MODIFIED_SINCE": "Sun, 06 Nov 1994 08:49:37 GMT"},
        "later": {"HTTP_IF_MODIFIED_SINCE": "Sun, 06 Nov 2022 08:49:37 GMT"},
        "other form": {"HTTP_IF_MODIFIED_SINCE": "Sunday, 06-Nov-94 08:49:37 GMT"},
    }[field]
    got = home.ask("/static/hello.css", **conditions)
    assert (got.status, got.body) == (304, b"")
    assert got.headers["etag"] == etag
    assert "content-type" not in got.headers


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"HTTP_IF_NONE_MATCH": '"x"', "HTTP_IF_MODIFIED_SINCE": "Sun, 06 Nov 2022 08:49:37 GMT"}, 200),
        ({"HTTP_IF_MODIFIED_SINCE": "Sun, 06 Nov 1993 08:49:37 GMT"}, 200),
        ({"HTTP_IF_MODIFIED_SINCE": "nonsense"}, 200),
        ({"HTTP_IF_MATCH": '"x"'}, 412),
        ({"HTTP_IF_MATCH": "*"}, 200),
        ({"HTTP_IF_UNMODIFIED_SINCE": "Sun, 06 Nov 1993 08:49:37 GMT"}, 412),
        ({"HTTP_IF_UNMODIFIED_SINCE": "Sun, 06 Nov 1994 08:49:37 GMT"}, 200),
    ],
)
def test_other_conditions(home: StaticHome, files: Path, condition: dict[str, str], status: int) -> None:
    os.utime(files / "hello.css", (784111777, 784111777))
    assert home.ask("/static/hello.css", **condition).status == status


@pytest.mark.parametrize(
    ("asked", "part", "said"),
    [
        ("bytes=0-0", "a", "bytes 0-0/16"),
        ("bytes=4-8", "color", "bytes 4-8/16"),
        ("bytes=-5", "red }", "bytes 11-15/16"),
        ("bytes=11-", "red }", "bytes 11-15/16"),
        ("bytes=11-999999999999999999999", "red }", "bytes 11-15/16"),
        ("bytes=-99", "a { color: red }", "bytes 0-15/16"),
    ],
)
def test_a_part_of_a_file(home: StaticHome, files: Path, asked: str, part: str, said: str) -> None:
    got = home.ask("/static/hello.css", HTTP_RANGE=asked)
    assert (got.status, got.text, got.headers["content-range"]) == (206, part, said)
    assert got.headers["content-length"] == str(len(part))


def test_several_parts_of_a_file(home: StaticHome, files: Path) -> None:
    got = home.ask("/static/hello.css", HTTP_RANGE="bytes=0-0, 4-8, -1")
    assert got.status == 206
    kind, _, boundary = got.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    assert got.headers["content-length"] == str(len(got.body))
    parts = got.text.split(f"--{boundary}")
    assert [part.partition("\r\n\r\n")[2].removesuffix("\r\n") for part in parts[1:-1]] == ["a", "color", "}"]
    assert [line for line in got.text.splitlines() if line.startswith("Content-Range")] == [
        "Content-Range: bytes 0-0/16",
        "Content-Range: bytes 4-8/16",
        "Content-Range: bytes 15-15/16",
    ]
    assert parts[-1] == "--\r\n"


def test_as_many_parts_as_anybody_needs(home: StaticHome, files: Path) -> None:
    """And no more: each costs more than it saves."""
    spans = [f"{at}-{at}" for at in range(0, 16)]
    assert home.ask("/static/hello.css", HTTP_RANGE=f"bytes={','.join(spans[:MOST_RANGES])}").status == 206
    assert home.ask("/static/hello.css", HTTP_RANGE=f"bytes={','.join(spans[: MOST_RANGES + 1])}").status == 200


@pytest.mark.parametrize(
    "asked", ["bytes=5-4", "bytes=a-b", "lines=0-1", "bytes", "bytes=", "bytes=4-8,0-1", "bytes=" + "0-0," * 9 + "9-9"]
)
def test_a_range_that_is_none_gets_the_whole(home: StaticHome, files: Path, asked: str) -> None:
    assert home.ask("/static/hello.css", HTTP_RANGE=asked).status == 200


def test_a_part_behind_the_end_is_416(home: StaticHome, files: Path) -> None:
    got = home.ask("/static/hello.css", HTTP_RANGE="bytes=16-")
    assert (got.status, got.headers["content-range"]) == (416, "bytes */16")


def test_if_range_names_the_file_a_part_is_wanted_of(home: StaticHome, files: Path) -> None:
    told = home.ask("/static/hello.css").headers
    for field, status in ((told["etag"], 206), (told["last-modified"], 206), ('"x"', 200), ("W/" + told["etag"], 200)):
        got = home.ask("/static/hello.css", HTTP_RANGE="bytes=0-0", HTTP_IF_RANGE=field)
        assert got.status == status, field


def test_a_head_request_knows_no_parts(home: StaticHome, files: Path) -> None:
    assert home.ask("/static/hello.css", "HEAD", HTTP_RANGE="bytes=0-0").status == 200


def test_large_files_and_parts_of_them_are_sent_whole_and_closed(home: StaticHome, files: Path) -> None:
    content = random.Random(1).randbytes(300_000)
    (files / "large").write_bytes(content)
    before = all_open()
    site = read_settled(home)
    served = StaticFiles(site, Home(str(home.path)), root=False)

    def app(environ: Any, start_response: Any) -> Any:
        return served(environ, start_response)

    for more in ({}, {"wsgi.file_wrapper": None}):
        assert binary(app, "/static/large", **more) == content
        assert binary(app, "/static/large", HTTP_RANGE="bytes=1000-200999", **more) == content[1000:201_000]
        multi = binary(app, "/static/large", HTTP_RANGE="bytes=0-99999,200000-", **more)
        assert content[:100_000] in multi
        assert content[200_000:] in multi
        assert binary(app, "/static/large", REQUEST_METHOD="HEAD", **more) == b""
    assert all_open() <= before


def binary(app: Any, path: str, **environ: Any) -> bytes:
    from wsgiref.util import FileWrapper, setup_testing_defaults

    full = {"PATH_INFO": path, "HTTP_HOST": "a.test", "wsgi.file_wrapper": FileWrapper, **environ}
    full = {key: value for key, value in full.items() if value is not None}
    setup_testing_defaults(full)
    body = app(full, lambda *_: None)
    content = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    return content


def read_settled(home: StaticHome) -> Site:
    from multisite.config.read import make_site, read_home

    read = read_home(str(home.path))
    return make_site(read_site(str(home.path / "sites-enabled" / "a.ini"), read.path), read)


def test_a_file_that_shrinks_while_it_is_sent_cuts_the_answer(home: StaticHome, files: Path) -> None:
    from multisite.dispatch.static.answers import Parts

    (files / "large").write_bytes(b"x" * 100)
    body = Parts(os.open(files / "large", os.O_RDONLY), [(0, 200)])
    with pytest.raises(OSError, match="shorter"):
        list(body)
    body.close()
    body.close()


# --- variants, types, freshness -------------------------------------------------------------------------------------


def test_compressed_variants_are_taken_by_what_the_client_likes(home: StaticHome, files: Path) -> None:
    assert "vary" not in home.ask("/static/hello.css", HTTP_ACCEPT_ENCODING="gzip").headers
    (files / "other.css").write_text("plain")
    for suffix, content in ((".gz", "gzip"), (".br", "br")):
        (files / f"other.css{suffix}").write_text(content)
    plain = home.ask("/static/other.css")
    assert (plain.text, plain.headers["vary"]) == ("plain", "Accept-Encoding")
    for field, coding in (
        ("gzip, br", "br"),
        ("gzip, br;q=0.5", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "br"),
        ("*, br;q=0", "gzip"),
        ("GZIP", "gzip"),
        ("zstd", ""),
        ("gzip;q=0", ""),
        ("gzip;q=0.5, identity", ""),
        ("gzip;q=nonsense", ""),
        ("", ""),
    ):
        got = home.ask("/static/other.css", HTTP_ACCEPT_ENCODING=field)
        assert (got.text, got.headers.get("content-encoding", "")) == (coding or "plain", coding), field
        assert got.headers["content-type"] == "text/css; charset=utf-8"
        assert (got.headers["etag"] == plain.headers["etag"]) is (not coding)


def test_a_variant_alone_is_no_file_and_one_that_is_a_link_is_none(home: StaticHome, files: Path) -> None:
    (files / "gone.css.gz").write_text("gzip")
    assert home.ask("/static/gone.css", HTTP_ACCEPT_ENCODING="gzip").status == 404
    canary = home.path / "canary"
    canary.write_text(CANARY)
    (files / "hello.css.gz").symlink_to(canary)
    assert home.ask("/static/hello.css", HTTP_ACCEPT_ENCODING="gzip").text == "a { color: red }"


def test_the_best_coding_is_ours_where_the_client_has_no_preference() -> None:
    assert best_coding("gzip, br, zstd", ("br", "zstd", "gzip")) == "br"
    assert best_coding("gzip, br, zstd", ()) == ""


def test_media_types_do_not_depend_on_the_machine() -> None:
    types = MediaTypes([(".x", "text/x")])
    expected = {
        "a.css": "text/css; charset=utf-8",
        "a.js": "text/javascript; charset=utf-8",
        "a.mjs": "text/javascript; charset=utf-8",
        "a.woff2": "font/woff2",
        "a.tar.gz": "application/gzip",
        "a.WASM": "application/wasm",
        "a.svg": "image/svg+xml",
        "a.unknown": "application/octet-stream",
        "a": "application/octet-stream",
        "a.x": "text/x; charset=utf-8",
    }
    assert {name: types.of(name) for name in expected} == expected


def test_types_and_freshness_are_options(home: StaticHome, files: Path) -> None:
    home.serve("/static = static", static_types=".css text/plain;charset=latin-1", static_expires="/static/d*/* 0, 1h")
    got = home.ask("/static/hello.css")
    assert got.headers["content-type"] == "text/plain;charset=latin-1"
    assert got.headers["cache-control"] == "max-age=3600"
    assert got.headers["expires"].endswith(" GMT")
    assert home.ask("/static/docs/").headers["cache-control"] == "no-cache"


def test_the_first_pattern_that_matches_says_how_long_a_file_stays_fresh() -> None:
    expiries = [Expiry("", 5), Expiry("*.css", 10), Expiry("/static/*", 20)]
    assert [freshness(expiries, path) for path in ("/x", "/static/a.css", "/static/a.js")] == [5, 10, 20]
    assert freshness([], "/x") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("static_expires", "soon"),
        ("static_expires", "*.css *.js 1h"),
        ("static_types", "md text/markdown"),
        ("static_types", ".md text"),
        ("static_links", "some"),
        ("static_send", "x-accel-redirect"),
        ("static_send", "x-sendfile /x"),
    ],
)
def test_a_wrong_option_is_a_problem_of_its_key(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "s.ini"
    path.write_text(f"[service]\ndomains = a.test\napplication = a:b\n{key} = {value}\n")
    assert [problem.key for problem in read_site(str(path), str(tmp_path)).problems] == [key]


@pytest.mark.parametrize("prefix", ["static", "/a//b", "/../x", "/a%20b"])
def test_a_wrong_prefix_is_a_problem(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "s.ini"
    path.write_text(f"[service]\ndomains = a.test\napplication = a:b\n[static]\n{prefix} = x\n")
    assert [problem.key for problem in read_site(str(path), str(tmp_path)).problems] == [prefix]


# --- handing the file to the front end ------------------------------------------------------------------------------


def test_a_trusted_front_end_is_told_to_send_the_file(home: StaticHome, files: Path) -> None:
    (files / "a b.css").write_text("blank")
    (files / "link.css").symlink_to("a b.css")
    home.serve("/static = static", static_send="x-accel-redirect /files", static_expires="1h")
    (files / "50%.css").write_text("half")
    got = home.ask("/static/a b.css")
    assert (got.status, got.body) == (200, b"")
    assert got.headers["x-accel-redirect"] == f"/files{files}/a%20b.css"
    assert home.ask("/static/50%.css").headers["x-accel-redirect"] == f"/files{files}/50%25.css"
    assert got.headers["content-type"] == "text/css; charset=utf-8"
    assert got.headers["cache-control"] == "max-age=3600"
    assert home.ask("/static/none").status == 404
    home.serve("/static = static", static_send="X-Sendfile")
    assert home.ask("/static/hello.css").headers["x-sendfile"] == f"{files}/hello.css"
    assert home.ask("/static/50%.css").text == "half", "front ends do not agree how this is said"
    assert home.ask("/static/link.css").text == "blank", "a front end may not follow what multisite follows"


def test_nobody_else_is_told_where_the_file_is(home: StaticHome, files: Path) -> None:
    home.serve("/static = static", static_send="x-sendfile")
    got = home.ask("/static/hello.css", REMOTE_ADDR="10.1.2.3")
    assert "x-sendfile" not in got.headers
    assert got.text == "a { color: red }"


# --- links and what else must not get out ---------------------------------------------------------------------------


@pytest.fixture
def canary(home: StaticHome, files: Path) -> Path:
    outside = home.path / "sites" / "a" / "outside"
    (outside / "deeper").mkdir(parents=True)
    (outside / "canary").write_text(CANARY)
    (files / "to-file").symlink_to(outside / "canary")
    (files / "to-folder").symlink_to("../outside")
    (files / "docs" / "up").symlink_to("../..")
    (files / "docs" / "up-again").symlink_to("up/outside")
    (files / "inside").symlink_to("docs/index.html")
    (files / "inside-folder").symlink_to("docs")
    (files / "inside-absolute").symlink_to(files / "docs" / "index.html")
    (files / "there-and-back").symlink_to("../static/docs/index.html")
    (files / "loop").symlink_to("loop")
    (files / "self").symlink_to(".")
    os.mkfifo(files / "fifo")
    return outside / "canary"


INSIDE = ["inside", "inside-folder/index.html", "inside-absolute", "self/docs/index.html", "self/self/docs/"]
OUTSIDE = ["to-file", "to-folder/canary", "docs/up/outside/canary", "docs/up-again/canary"]


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize(
    ("policy", "inside", "outside"),
    [("inside", True, False), ("none", False, False), ("owner", True, True), ("all", True, True)],
)
def test_links_are_followed_as_configured(
    home: StaticHome, canary: Path, policy: str, inside: bool, outside: bool, root: bool
) -> None:
    home.serve("/static = static", static_links=policy)
    served = StaticFiles(read_settled(home), Home(str(home.path)), root=root)

    def app(environ: Any, start_response: Any) -> Any:
        return served(environ, start_response)

    before = all_open()
    for path in INSIDE:
        assert (ask(app, "a.test", f"/static/{path}").status == 200) is inside, path
    for path in OUTSIDE:
        assert (CANARY in ask(app, "a.test", f"/static/{path}").text) is outside, path
    for path in ("loop", "loop/x", "fifo", "fifo/x", "to-file/x"):
        assert ask(app, "a.test", f"/static/{path}").status in (403, 404), path
    assert all_open() <= before


def test_a_link_of_somebody_else_is_refused_by_the_rule_of_owners(home: StaticHome, canary: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    files = home.path / "sites" / "a" / "static"
    os.lchown(files / "to-file", 12345, 12345)
    os.lchown(files / "to-folder", 12345, 12345)
    home.serve("/static = static", static_links="owner")
    assert home.ask("/static/to-file").status == 403
    assert home.ask("/static/to-folder/canary").status == 403
    os.chown(canary.parent, 12345, 12345)
    assert home.ask("/static/to-folder/canary").text == CANARY
    assert home.ask("/static/docs/up-again/canary").text == CANARY


def test_as_root_the_folder_itself_may_not_be_a_users_link_elsewhere(home: StaticHome, canary: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    location = home.path / "sites" / "a"
    (location / "current").symlink_to("outside")
    home.serve("/static = current\n/one = current/canary")
    assert home.ask("/static/canary").text == CANARY  # the link is root's own
    os.lchown(location / "current", 12345, 12345)
    assert home.ask("/static/canary").status == 403
    assert home.ask("/one").status == 403
    os.chown(canary.parent, 12345, 12345)
    assert home.ask("/static/canary").text == CANARY


def test_as_root_what_only_root_may_read_is_not_shown_in_a_users_folder(home: StaticHome, files: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    secret = home.path / "secret"
    secret.write_text(CANARY)
    secret.chmod(0o600)
    os.chown(files, 12345, 12345)
    os.link(secret, files / "secret")
    assert home.ask("/static/secret").status == 403
    os.chown(secret, 12345, 12345)
    assert home.ask("/static/secret").text == CANARY


def test_hidden_files_are_not_served_but_what_is_well_known(home: StaticHome, files: Path) -> None:
    for name in (".env", ".git/config", ".well-known/token", "docs/.well-known/x"):
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_text("dotted")
    home.serve("/ = static")
    for path, status in (
        ("/.env", 404),
        ("/.git/config", 404),
        ("/.well-known/token", 200),
        ("/docs/.well-known/x", 404),
    ):
        assert home.ask(path).status == status, path
    home.serve("/ = static", static_hidden="yes")
    assert home.ask("/.env").status == 200


@pytest.mark.parametrize("links", ["all", "inside", "owner", "none"])
@pytest.mark.parametrize("rule", ["/static = static", "/ = static", "check = static"])
def test_no_path_leads_out_where_names_with_dots_are_served(
    home: StaticHome, files: Path, links: str, rule: str
) -> None:
    """Names are looked at before anything is opened: with `all`, nothing else stands between a visitor and the disk."""
    (files.parent / "canary").write_text(CANARY)
    (files / "..x").write_text("two dots and more")
    home.serve(rule, static_hidden="yes", static_links=links)
    prefix = "" if rule.startswith(("/ ", "check")) else "/static"
    for path in (
        "/../canary",
        "/docs/../../canary",
        "/./../canary",
        "/docs/../../static/../canary",
        "/..",
        "/../",
        "/.",
    ):
        answer = home.ask(prefix + path)
        assert CANARY not in answer.text and answer.status in (404, 200)
        assert answer.status == 404 or answer.text == "app"
    assert home.ask(prefix + "/..x").text == "two dots and more"


def test_a_prefix_is_for_whole_names(home: StaticHome, files: Path) -> None:
    home.serve("/a/b = static")
    assert home.ask("/a/b/hello.css").status == 200
    for path in ("/a/bc", "/a/bc/hello.css", "/a/b.css", "/a/bhello.css", "/a"):
        assert home.ask(path).text == "app", path


PIECES = [
    "..", ".", "", "...", ". .", "..;", "..%00", "\x00", "%2e%2e", "%252e%252e", "..\\", "..\\..\\", "..%5c",
    "%c0%ae%c0%ae", "À®À®", "â\x80¥", "C:", "c:\\", "\\\\host\\share", "file:", "canary", "outside",
    "outside/canary", "static", "docs", "up", "up-again", "to-file", "to-folder", "self", "loop", "fifo",
    "inside-folder", "~", "~root", "*", "canary\x00.css", "canary%00.css", "proc", "self", "root", "etc", "passwd",
    "dev", "zero", "tty", "fd", "0", "a" * 255, "a" * 256, "x" * 5000, "‥", "\ud800", "CON", "NUL", "con.css",
    "canary.", "canary ", "canary::$DATA", "hello.css", ".git", ".htaccess", ".well-known", "\n", "\r\nX: y",
    "index.html", "'", '"', "|", ";", "$HOME", "`id`", "{..}",
]  # fmt: skip


@pytest.mark.parametrize("static", ["/static = static", "/ = static", "check = static", "/static = static, none"])
def test_no_hostile_path_gets_out(home: StaticHome, canary: Path, static: str) -> None:
    """10,000 generated paths in all; the canary beside the folder, which links in it lead to, is never in an answer."""
    chance = random.Random(static)
    home.serve(static)
    site = read_settled(home)
    before = all_open()
    seen = set()
    either = [StaticFiles(site, Home(str(home.path)), root=root) for root in (False, True)]
    for number in range(2_500):
        served = either[number % 2]
        parts = [chance.choice(PIECES) for _ in range(chance.randint(1, 9))]
        separator = chance.choice(["/", "/", "/", "//", "\\", "/./", "%2f"])
        path = chance.choice(["/static/", "/static", "/", ""]) + separator.join(parts) + chance.choice(["", "/"])
        answers: list[Any] = []
        environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "HTTP_ACCEPT_ENCODING": "gzip"}
        body = served(environ, lambda *told, into=answers: into.append(told))
        if body is None:
            continue
        content = b"".join(body)
        seen.add(answers[0][0][:3])
        assert b"canary:" not in content, path
        assert b"root:" not in content, path
        assert not any("\n" in value or "\r" in value for _, value in answers[0][1]), path
    assert seen <= {"200", "301", "403", "404"}
    assert all_open() <= before


@pytest.mark.parametrize("root", [False, True])
def test_links_put_in_place_between_look_and_use_lead_nowhere(home: StaticHome, canary: Path, root: bool) -> None:
    """A folder and a file are swapped for links to the canary, and back, while they are asked for."""
    files = home.path / "sites" / "a" / "static"
    (files / "swap").mkdir()
    (files / "swap" / "canary").write_text("harmless")
    (files / "file").write_text("harmless")
    (files / "way").symlink_to("swap")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for name, target in (("swap", "../outside"), ("file", "../outside/canary")):
                (files / name).rename(files / "kept")
                (files / name).symlink_to(target)
                (files / name).unlink()
                (files / "kept").rename(files / name)

    served = StaticFiles(read_settled(home), Home(str(home.path)), root=root)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = set()
        for number in range(4_000):
            path = ("/static/swap/canary", "/static/file", "/static/way/canary")[number % 3]
            body = served({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda *_: None)
            seen.add(b"".join(body or ()))
    finally:
        stop.set()
        thread.join()
    assert not [content for content in seen if b"canary:" in content]
    assert b"harmless" in seen


# --- pure parts -----------------------------------------------------------------------------------------------------


def test_a_path_is_split_into_names_or_refused() -> None:
    assert names("/a/b/") == [b"a", b"b"]
    assert names("") == names("/") == []
    for path in ("/a//b", "/./a", "/a/..", "/a\0b", "//", "/.x", "/a/.x", "/\u2025", "/" + "x" * 5000):
        assert names(path) is None, path
    assert names("/.x", hidden=True) == [b".x"]
    assert names("/..x/...", hidden=True) == [b"..x", b"..."]
    for path in ("/..", "/../x", "/a/../x", "/a/..", "/.", "/a/./b", "/a//b", "../x"):
        assert names(path, hidden=True) is None, path


def test_prefixes_with_and_without_a_final_slash_are_one() -> None:
    prefixes = Prefixes({"/a": ("x",), "/a/": ("y",), "/a/b": ("z",)})
    assert prefixes.find("/a/c") == ("/a", (b"x", b"y"))
    assert prefixes.find("/a/b/c") == ("/a/b", (b"z",))
    assert prefixes.find("/ab") is None
    assert prefixes.find("/a/bc") == ("/a", (b"x", b"y"))
    assert Prefixes({"/a/b": ("z",)}).find("/a/bc") is None


def test_nothing_is_sent_by_a_front_end_where_nothing_is_said() -> None:
    assert filerules.parse_sender("") is None
