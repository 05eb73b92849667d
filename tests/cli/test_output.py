"""Tables of the command line: what a narrow terminal gets of them."""

from __future__ import annotations

import pytest

from multisite.cli.output import FOLDED, layout, say_table

WIDTHS = {"name": 10, "state": 10, "cpu": 6, "problems": 40}


def test_a_wide_terminal_gets_everything() -> None:
    """Nothing is left out where there is room."""
    assert layout(WIDTHS, 72, ("cpu",), ("problems",)) == WIDTHS


def test_texts_are_folded_before_a_column_is_left_out() -> None:
    """A column that can be folded gives way first."""
    assert layout(WIDTHS, 60, ("cpu",), ("problems",)) == {**WIDTHS, "problems": 28}


def test_columns_are_left_out_where_folding_is_not_enough() -> None:
    """The first of those that may be left out goes first."""
    assert layout(WIDTHS, 40, ("cpu", "state"), ("problems",)) == {"name": 10, "state": 10, "problems": 16}
    assert layout(WIDTHS, 26, ("cpu", "state"), ("problems",)) == {"name": 10, "problems": 14}


def test_no_terminal_is_too_narrow() -> None:
    """A terminal of one column gets what cannot be left out, folded as far as it can be."""
    assert layout(WIDTHS, 1, ("cpu",), ("problems", "name")) == {"name": 10, "state": 10, "problems": FOLDED}


def test_a_file_gets_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal nothing is folded, coloured or left out; numbers stand below each other."""
    say_table(("name", "state", "n"), [("blog", "running", "7"), ("b\x1b[2J", "-", "12")], numbers=("n",), drop=("n",))
    assert capsys.readouterr().out.splitlines() == [
        "name      state     n",
        "────────  ───────  ──",
        "blog      running   7",
        "b\\x1b[2J  -        12",
    ]
