"""The pages: what they show, to whom, and what their buttons refuse; over invented figures and a real small home."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlencode
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from multisite.config.trusted import TrustedProxies
from multisite.logs.past import Past
from multisite.status.page import StatusPage
from multisite.status.web.admission import Admission
from multisite.status.web.attempts import Attempts
from multisite.status.web.incidentpage import of_rows
from multisite.status.web.markup import Html
from multisite.status.web.sparkline import level, sparkline

from .rows import HOSTILE, NOW, document, failure, many, row

LIMIT = 150 * 1024
TOKEN = "a secret of many letters"


class Invented:
    """Figures that nobody has measured; `done` is what the buttons asked the supervisor for."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.more: dict[str, Any] = {}
        self.done: list[tuple[str, dict[str, Any]]] = []

    def document(self) -> dict[str, Any]:
        return self.told

    def detail(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"settings": [("domains", "a.org", "sites/a.ini:2")], "lines": ["a line"], **self.more}

    def curve(self, row: dict[str, Any]) -> Html:
        return sparkline([1, 5, 2] * 20, [0, 1, 0] * 20, "the last hour")

    def incident(self, incident: str) -> dict[str, Any] | None:
        return of_rows(self.told["sites"], incident)

    def inventory(self) -> Any:
        subject = self

        class Entry:
            path = "/nowhere/blog.ini"

        class Catalogue:
            def __init__(self) -> None:
                self.entries = {"blog": Entry()}

        class Home:
            catalogue = Catalogue()

            def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
                subject.done.append((command, arguments))
                return {"done": "stopping"}

        return Home()


class Reply:
    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = int(status[:3]), dict(headers), body
        self.text = body.decode()


