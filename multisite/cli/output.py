"""How answers look: lines, JSON and tables; nothing from a site file reaches the terminal unescaped.

A table is as wide as it needs in a pipe or a file; on a narrow terminal columns are left out, and texts folded.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from multisite.errors import Problem

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
GOES_ON = "the old version goes on serving, since the new one"
PATIENCE = 0.5  # seconds before a spinner shows what is awaited
GAP = 2  # columns between two cells
FOLDED = 12  # columns that a folded cell has at least
STYLES = {  # of states
    "running": "green",
    **dict.fromkeys(("starting", "draining", "stopping", "backoff"), "yellow"),
    **dict.fromkeys(("broken", "fatal"), "red"),
}


def printable(text: str) -> str:
    """Escape what could steer a terminal (control characters) or cannot be encoded (lone surrogates)."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(text: str, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(text), err=err)


def say_problems(problems: Iterable[Problem], err: bool = True, prefix: str = "") -> None:
    """Print each problem on a line of its own, with its severity."""
    for problem in problems:
        mark = click.style(problem.severity, fg="red" if problem.severity == "error" else "yellow")
        click.echo(f"{prefix}{mark}: {printable(str(problem))}", err=err)


def say_json(document: Any) -> None:
    """Print a JSON document, ASCII only so that any terminal and any file name is safe."""
    click.echo(json.dumps(document, indent=2))


@contextlib.contextmanager
def waiting(what: str = "") -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is awaited, once it takes longer than `PATIENCE`; the line goes away afterwards.

    It is on standard error, and only if that is a terminal. Nothing should be printed meanwhile. Of two, one within
    the other, the outer one is shown.

    Args:
        what: is being done, as "checking blog".

    Yields:
        a function that takes what is being done from now on.
    """
    if _Spinner.is_used or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda what: None
        return
    spinner, _Spinner.is_used = _Spinner(what), True
    timer = threading.Timer(PATIENCE, spinner.start)
    timer.daemon = True
    timer.start()
    try:
        yield spinner.show
    finally:
        _Spinner.is_used = False
        timer.cancel()
        spinner.stop()


class _Spinner:
    """A line that lives; started by another thread, unless it is stopped first."""

    is_used = False  # there is one

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._is_over = False
        self._live: Any = None
        self._spinner: Any = None

    def start(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        with self._lock:
            if self._is_over:
                return
            console = Console(stderr=True, highlight=False)
            self._spinner = Spinner("dots", Text(printable(self._what), no_wrap=True, overflow="ellipsis"))
            # Output of ours goes where it would without this: standard output may be a file.
            self._live = Live(
                self._spinner, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()

    def show(self, what: str) -> None:
        """Show from now on that `what` is being done."""
        with self._lock:
            self._what = what
            if self._live:
                from rich.text import Text

                self._spinner.update(text=Text(printable(what), no_wrap=True, overflow="ellipsis"))

    def stop(self) -> None:
        """Remove the line, or never show it."""
        with self._lock:
            self._is_over = True
            if self._live:
                self._live.stop()


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` for the nearest of `known`, or ""."""
    from multisite.config.values import alike

    near = alike(word, known, most=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def say_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    drop: Sequence[str] = (),
    fold: Sequence[str] = (),
) -> None:
    """Print a table.

    Args:
        header: names of the columns.
        rows: cells; a line end in one stays a line end.
        numbers: columns that are aligned to the right.
        drop: columns that a narrow terminal does not get, the first one first.
        fold: columns whose texts are folded on a narrow terminal, the first one first.
    """
    import shutil

    from rich.cells import cell_len

    terminal = sys.stdout.isatty()
    cells = [["\n".join(map(printable, cell.split("\n"))) for cell in row] for row in rows]
    columns = [[name, *(line for row in cells for line in row[at].split("\n"))] for at, name in enumerate(header)]
    widths = {name: max(map(cell_len, lines)) for name, lines in zip(header, columns, strict=True)}
    if terminal:
        widths = layout(widths, shutil.get_terminal_size().columns, drop, fold)
    shown = [(at, name) for at, name in enumerate(header) if name in widths]
    coloured = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    _print(widths, ([row[at] for at, _name in shown] for row in cells), numbers, coloured)
    missing = [name for name in header if name not in widths]
    if missing:
        say(f"no room for: {', '.join(missing)}")


def layout(widths: Mapping[str, int], room: int, drop: Sequence[str], fold: Sequence[str]) -> dict[str, int]:
    """Return the columns that are shown, and how wide each is, so that a line has `room` columns if that can be."""
    left = dict(widths)
    for name in drop:
        if _total(min(width, FOLDED) if name in fold else width for name, width in left.items()) <= room:
            break
        left.pop(name, None)
    for name in fold:
        excess = max(0, _total(left.values()) - room)
        left[name] = max(min(left[name], FOLDED), left[name] - excess)
    return left


def _total(widths: Iterable[int]) -> int:
    all_of_them = list(widths)
    return sum(all_of_them) + GAP * (len(all_of_them) - 1)


def _print(widths: Mapping[str, int], rows: Iterable[Sequence[str]], numbers: Collection[str], coloured: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, width in widths.items():
        table.add_column(name, width=width, overflow="fold", justify="right" if name in numbers else "left")
    table.add_row(*("─" * width for width in widths.values()))
    for row in rows:
        styles = (STYLES.get(cell, "") if name == "state" else "" for name, cell in zip(widths, row, strict=True))
        table.add_row(*map(Text, row, styles))
    width = _total(widths.values()) + GAP
    console = Console(width=width, highlight=False, no_color=not coloured, force_terminal=coloured)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), color=coloured)
