"""Hours of the week, as they are written."""

from __future__ import annotations

import pytest

from multisite.config.times import hold, parse_hours
from multisite.config.values import warm

MON, TUE, WED, THU, FRI, SAT, SUN = range(7)


def days_of(text: str, hour: int) -> list[int]:
    """The days on which an hour is named."""
    return [day for day in range(7) if hold(parse_hours(text), day, hour * 60)]


@pytest.mark.parametrize(
    ("text", "hour", "days"),
    [
        ("mon-fri 8-18", 8, [MON, TUE, WED, THU, FRI]),
        ("mon-fri 8-18", 18, []),
        ("Mon - Fri 08:00 - 18:00", 17, [MON, TUE, WED, THU, FRI]),
        ("monday-wednesday 8-18", 12, [MON, TUE, WED]),
        ("8-18", 12, [*range(7)]),
        ("0-24", 23, [*range(7)]),
        ("fri-mon 8-18", 12, [MON, FRI, SAT, SUN]),
        ("sat 10-14", 12, [SAT]),
        ("mon, wed, fri 8-18", 12, [MON, WED, FRI]),
        ("mon wed 8-18", 12, [MON, WED]),
        ("mon-fri 8-12, 13-18", 17, [MON, TUE, WED, THU, FRI]),
        ("mon-fri 8-12, 13-18", 12, []),
        ("mon-fri 8-18, sat 10-14", 11, [MON, TUE, WED, THU, FRI, SAT]),
        ("mon-fri 8-18; sat 10-14", 17, [MON, TUE, WED, THU, FRI]),
        ("mon 8-10\ntue 9-11", 9, [MON, TUE]),
        ("fri 22-6", 23, [FRI]),
        ("fri 22-6", 5, [SAT]),
        ("sun 22-6", 5, [MON]),
        ("22-0", 23, [*range(7)]),
        ("22-0", 0, []),
    ],
)
def test_hours_are_held_on_the_days_that_are_named(text: str, hour: int, days: list[int]) -> None:
    assert days_of(text, hour) == days


def test_minutes_count() -> None:
    told = parse_hours("mon 8:30-9:15")
    assert [minute for minute in range(8 * 60, 10 * 60) if hold(told, MON, minute)] == [*range(510, 555)]


@pytest.mark.parametrize(
    "text",
    [
        "mon",
        "mon-fri",
        "",
        ",",
        "8",
        "8-25",
        "24-8",
        "8-8",
        "8:60-9",
        "mon-fri 8-18, sat",
        "mo 8-18",
        "8-18-20",
        "mon 8",
    ],
)
def test_what_names_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_hours(text)


def test_the_words_stay_words_and_a_mistyped_one_is_named() -> None:
    assert [warm(word) for word in ("Always", "never", '"predicted"')] == ["always", "never", "predicted"]
    assert warm("Mon-Fri 8-18") == "mon-fri 8-18"
    with pytest.raises(ValueError, match="did you mean always"):
        warm("alway")
    with pytest.raises(ValueError, match="mon-fri 8-18"):
        warm("sometimes")
