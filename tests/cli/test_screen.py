"""top in a real terminal: keys, sizes, a resize, no colour, and a terminal that is as it was in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.homes import TestHome

PATIENCE = 60.0
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """A terminal with a command in it."""

    def __init__(self, *words: str, columns: int = 80, lines: int = 24, **environ: str) -> None:
        self.controller, self.side = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.side)
        argv = [sys.executable, "-m", "multisite", *words]
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            fcntl.ioctl(self.side, termios.TIOCSCTTY, 0)
            for number in range(3):
                os.dup2(self.side, number)
            os.execve(argv[0], argv, {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environ})
        self.seen = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def send(self, keys: bytes) -> None:
        self.seen = b""
        os.write(self.controller, keys)

    def until(self, wanted: bytes) -> bytes:
        """Read until that is there."""
        while wanted not in self.seen:
            assert select.select([self.controller], [], [], PATIENCE)[0], self.seen
            self.seen += os.read(self.controller, 65536)
        return self.seen

    def end(self) -> int:
        """Wait for the end; returns the exit status."""
        self.until(LEFT)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def top(home: TestHome | None = None, **environ: str) -> Iterator[Terminal]:
    of = ("--home", str(home.path)) if home else ("--simulate", "50")
    terminal = Terminal("top", "--every", "0.2", *of, **environ)
    try:
        terminal.until(b"sites by need")
        yield terminal
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)
        os.close(terminal.controller)
        os.close(terminal.side)


def test_keys_work_and_q_restores_the_terminal() -> None:
    with top() as terminal:
        assert ENTERED in terminal.seen
        terminal.send(b"m")
        terminal.until(b"sites by memory")
        terminal.send(b"/blog\r")
        terminal.until(b"filter blog")
        terminal.send(b"\r")
        terminal.until(b"log:")
        terminal.send(b"\x1b[D")
        terminal.until(b"sites by memory")
        terminal.send(b"R")
        terminal.until(b"nothing happens to simulated sites")
        terminal.send(b"q")
        assert terminal.end() == 0
        assert b"\x1b[?25h" in terminal.seen
        assert termios.tcgetattr(terminal.side) == terminal.before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)])
def test_a_signal_restores_the_terminal(number: int, code: int) -> None:
    with top() as terminal:
        os.kill(terminal.pid, number)
        assert terminal.end() == code
        assert termios.tcgetattr(terminal.side) == terminal.before


def test_a_terminal_that_is_resized_is_filled() -> None:
    with top() as terminal:
        terminal.seen = b""
        terminal.resize(200, 30)
        os.kill(terminal.pid, signal.SIGWINCH)
        terminal.until(b"requests\x1b")
        terminal.seen = b""
        terminal.resize(30, 6)
        terminal.until(b"sites by need")
        terminal.send(b"q")
        assert terminal.end() == 0


def test_without_colour_there_is_none() -> None:
    with top(NO_COLOR="1") as terminal:
        terminal.send(b"r")
        seen = terminal.until(b"sites by requests")
        assert not re.search(rb"\x1b\[[\d;]*(3\d|9\d)[\d;]*m", seen)
        terminal.send(b"q")
        terminal.end()


def test_a_terminal_that_knows_ascii_alone_gets_curves() -> None:
    with top(PYTHONUTF8="0", PYTHONIOENCODING="ascii") as terminal:
        terminal.send(b"n")
        assert terminal.until(b"sites by need").isascii()
        terminal.send(b"q")
        assert terminal.end() == 0


def test_it_is_suspended_and_comes_back() -> None:
    with top() as terminal:
        terminal.send(b"\x1a")
        terminal.until(LEFT)
        assert os.WIFSTOPPED(os.waitpid(terminal.pid, os.WUNTRACED)[1])
        assert termios.tcgetattr(terminal.side) == terminal.before
        terminal.seen = b""
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.until(ENTERED)
        terminal.send(b"q")
        assert terminal.end() == 0


def test_a_real_home_is_watched_and_changed(tmp_path: Path) -> None:
    home = TestHome(tmp_path)
    home.hello("blog")
    with top(home=home) as terminal:
        terminal.until(b"> blog")
        terminal.send(b"D")
        terminal.until(b"Disable blog?")
        terminal.send(b"y")
        terminal.until(b"0 of 0 sites")
        assert not (tmp_path / "sites-enabled/blog.ini").exists()
        terminal.send(b"q")
        assert terminal.end() == 0


def test_without_a_terminal_it_names_status() -> None:
    argv = [sys.executable, "-m", "multisite", "top", "--simulate", "2"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "multisite status --watch" in done.stderr
