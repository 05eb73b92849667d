"""From the files of a project to what serves it: the framework, the application, where it is imported from (pure).

Each kind of project has one finder, which yields what it sees; the first kind that sees anything decides, because each
is more particular than the next. A Django project may well have a function in it that looks like a WSGI application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from multisite.cli.project.guess_bottle import default_app
from multisite.cli.project.guess_dash import dashboards
from multisite.cli.project.guess_django import managed
from multisite.cli.project.guess_frameworks import factories, objects
from multisite.cli.project.guess_inifiles import moya, paste
from multisite.cli.project.guess_modules import entry_modules, plain, wsgi_files
from multisite.cli.project.guess_older import cherrypy, webpy
from multisite.cli.project.guess_scripts import gradio, nicegui, streamlit
from multisite.cli.project.project import Guess, NoGuess, Project

__all__ = ["Guess", "NoGuess", "Project", "guess"]

_FINDERS: tuple[Callable[[Project], Iterable[Guess]], ...] = (
    managed,
    paste,
    moya,
    wsgi_files,
    entry_modules,
    dashboards,
    objects,
    factories,
    webpy,
    cherrypy,
    nicegui,
    gradio,
    streamlit,
    default_app,
    plain,
)


def guess(project: Project) -> tuple[Guess, tuple[Guess, ...]]:
    """Return what serves the project, and what else was seen.

    Raises:
        NoGuess: nothing fits, or several things fit equally well.
    """
    seen = [sorted(finder(project), key=lambda each: each.rank) for finder in _FINDERS]
    for found in filter(None, seen):
        best = [each for each in found if each.rank == found[0].rank]
        if len({tuple(each.settings.items()) for each in best}) > 1:
            several = "; ".join(f"{each.what} ({each.why})" for each in best[:5])
            raise NoGuess(f"{project.folder}: several things fit: {several}; say which with --application")
        every = {tuple(each.settings.items()): each for guesses in reversed(seen) for each in reversed(guesses)}
        every.pop(tuple(best[0].settings.items()))
        return best[0], tuple(reversed(every.values()))
    raise NoGuess(f"{project.folder}: {_nothing(project)}")


def _nothing(project: Project) -> str:
    remedy = "say what serves it with --application, such as blog.wsgi:application"
    if project.unreadable:
        return f"{project.unreadable[0]} is not Python that parses here, and nothing else fits; {remedy}"
    if not project.sources:
        return f"there is no Python file; name the folder of the project, or {remedy}"
    kinds = "Django, Paste, Moya, .wsgi, Flask, Dash, FastAPI, Starlette, Bottle, CherryPy, web.py or plain WSGI"
    return f"nothing in {len(project.sources)} Python files looks like {kinds}; {remedy}"
