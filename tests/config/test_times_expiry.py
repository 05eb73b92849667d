"""When a site's time is over, out of what its file says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from multisite.config.times import end_of, is_near, parse_end
from multisite.config.values import duration, expiry


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def local(*parts: int) -> float:
    return time.mktime((*parts, *([0] * (6 - len(parts))), 0, 0, -1))  # type: ignore[arg-type]


def ends(text: str, enabled_at: float = 0.0) -> float:
    return end_of(parse_end(text, duration), enabled_at)


def test_a_date_is_the_last_day_and_a_time_is_local(zone: str) -> None:
    assert ends("2026-12-31") == local(2027, 1, 1)
    assert ends("2026-02-28") == local(2026, 3, 1)
    for text in ("2026-07-01 18:30", "2026-07-01T18:30", "2026-07-01 18:30:00"):
        assert ends(text) == local(2026, 7, 1, 18, 30)


def test_an_offset_says_it_everywhere_alike(zone: str) -> None:
    wanted = datetime(2026, 7, 1, 16, 30, tzinfo=timezone.utc).timestamp()
    for text in ("2026-07-01T16:30Z", "2026-07-01t16:30z", "2026-07-01 18:30+02:00", "2026-07-01 18:30:00 +02:00"):
        assert ends(text) == wanted


def test_a_duration_begins_when_the_site_is_enabled() -> None:
    assert (ends("7d", 1000.0), ends("90", 1000.0)) == (1000.0 + 7 * 86400, 1090.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-02-30", "is not a valid date"),
        ("2026-13-01 10:00", "is not a valid date"),
        ("2026-01-01 24:01", "is not a valid date"),
        ("9999-12-31", "is not a valid date"),
        ("soon", "is neither"),
        ("31.12.2026", "is neither"),
        ("7 days", "is neither"),
        ("-7d", "is neither"),
        ("2026-1-1", "is neither"),
        ("٢٠٢٦-١٢-٣١", "is neither"),
    ],
)
def test_what_is_neither_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        expiry(text)


def test_an_end_that_the_clock_cannot_tell_is_long_ago_or_never() -> None:
    assert ends("0001-01-01 00:00") < time.time()
    assert ends("9999-12-31 00:00Z") > time.time()


def test_a_warning_comes_three_days_before_or_in_the_last_quarter() -> None:
    date = parse_end("2026-12-31", duration)
    assert (is_near(date, 2 * 86400), is_near(date, 4 * 86400), is_near(date, -1)) == (True, False, True)
    assert (is_near(86400.0, 20_000), is_near(86400.0, 30_000)) == (True, False)
    assert (is_near(30 * 86400.0, 2 * 86400), is_near(30 * 86400.0, 4 * 86400)) == (True, False)
