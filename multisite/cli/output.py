"""How answers look: plain lines, tables and JSON; nothing from a site file reaches the terminal unescaped."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from multisite.model import Problem

PIPE_WIDTH = 100_000  # columns: into a pipe or file a table is never folded or cut
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


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


def say_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: folded to the terminal's width, as wide as it needs elsewhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else PIPE_WIDTH
    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*("\n".join(map(printable, cell.split("\n"))) for cell in row))
    plain = not terminal or "NO_COLOR" in os.environ
    console = Console(width=width, markup=False, emoji=False, highlight=False, no_color=plain, force_terminal=not plain)
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    click.echo("\n".join(line.rstrip() for line in lines))
