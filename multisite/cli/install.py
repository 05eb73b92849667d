"""``multisite init``, by its other name ``multisite install``: make a home."""

from __future__ import annotations

import os

import click

from multisite.cli.output import say, say_json
from multisite.cli.scaffold import HELLO_FILES, HOME_FILES, make_home
from multisite.cli.session import Session, pass_session
from multisite.enabling import Places

SYSTEM_HOME = "/etc/moya"
LOCAL_HOME = "etc-moya"

INIT = """\b
Examples:
  multisite init
  multisite --home /srv/sites init
"""
INSTALL = """\b
Examples:
  sudo multisite install
  multisite --home /srv/sites install --force
"""


@click.command(epilog=INIT, short_help="Make a home with a first site.")
@click.option("--force", is_flag=True, help="Overwrite moya.conf and logging.ini.")
@pass_session
def init(session: Session, force: bool) -> None:
    """Make a home: moya.conf, logging.ini, sites-available, sites-enabled and a first site.

    The home is the one that the other commands will find: --home, $MOYA_SERVICE_HOME, /etc/moya if it holds a
    moya.conf, ./etc-moya. What exists is kept.
    """
    system = SYSTEM_HOME if os.path.exists(f"{SYSTEM_HOME}/moya.conf") else LOCAL_HOME
    scaffold(session, system, force)


@click.command(epilog=INSTALL, short_help="Make a home in /etc/moya.")
@click.option("--force", is_flag=True, help="Overwrite moya.conf and logging.ini.")
@pass_session
def install(session: Session, force: bool) -> None:
    """Make a home in /etc/moya (or --home, or $MOYA_SERVICE_HOME), as `init` does elsewhere."""
    scaffold(session, SYSTEM_HOME, force)


def scaffold(session: Session, default: str, force: bool) -> None:
    """Make the home and say what was done; the first site is added to a home that has none."""
    home = os.path.abspath(session.home_option or os.environ.get("MOYA_SERVICE_HOME") or default)
    fresh = not Places(os.path.join(home, "sites-available"), "").choices()
    steps = list(make_home(home, {**HOME_FILES, **(HELLO_FILES if fresh else {})}, force))
    if fresh:
        Places(os.path.join(home, "sites-available"), os.path.join(home, "sites-enabled")).enable("hello")
    if session.as_json:
        return say_json({"home": home, "steps": [{"action": action, "path": path} for action, path in steps]})
    for action, path in steps:
        say(f"{action} {path}" + (" (--force overwrites it)" if action == "kept" else ""))
    if fresh:
        say("enabled hello (http://hello.localhost:8000/ once `multisite serve` runs)")
