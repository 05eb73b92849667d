"""``multisite run`` and ``multisite shell``: run a program in the same way as a site's processes.

A program that runs as another user gets its own session and, on a terminal, its own pseudo-terminal: a program that
shared root's terminal could type into root's shell (TIOCSTI, tty_ioctl(4)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import shlex
import shutil
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import click

from multisite.cli import complete
from multisite.cli.group import fail
from multisite.cli.output import complain, printable, say
from multisite.cli.session import Session, pass_session

if TYPE_CHECKING:
    from multisite.config.model import Site
    from multisite.supervisor.process.spec import Launch

RUN = """\b
Examples:
  multisite run blog -- python manage.py migrate
  multisite run blog -- pip list
"""
SHELL = """\b
Examples:
  multisite shell blog
"""
NOT_FOUND, NOT_RUN = 127, 126  # exit statuses, as in shells
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
BLOCK = 65536  # bytes


class _Separated(click.Command):
    """A command whose last words are another command, with its own options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words; an unknown option probably belongs to CMD."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" in words or len(words) < 2 or words[0].startswith("-"):
                raise
            meant = f"{ctx.command_path} {words[0]} -- {shlex.join(words[1:])}"
            raise click.UsageError(f"no such option: {error.option_name}; put -- before the command: {meant}") from None


@click.command(cls=_Separated, epilog=RUN, short_help="Run a command as a site's processes run.")
@click.argument("name", metavar="SITE", shell_complete=complete.known)
@click.argument("words", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def run(session: Session, name: str, words: tuple[str, ...]) -> None:
    """Run CMD like a process of SITE: as its user and group, in its location, with its environment and limits.

    The virtualenv of the site comes first in PATH. The exit status is that of CMD. The site need not be enabled, and
    its own processes are not affected. Only root can run CMD as another user.
    """
    enter(session, name, words)


@click.command(epilog=SHELL, short_help="Open a shell as a site's processes run.")
@click.argument("name", metavar="SITE", shell_complete=complete.known)
@pass_session
def shell(session: Session, name: str) -> None:
    """Open a shell whose commands run like processes of SITE, as with `run`."""
    enter(session, name, ())


def enter(session: Session, name: str, words: tuple[str, ...]) -> NoReturn:
    """Run a program, by default a shell, like a process of a site; end with its exit status."""
    from multisite.config import hosting
    from multisite.config.policies import Refused
    from multisite.supervisor.process import launch

    site = session.any_site(name).site
    if hosting.is_hosting(site.location) and not site.host:
        fail(f"{name} is a hosting site, with a site for each host; name one of its hosts")
    try:
        how = launch.guest(site, session.home, os.environ, words or (_shell(site.chroot),))
    except Refused as error:
        fail(f"{site.name}: {error}")
    other = _user_of_roots_service(session, site)
    if other and other != how.identity.name:
        me = how.identity.name
        complain("warning", f"running as '{me}'; root's service runs {site.name} as '{other}', and so does sudo")
    kept = {key: os.environ[key] for key in ("TERM", "COLORTERM") if key in os.environ}
    how = replace(how, env={**kept, **how.env})
    if not words and os.isatty(0):
        say(f"{site.name}: user {how.identity.name or how.identity.uid}, {how.cwd}; exit ends the shell", err=True)
    if not how.identity.change:
        become(how)
    raise SystemExit(_as_another_user(how))


def _user_of_roots_service(session: Session, site: Site) -> str:
    """Return the user of a site if the home belongs to root and we are not root; "" otherwise, or if unknown."""
    from multisite.config.policies import Refused
    from multisite.supervisor.process import launch, privilege

    if os.geteuid() == 0 or os.stat(session.home.file).st_uid != 0:
        return ""
    try:
        return privilege.chosen(site, session.home, launch.interpreter(site)).name
    except Refused:
        return ""


def _shell(chroot: str) -> str:
    return "/bin/sh" if chroot else shutil.which("bash") or "/bin/sh"


def become(how: Launch) -> NoReturn:
    """Turn this process into the program of `how`, or print the reason why not."""
    from multisite.supervisor.process import spawn
    from multisite.supervisor.process.descriptors import DescriptorLimits

    step, status = "prepare", NOT_RUN
    try:
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the program would inherit that
            signal.signal(ignored, signal.SIG_DFL)
        for step in spawn.confine(how, DescriptorLimits()):  # noqa: B007 - the name of the step is for the message
            pass
        step = f"location {how.cwd}"
        os.chdir(how.cwd)
        os.umask(how.umask)
        step = f"run {how.argv[0]}"
        program = how.argv[0]
        if "/" not in program and not shutil.which(program, path=how.env.get("PATH", os.defpath)):
            raise FileNotFoundError(errno.ENOENT, "command not found")
        os.execvpe(program, how.argv, how.env)
    except OSError as error:
        reason = (error.strerror or "failed").lower()
        if isinstance(error, PermissionError):
            with contextlib.suppress(Exception):
                reason += spawn.denied(how, step)
        os.write(2, f"multisite: {printable(f'{step}: {reason}')}\n".encode())
        status = NOT_FOUND if step.startswith("run ") and error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_RUN
    finally:
        os._exit(status)


def _as_another_user(how: Launch) -> int:
    """Run a program in its own session; return its exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until there is a process to send them to
    if not os.isatty(0):
        pid = os.fork()
        if pid == 0:
            _lead(how, -1)
        with _forwarding(pid):
            return _status(pid)
    master, slave = os.openpty()
    termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(0))
    _copy_size(slave)
    os.fchown(slave, how.identity.uid, -1)
    pid = os.fork()
    if pid == 0:
        _lead(how, slave)
    os.close(slave)
    with _forwarding(pid, master), _raw():
        _relay(master)
        return _status(pid)


def _lead(how: Launch, terminal: int) -> NoReturn:
    """Begin a session with `terminal` in place of ours, and become the program."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if terminal >= 0:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            for descriptor in filter(os.isatty, (0, 1, 2)):
                os.dup2(terminal, descriptor)
        for descriptor in map(int, os.listdir("/proc/self/fd")):  # the program may not have files of root's shell
            with contextlib.suppress(OSError):
                if descriptor > 2:
                    os.close(descriptor)
        become(how)
    finally:
        os._exit(NOT_RUN)


def _status(pid: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _forwarding(pid: int, master: int = -1) -> Iterator[None]:
    """Forward signals that end a command to its session, and the size of the terminal, if there is one."""

    def forward(number: int, _frame: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(pid, number)
            except ProcessLookupError:  # it has not begun its session yet
                os.kill(pid, number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    if master >= 0:
        before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda _number, _frame: _copy_size(master))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _copy_size(terminal: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Pass each key on to the other terminal, which turns some of them into signals."""
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)  # keys that have already been typed are for the program
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _relay(master: int) -> None:
    """Copy between the two terminals until the session ends."""
    screen = next(filter(os.isatty, (1, 2, 0)))
    os.set_blocking(master, False)
    typed, sources = b"", [0, master]
    while True:
        readable, writable, _ = select.select(sources, [master] if typed else [], [])
        if master in readable:
            try:
                shown = os.read(master, BLOCK)
            except BlockingIOError:
                continue
            except OSError:  # EIO: no process has the terminal open
                return
            while shown:
                shown = shown[os.write(screen, shown) :]
        if 0 in readable:
            keys = os.read(0, BLOCK)
            typed += keys
            if not keys or len(typed) > BLOCK:
                sources.remove(0)
        if writable:
            with contextlib.suppress(OSError):
                typed = typed[os.write(master, typed) :]
            if not typed and 0 not in sources and os.isatty(0):
                sources.append(0)
