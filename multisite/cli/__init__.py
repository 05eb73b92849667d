"""The ``multisite`` command; each sub-command is a small module that is imported when it is asked for.

Face: `main`, and `COMMANDS`.
May import: everything.
"""

from __future__ import annotations

import click

from multisite import __version__
from multisite.cli.group import LazyGroup
from multisite.cli.session import Session

COMMANDS = {
    "init": "multisite.cli.install:init",
    "install": "multisite.cli.install:install",
    "new": "multisite.cli.new:new",
    "ensite": "multisite.cli.switch:ensite",
    "dissite": "multisite.cli.switch:dissite",
    "list": "multisite.cli.listing:list_",
    "where": "multisite.cli.listing:where",
    "check": "multisite.cli.check:check",
    "explain": "multisite.cli.explain:explain",
    "status": "multisite.cli.listing:status",
    "stats": "multisite.cli.stats:stats",
    "router": "multisite.cli.router:router",
    "logs": "multisite.cli.logs:logs",
    "stop": "multisite.cli.restart:stop",
    "create-rules": "multisite.cli.rules:create_rules",
    "restart": "multisite.cli.restart:restart",
    "reload": "multisite.cli.restart:reload",
    "serve": "multisite.cli.serve:serve",
    "supervise": "multisite.cli.restart:supervise",
    "completion": "multisite.cli.complete:completion",
}

EPILOG = """\b
Examples:
  multisite init && multisite serve
  multisite new blog --domain blog.example.com --location /srv/blog --application blog.wsgi:application
  multisite ensite blog
  multisite explain blog.example.com/admin
  multisite --json list
"""


@click.group(
    cls=LazyGroup,
    commands_table=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--home", metavar="DIR", help="Directory of moya.conf; default $MOYA_SERVICE_HOME, /etc/moya or ./etc-moya."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")
@click.version_option(__version__, prog_name="multisite")
@click.pass_context
def main(ctx: click.Context, home: str | None, as_json: bool) -> None:
    """Serve many Python sites on one machine and switch each on and off.

    A site is one file in sites-available, switched on by a link in sites-enabled.
    """
    ctx.obj = Session(home, as_json)
