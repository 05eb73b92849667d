"""Many threads in one worker: imports are done once, and nobody waits for another site's."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from multisite.sites.claims import DJANGO
from tests.homes import HELLO, TestHome

PATIENCE = 60  # seconds after which a test that waits has failed


@pytest.fixture
def home(tmp_path: Path) -> Iterator[TestHome]:
    home = TestHome(tmp_path)
    yield home
    for site in list(home.service._sites.values()):
        site.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that a site's import waits for (as ``sys.gate``)."""
    event = threading.Event()
    sys.gate, sys.entered = event, threading.Event()  # type: ignore[attr-defined]
    yield event
    event.set()
    del sys.gate, sys.entered  # type: ignore[attr-defined]


SLOW = "import sys\nsys.entered.set()\nassert sys.gate.wait(60)\n"


def test_many_first_requests_import_once(home: TestHome) -> None:
    counted = f"open({str(home.path / 'imports')!r}, 'a').write('x')\n" + HELLO.format(text="a")
    home.code("a", app=counted)
    home.ini("a")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: home.get("a.test").text, range(64)))
    assert set(answers) == {"a"}
    assert (home.path / "imports").read_text() == "x"


def test_a_hanging_import_holds_up_no_other_site(home: TestHome, gate: threading.Event) -> None:
    home.hello("known")
    assert home.get("known.test").text == "known"
    home.code("slow", app=SLOW + HELLO.format(text="slow"))
    home.ini("slow")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(home.get, "slow.test")
        assert sys.entered.wait(PATIENCE)  # type: ignore[attr-defined]
        home.hello("new")
        home.later()
        assert home.get("known.test").text == "known"
        assert home.get("new.test").text == "new"
        assert not waiting.done()
        gate.set()
        assert waiting.result(PATIENCE).text == "slow"


def test_who_waits_too_long_for_an_import_is_told_to_come_back(home: TestHome, gate: threading.Event) -> None:
    home.code("slow", app=SLOW + HELLO.format(text="slow"))
    home.ini("slow", start_timeout="0.1")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(home.get, "slow.test")
        assert sys.entered.wait(PATIENCE)  # type: ignore[attr-defined]
        answer = home.get("slow.test")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        gate.set()
        assert waiting.result(PATIENCE).text == "slow"


def test_the_old_application_answers_while_the_new_one_is_imported(home: TestHome, gate: threading.Event) -> None:
    home.hello("a")
    assert home.get("a.test").text == "a"
    home.code("a", app=SLOW + HELLO.format(text="new"))
    home.ini("a")
    home.later()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(home.get, "a.test")
        assert sys.entered.wait(PATIENCE)  # type: ignore[attr-defined]
        assert home.get("a.test").text == "a"
        gate.set()
        assert waiting.result(PATIENCE).text == "new"
    assert home.get("a.test").text == "new"


def test_a_site_that_is_removed_while_asked_for_is_not_imported_again(home: TestHome) -> None:
    home.hello("a")
    assert home.get("a.test").text == "a"
    site = home.service._sites[("a", "")]
    home.disable("a")
    home.later()
    assert home.get("b.test").status == 404
    got: list[str] = []
    site.app({"REQUEST_METHOD": "GET"}, lambda status, headers, exc_info=None: got.append(status))  # type: ignore[misc]
    assert got == ["404 Not Found"]
    assert site._generation is None


def test_removing_a_site_does_not_wait_for_its_import(home: TestHome, gate: threading.Event) -> None:
    home.hello("known")
    home.code("slow", app=SLOW + HELLO.format(text="slow"), extra="")
    home.ini("slow")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(home.get, "slow.test")
        assert sys.entered.wait(PATIENCE)  # type: ignore[attr-defined]
        slow = home.service._sites[("slow", "")]
        home.disable("slow")
        home.later()
        assert home.get("slow.test").status == 404
        assert home.get("known.test").text == "known"
        gate.set()
        assert waiting.result(PATIENCE).text == "slow"  # it was accepted while the site was there
    assert slow._generation is None
    assert "extra" not in sys.modules


def test_answers_are_never_crossed(home: TestHome) -> None:
    """Sites with modules of their own, asked by many threads, with sites coming and going meanwhile."""
    for n in range(8):
        home.code(f"s{n}", **{f"main{n}": f"from part{n} import application", f"part{n}": HELLO.format(text=f"s{n}")})
        home.ini(f"s{n}", application=f"main{n}:application")

    def ask(n: int) -> bool:
        if n % 50 == 0:
            home.hello(f"extra{n}")
            home.later()
        return home.get(f"s{n % 8}.test").text == f"s{n % 8}"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(2000)))


def test_django_is_reloaded_with_all_that_refers_to_it(home: TestHome, own_django: None) -> None:
    """Settings, routes and applications that Django keeps for itself are those of the new generation."""
    pytest.importorskip("django")
    settings = "SECRET_KEY = 'x'\nROOT_URLCONF = 'dj_urls'\nALLOWED_HOSTS = ['*']\nWORD = {!r}\n"
    urls = """
        from django.conf import settings
        from django.http import HttpResponse
        from django.urls import path
        urlpatterns = [path("", lambda request: HttpResponse(settings.WORD, content_type="text/plain"))]
    """
    home.code("dj", dj_settings=settings.format("one"), dj_urls=urls)
    home.ini("dj", application="django:dj_settings")
    home.code("other", oth_settings=settings.format("other"), oth_urls=urls)
    home.ini("other", application="django:oth_settings")
    assert home.get("dj.test").text == "one"
    assert DJANGO in home.service._sites[("dj", "")]._generation.names
    second = home.get("other.test")
    assert second.status == 503
    assert "second Django project" in second.text
    home.code("dj", dj_settings=settings.format("two"))
    home.ini("dj", application="django:dj_settings", idle_timeout="1h")
    home.later()
    assert home.get("dj.test").text == "two"
