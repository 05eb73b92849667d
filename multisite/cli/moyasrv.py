"""``moya-srv``: the commands and messages that users of Moya's service know, for the same home."""

from __future__ import annotations

import os
import sys
import traceback

import click

from multisite.cli.install import SYSTEM_HOME
from multisite.cli.output import say, say_table, wide_option
from multisite.cli.scaffold import BASHTOOLS, HOME_FILES, make_home
from multisite.cli.session import Session
from multisite.errors import MultisiteError


class MoyaGroup(click.Group):
    """Prints an error in one line, or with ``-d`` its traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; exit code 1 on an error."""
        try:
            return super().invoke(ctx)
        except (MultisiteError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            if ctx.params.get("debug"):
                traceback.print_exc()
            else:
                say(str(error), err=True)
            raise SystemExit(1) from None


@click.group("moya-srv", cls=MoyaGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-d", "--debug", is_flag=True, help="Enable debug information (show tracebacks).")
@click.option("--home", metavar="PATH", help="Moya service directory.")
@click.pass_context
def main(ctx: click.Context, debug: bool, home: str | None) -> None:
    """Manage the sites of a Moya service."""
    ctx.obj = Session(home)


@main.command("list")
@wide_option
@click.pass_obj
def list_(session: Session, wide: bool) -> None:
    """List enabled projects."""
    sites = sorted(session.catalogue.sites.items())
    rows = [(name, tuple(f.domains), f.path, session.catalogue.site(name).location) for name, f in sites]
    cut = ("conf", "location", "domain(s)", "name")
    say_table(("name", "domain(s)", "conf", "location"), rows, drop=("conf",), cut=cut, wide=wide)


@main.command()
@click.argument("name", metavar="PROJECT")
@click.pass_obj
def where(session: Session, name: str) -> None:
    """Output the location of the project, without a newline."""
    click.echo(session.catalogue.site(_project(session, name)).location, nl=False)


@main.command()
@click.argument("name", metavar="PROJECT")
@click.pass_obj
def restart(session: Session, name: str) -> None:
    """Restart a project server."""
    from multisite.cli.restart import touch

    project = _project(session, name)
    folder = os.path.join(session.home.temp_dir, "moyasrv")
    os.makedirs(folder, mode=0o755, exist_ok=True)
    touch(os.path.join(folder, f"{project}.changes"))


@main.command()
@click.option("--home", metavar="PATH", help=f"Where to install the service; default {SYSTEM_HOME}.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@click.pass_obj
def install(session: Session, home: str | None, force: bool) -> None:
    """Install the service: its directories, moya.conf, logging.ini and bashtools."""
    target = os.path.abspath(home or session.home_option or SYSTEM_HOME)
    try:
        for action, path in make_home(target, {**HOME_FILES, "bashtools": BASHTOOLS}, force):
            say(f"{action} '{path}'" if action != "kept" else f"not overwriting '{path}' (use --force to overwrite)")
    except PermissionError as error:
        writing = f" writing '{error.filename}'" if os.path.isdir(target) else ""
        say(f"permission denied{writing} (do you need sudo)?", err=True)
        sys.exit(1)
    say(f"Moya server was installed in {target}")
    say(f"moyacd NAME works in a shell after: source {os.path.join(target, 'bashtools')}")


def _project(session: Session, name: str) -> str:
    if name not in session.catalogue.sites:
        say(f"no project '{name}'", err=True)
        sys.exit(1)
    return name
