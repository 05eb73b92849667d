"""How answers look: plain lines and JSON; nothing from a site file reaches the terminal unescaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from multisite.errors import Problem

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


def did_you_mean(word: str, known: Any) -> str:
    """Return `` (did you mean …?)`` for the nearest of `known`, or ""."""
    import difflib

    near = difflib.get_close_matches(word, dict.fromkeys(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
