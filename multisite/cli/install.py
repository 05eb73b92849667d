"""``multisite init``, also called ``multisite install``: create a home."""

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


@click.command(epilog=INIT, short_help="Create a configuration directory with a first site.")
@click.option(
    "--system",
    "manager",
    type=click.Choice(list(KINDS)),
    is_flag=False,
    flag_value="systemd",
    help="Create it in /etc/moya, with the service files for systemd or supervisord.",
)
@click.option("--root", metavar="DIR", default="", help="With --system: write below this root directory.")
@click.option("--user", default=USER, show_default=True, help="With --system: user and group of gunicorn's workers.")
@click.option("--force", is_flag=True, help="Overwrite moya.conf, logging.ini and the files of --system.")
@pass_session
def init(session: Session, manager: str | None, root: str, user: str, force: bool) -> None:
    """Create a configuration directory (home) with moya.conf, logging.ini, sites-available, sites-enabled and a site.

    Its path is --home, else $MOYA_SERVICE_HOME, else /etc/moya if that has a moya.conf, else ./etc-moya; the other
    commands look there, too. Existing files are kept.

    With --system, the command also writes the units for systemd (or the programs for supervisord), a rule for
    logrotate, and one for tmpfiles. A file that somebody has changed is kept.
    """
    if manager:
        return init_system(session, manager, root and os.path.abspath(root), user, force)
    if root:
        raise click.UsageError("--root needs --system; use --home for the path of the home")
    system = SYSTEM_HOME if os.path.exists(f"{SYSTEM_HOME}/moya.conf") else LOCAL_HOME
    scaffold(session, system, force)


@click.command(epilog=INSTALL, short_help="Create a configuration directory in /etc/moya.")
@click.option("--force", is_flag=True, help="Overwrite moya.conf and logging.ini.")
@pass_session
def install(session: Session, force: bool) -> None:
    """Create a configuration directory in /etc/moya (or --home, or $MOYA_SERVICE_HOME), as `init` does elsewhere."""
    scaffold(session, SYSTEM_HOME, force)


def init_system(session: Session, manager: str, root: str, user: str, force: bool) -> None:
    """Create the system's home and the files for its service manager; print their purposes and the next steps."""
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
        why = "changed by hand" if purpose else "its text differs"  # a file without a mark may be an older version's
        note = f" ({why}; --force overwrites it)" if action == "kept" else ""
        say(f"{action} {path}{f': {purpose}' if purpose else ''}{note}")
    if ("kept", os.path.join(place, "moya.conf"), "") in made:
        say(f"moya.conf existed already: make sure that its [supervisor] section sets socket_group = {user}")
    say("next, on the machine that runs it:" if root else "next:")
    for step in steps:
        say(f"  {step}")


def _believed(home: str) -> str:
    """Return the proxies that gunicorn should trust: those in moya.conf."""
    from multisite.config.read import read_home
    from multisite.config.trusted import of_gunicorn
    from multisite.errors import ConfigError

    try:
        return ",".join(of_gunicorn(read_home(home).service.trusted_proxies))
    except ConfigError:  # `check` reports it
        return PROXIES


def scaffold(session: Session, default: str, force: bool) -> None:
    """Create the home and print the steps; a home without sites gets a first one."""
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
        say("enabled hello (http://hello.localhost:8000/ when `multisite serve` is running)")
