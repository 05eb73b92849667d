"""``multisite init``, by its other name ``multisite install``: make a home."""

from __future__ import annotations

import os

import click

from multisite.cli.output import say, say_json
from multisite.cli.scaffold import HELLO_FILES, HOME_FILES, MOYA_CONF, SUPERVISOR_SECTION, make_home
from multisite.cli.session import Session, pass_session
from multisite.cli.system import KINDS, PROXIES, USER, next_steps, write_files
from multisite.sites.enabling import Places

SYSTEM_HOME = "/etc/moya"
LOCAL_HOME = "etc-moya"

INIT = """\b
Examples:
  multisite init
  multisite --home /srv/sites init
  sudo multisite init --system
  multisite init --system=supervisord --root debian/multisite
"""
INSTALL = """\b
Examples:
  sudo multisite install
  multisite --home /srv/sites install --force
"""


@click.command(epilog=INIT, short_help="Make a home with a first site.")
@click.option(
    "--system",
    "manager",
    type=click.Choice(list(KINDS)),
    is_flag=False,
    flag_value="systemd",
    help="Make it in /etc/moya, with the files by which systemd or supervisord runs it.",
)
@click.option("--root", metavar="DIR", default="", help="With --system: the root of the file system to write into.")
@click.option("--user", default=USER, show_default=True, help="With --system: user and group of gunicorn's workers.")
@click.option("--force", is_flag=True, help="Overwrite moya.conf and logging.ini, and what --system writes.")
@pass_session
def init(session: Session, manager: str | None, root: str, user: str, force: bool) -> None:
    """Make a home: moya.conf, logging.ini, sites-available, sites-enabled and a first site.

    The home is the one that the other commands will find: --home, $MOYA_SERVICE_HOME, /etc/moya if it holds a
    moya.conf, ./etc-moya. What exists is kept.

    With --system also the units of systemd (or the programs of supervisord), a rule for logrotate, and one for
    tmpfiles. A file that somebody has changed is kept.
    """
    if manager:
        return init_system(session, manager, root and os.path.abspath(root), user, force)
    if root:
        raise click.UsageError("--root goes with --system; --home names the home")
    system = SYSTEM_HOME if os.path.exists(f"{SYSTEM_HOME}/moya.conf") else LOCAL_HOME
    scaffold(session, system, force)


@click.command(epilog=INSTALL, short_help="Make a home in /etc/moya.")
@click.option("--force", is_flag=True, help="Overwrite moya.conf and logging.ini.")
@pass_session
def install(session: Session, force: bool) -> None:
    """Make a home in /etc/moya (or --home, or $MOYA_SERVICE_HOME), as `init` does elsewhere."""
    scaffold(session, SYSTEM_HOME, force)


def init_system(session: Session, manager: str, root: str, user: str, force: bool) -> None:
    """Make the system's home and the files of its service manager; say what each is for, and what to do next."""
    home = os.path.abspath(session.home_option or SYSTEM_HOME)
    place = os.path.join(root, home.lstrip("/")) if root else home
    files = {**HOME_FILES, "moya.conf": f"{MOYA_CONF}\n{SUPERVISOR_SECTION.format(group=user)}"}
    made = [(action, path, "") for action, path in make_home(place, files, force)]
    written = list(write_files(manager, home, user, _believed(place), root, force))
    steps = next_steps(manager, user)
    if session.as_json:
        rows = [{"action": action, "path": path, "purpose": purpose} for action, path, purpose in (*made, *written)]
        return say_json({"home": place, "steps": rows, "next": steps})
    for action, path, purpose in (*made, *written):
        why = "changed by hand" if purpose else "it says something else"  # what has no mark may be an older version's
        told = f" ({why}; --force overwrites it)" if action == "kept" else ""
        say(f"{action} {path}{f': {purpose}' if purpose else ''}{told}")
    if ("kept", os.path.join(place, "moya.conf"), "") in made:
        say(f"moya.conf was there: see that its [supervisor] says socket_group = {user}")
    say("next, on the machine that runs it:" if root else "next:")
    for step in steps:
        say(f"  {step}")


def _believed(home: str) -> str:
    """Return whom gunicorn is to believe: those that moya.conf names."""
    from multisite.config.read import read_home
    from multisite.config.trusted import of_gunicorn
    from multisite.errors import ConfigError

    try:
        return ",".join(of_gunicorn(read_home(home).service.trusted_proxies))
    except ConfigError:  # `check` says what is wrong with it
        return PROXIES


def scaffold(session: Session, default: str, force: bool) -> None:
    """Make the home and say what was done; the first site is added to a home that has none."""
    home = os.path.abspath(session.home_option or os.environ.get("MOYA_SERVICE_HOME") or default)
    is_empty = not Places(os.path.join(home, "sites-available"), "").choices()
    steps = list(make_home(home, {**HOME_FILES, **(HELLO_FILES if is_empty else {})}, force))
    if is_empty:
        Places(os.path.join(home, "sites-available"), os.path.join(home, "sites-enabled")).enable("hello")
    if session.as_json:
        return say_json({"home": home, "steps": [{"action": action, "path": path} for action, path in steps]})
    for action, path in steps:
        say(f"{action} {path}" + (" (--force overwrites it)" if action == "kept" else ""))
    if is_empty:
        say("enabled hello (http://hello.localhost:8000/ once `multisite serve` runs)")
