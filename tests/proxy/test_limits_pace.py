"""How long a thread waits for a site that was slow."""

from __future__ import annotations

from multisite.proxy.limits import FIRST_PAUSE, LONGEST_PAUSE, Pace


def test_a_site_has_some_patience_until_it_is_slow() -> None:
    pace = Pace(0.005)
    assert pace.patience(0.0) == 0.005
    pace.was_slow(0.0)
    assert pace.patience(FIRST_PAUSE - 0.01) == 0.0
    assert pace.patience(FIRST_PAUSE + 0.01) == 0.005


def test_a_site_that_stays_slow_uses_up_less_and_less() -> None:
    """32 two-second requests at a time: what is waited for them in a minute is nothing to speak of."""
    pace = Pace(0.005)
    waited, now = 0.0, 0.0
    while now < 60:
        patience = pace.patience(now)
        waited += patience
        if patience:
            pace.was_slow(now)
        now += 2 / 32
    assert waited < 0.1
    assert pace.patience(now + LONGEST_PAUSE) == 0.005


def test_a_slow_answer_that_nobody_waited_for_counts_too() -> None:
    """Of many at a time one counts: they have been slow together."""
    pace = Pace(0.005)
    for _ in range(32):
        pace.took(2.0, 0.0)
    assert pace.patience(FIRST_PAUSE - 0.01) == 0.0
    assert pace.patience(FIRST_PAUSE + 0.01) == 0.005


def test_quick_answers_win_it_back() -> None:
    pace = Pace(0.005)
    for _ in range(20):
        pace.was_slow(0.0)
    assert pace.patience(1.0) == 0.0
    for _ in range(3):
        pace.took(0.5, 1.0)
    assert pace.patience(1.0) == 0.0
    for _ in range(10):
        pace.took(0.001, 1.0)
    assert pace.patience(1.0) == 0.005
