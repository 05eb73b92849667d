"""``multisite new``: a site file to start from."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import click

from multisite.cli.group import fail
from multisite.cli.output import say, say_json, say_problems
from multisite.cli.session import Session, pass_session, stem_of

if TYPE_CHECKING:
    from multisite.cli.found import Found

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

EPILOG = """\b
Examples:
  multisite new blog --domain blog.example.com --location /srv/blog --application blog.wsgi:application
  multisite new wiki --from ~/src/wiki --enable
  multisite new shop --domain shop.example.com --domain '*.shop.example.com' --enable
"""


@click.command(epilog=EPILOG, short_help="Write the file of a new site.")
@click.argument("name")
@click.option("--domain", "domains", multiple=True, help="Domain or pattern; may be repeated. Default: NAME.localhost.")
@click.option("--location", help="Working directory and import path. Default: the current directory.")
@click.option("--application", help="What to serve.  [default: app:app, or what --from finds]")
@click.option(
    "--from", "source", metavar="PATH", help="Folder of a project, or its file: guess the rest from what is there."
)
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
    """Write sites-available/NAME.ini, with all options and what they mean as comments.

    A file that exists is not overwritten. With --from, location, application and python are looked up in the files of
    the project: Django, with channels or without, Pyramid and other Paste applications, Moya, .wsgi files, Flask, Dash,
    FastAPI, Starlette, Bottle, CherryPy, web.py, plain WSGI; and NiceGUI, Gradio and Streamlit, which bring servers of
    their own. What was seen and what was chosen is said. None of the project's code is run.
    """
    from multisite.cli.scaffold import write_new
    from multisite.config.reference import site_template

    stem = stem_of(name)
    if not _NAME.match(stem):
        raise click.UsageError(f"{name!r} is no name for a site: 1 to 64 letters, digits, '.', '_' and '-'")
    path = session.places.source(stem)
    chosen = {"domains": ", ".join(domains) or f"{stem}.localhost"}
    found = _found(source, location, application) if source else None
    if found:
        chosen |= found.settings
    else:
        chosen |= {"location": os.path.abspath(location or "."), "application": application or "app:app"}
    text = site_template(chosen, found.comments, found.static, found.is_there) if found else site_template(chosen)
    if not write_new(path, text):
        fail(f"{path} exists and is left as it is")
    if enable:
        session.places.enable(stem)
    problems = session.read_available(stem).problems
    if session.as_json:
        told = {"found": list(found.comments)} if found else {}
        return say_json({"name": stem, "file": path, "problems": [problem.as_dict() for problem in problems], **told})
    for line in found.comments if found else ():
        say(line)
    say(f"wrote {path}" + ("; enabled" if enable else f"; multisite ensite {stem} enables it"))
    say_problems(problems)


def _found(source: str, location: str | None, application: str | None) -> Found:
    from multisite.cli.found import look

    if location:
        raise click.UsageError("--from and --location both say where the site is; give one of them")
    return look(source, application)
