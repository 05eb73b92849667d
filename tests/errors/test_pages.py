"""The pages that multisite answers with itself."""

from __future__ import annotations

import io
import json
import sys
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webtest import TestApp

from multisite import errors
from multisite.errors.pages import LONGEST_TEXT, TITLES, Page, error_page, for_error, redirect

LOCAL = {"REMOTE_ADDR": "127.0.0.1"}


def client(page: Page, **environ: str) -> TestApp:
    # webtest's lint needs no second validator; wsgiref's is the one the standard library documents
    return TestApp(validator(page), extra_environ=environ, lint=False)


def get(page: Page, accept: str = "", method: str = "GET", **environ: str):
    headers = {"Accept": accept} if accept else {}
    return client(page, **environ).request("/", method=method, headers=headers, expect_errors=True)


def test_a_browser_gets_a_small_html_page_that_loads_nothing():
    answer = get(error_page(404), "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
    assert (answer.status, answer.content_type, answer.charset) == ("404 Not Found", "text/html", "utf-8")
    assert len(answer.body) <= 2048
    assert '<html lang="en">' in answer.text and 'name="viewport"' in answer.text
    assert "http:" not in answer.text and "src=" not in answer.text


@pytest.mark.parametrize("status", sorted(TITLES))
def test_each_status_has_a_title_a_text_and_headers_that_keep_it_out_of_caches(status):
    answer = get(error_page(status))
    assert answer.status_int == status
    assert all(part in answer.text for part in TITLES[status])
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert int(answer.headers["Content-Length"]) == len(answer.body)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text/html"),
        ("*/*", "text/html"),
        ("text/*", "text/html"),
        ("application/json", "application/json"),
        ("application/json, text/html;q=0.9", "application/json"),
        ("text/html, application/json;q=0.9", "text/html"),
        ("text/plain", "text/plain"),
        ("image/png", "text/html"),
        (";;;,q=,", "text/html"),
    ],
)
def test_accept_chooses_the_form_of_the_page(accept, expected):
    assert get(error_page(404), accept).content_type == expected


def test_json_has_status_title_text_and_incident():
    answer = get(error_page(500, "Oh", "No", incident="3fa9c1d2"), "application/json")
    assert answer.json == {"status": 500, "title": "Oh", "text": "No", "incident": "3fa9c1d2"}


def test_plain_text_is_made_of_lines():
    answer = get(error_page(500, "Oh", "No", incident="3fa9c1d2", detail="line"), "text/plain", **LOCAL)
    assert answer.text == "500 Oh\nNo\nincident 3fa9c1d2\nline\n"


def test_head_gets_the_headers_of_get_and_no_body():
    page = error_page(503, retry_after=5)
    head, full = get(page, method="HEAD"), get(page)
    assert head.body == b""
    assert head.headers["Content-Length"] == full.headers["Content-Length"]
    assert head.headers["Retry-After"] == "5"


def test_what_a_page_shows_is_escaped():
    hostile = "<script>alert('x')</script>&"
    answer = get(error_page(404, hostile, hostile, incident=hostile, detail=hostile), **LOCAL)
    assert "<script" not in answer.text
    assert answer.text.count("&lt;script&gt;") == 5  # the title stands twice


def test_further_headers_are_sent():
    answer = get(error_page(405, headers=[("Allow", "GET, HEAD")]))
    assert answer.headers["Allow"] == "GET, HEAD"
    assert "Not allowed" in answer.text


def test_a_status_without_a_name_is_an_error_all_the_same():
    assert get(error_page(599)).status == "599 Error"


@pytest.mark.parametrize("error", [errors.BadHost, errors.UnknownHost, errors.SiteBusy, errors.NeedsProcess])
def test_reasons_for_visitors_are_shown(error):
    page = for_error(error("the host foo is odd"))
    assert page.status == error.status
    assert page.text.casefold().endswith("the host foo is odd.")
    assert dict(page.headers).get("Retry-After") == (str(error.retry_after) if error.retry_after else None)