class Visit:
    """Asks a `StatusPage` as a browser on this machine does, unless `more` says otherwise."""

    def __init__(
        self,
        told: dict[str, Any],
        token: str = TOKEN,
        has_buttons: bool = False,
        attempts: Attempts | None = None,
        clock: Callable[[], float] = lambda: NOW,
    ) -> None:
        self.subject = Invented(told)
        admission = Admission(token, "key", TrustedProxies(["127.0.0.1", "unix"]), attempts=attempts)
        self.page = StatusPage(self.subject, admission, has_buttons, clock=clock)

    def __call__(self, address: str = "/", form: dict[str, str] | None = None, **more: str) -> Reply:
        path, _, query = address.partition("?")
        environ: dict[str, Any] = {
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "127.0.0.1",
        }
        setup_testing_defaults(environ)
        if form is not None:
            body = urlencode(form).encode()
            environ |= {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
            environ["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
        environ.update(more)
        forwarded = "HTTP_X_FORWARDED_FOR" in environ
        got: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
            got[:] = [status, headers]
            return lambda data: None

        checked = validator(lambda env, start: self.page.answer(env, start, forwarded))
        result = checked(environ, start_response)
        try:
            body = b"".join(result)
        finally:
            result.close()  # type: ignore[attr-defined]
        return Reply(got[0], got[1], body)


class Elements(HTMLParser):
    """The elements of a page, and what it would run or load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def assert_harmless(self) -> None:
        for tag, attributes in self.found:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
            assert tag not in ("img", "iframe", "object", "style", "base"), tag
            if tag == "script":
                assert attributes["src"] == "/status.js"
            assert (attributes.get("href") or "/").startswith(("/", "#", "data:,")), attributes


@pytest.mark.parametrize("path", ["/", "/site/blog", "/incident/c0ffee42"])
def test_a_page_loads_nothing_but_its_own_files(path: str) -> None:
    reply = Visit(document(row("blog", state="broken", failure=failure())))(path)
    assert reply.status == 200
    assert "script-src 'self'" in reply.headers["Content-Security-Policy"]
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    Elements(reply.text).assert_harmless()


def test_first_comes_what_needs_somebody() -> None:
    told = document(
        row("fine", state="running"),
        row("old", failure=failure("a syntax error", serving=True)),
        row("blog", state="broken", failure=failure()),
    )
    text = Visit(told)().text
    assert "Needs you (2)" in text
    blog, old, table = text.index("it needs the module flask"), text.index("a syntax error"), text.index("<table")
    assert blog < old < table
    assert "pip install flask" in text and '<a href="/incident/c0ffee42">' in text
    assert "Nothing needs you" in Visit(document(row("fine")))().text


def test_filter_order_and_page_are_in_the_address() -> None:
    visit = Visit(many(250))
    first = re.findall(r'data-site="([^"]+)"', visit("/?sort=name").text)
    assert first == [f"customer-{number:04}" for number in range(100)]
    assert re.findall(r'data-site="([^"]+)"', visit("/?sort=-name&page=3").text)[-1] == "customer-0000"
    assert re.findall(r'data-site="([^"]+)"', visit("/?q=CUSTOMER-0042").text) == ["customer-0042"]
    running = visit("/?kind=running&sort=-memory").text
    assert 'aria-sort="descending"' in running and "broken</span>" not in running
    for odd in (
        "/?page=0",
        "/?page=-1",
        "/?page=99999999999",
        "/?sort=;drop",
        "/?kind=%00",
        f"/?q={'x' * 3000}",
        "/?%ff",
    ):
        assert visit(odd).status == 200


def test_a_thousand_sites_fit_into_150_kib() -> None:
    visit = Visit(many(1000))
    for path in ("/", "/?kind=failed", "/?page=7", "/status.json", "/status.csv", "/site/customer-0001"):
        assert len(visit(path).body) <= LIMIT, path


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_what_does_not_fit_is_on_the_next_part(kind: str) -> None:
    visit, address, names = Visit(many(1000)), f"/status.{kind}", []
    while address:
        reply = visit(address)
        assert len(reply.body) <= LIMIT
        rows = json.loads(reply.text)["sites"] if kind == "json" else list(csv.DictReader(io.StringIO(reply.text)))
        names += [each["name"] for each in rows]
        address = (re.findall(r"<(.*)>", reply.headers.get("Link", "")) or [""])[0]
    assert names == [f"customer-{number:04}" for number in range(1000)]


def test_a_small_home_has_its_whole_document() -> None:
    told = document(row("blog"))
    assert json.loads(Visit(told)("/status.json").text) == told


def test_what_a_site_went_through_is_on_its_page() -> None:
    visit = Visit(document(row("blog", deploy={"number": 4, "cause": "restart", "state": "trying"})))
    steps = [{"step": "start up", "seconds": 0.3}]
    start = {
        "kind": "cold",
        "at": NOW,
        "outcome": "ready",
        "seconds": 0.3,
        "way": "forked",
        "failure": "",
        "incident": "",
    }
    failed = {**start, "outcome": "failed", "failure": "it exited", "incident": "c0ffee42"}
    deploy = {"at": NOW, "cause": "reload", "outcome": "done", "seconds": 2.0, "failure": "", "incident": ""}
    split = {"queued": 0.01, "relay": None, "app": 1.5}
    slow = {"at": NOW, "method": "GET", "path": "/report", "status": 200, "seconds": 1.51, "split": split}
    starts = [{**one, "steps": steps} for one in (failed, *[start] * 19)]
    visit.subject.more = {"past": Past(starts, [deploy], [slow])}
    text = visit("/site/blog").text
    assert text.count("start up 300ms") == 20 and text.count("✔ ready") == 19
    assert "✖ failed: it exited" in text and '<a href="/incident/c0ffee42">' in text
    assert "A restart is under way" in text and "✔ done" in text
    assert "/report" in text and "queued 10ms, app 1.5s" in text


def hostile() -> Visit:
    problem = {"reason": HOSTILE, "remedy": HOSTILE, "severity": "error", "key": HOSTILE}
    odd = row(
        HOSTILE,
        domains=[HOSTILE],
        state="broken",
        reason=HOSTILE,
        location=HOSTILE,
        problems=[problem],
        failure=failure(HOSTILE, incident=HOSTILE, remedy=HOSTILE, output=[HOSTILE]),
        requests_in_flight=[{"method": HOSTILE, "path": HOSTILE, "age": 1.0}],
        backends=[{"pid": 1, "state": "running", "seconds": 1.0, "reason": HOSTILE}],
        journey={"steps": [{"step": HOSTILE, "seconds": 1.0}], "failure": HOSTILE, "output": [HOSTILE], "way": HOSTILE},
        deploy={"number": 1, "cause": HOSTILE, "state": "failed", "failure": HOSTILE, "version": NOW},
    )
    visit = Visit(document(odd, row("\udcff")), has_buttons=True)
    start = {"kind": HOSTILE, "at": NOW, "outcome": "failed", "seconds": 1.0, "way": HOSTILE, "failure": HOSTILE}
    start |= {"incident": HOSTILE, "steps": [{"step": HOSTILE, "seconds": 1.0}]}
    deploy = {"at": NOW, "cause": HOSTILE, "outcome": "failed", "seconds": 1.0, "failure": HOSTILE, "incident": HOSTILE}
    slow = {"at": NOW, "method": HOSTILE, "path": HOSTILE, "status": 200, "seconds": 1.0, "split": {HOSTILE: 1.0}}
    visit.subject.more = {
        "past": Past([start], [deploy], [slow]),
        "lines": [HOSTILE] * 3,
        "settings": [(HOSTILE, HOSTILE, HOSTILE)],
        "started": HOSTILE,
    }
    return visit


@pytest.mark.parametrize(
    "path",
    ["/", f"/?q={quote(HOSTILE)}", "/site/{}", "/site/{}?ask=stop", "/incident/{}", "/{}", "/incident/none{}"],
)
def test_hostile_names_paths_and_lines_do_nothing(path: str) -> None:
    reply = hostile()(path.replace("{}", HOSTILE.encode().decode("latin-1")))
    Elements(reply.text).assert_harmless()
    assert "<script>alert" not in reply.text
    assert not set(reply.text) & {"\x1b", "\u202e"}


def test_no_cell_of_the_csv_is_a_formula() -> None:
    names = ("=1+1", "+1", "-1", "@x", "  =1", "\t=1", "a\r\n=1", HOSTILE)
    reply = Visit(document(*(row(name, domains=[name]) for name in names)))("/status.csv")
    read = list(csv.reader(io.StringIO(reply.text)))
    assert len(read) == len(names) + 1  # no line of a name begins another row
    for cells in read[1:]:
        assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]


def test_a_site_shows_the_life_of_its_process() -> None:
    text = Visit(document(row("blog", state="backoff", failure=failure())))("/site/blog").text
    assert text.count('class="now"') == 1 and "● backoff" in text and "now it is backoff" in text


@pytest.mark.parametrize("path", ["/nothing", "/site/", "/site/none", "/incident/none", "/metrics", "/static/x"])
def test_what_is_not_there_is_a_404(path: str) -> None:
    assert Visit(document(row("blog")))(path).status == 404


def test_other_methods_are_refused() -> None:
    reply = Visit(document(row("blog")))("/", REQUEST_METHOD="DELETE")
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD, POST")
    head = Visit(document(row("blog")))("/", REQUEST_METHOD="HEAD")
    assert (head.status, head.body) == (200, b"") and int(head.headers["Content-Length"]) > 1000


# Who may see them


@pytest.mark.parametrize("path", ["/", "/site/blog", "/status.json", "/status.csv", "/events", "/incident/c0ffee42"])
@pytest.mark.parametrize("more", [{"REMOTE_ADDR": "203.0.113.9"}, {"HTTP_X_FORWARDED_FOR": "127.0.0.1"}])
def test_others_have_to_know_the_token(path: str, more: dict[str, str]) -> None:
    visit = Visit(document(row("blog", failure=failure())))
    for sent in ({}, {"HTTP_AUTHORIZATION": "Bearer wrong"}, {"HTTP_COOKIE": "multisite_status=9999999999.x"}):
        reply = visit(path, **more, **sent)
        assert reply.status == 401 and "blog.example" not in reply.text
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    if path != "/events":
        assert visit(path, **more, HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status == 200


def test_without_a_token_nobody_else_gets_in() -> None:
    visit = Visit(document(row("blog")), token="")
    assert visit("/", REMOTE_ADDR="203.0.113.9").status == 403
    for sent in ("Bearer ", "Bearer", "bearer \x00"):
        assert visit("/", REMOTE_ADDR="203.0.113.9", HTTP_AUTHORIZATION=sent).status == 403
    assert visit("/login", {"token": ""}, REMOTE_ADDR="203.0.113.9").status == 403


def test_the_form_gives_a_cookie_that_no_other_site_can_use() -> None:
    visit, far = Visit(document(row("blog"))), {"REMOTE_ADDR": "203.0.113.9"}
    wrong = visit("/login", {"token": "x"}, **far)
    assert wrong.status == 401 and "Set-Cookie" not in wrong.headers
    reply = visit("/login", {"token": TOKEN, "to": "/site/blog"}, **far)
    assert (reply.status, reply.headers["Location"]) == (303, "/site/blog")
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    assert visit("/", **far, HTTP_COOKIE=cookie.partition(";")[0]).status == 200
    assert "Secure" in visit("/login", {"token": TOKEN}, **far, **{"wsgi.url_scheme": "https"}).headers["Set-Cookie"]


@pytest.mark.parametrize(
    "to", ["//evil.test", "https://evil.test/", "/\\evil.test", "/a\r\nSet-Cookie: x=1", "javascript:x"]
)
def test_the_form_leads_to_no_other_host(to: str) -> None:
    assert Visit(document())("/login", {"token": TOKEN, "to": to}).headers["Location"] == "/"


# Buttons

SAME = {"HTTP_SEC_FETCH_SITE": "same-origin"}


def test_there_are_no_buttons_unless_they_are_turned_on() -> None:
    visit = Visit(document(row("blog")))
    assert "ask=" not in visit("/site/blog").text + visit("/").text
    assert visit("/site/blog", {"do": "stop"}, **SAME).status == 403 and not visit.subject.done


def test_a_button_asks_before_it_acts(caplog: pytest.LogCaptureFixture) -> None:
    visit = Visit(document(row("blog")), has_buttons=True)
    assert "/site/blog?ask=stop" in visit("/site/blog").text
    asked = visit("/site/blog?ask=stop").text
    assert 'method="post"' in asked and "Stop now" in asked and not visit.subject.done
    done = visit("/site/blog", {"do": "stop"}, **SAME)
    assert done.status == 200 and "stopping" in done.text
    assert visit.subject.done == [("stop", {"site": "blog"})]
    assert "stop of blog by 127.0.0.1" in caplog.text


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", ""])
def test_a_form_of_another_site_is_refused(site: str) -> None:
    visit = Visit(document(row("blog")), has_buttons=True)
    form_token = re.findall(r'name="form" value="([^"]+)"', visit("/site/blog?ask=stop").text)[0]
    form = {"do": "stop", "form": form_token}
    assert visit("/site/blog", form, HTTP_SEC_FETCH_SITE=site).status == 403
    assert visit("/site/blog", form, HTTP_SEC_FETCH_SITE=site, HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status == 403
    assert not visit.subject.done


def test_a_browser_that_does_not_say_so_sends_the_secret_of_the_form() -> None:
    visit = Visit(document(row("blog")), has_buttons=True)
    other = Admission(TOKEN, "another key", TrustedProxies([])).form_token(NOW)
    for wrong in ("", "x", other, "1.0"):
        assert visit("/site/blog", {"do": "stop", "form": wrong}).status == 403
    form_token = re.findall(r'name="form" value="([^"]+)"', visit("/site/blog?ask=stop").text)[0]
    assert visit("/site/blog", {"do": "stop", "form": form_token}).status == 200
    assert visit("/site/blog", {"do": "stop"}, HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status == 200
    assert len(visit.subject.done) == 2


def test_a_cookie_is_no_secret_of_a_form() -> None:
    visit = Visit(document(row("blog")), has_buttons=True)
    cookie = visit("/login", {"token": TOKEN}).headers["Set-Cookie"].partition(";")[0]
    value = cookie.partition("=")[2]
    far = {"REMOTE_ADDR": "203.0.113.9", "HTTP_COOKIE": cookie}
    assert visit("/site/blog", {"do": "stop", "form": value}, **far).status == 403
    assert not visit.subject.done


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/site/none", {"do": "stop"}),
        ("/site/blog", {"do": "rm"}),
        ("/", {"do": "stop"}),
        ("/site/off", {"do": "stop"}),
    ],
)
def test_nothing_else_can_be_done(path: str, form: dict[str, str]) -> None:
    visit = Visit(document(row("blog"), row("off", enabled=False)), has_buttons=True)
    assert visit(path, form, **SAME).status == 404 and not visit.subject.done


def test_large_forms_are_not_read() -> None:
    visit = Visit(document(row("blog")), has_buttons=True)
    assert visit("/site/blog", {"do": "stop", "more": "x" * 5000}, **SAME).status == 404
    assert visit("/site/blog", {"do": "stop"}, **SAME, CONTENT_TYPE="text/plain").status == 404


def test_memory_that_nobody_has_measured_is_a_gap_and_no_nought() -> None:
    drawn = level([0.0, 50.0, 100.0, 0.0, 100.0, 0.0], "at most 100 bytes")
    assert 'd="M20,10h0L40,0M80,0h0"' in drawn
    assert 'aria-label="at most 100 bytes"' in drawn
    assert level([0.0, 0.0], "nothing") == level([], "nothing") == ""
