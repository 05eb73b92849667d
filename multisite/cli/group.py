"""The group of commands, each imported when it is needed, and the handling of errors.

A fault of one site affects only that site's row, never the command: every loop over sites takes its step through
`fenced`. Any other error ends the command with one line and exit code 1.
"""

from __future__ import annotations

import errno
import importlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from multisite.cli.output import coloured, is_coloured, printable, say_json, suggestion
from multisite.errors import MultisiteError
from multisite.status import fence
from multisite.status.fence import describe, refused, sentence
from multisite.status.sight import TYPED

if TYPE_CHECKING:
    from multisite.cli.session import Session

INTERRUPTED = 130  # 128 + SIGINT, as in shells
#: commands of later releases, and what to use until then
LATER = {"import": "new --from PATH looks at one project"}
T = TypeVar("T")
WORDS = "multisite.words"  # in the context: the command line as it was typed
#: exceptions with which click ends a command; they are not a site's fault
ENDINGS = (click.ClickException, click.exceptions.Exit, click.Abort)


class LazyGroup(click.Group):
    """Commands by name, each as ``module:attribute``; the help lists them in the order of the table.

    Args:
        commands_table: the commands in the help.
        aliases: other names of commands, which the help does not list.
        everywhere: options of the group that each command also accepts.
    """

    def __init__(
        self,
        *args: Any,
        commands_table: Mapping[str, str],
        aliases: Mapping[str, str] = MappingProxyType({}),
        everywhere: Sequence[click.Option] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.table, self.aliases, self.everywhere = commands_table, aliases, everywhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`; None if there is none."""
        place = self.table.get(cmd_name) or self.aliases.get(cmd_name)
        if not place:
            return None
        module, attribute = place.split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        command.params += [option for option in self.everywhere if option not in command.params]
        return command

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **named: Any) -> click.Context:
        """Read the options before the command."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a site's name may not fit the terminal's encoding
        words = tuple(args)
        try:
            context = super().make_context(info_name, args, *more, **named)
        except click.UsageError as error:
            raise _misused(error, words) from None
        context.meta[WORDS] = words
        TYPED.set(words)
        return context

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the one that may be meant."""
        if args and args[0] in LATER:
            ctx.fail(f"there is no {args[0]} yet; {LATER[args[0]]}")
        if args and args[0] not in (*self.table, *self.aliases) and not args[0].startswith("-"):
            ctx.fail(f"no such command: {args[0]}{suggestion(args[0], [*self.table, *self.aliases])}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print one of our errors as one line on standard error, and exit with code 1."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _misused(error, ctx.meta.get(WORDS, ())) from None
        except MultisiteError as error:
            fail(refused(ctx.obj, error), error.id)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            fail(describe(error, ctx.obj))
        except ENDINGS:
            raise
        except Exception as error:
            fail(sentence(ctx.obj, error))
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


class Misused(click.UsageError):
    """A wrong command line; the word before the reason is coloured."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the usage of the command and the error."""
        text = io.StringIO()
        super().show(text)
        usage, _, reason = text.getvalue().partition("Error: ")
        mark = coloured("Error", "red", err=True)
        click.echo(f"{usage}{mark}: {printable(reason.rstrip())}", file, err=True, color=is_coloured(err=True))


def _misused(error: click.UsageError, words: Sequence[str]) -> click.UsageError:
    """Return an error with a suggestion for a wrong option; also print it as JSON if the command line asks for that.

    Args:
        error: the error from click.
        words: the whole command line; some of its options have not been read yet.
    """
    if isinstance(error, click.NoSuchOption) and error.ctx:
        typed = _typed(error.option_name, words)
        known = [name for option in error.ctx.command.get_params(error.ctx) for name in option.opts if name[0] == "-"]
        error = click.UsageError(f"no such option: {typed}{suggestion('--' + typed.lstrip('-'), known)}", error.ctx)
    if "--json" in words[: words.index("--") if "--" in words else None]:
        say_json({"error": error.format_message()})
    is_help = isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ()))
    return error if is_help else Misused(error.format_message(), error.ctx)


def _typed(option: str, words: Sequence[str]) -> str:
    """Return an option as it was typed; click reads ``-json`` as ``-j`` and more."""
    longer = (word for word in words if len(option) == 2 and len(word) > 3 and word.startswith(option))
    return option if option.startswith("--") else next(longer, option)


def fail(reason: str, id: str = "") -> NoReturn:
    """Print `reason` in one line on standard error, and with --json as JSON, too; end with exit status 1.

    Args:
        reason: one sentence.
        id: of the error that ends the command, "" if it is none of `multisite.errors.codes`.
    """
    context = click.get_current_context(silent=True)
    session = context.find_root().obj if context else None
    if session and session.as_json:
        say_json({"error": printable(reason), **({"id": id} if id else {})})
    mark = coloured("multisite", "red", err=True)
    click.echo(f"{mark}: {id and id + ' '}{printable(reason)}", err=True, color=is_coloured(err=True))
    raise SystemExit(1)


def fenced(session: Session, site: str, step: Callable[[], T], instead: Callable[[str], T]) -> T:
    """Return the result of `step` for a site (`multisite.status.fence.fenced`); it may also end the command."""
    return fence.fenced(session, site, step, instead, let=ENDINGS)