def test_a_site_that_cannot_be_reached_is_no_bad_answer() -> None:
    """Both are 502, and a visitor is told which; the address of the upstream is not theirs to know."""
    reached, nonsense = (
        for_error(errors.ConnectFailed("10.0.0.5:80: refused")),
        for_error(errors.UpstreamProtocolError("x")),
    )
    assert (reached.status, reached.title, nonsense.status, nonsense.title) == (502, "Not reachable", 502, "Bad answer")
    assert "10.0.0.5" not in reached.text


def unusable(reason: str) -> errors.ConfigError:
    return errors.ConfigError(errors.Problem("MS111", "/etc/moya/moya.conf", reason))


@pytest.mark.parametrize("error", [errors.AppLoadError, errors.BrokenSite, errors.MultisiteError, unusable])
def test_reasons_that_may_name_files_are_not_shown(error):
    page = for_error(error("/srv/secret/app.py is odd"), incident="3fa9c1d2")
    for accept in ("text/html", "application/json", "text/plain"):
        body = get(page, accept).text
        assert "secret" not in body
        assert "3fa9c1d2" in body


def test_detail_is_shown_to_this_machine_alone():
    page = for_error(errors.AppLoadError("x"), detail="/srv/app.py")
    assert "/srv/app.py" in get(page, **LOCAL).text
    for environ in ({}, {"REMOTE_ADDR": "10.0.0.1"}, {**LOCAL, "HTTP_X_FORWARDED_FOR": "127.0.0.1"}):
        assert "/srv/app.py" not in get(page, **environ).text


def test_a_reason_that_quotes_ten_thousand_characters_is_cut():
    assert len(for_error(errors.UnknownHost("x" * 10_000)).text) <= LONGEST_TEXT + 2


@pytest.mark.parametrize("status", [301, 308])
def test_a_redirect_says_where(status):
    answer = get(redirect("https://blog.example.com/a%20b?x=1&y=2", status))
    assert (answer.status_int, answer.location) == (status, "https://blog.example.com/a%20b?x=1&y=2")
    assert 'href="https://blog.example.com/a%20b?x=1&amp;y=2"' in answer.text


def test_a_redirect_cannot_smuggle_a_header():
    answer = get(redirect("http://x/\r\nSet-Cookie: a=b/é"))
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Location"].startswith("http://x/%0D%0ASet-Cookie:%20a=b/%C3%A9")


def start(page: Page, start_response, exc_info=None):
    environ: dict = {}
    setup_testing_defaults(environ)
    return page(environ, start_response, exc_info)


def test_exc_info_is_given_to_the_server_which_raises_it_when_the_head_was_sent():
    def start_response(status, headers, exc_info=None):
        raise exc_info[1]

    try:
        raise KeyError("too late")
    except KeyError:
        with pytest.raises(KeyError, match="too late"):
            start(error_page(500), start_response, sys.exc_info())


@given(st.text(), st.text(st.characters(blacklist_categories=["Cs"])) | st.just("\udcff"))
def test_no_accept_value_and_no_text_breaks_a_page(accept, text):
    media_type, body = error_page(500, text or "x", text).render(accept)
    assert media_type in ("text/html", "application/json", "text/plain")
    body.decode("utf-8")
    if media_type == "application/json":
        assert json.load(io.BytesIO(body))["status"] == 500


def test_links_are_escaped_and_for_this_machine_alone():
    page = Page(404, "Not found", "No site.", links=(("<b>x", 'http://x"><script>'),))
    answer = get(page, **LOCAL)
    assert "<script>" not in answer.text and "<b>x" not in answer.text and "&lt;b&gt;x" in answer.text
    assert "script" in get(page, "text/plain", **LOCAL).text
    assert json.loads(get(page, "application/json", **LOCAL).text)["sites"][0]["name"] == "<b>x"
    for accept in ("text/html", "text/plain", "application/json"):
        assert "script" not in get(page, accept, REMOTE_ADDR="10.0.0.1").text
