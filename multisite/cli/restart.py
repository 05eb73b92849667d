"""``multisite restart`` and ``multisite reload``: a time stamp that every worker sees within a second."""

from __future__ import annotations

import os
import stat

import click

from multisite.cli import complete
from multisite.cli.output import say, say_json, say_problems
from multisite.cli.session import Session, pass_session

RESTART = """\b
Examples:
  multisite restart blog
  multisite restart blog shop
"""
RELOAD = """\b
Examples:
  multisite reload
"""


@click.command(epilog=RESTART, short_help="Restart sites.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.sites)
@pass_session
def restart(session: Session, names: tuple[str, ...]) -> None:
    """Restart sites: their applications are loaded anew, other sites notice nothing.

    If the new code cannot be loaded, the old application goes on serving.
    """
    sites = [session.enabled_site(name) for name in names]
    for site in sites:
        stamp(site.path)
        touch_changes(session.home.temp_dir, site.name)
    if session.as_json:
        return say_json({"restarted": [site.name for site in sites]})
    for site in sites:
        say(f"{site.name}: every worker loads it anew within a second")


@click.command(epilog=RELOAD, short_help="Read the whole configuration again.")
@pass_session
def reload(session: Session) -> None:
    """Make every worker read moya.conf and all site files again.

    A file with an error keeps its last good version in service; the errors are said and the exit code is 1.
    """
    problems = session.catalogue.problems
    stamp(session.home.file)
    if session.as_json:
        say_json({"reloaded": session.home.file, "problems": [problem.as_dict() for problem in problems]})
    else:
        say_problems(problems)
        say(f"every worker reads {session.home.path} again within a second")
    if any(problem.severity == "error" for problem in problems):
        raise SystemExit(1)


def stamp(path: str) -> None:
    """Set the time of `path` to now; of a link, not of the file that it leads to."""
    try:
        os.utime(path, follow_symlinks=False)
    except OSError as error:
        error.filename = path  # utime does not say it
        raise


def touch_changes(temp_dir: str, name: str) -> None:
    """Set the time of Moya's ``moyasrv/<name>.changes`` where that directory exists and is ours.

    A directory in a shared ``/tmp`` that belongs to somebody else is not written to.
    """
    folder = os.path.join(temp_dir, "moyasrv")
    try:
        status = os.lstat(folder)
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        touch(os.path.join(folder, f"{name}.changes"))


def touch(path: str) -> None:
    """Set the time of `path` to now, creating it, never through a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)
