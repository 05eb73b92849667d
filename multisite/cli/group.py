"""The group of commands, each imported when it is needed, and what becomes of an error.

One site's fault costs that site's row, never a command: every loop over sites takes its step through `fenced`. What was
not foreseen gets an incident id, and its traceback is kept in the state directory. Any other error ends the command
with one line and exit code 1.
"""

from __future__ import annotations

import errno
import importlib
import os
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from multisite.cli.output import printable, suggestion
from multisite.errors import MultisiteError

if TYPE_CHECKING:
    from multisite.cli.session import Session

INTERRUPTED = 130  # 128 + SIGINT, as shells count
#: commands of later releases, and what does for now
LATER = {"top": "status shows the same figures once", "import": "new --from PATH looks at one project"}
T = TypeVar("T")
KIND = "incidents"
MOST = 50  # incidents that are kept
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: how click leaves a command; none of a site's business
LEAVES = (click.ClickException, click.exceptions.Exit, click.Abort)


class LazyGroup(click.Group):
    """Commands by name, each as ``module:attribute``; the order of the table is the order of the help."""

    def __init__(self, *args: Any, commands_table: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = commands_table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`; None if there is none."""
        if cmd_name not in self.table:
            return None
        module, attribute = self.table[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may be meant."""
        if args and args[0] in LATER:
            ctx.fail(f"there is no {args[0]} yet; {LATER[args[0]]}")
        if args and args[0] not in self.table and not args[0].startswith("-"):
            ctx.fail(f"no such command: {args[0]}{suggestion(args[0], self.table)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is one line on standard error and exit code 1."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if error.option_name in ("--home", "--json"):
                raise click.UsageError(f"{error.option_name} stands before the command", error.ctx) from None
            raise
        except MultisiteError as error:
            fail(error.reason)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            fail(describe(error))
        except LEAVES:
            raise
        except Exception as error:
            fail(sentence(ctx.obj, error))
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


def fail(reason: str) -> NoReturn:
    """Say `reason` in one line on standard error and leave with exit code 1."""
    click.echo(f"multisite: {printable(reason)}", err=True)
    raise SystemExit(1)


def fenced(session: Session, site: str, step: Callable[[], T], instead: Callable[[str], T]) -> T:
    """Return what `step` gives for a site; where that raises, what `instead` makes of the sentence that says why."""
    try:
        return step()
    except LEAVES:
        raise
    except Exception as error:
        return instead(sentence(session, error, site))


def sentence(session: Session | None, error: Exception, site: str = "") -> str:
    """Say what has been raised; what nobody has foreseen is an incident.

    Args:
        session: whose home keeps the traceback; None: nobody does.
        error: what has been raised.
        site: the site that it is about, "" for none.
    """
    if isinstance(error, MultisiteError):
        return error.reason
    if isinstance(error, OSError):
        return describe(error)
    from multisite.logs import servicelog

    incident = servicelog.incident()
    kept = session is not None and _keep(session, incident, error, site)
    where = f"; its traceback is in {kept}" if kept else ""
    return f"incident {incident}: {type(error).__name__}: {error} ({_place(error)}){where}"


def describe(error: OSError) -> str:
    """Say an error of the operating system with the file it is about."""
    hint = "; do you need sudo?" if error.errno in (errno.EACCES, errno.EPERM) else ""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{(error.strerror or 'it failed').lower()}{hint}"


def _place(error: Exception) -> str:
    """Return the innermost line of ours that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OURS)] or frames
    return f"{os.path.relpath(ours[-1].filename, os.path.dirname(OURS))}, line {ours[-1].lineno}" if ours else "?"


def _keep(session: Session, incident: str, error: Exception, site: str) -> str:
    """Keep a traceback; returns the path of the document, "" where that cannot be."""
    from multisite.sites.statefile import StateFile

    try:
        file = StateFile(session.home, KIND)
        with file.locked():
            told = file.load()
            rows = told if isinstance(told, dict) else {}
            lines = "".join(traceback.format_exception(error)).splitlines()
            row = {"at": time.time(), "site": site, "traceback": lines}
            newest = dict(list({**rows, incident: row}.items())[-MOST:])
            return file.path if file.store(newest) else ""
    except Exception:  # the home may be what is at fault
        return ""
