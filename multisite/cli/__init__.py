"""The ``multisite`` command; each sub-command is a small module that is imported only when it is used.

Face: `main`, and `COMMANDS`.
May import: everything.
"""

from __future__ import annotations

import click

from multisite import __version__
from multisite.cli.group import LazyGroup
from multisite.cli.output import say, say_json
from multisite.cli.session import Session, pass_session

COMMANDS = {
    "init": "multisite.cli.install:init",
    "install": "multisite.cli.install:install",
    "new": "multisite.cli.new:new",
    "link": "multisite.cli.site.link:link",
    "ensite": "multisite.cli.switch:ensite",
    "dissite": "multisite.cli.switch:dissite",
    "list": "multisite.cli.listing:list_",
    "where": "multisite.cli.listing:where",
    "check": "multisite.cli.check:check",
    "explain": "multisite.cli.explain:explain",
    "set": "multisite.cli.site.edit:set_",
    "edit": "multisite.cli.site.editor:edit",
    "rename": "multisite.cli.site.edit:rename",
    "remove": "multisite.cli.site.edit:remove",
    "run": "multisite.cli.site.enter:run",
    "shell": "multisite.cli.site.enter:shell",
    "show": "multisite.cli.site.effective:show",
    "hosts": "multisite.cli.site.hosttable:hosts",
    "status": "multisite.cli.status:status",
    "top": "multisite.cli.top.command:top",
    "stats": "multisite.cli.stats:stats",
    "metrics": "multisite.cli.stats:metrics",
    "bill": "multisite.cli.bill:bill",
    "router": "multisite.cli.router:router",
    "logs": "multisite.cli.site.logs:logs",
    "incident": "multisite.cli.site.incident:incident",
    "stop": "multisite.cli.restart:stop",
    "pause": "multisite.cli.site.maintenance:pause",
    "resume": "multisite.cli.site.maintenance:resume",
    "maintenance": "multisite.cli.site.maintenance:maintenance",
    "drain": "multisite.cli.node.drain:drain",
    "create-rules": "multisite.cli.rules:create_rules",
    "restart": "multisite.cli.restart:restart",
    "reload": "multisite.cli.restart:reload",
    "serve": "multisite.cli.serve:serve",
    "supervise": "multisite.cli.restart:supervise",
    "completion": "multisite.cli.complete:completion",
}

#: names that users of other tools type
ALIASES = {
    "enable": COMMANDS["ensite"],
    "disable": COMMANDS["dissite"],
    "start": "multisite.cli.restart:start",
    "tail": "multisite.cli.site.logs:tail",
    "configtest": COMMANDS["check"],
    "help": "multisite.cli:help_",
    "version": "multisite.cli:version",
}
HOME = "Configuration directory, with moya.conf; default: $MOYA_SERVICE_HOME, /etc/moya or ./etc-moya."
JSON = "Print JSON for programs."

EPILOG = """\b
Examples:
  multisite init && multisite serve
  multisite new blog --domain blog.example.com --location /srv/blog --application blog.wsgi:application
  multisite ensite blog
  multisite explain blog.example.com/admin
  multisite --json list

\b
Exit status:
  0    done
  1    problem with the configuration or a site; the reason is on standard error
  2    wrong command line
  3    list, status: an enabled site is broken, backoff or fatal
  130  interrupted
"""


def _take_home(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    root = ctx.find_root()
    if value:
        root.params["home"] = value  # completion reads it there
    if value and root.obj:
        root.obj.home_option = value


def _take_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    session = ctx.find_root().obj
    if value and session:
        session.as_json = True


#: options that are also accepted after the command
EVERYWHERE = (
    click.Option(["--home"], metavar="DIR", help=HOME, expose_value=False, callback=_take_home),
    click.Option(["--json"], is_flag=True, help=JSON, expose_value=False, callback=_take_json),
)


@click.group(
    cls=LazyGroup,
    commands_table=COMMANDS,
    aliases=ALIASES,
    everywhere=EVERYWHERE,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--home", metavar="DIR", help=HOME)
@click.option("--json", "as_json", is_flag=True, help=JSON)
@click.version_option(__version__, prog_name="multisite")
@click.pass_context
def main(ctx: click.Context, home: str | None, as_json: bool) -> None:
    """Serve many Python sites on one machine, and enable or disable each of them.

    Each site has a file in sites-available. A link in sites-enabled enables it.
    """
    ctx.obj = Session(home, as_json)


@click.command("help", short_help="Show the help of a command.")
@click.argument("name", metavar="[COMMAND]", required=False)
@click.pass_context
def help_(ctx: click.Context, name: str | None) -> None:
    """Show the help of COMMAND, or the list of all commands.

    \b
    Examples:
      multisite help restart
    """
    root = ctx.find_root()
    found, command, _ = main.resolve_command(root, [name]) if name else ("", None, [])
    shown = click.Context(command, parent=root, info_name=found) if command else root
    click.echo(shown.get_help())


@click.command("version", short_help="Show the version.")
@pass_session
def version(session: Session) -> None:
    """Print the version of multisite."""
    say_json({"version": __version__}) if session.as_json else say(f"multisite, version {__version__}")
