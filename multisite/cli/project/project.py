"""What is known of a project, and what could serve it."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass, field

from multisite.errors import MultisiteError

USUAL = (
    "wsgi",
    "asgi",
    "passenger_wsgi",
    "app",
    "application",
    "main",
    "server",
    "__init__",
)  # where an application usually is, best first


@dataclass
class Project:
    """What lies in a folder.

    Attributes:
        folder: its path, absolute.
        sources: each Python file, by its path in the folder, as it parses.
        inis: each INI file of the folder itself: section → key → text.
        venv: path of its virtualenv, "" for none.
        unreadable: Python files that do not parse.
    """

    folder: str
    sources: dict[str, ast.Module] = field(default_factory=dict)
    inis: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    venv: str = ""
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Guess:
    """One thing that could serve the project.

    Attributes:
        framework: its name for people.
        why: what was seen, with file and line.
        settings: key of a site's [service] → text.
        rank: the smaller, the more usual is the place.
        notes: what else a comment should say.
        static: URL prefix → folder, which the front end or multisite had better serve.
    """

    framework: str
    why: str
    settings: dict[str, str]
    rank: int = 0
    notes: tuple[str, ...] = ()
    static: dict[str, str] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """The setting that names the application."""
        key = next(key for key in ("ini", "command", "application") if key in self.settings)
        return f"{key} = {self.settings[key]}"


class NoGuess(MultisiteError):
    """The files of a project do not say what serves it; the message has a remedy."""


def service(location: str, application: str) -> dict[str, str]:
    """Return these keys of [service]."""
    return {"location": location, "application": application}


def importable(project: Project, name: str) -> tuple[str, str]:
    """Return the folder to import from, and the module that the file is from there: packages have an __init__.py."""
    folder, file = os.path.split(name)
    parts = [] if file == "__init__.py" else [file.removesuffix(".py")]
    while folder and os.path.join(folder, "__init__.py") in project.sources:
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return os.path.join(project.folder, folder).rstrip("/"), ".".join(parts)


def place(name: str) -> int:
    """Rank a file by how usual it is to hold the application: its depth, then its name."""
    stem = os.path.basename(name).removesuffix(".py")
    return 10 * name.count(os.sep) + rank(stem, USUAL)


def rank(name: str, usual: tuple[str, ...]) -> int:
    """Return the place of a name among the usual ones; any other comes behind them."""
    return usual.index(name) if name in usual else len(usual)
