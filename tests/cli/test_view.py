"""What top draws: in any size, whatever sites are called; and what its keys do."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from multisite.cli.top.trends import Trends, sparkline
from multisite.cli.top.view import Detail, TopView
from multisite.sites.history import Sample
from multisite.status.simulate import Simulation

AT = 1_800_000_000.0
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\nblog\u202e[bold red]"


def view(count: int = 30, **more: Any) -> TopView:
    simulation, trends = Simulation(count), Trends()
    for second in range(0, 600, 60):
        sites = simulation.document(AT + second)["sites"]
        trends.add(sites, AT + second)
    return TopView(trends, "one; two; three", sites, **more)


def text(shown: TopView, width: int = 80, height: int = 24) -> str:
    return "\n".join(line.plain for line in shown.draw(width, height))


@pytest.mark.parametrize("detail", [False, True])
@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 10), (8, 3), (1, 1)])
def test_every_line_fits(size: tuple[int, int], detail: bool) -> None:
    shown = view()
    if detail:
        shown.press("enter")
    lines = shown.draw(*size)
    assert len(lines) == size[1] and all(cell_len(line.plain) <= size[0] for line in lines)


@pytest.mark.parametrize("width", [80, 200])
def test_all_four_curves_are_there(width: int) -> None:
    head = next(line for line in text(view(), width).splitlines() if " name" in line)
    assert all(name in head for name in ("rate", "errs", "mem", "cpu", "wait", "state"))


@pytest.mark.parametrize("detail", [False, True])
def test_nothing_hostile_reaches_the_terminal(detail: bool) -> None:
    shown = view(1)
    shown.sites[0] |= {
        "name": HOSTILE,
        "problems": [],
        "failure": {"failure": HOSTILE, "incident": "1", "serving": True},
    }
    if detail:
        shown.press("enter")
        shown.shown = Detail(HOSTILE, [("file", HOSTILE)], [HOSTILE])
    for size in (60, 80, 200):
        drawn = shown.draw(size, 24)
        assert not any(set(line.plain) & set("\x1b\x07\r\n\u202e") for line in drawn)
        assert "[2J" in "".join(line.plain for line in drawn)


@pytest.mark.parametrize(("key", "what"), [("m", "memory"), ("c", "cpu"), ("r", "requests"), ("e", "errors")])
def test_keys_sort(key: str, what: str) -> None:
    shown = view(200)
    shown.press(key)
    weights = [shown._weight(site) for site in shown.rows()]
    assert weights == sorted(weights, reverse=True) and weights[0] > weights[-1]
    assert f"sites by {what}" in text(shown)


def test_what_is_typed_after_a_slash_filters() -> None:
    shown = view()
    for key in ("/", *"blog", "enter"):
        shown.press(key)
    assert shown.rows() and all("blog" in site["name"] for site in shown.rows())
    assert "filter blog" in text(shown)
    shown.press("escape")
    assert len(shown.rows()) == 30


def test_letters_of_a_filter_are_no_commands() -> None:
    shown = view()
    for key in ("/", *"DRSqm"):
        shown.press(key)
    assert (shown.filter, shown.wanted, shown.question, shown.is_over, shown.sort) == ("DRSqm", None, "", False, "need")


def test_the_mark_stays_on_its_site_whatever_the_order() -> None:
    shown = view()
    text(shown)
    shown.press("down")
    name = shown.selected
    for key in "mcre":
        shown.press(key)
        assert f"> {name}" in text(shown)


def test_disable_asks_and_means_the_site_that_was_marked() -> None:
    shown = view()
    text(shown)
    name = shown.selected
    shown.press("D")
    assert shown.wanted is None and f"Disable {name}?" in text(shown)
    shown.sites = [site for site in shown.sites if site["name"] != name]
    text(shown)
    shown.press("y")
    assert shown.wanted == ("dissite", name)
    shown.wanted = None
    for key in ("D", "q"):
        shown.press(key)
    assert shown.wanted is None and not shown.is_over


@pytest.mark.parametrize(("key", "action"), [("R", "restart"), ("S", "stop")])
def test_restart_and_stop_are_wanted_at_once(key: str, action: str) -> None:
    shown = view()
    text(shown)
    shown.press(key)
    assert shown.wanted == (action, shown.selected)


def test_the_curves_begin_with_the_history() -> None:
    trends = Trends()
    trends.begin({"blog": [Sample(requests=1.0, cpu=0.5)] * 9}, 2)
    assert list(trends.of("blog").rate) == [60.0] * 4 and list(trends.of("blog").cpu) == [50.0] * 4


def test_a_curve_is_drawn_to_its_scale() -> None:
    from collections import deque

    assert sparkline(deque([0.0, 4.0, 8.0]), 5) == "  ▁▅█"
    assert sparkline(deque([0.1]), 1, least=100.0) == "▁"
