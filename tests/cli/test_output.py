"""Tables of the command line: what a narrow terminal gets of them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import IO

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


WAITS = """
import sys
from multisite.cli.output import say, waiting
with waiting("waiting for \\x1b[31mblog") as show:
    with waiting("within"):
        print("begun", flush=True)
        sys.stdin.readline()
    show("waiting for shop")
    sys.stdin.readline()
say("done")
"""


def typed(terminal: int, seen: bytes, word: bytes) -> bytes:
    """Return what a terminal shows until `word` is there."""
    while word not in seen:
        seen += os.read(terminal, 4096)
    return seen


def started(stderr: int | IO[bytes], env: dict[str, str]) -> subprocess.Popen[bytes]:
    environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | env
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", WAITS], stdin=pipe, stdout=pipe, stderr=stderr, env=environ)


def test_what_is_awaited_shows_on_a_terminal_and_goes_away() -> None:
    """A pipe gets nothing of it, and what it names cannot steer the terminal."""
    master, slave = pty.openpty()
    with started(slave, {"TERM": "xterm"}) as program:
        os.close(slave)
        assert program.stdin and program.stdout
        seen = typed(master, b"", b"blog")
        assert b"waiting for \\x1b[31mblog" in seen and b"within" not in seen
        program.stdin.write(b"\n")
        program.stdin.flush()
        seen = typed(master, seen, b"waiting for shop")
        program.stdin.write(b"\n")
        program.stdin.flush()
        assert program.stdout.read() == b"begun\ndone\n"
    try:
        while seen := os.read(master, 4096):
            last = seen
    except OSError:  # EIO: nobody has the terminal any more
        pass
    os.close(master)
    assert b"\x1b[?25h" in last  # the cursor is shown again


@pytest.mark.parametrize("kind", ["pipe", "dumb"])
def test_nothing_is_shown_where_no_line_can_go_away(kind: str) -> None:
    master, slave = pty.openpty()
    dumb = kind == "dumb"
    with started(slave if dumb else subprocess.PIPE, {"TERM": "dumb" if dumb else "xterm"}) as program:
        os.close(slave)
        assert program.stdin and program.stdout
        assert program.stdout.readline() == b"begun\n"
        with pytest.raises(subprocess.TimeoutExpired):  # longer than it would take to be shown
            program.wait(1.0)
        program.stdin.write(b"\n\n")
        program.stdin.flush()
        assert program.stdout.read() == b"done\n"
        if program.stderr:
            assert program.stderr.read() == b""
    if dumb:
        with pytest.raises(OSError, match="Input/output"):
            os.read(master, 1)
    os.close(master)
