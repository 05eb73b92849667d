"""The terminal of ``top``: keys come in, the view is drawn, and in the end the terminal is as it was.

Looks at the home take their time in a thread, so keys are answered at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from multisite.cli.output import RULE
from multisite.cli.top.feed import Feed, Glance
from multisite.cli.top.keyboard import Keys
from multisite.cli.top.trends import ASCII_BARS, BARS, Trends
from multisite.cli.top.view import Detail, TopView
from multisite.errors import MultisiteError

ESCAPE = 0.05  # seconds within which the rest of a sequence follows, over slow lines as well
ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class LiveScreen:
    """Runs a view on the terminal until the user quits.

    Args:
        feed: of the figures.
        every: seconds between two looks.
    """

    def __init__(self, feed: Feed, every: float) -> None:
        self._feed, self._every = feed, every
        self._keys, self._trends = Keys(), Trends()
        self._view = TopView(self._trends, bars=BARS if _can_print(BARS + RULE) else ASCII_BARS)
        self._news: queue.SimpleQueue[Glance | Detail | str] = queue.SimpleQueue()
        self._wanted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._stopped_by = 0
        self._is_suspended = False

    def run(self) -> int:
        """Show it; returns the exit status."""
        threading.Thread(target=self._look, daemon=True, name="looks").start()
        threading.Thread(target=self._act, daemon=True, name="actions").start()
        with self._signals():
            while not self._view.is_over:
                with _taken(sys.stdin.fileno()), self._live() as live:
                    self._turn(live)
                if self._is_suspended:
                    self._is_suspended = False
                    os.kill(os.getpid(), signal.SIGSTOP)
        return 128 + self._stopped_by if self._stopped_by and self._stopped_by != signal.SIGINT else 0

    def _turn(self, live: Live) -> None:
        """Draw and wait, until the user quits or suspends."""
        while not (self._view.is_over or self._is_suspended):
            width, height = live.console.size
            live.update(Group(*self._view.draw(width, height)), refresh=True)
            wait = ESCAPE if self._keys.is_waiting else None
            ready = select.select([sys.stdin, self._wake_read], [], [], wait)[0]
            if sys.stdin in ready:
                self._read()
            elif not ready:
                self._press(self._keys.flush())
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            self._take()

    def _read(self) -> None:
        data = os.read(sys.stdin.fileno(), 4096)
        if not data:  # the terminal has gone
            self._view.is_over = True
        self._press(self._keys.feed(data))

    def _press(self, keys: list[str]) -> None:
        for key in keys:
            if key == "suspend":
                self._is_suspended = True
            elif key != "redraw":
                self._view.press(key)
            if self._view.wanted:
                (action, name), self._view.wanted = self._view.wanted, None
                self._view.message = f"{action} {name} ..."
                self._wanted.put(lambda action=action, name=name: self._tell(self._feed.act(action, name)))  # type: ignore[misc]

    def _take(self) -> None:
        """Take what the threads have found."""
        with contextlib.suppress(queue.Empty):
            while True:
                news = self._news.get_nowait()
                if isinstance(news, Glance):
                    self._trends.begin(news.past, max(1, round(self._every)))
                    self._trends.add(news.sites, news.at)
                    summary = replace(news.summary, requests_a_minute=self._trends.requests_a_minute)
                    self._view.sites, self._view.summary = news.sites, f"{news.words}{summary}"
                elif isinstance(news, Detail):
                    self._view.shown = news
                else:
                    self._view.message = news

    # In threads

    def _look(self) -> None:
        """Look at the home again and again, and at the site that is shown alone."""
        at = 0.0
        while True:
            name = self._view.detail
            if time.monotonic() >= at:
                self._step(lambda: self._tell(self._feed.look()))
                at = time.monotonic() + self._every
            if name:
                self._step(lambda name=name: self._tell(self._feed.detail(name)))  # type: ignore[misc]
            time.sleep(min(0.5, self._every))

    def _act(self) -> None:
        while True:
            self._step(self._wanted.get())

    def _step(self, step: Callable[[], None]) -> None:
        """Take a step; what goes wrong is a message, since the next one may succeed."""
        try:
            step()
        except MultisiteError as error:
            self._tell(error.reason)
        except Exception as error:
            self._tell(f"{type(error).__name__}: {error}")

    def _tell(self, news: Glance | Detail | str) -> None:
        self._news.put(news)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    # The terminal

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Make signals end, suspend or redraw it, and put the handlers back."""

        def end(number: int, _frame: FrameType | None) -> None:
            self._stopped_by, self._view.is_over = number, True
            self._wake()

        def suspend(_number: int, _frame: FrameType | None) -> None:
            self._is_suspended = True
            self._wake()

        def redraw(_number: int, _frame: FrameType | None) -> None:
            self._wake()

        handlers: dict[int, Any] = {**dict.fromkeys(ENDS, end), signal.SIGTSTP: suspend, signal.SIGWINCH: redraw}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _live(self) -> Live:
        # the size comes from the terminal alone, which may be resized
        environ = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        console = Console(highlight=False, markup=False, emoji=False, _environ=environ)
        return Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)


@contextlib.contextmanager
def _taken(terminal: int) -> Iterator[None]:
    """Take each key as it comes, without echo; in the end the terminal is as it was."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSAFLUSH)
        mode = termios.tcgetattr(terminal)
        mode[3] &= ~termios.ISIG
        mode[0] &= ~termios.IXON
        termios.tcsetattr(terminal, termios.TCSANOW, mode)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it may have gone
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
