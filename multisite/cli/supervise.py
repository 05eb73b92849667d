"""``multisite supervise``: the supervisor in the foreground."""

from __future__ import annotations

import click

from multisite.cli.session import Session, pass_session

EPILOG = """\b
Examples:
  multisite supervise
  systemd-run --property=Type=notify multisite --home /srv/sites supervise
"""


@click.command(epilog=EPILOG, short_help="Run the supervisor in the foreground.")
@pass_session
def supervise(session: Session) -> None:
    """Run the supervisor of the home in the foreground, for systemd (Type=notify); SIGTERM ends it and all its sites.

    Without it the first worker that needs a supervisor starts one, which leaves with the last server.
    """
    home = session.home.path  # an unusable home is told before anything is forked
    from multisite.supervisor.watchdog import guard

    ready = guard()
    from multisite.supervisor.run import run

    raise SystemExit(run(home, foreground=True, ready=ready))
