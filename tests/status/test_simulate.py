"""Invented sites: the same for a seed and a time, with the keys of real ones, and sums that only grow."""

from __future__ import annotations

from multisite.status.needs import KINDS, of_all
from multisite.status.simulate import Simulation

AT = 1_800_000_000.0


def test_a_seed_and_a_time_give_the_same() -> None:
    assert Simulation(200).document(AT) == Simulation(200).document(AT)
    assert Simulation(200, 2).document(AT) != Simulation(200).document(AT)
    assert Simulation(3).log("blog", AT, 4)[:3] == Simulation(3).log("blog", AT - 1, 3)


def test_sums_only_grow() -> None:
    simulation = Simulation(50)
    before = simulation.document(AT)["sites"]
    for second in range(1, 60):
        after = simulation.document(AT + second)["sites"]
        for key in ("requests", "errors", "cpu"):
            assert all(one[key] <= other[key] for one, other in zip(before, after, strict=True))
        before = after


def test_a_large_home_has_sites_that_need_somebody() -> None:
    document = Simulation(1000).document(AT)
    assert len({site["name"] for site in document["sites"]}) == 1000
    assert {need.kind for need in of_all(document)} <= set(KINDS)
    assert {"cannot start", "old version serves"} <= {need.kind for need in of_all(document)}
