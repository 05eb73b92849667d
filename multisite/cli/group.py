"""A click group that imports a command when it is needed, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import importlib
from typing import Any, NoReturn

import click

from multisite.cli.fence import LEAVES, describe, sentence
from multisite.cli.output import did_you_mean, printable
from multisite.errors import MultisiteError

INTERRUPTED = 130  # 128 + SIGINT, as shells count
#: commands of later releases, and what does for now
LATER = {"top": "status shows the same figures once", "import": "new --from PATH looks at one project"}


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
            ctx.fail(f"no such command: {args[0]}{did_you_mean(args[0], self.table)}")
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
