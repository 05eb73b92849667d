"""How many sites a client may start within a minute."""

from __future__ import annotations

import pytest

from multisite.supervisor.wakes import MOST_CLIENTS, WINDOW, Wakes, client_of


def test_a_client_has_so_many_starts_in_each_minute() -> None:
    wakes = Wakes()
    assert [wakes.take("192.0.2.1", 3, now) for now in (0.0, 10.0, 20.0)] == [0, 0, 0]
    assert wakes.take("192.0.2.1", 3, 30.0) == 30
    assert wakes.take("192.0.2.1", 3, 59.5) == 1
    assert wakes.take("192.0.2.2", 3, 59.5) == 0
    assert wakes.take("192.0.2.1", 3, WINDOW) == 0  # what was refused has not been counted
    assert wakes.take("192.0.2.1", 3, WINDOW) == 10


def test_a_site_that_says_less_counts_the_starts_of_all() -> None:
    wakes = Wakes()
    for now in (0.0, 20.0, 40.0):
        assert wakes.take("192.0.2.1", 10, now) == 0
    assert wakes.take("192.0.2.1", 1, 41.0) == 59  # after the last
    assert wakes.take("192.0.2.1", 3, 41.0) == 19  # after the first


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("[2001:db8::1]", "2001:db8::2", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "unknown", True),
    ],
)
def test_who_counts_as_one(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same


def test_it_remembers_so_many_clients_and_no_more() -> None:
    wakes = Wakes()
    for number in range(MOST_CLIENTS + 500):
        assert wakes.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1, float(number) / 1000) == 0
    assert len(wakes._starts) == MOST_CLIENTS
    assert wakes.take(f"10.0.{(MOST_CLIENTS + 499) >> 8}.{(MOST_CLIENTS + 499) & 255}", 1, 5.0) > 0
