"""Wrong tokens: how many an address may show, what is refused then, and what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from multisite.config.model import Home
from multisite.config.sections import ServiceOptions
from multisite.sites.statefile import StateFile
from multisite.status.web.attempts import (
    KIND,
    MOST,
    MOST_CLIENTS,
    MOST_OF_ALL,
    WINDOW,
    Attempts,
    TooManyAttempts,
    one_more,
    wait,
)

from .rows import NOW, document, row
from .test_page import TOKEN, Visit

FAR = {"REMOTE_ADDR": "203.0.113.9"}
ELSEWHERE = {"REMOTE_ADDR": "203.0.113.10"}
RIGHT, WRONG = f"Bearer {TOKEN}", "Bearer x"


@pytest.fixture
def worker(tmp_path: Path) -> Callable[[], Attempts]:
    """Makes what one worker has."""
    home = Home(str(tmp_path), str(tmp_path / "moya.conf"), service=ServiceOptions(state_dir=str(tmp_path / "state")))
    return lambda: Attempts(StateFile(home, KIND, guides_us=True))


def test_an_address_with_many_wrong_tokens_has_to_wait_whatever_it_shows(caplog: pytest.LogCaptureFixture) -> None:
    """By the form, by the header and for the stream alike; with the right token elsewhere, nobody notices."""
    now = [NOW]
    visit = Visit(document(row("blog")), clock=lambda: now[0])
    ways = [
        lambda: visit("/login", {"token": "x"}, **FAR),
        lambda: visit("/", **FAR, HTTP_AUTHORIZATION=WRONG),
        lambda: visit("/events", **FAR, HTTP_AUTHORIZATION=WRONG),
    ]
    assert [ways[number % 3]().status for number in range(MOST)] == [401] * MOST
    for right in (visit("/login", {"token": TOKEN}, **FAR), visit("/metrics", **FAR, HTTP_AUTHORIZATION=RIGHT)):
        assert (right.status, right.headers["Retry-After"]) == (429, str(int(WINDOW)))
        assert "Set-Cookie" not in right.headers and "blog" not in right.text
    assert [way().status for way in ways] == [429] * 3
    assert caplog.text.count("refused for the next") == 1 and caplog.text.count("a wrong token from") == MOST
    assert visit("/", **ELSEWHERE, HTTP_AUTHORIZATION=RIGHT).status == 200
    assert visit("/").status == 200
    assert visit("/", **FAR).status == 401  # the form, without a token
    now[0] += WINDOW
    assert visit("/", **FAR, HTTP_AUTHORIZATION=RIGHT).status == 200


def test_who_is_signed_in_stays_so() -> None:
    visit = Visit(document(row("blog")))
    cookie = visit("/login", {"token": TOKEN}, **FAR).headers["Set-Cookie"].partition(";")[0]
    for _ in range(MOST + 1):
        visit("/login", {"token": "x"}, **FAR)
    assert visit("/", **FAR, HTTP_COOKIE=cookie).status == 200


def test_behind_a_front_end_each_client_counts_for_itself() -> None:
    visit = Visit(document(row("blog")))
    for _ in range(MOST):
        visit("/", HTTP_X_FORWARDED_FOR="203.0.113.9", HTTP_AUTHORIZATION=WRONG)
    shown = {"HTTP_AUTHORIZATION": RIGHT}
    assert visit("/", HTTP_X_FORWARDED_FOR="203.0.113.9", **shown).status == 429
    assert visit("/", HTTP_X_FORWARDED_FOR="203.0.113.10", **shown).status == 200


def test_all_workers_count_together(worker: Callable[[], Attempts]) -> None:
    several = [worker() for _ in range(3)]
    for number in range(MOST):
        assert not several[number % 3].judge("203.0.113.9", False, NOW)
    for one in (*several, worker()):
        with pytest.raises(TooManyAttempts) as caught:
            one.judge("203.0.113.9", True, NOW + 1)
        assert caught.value.retry_after == WINDOW - 1
        assert one.judge("203.0.113.10", True, NOW + 1)


def test_the_addresses_of_one_subscriber_count_together() -> None:
    attempts = Attempts()
    for number in range(MOST):
        attempts.judge(f"2001:db8::{number:x}", False, NOW)
    with pytest.raises(TooManyAttempts):
        attempts.judge("2001:db8::ffff", True, NOW)
    assert attempts.judge("2001:db8:0:1::1", True, NOW)


def test_while_many_guess_each_has_one_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """Who has shown no wrong token is let in by the right one all the time."""
    attempts = Attempts()
    for number in range(MOST_OF_ALL):
        attempts.judge(f"10.0.0.{number}", False, NOW)
        assert attempts.judge("203.0.113.9", True, NOW)
    with pytest.raises(TooManyAttempts):
        attempts.judge("10.0.0.1", True, NOW)
    assert not attempts.judge("203.0.113.10", False, NOW)
    with pytest.raises(TooManyAttempts):
        attempts.judge("203.0.113.10", True, NOW)
    assert caplog.text.count("each address has one attempt") == 1


def test_what_is_remembered_has_a_bound() -> None:
    known: dict[str, tuple[int, float]] = {}
    for number in range(MOST_CLIENTS + 10):
        known = one_more(known, str(number), NOW + number)
    assert len(known) == MOST_CLIENTS and "9" not in known and wait(known, "10", NOW + number)


def test_a_disk_that_keeps_nothing_does_not_open_the_page(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    home = Home(str(tmp_path), str(tmp_path / "moya.conf"), service=ServiceOptions(state_dir=str(tmp_path / "state")))
    attempts = Attempts(StateFile(home, KIND, guides_us=True))
    for _ in range(MOST):
        attempts.judge("203.0.113.9", False, NOW)
    with pytest.raises(TooManyAttempts):
        attempts.judge("203.0.113.9", True, NOW)


@pytest.mark.parametrize("told", ["[]", "{", '{"203.0.113.9": 1}', '{"203.0.113.9": ["x", 1]}'])
def test_nonsense_on_the_disk_counts_as_nothing(worker: Callable[[], Attempts], told: str) -> None:
    attempts = worker()
    attempts.judge("203.0.113.9", False, NOW)
    assert attempts._file
    with open(attempts._file.path, "w") as file:
        file.write(told)
    os.chmod(attempts._file.path, 0o600)
    assert attempts.judge("203.0.113.9", True, NOW)
