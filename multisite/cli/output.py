"""The output of commands: lines, JSON and tables; nothing from a site file reaches the terminal unescaped.

A table has one line for each row. In a pipe or a file, and with ``--wide``, it is as wide as it needs to be; on a
narrow terminal, columns are hidden and texts shortened. Only terminals get colour, and ``NO_COLOR`` turns it off.
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

    #: a text, or several; if there is no room for all, the first ones stay
    Cell = str | tuple[str, ...]

#: control characters, lone surrogates, and characters that end a line or change the direction of writing
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
PATIENCE = 0.5  # seconds before a spinner appears
LONG = 100  # elements of a list that JSON shows over several lines each
GAP = 2  # columns between two cells
LEAST = 20  # columns that a shortened text keeps at least
RULE, MORE = "─", "…"
ASCII = str.maketrans({RULE: "-", MORE: "~"})
COLOURS = {"error": "red", "warning": "yellow"}
STYLES = {  # of the words in the columns state and health
    **dict.fromkeys(("running", "alive"), "green"),
    **dict.fromkeys(("starting", "draining", "stopping", "backoff"), "yellow"),
    **dict.fromkeys(("broken", "fatal", "dead"), "red"),
}

wide_option = click.option("--wide", is_flag=True, help="Show all columns and whole texts on a narrow terminal.")


def printable(text: str) -> str:
    """Escape characters that could control a terminal or that cannot be encoded (lone surrogates)."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def is_coloured(err: bool = False) -> bool:
    """Tell whether standard output, or standard error, is a terminal whose user accepts colour (no-color.org)."""
    stream = sys.stderr if err else sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: str, err: bool = False) -> str:
    """Return `text` in one of click's colours on a terminal, else unchanged."""
    return click.style(text, fg=colour) if is_coloured(err) else text


def not_replaced(reason: str) -> str:
    """Return a sentence about a new version that failed while the old one serves."""
    return f"new version failed to start ({reason}); the old version is still serving"


def say(text: str, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(text), err=err)


