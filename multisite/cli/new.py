"""``multisite new``: a site file to start from."""

from __future__ import annotations

import os
import re

import click

from multisite.cli.group import fail
from multisite.cli.output import say, say_json, say_problems
from multisite.cli.session import Session, pass_session, stem_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

EPILOG = """\b
Examples:
  multisite new blog --domain blog.example.com --location /srv/blog --application blog.wsgi:application
  multisite new shop --domain shop.example.com --domain '*.shop.example.com' --enable
"""


@click.command(epilog=EPILOG, short_help="Write the file of a new site.")
@click.argument("name")
@click.option("--domain", "domains", multiple=True, help="Domain or pattern; may be repeated. Default: NAME.localhost.")
@click.option("--location", help="Working directory and import path. Default: the current directory.")
@click.option("--application", default="app:app", show_default=True, help="What to serve.")
@click.option("--enable", is_flag=True, help="Enable the site at once.")
@pass_session
def new(
    session: Session, name: str, *, domains: tuple[str, ...], location: str | None, application: str, enable: bool
) -> None:
    """Write sites-available/NAME.ini, with all options and what they mean as comments.

    A file that exists is not overwritten.
    """
    from multisite.cli.scaffold import write_new
    from multisite.reference import site_template

    stem = stem_of(name)
    if not _NAME.match(stem):
        raise click.UsageError(f"{name!r} is no name for a site: 1 to 64 letters, digits, '.', '_' and '-'")
    path = session.places.source(stem)
    folder = os.path.abspath(location or ".")
    chosen = {"domains": ", ".join(domains) or f"{stem}.localhost", "location": folder, "application": application}
    text = site_template(chosen)
    if not write_new(path, text):
        fail(f"{path} exists and is left as it is")
    if enable:
        session.places.enable(stem)
    problems = session.read_available(stem).problems
    if session.as_json:
        return say_json({"name": stem, "file": path, "problems": [problem.as_dict() for problem in problems]})
    say(f"wrote {path}" + ("; enabled" if enable else f"; multisite ensite {stem} enables it"))
    say_problems(problems)
