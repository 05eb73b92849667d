"""``multisite new NAME --from PATH``: what a project's files say about how to serve it, for the site file."""

from __future__ import annotations

import os
from dataclasses import dataclass

from multisite.cli.project.guess import Guess, guess
from multisite.cli.project.survey import survey


@dataclass(frozen=True)
class Found:
    """What is written into the site file: settings, and comments that say where they are from.

    Attributes:
        static: URL prefix → folder of static files, relative to the location.
        is_there: whether all these folders are.
    """

    framework: str
    settings: dict[str, str]
    comments: tuple[str, ...]
    static: dict[str, str]
    is_there: bool


def look(path: str, application: str | None) -> Found:
    """Look at the project in a folder, or at one file; `application` decides where the files do not.

    Raises:
        NoGuess: they do not say what serves it.
        OSError: there is nothing at `path`.
    """
    path = os.path.abspath(os.path.expanduser(path))
    folder = os.path.dirname(path) if os.path.isfile(path) else path
    project = survey(folder)
    if path != folder:
        name = os.path.basename(path)
        project.sources = {each: tree for each, tree in project.sources.items() if each == name}
        project.inis = {each: sections for each, sections in project.inis.items() if each == name}
    others: tuple[Guess, ...] = ()
    if application:
        best = Guess("", f"{application} was asked for", {"location": folder, "application": application})
    else:
        best, others = guess(project)
    settings = dict(best.settings)
    runner = "the python3 of PATH" if "command" in settings else "multisite's own interpreter"
    about_python = f"no virtualenv is beside it, so {runner} runs it"
    if project.venv:
        settings["python"] = os.path.relpath(project.venv, settings["location"])
        about_python = f"its virtualenv is {project.venv}, so it runs in a process of its own"
    also = [f"Also seen: {other.what} ({other.why})." for other in others[:5]]
    first = f"{best.framework or 'The application'}: {best.why}; {about_python}."
    is_there = all(os.path.isdir(os.path.join(settings["location"], path)) for path in best.static.values())
    comments = (f"Found in {folder}.", first, f"Chosen: {best.what}.", *best.notes, *_about(best, is_there), *also)
    return Found(best.framework, settings, comments, best.static, is_there)


def _about(best: Guess, is_there: bool) -> tuple[str, ...]:
    """Say what is proposed of [static]."""
    if not best.static:
        return ()
    told = ", ".join(f"{prefix} = {path}" for prefix, path in best.static.items())
    later = "" if is_there else "; it stays a comment until manage.py collectstatic has made the folder"
    return (f"Proposed for [static]: {told}{later}.",)