def say_paragraph(text: str, indent: str = "    ") -> None:
    """Print a text; on a terminal, wrap it between words and indent all lines but the first."""
    import shutil

    from rich.cells import cell_len

    if not sys.stdout.isatty():
        return say(text)
    room = shutil.get_terminal_size().columns
    first, *words = printable(text).split(" ")
    lines = [first]
    for word in words:
        if cell_len(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    click.echo("\n".join(lines))


def complain(severity: str, text: str, err: bool = True, prefix: str = "") -> None:
    """Print one line about a problem, after its severity, `error` or `warning`."""
    mark = coloured(severity, COLOURS[severity], err)
    click.echo(f"{prefix}{mark}: {printable(text)}", err=err, color=is_coloured(err))


def say_problems(problems: Iterable[Problem], err: bool = True, prefix: str = "") -> None:
    """Print each problem on its own line, with its severity and its id."""
    for problem in problems:
        complain(problem.severity, f"{problem.id} {problem}", err, prefix)


def say_json(document: Any, indent: int | None = 2) -> None:
    """Print a JSON document in ASCII, safe for any terminal and any file name; without `indent`, on one line.

    Of a long list each element has one line: to indent a thousand sites takes longer than to describe them.
    """
    is_long = isinstance(document, dict) and any(isinstance(one, list) and len(one) > LONG for one in document.values())
    click.echo(_by_line(document) if indent and is_long else json.dumps(document, indent=indent))


def _by_line(document: dict[str, Any]) -> str:
    """Write a document with a line for each element of its long lists."""
    parts = []
    for key, value in document.items():
        if isinstance(value, list) and len(value) > LONG:
            text = "[\n" + ",\n".join(f"    {json.dumps(one)}" for one in value) + "\n  ]"
        else:
            text = json.dumps(value, indent=2).replace("\n", "\n  ")
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


@contextlib.contextmanager
def waiting(what: str = "") -> Iterator[Callable[[str], None]]:
    """Show a line about a task on a terminal while it takes longer than `PATIENCE`, then remove the line.

    The line appears only if standard error is a terminal. Print nothing in the meantime. If two are nested, the outer
    one is shown.

    Args:
        what: the task, such as "checking blog".

    Yields:
        a function that sets the text of the current task.
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
    """A line with an animation; a timer thread starts it unless it is stopped first."""

    is_used = False  # whether there is one

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
            # Our output goes where it would go without this: standard output may be a file.
            self._live = Live(
                self._spinner, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()

    def show(self, what: str) -> None:
        """Show `what` as the current task."""
        with self._lock:
            self._what = what
            if self._live:
                from rich.text import Text

                self._spinner.update(text=Text(printable(what), no_wrap=True, overflow="ellipsis"))

    def stop(self) -> None:
        """Remove the line, or keep it from appearing."""
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
    rows: Iterable[Sequence[Cell]],
    *,
    numbers: Collection[str] = (),
    drop: Sequence[str] = (),
    cut: Sequence[str] = (),
    wide: bool = False,
) -> None:
    """Print a table, one line for each row.

    Args:
        header: names of the columns.
        rows: cells.
        numbers: columns to align on the right.
        drop: columns to hide on a narrow terminal, the first one first; empty columns go before all others.
        cut: columns whose texts are shortened on a narrow terminal.
        wide: show everything on a narrow terminal, too.
    """
    import shutil

    from rich.cells import cell_len

    cells = [[_printable(cell) for cell in row] for row in rows]
    columns = {name: [row[at] for row in cells] for at, name in enumerate(header)}
    widths = {name: max(map(cell_len, (name, *map(_whole, column)))) for name, column in columns.items()}
    shown = widths
    if sys.stdout.isatty() and not wide:
        room = shutil.get_terminal_size().columns
        least = {name: _least(name, columns[name]) if name in cut else width for name, width in widths.items()}
        hollow = [name for name in drop if all(_whole(cell) in ("", "-") for cell in columns[name])]
        shown = layout(widths, least, room, list(dict.fromkeys((*hollow, *drop))), cut)
    fitted = [[fitting(cell, width) for cell in columns[name]] for name, width in shown.items()]
    _print(shown, zip(*fitted, strict=True), numbers)
    _say_missing([name for name in header if name not in shown], any(shown[name] < widths[name] for name in shown))


def layout(
    widths: Mapping[str, int], least: Mapping[str, int], room: int, drop: Sequence[str], cut: Sequence[str]
) -> dict[str, int]:
    """Return the columns to show and their widths, so that a line has at most `room` columns.

    Args:
        widths: full widths of the columns.
        least: smallest widths of the columns; only those in `cut` can be narrower than full.
        drop: columns to hide, the first one first; if these are not enough, the others follow from the end.
        cut: columns to make narrower, the widest first, the first one of equal ones.
    """
    left = dict(widths)
    for name in (*drop, *(one for one in reversed(list(widths)) if one not in drop)):
        if len(left) == 1 or _total(least[one] for one in left) <= room:
            break
        left.pop(name, None)
    while _total(left.values()) > room:
        wide = [one for one in cut if one in left and left[one] > least[one]]
        if not wide:
            break
        left[max(wide, key=left.__getitem__)] -= 1
    return left if len(left) > 1 else {name: max(1, min(width, room)) for name, width in left.items()}


def fitting(cell: Cell, width: int) -> str:
    """Return as much of a cell as fits into `width` columns; ``+2`` stands for two more texts."""
    from rich.cells import cell_len

    whole = _whole(cell)
    if cell_len(whole) <= width or isinstance(cell, str):
        return shortened(whole, width)
    for count in range(len(cell) - 1, 0, -1):
        more = f" +{len(cell) - count}"
        text = ", ".join(cell[:count])
        if cell_len(text + more) <= width:
            return text + more
    return shortened(cell[0], max(1, width - len(more))) + more if len(cell) > 1 else shortened(whole, width)


def shortened(text: str, width: int) -> str:
    """Shorten a text to `width` columns of a terminal, between two words; a path keeps its end."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    if "/" in text and " " not in text:
        ends = (MORE + text[at:] for at in range(1, len(text)) if text[at] == "/")
        end = next((end for end in ends if cell_len(end) <= width), None)
        if end:
            return end
        text = text.rstrip("/").rpartition("/")[2]
        if cell_len(text) <= width:
            return text
    start = set_cell_size(text, width - 1) if width > 1 else ""
    if " " in start.strip() and text[len(start) : len(start) + 1] != " ":
        start = start[: start.rstrip().rfind(" ")] if not start.endswith(" ") else start
    return start.rstrip() + MORE


def _whole(cell: Cell) -> str:
    return cell if isinstance(cell, str) else ", ".join(cell)


def _printable(cell: Cell) -> Cell:
    return printable(cell) if isinstance(cell, str) else tuple(map(printable, cell))


def _least(name: str, column: Iterable[Cell]) -> int:
    """Return the smallest width of a column for its shortened texts."""
    from rich.cells import cell_len

    brief = (cell if isinstance(cell, str) else _brief(cell) for cell in column)
    return max(cell_len(name), min(LEAST, max(map(cell_len, brief), default=0)))


def _brief(cell: tuple[str, ...]) -> str:
    return f"{cell[0]} +{len(cell) - 1}" if len(cell) > 1 else _whole(cell)


def _total(widths: Iterable[int]) -> int:
    all_of_them = list(widths)
    return sum(all_of_them) + GAP * (len(all_of_them) - 1)


def _print(widths: Mapping[str, int], rows: Iterable[Sequence[str]], numbers: Collection[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    has_colour = is_coloured()
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for name, width in widths.items():
        heading = Text(fitting(name, width))
        table.add_column(heading, width=width, no_wrap=True, justify="right" if name in numbers else "left")
    table.add_row(*(RULE * width for width in widths.values()))
    for row in rows:
        styles = (_style(name, cell) for name, cell in zip(widths, row, strict=True))
        table.add_row(*map(Text, row, styles))
    width = _total(widths.values()) + GAP
    console = Console(width=width, highlight=False, no_color=not has_colour, force_terminal=has_colour)
    with console.capture() as captured:
        console.print(table)
    _echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _style(column: str, text: str) -> str:
    return STYLES.get(text.partition(",")[0], "") if column in ("state", "health") else ""


def _say_missing(hidden: Sequence[str], is_shortened: bool) -> None:
    """Print which columns are hidden on a narrow terminal."""
    import shutil

    if not hidden:
        return _echo(f"some texts are shortened ({MORE}); use --wide") if is_shortened else None
    opening = f"{len(hidden)} column{'' if len(hidden) == 1 else 's'} hidden ("
    names, closing = ", ".join(hidden), "); use --wide"
    room = shutil.get_terminal_size().columns - len(opening + closing)
    count = len(hidden)
    while len(names) > room and count > 1:
        count -= 1
        names = ", ".join((*hidden[:count], MORE))
    return _echo(f"{opening}{names}{closing}")


def _echo(text: str) -> None:
    """Print an escaped text; if the output cannot encode our own characters, print ASCII ones instead."""
    try:
        (RULE + MORE).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        text = text.translate(ASCII)
    click.echo(text, color=is_coloured())
