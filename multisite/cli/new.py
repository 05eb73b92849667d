"""``multisite new``: write a site file to start from; with ``--from``, from the files of a project."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from multisite.cli.group import fail
from multisite.cli.output import say, say_json, say_problems, waiting
from multisite.cli.session import Session, pass_session, stem_of
from multisite.cli.site.verdict import of_available, of_enabled, say_once_fixed

if TYPE_CHECKING:
    from multisite.status.project.sources import Guess

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
EPILOG = """\b
Examples:
  multisite new blog --domain blog.example.com --location /srv/blog --application blog.wsgi:application
  multisite new wiki --from ~/src/wiki --enable
  multisite new shop --domain shop.example.com --domain '*.shop.example.com' --enable
"""


@click.command(epilog=EPILOG, short_help="Write the file of a new site.")
@click.argument("name")
@click.option("--domain", "domains", multiple=True, help="Domain or pattern; repeatable.  [default: NAME.localhost]")
@click.option("--location", help="Working directory and import path.  [default: the current directory]")
@click.option("--application", help="Application to serve.  [default: app:app, or the one that --from finds]")
@click.option("--from", "source", metavar="PATH", help="Find location, application and python in this folder or file.")
@click.option("--enable", is_flag=True, help="Enable the site at once.")
@pass_session
def new(
    session: Session,
    name: str,
    *,
    domains: tuple[str, ...],
    location: str | None,
    application: str | None,
    source: str | None,
    enable: bool,
) -> None:
    """Write sites-available/NAME.ini, in which comments explain the options.

    An existing file is not overwritten. With --from, the command finds location, application and python in the files of
    a project and prints its choice, without running any of the project's code. It knows Django, with or without
    channels, Pyramid and other Paste applications, Moya, .wsgi files, Flask, Dash, FastAPI, Starlette, Bottle,
    CherryPy, web.py and plain WSGI, and also NiceGUI, Gradio and Streamlit, which have their own servers.

    The command then checks the site, as `check` does. If there are problems, it prints them with their remedies; the
    exit status is 1, and the file stays.
    """
    from multisite.cli.scaffold import write_new
    from multisite.config.options import site_template

    stem = stem_of(name)
    if not _NAME.match(stem):
        raise click.UsageError(f"{name!r} is not a site name (1 to 64 letters, digits, '.', '_' and '-')")
    path = session.places.source(stem)
    chosen = {"domains": ", ".join(domains) or f"{stem}.localhost"}
    if source and location:
        raise click.UsageError("--from and --location both name the site's folder; give only one")
    found = draft(source, application) if source else None
    if found:
        chosen |= found.settings
    else:
        chosen |= {"location": os.path.abspath(location or "."), "application": application or "app:app"}
    text = site_template(chosen, found.comments, found.static, found.is_there) if found else site_template(chosen)
    if not write_new(path, text):
        fail(f"{path} exists already and has not been changed")
    refused, link = "", ""
    if enable:
        from multisite.cli.switch import Enabling

        step = Enabling(session).enable(stem)
        refused, link = (step.message, "") if step.action == "refuse" else ("", step.path)
    verdict = (of_enabled(session, link) if link else None) or of_available(session, stem)
    if session.as_json:
        more: dict[str, Any] = {"found": list(found.comments)} if found else {}
        more |= {"refused": refused} if refused else {}
        say_json({"name": stem, "file": path, **verdict.as_dict(), **more})
        raise SystemExit(1 if refused or not verdict.is_good else 0)
    for line in found.comments if found else ():
        say(line)
    is_enabled = enable and not refused
    say(f"wrote {path}" + ("; enabled" if is_enabled else f"; multisite ensite {stem} enables it"))
    if is_enabled:
        verdict.say()
        say_once_fixed([verdict])
    else:
        say_problems(verdict.problems)
    if refused:
        fail(f"site not enabled: {refused}")
    if not verdict.is_good:
        raise SystemExit(1)


@dataclass(frozen=True)
class Draft:
    """The content of a site file: settings, and comments about their origin.

    Attributes:
        static: URL prefix → folder of static files, relative to the location.
        is_there: whether all these folders exist.
    """

    settings: dict[str, str]
    comments: tuple[str, ...]
    static: dict[str, str]
    is_there: bool


def draft(path: str, application: str | None) -> Draft:
    """Examine the project in a folder, or one file; `application` takes precedence over any guess.

    Raises:
        NoGuess: the files do not show what serves the project.
        OSError: `path` does not exist.
    """
    from multisite.cli.project.guess import guess
    from multisite.status.project.scan import survey
    from multisite.status.project.sources import Guess

    path = os.path.abspath(os.path.expanduser(path))
    folder = os.path.dirname(path) if os.path.isfile(path) else path
    with waiting(f"examining {folder}"):
        project = survey(folder)
    if path != folder:
        name = os.path.basename(path)
        project.sources = {each: tree for each, tree in project.sources.items() if each == name}
        project.inis = {each: sections for each, sections in project.inis.items() if each == name}
    others: tuple[Guess, ...] = ()
    if application:
        best = Guess("", f"{application} was given", {"location": folder, "application": application})
    else:
        best, others = guess(project)
    settings = dict(best.settings)
    runner = "the python3 of PATH" if "command" in settings else "multisite's own interpreter"
    about_python = f"it has no virtualenv, so {runner} runs it"
    if project.venv:
        settings["python"] = os.path.relpath(project.venv, settings["location"])
        about_python = f"its virtualenv is {project.venv}, so it runs in its own process"
    also = [f"Also found: {other.what} ({other.why})." for other in others[:5]]
    first = f"{best.framework or 'The application'}: {best.why}; {about_python}."
    is_there = all(os.path.isdir(os.path.join(settings["location"], path)) for path in best.static.values())
    comments = (f"Found in {folder}.", first, f"Chosen: {best.what}.", *best.notes, *_about(best, is_there), *also)
    return Draft(settings, comments, best.static, is_there)


def _about(best: Guess, is_there: bool) -> tuple[str, ...]:
    """Return a sentence about the proposed [static] section."""
    if not best.static:
        return ()
    proposed = ", ".join(f"{prefix} = {path}" for prefix, path in best.static.items())
    later = "" if is_there else "; it is a comment, since manage.py collectstatic has not created the folder yet"
    return (f"Proposed for [static]: {proposed}{later}.",)
