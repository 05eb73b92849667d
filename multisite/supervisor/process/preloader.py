"""One preloader: a process that has imported what the sites of an interpreter and user need, and forks them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from multisite.errors import one_line
from multisite.supervisor.loop import Loop
from multisite.supervisor.process.birth import Birth
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.environment import MARKER
from multisite.supervisor.process.journey import Tail
from multisite.supervisor.process.process import JOB, Given, Launch
from multisite.supervisor.process.spawn import memory_file, spawn

ROOM = 4096  # bytes of environment that a site's processes can show
_LONGEST = 65536
_MOST_READS = 2000


class Preloader:
    """Started at once; forks when it is `ready`.

    Args:
        like: how one of its sites is started.
        modules: what it imports.
        mark: by which its leftovers are known.
        changed: is called when it has said something, or is gone.

    Attributes:
        spoilt: modules whose import no fork may inherit, and why.
        refused: why it may not be.
        failed: modules that could not be imported.
        pair: whose sites it forks.
        mark: by which its leftovers are known.
        born: pids of its children that live.
    """

    def __init__(
        self,
        like: Launch,
        modules: Iterable[str],
        denied: Iterable[str],
        mark: str,
        loop: Loop,
        limits: DescriptorLimits,
        changed: Callable[[Preloader], None],
    ) -> None:
        self.pair, self.like, self.modules = like.pair, like, frozenset(modules)
        self.since = self.last_fork = loop.now()
        self.ready = self.gone = False
        self.spoilt: dict[str, str] = {}
        self.refused = ""
        self.failed: list[str] = []
        self.loaded = self.forks = 0
        self.reads: frozenset[str] = frozenset()
        self.born: set[int] = set()
        self.mark = mark
        self.env = {**like.shared_env, MARKER: mark}
        self.nofile = limits.nofile[1]
        self._loop, self._limits, self._changed = loop, limits, changed
        self._tail = Tail()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        job = {"modules": list(modules), "denied": list(denied), "gunicorn": like.gunicorn}
        room = {"MULTISITE_ROOM": "x" * ROOM, "MULTISITE_PRELOAD": str(JOB)}
        how = replace(
            like,
            env=self.env | room,
            cwd="/",
            umask=0o077,
            nice=0,
            nofile=None,
            job=json.dumps(job).encode(),
        )
        try:
            spawned = spawn(how, Given(theirs.fileno()), limits)
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        self.child, self._output, self._failure = spawned.child, spawned.output, spawned.failure
        self.pid = self.child.pid
        loop.watch(self._control, lambda _events: self.hear())
        loop.watch(self._output, lambda _events: self._read())

    def __repr__(self) -> str:
        return f"<Preloader {self.pid} {self.pair} {'ready' if self.ready else 'loading'}>"

    @property
    def said(self) -> list[str]:
        """The last lines that it printed."""
        return list(map(one_line, self._tail.lines))

    def fork(self, launch: Launch, given: Given) -> tuple[Birth, int]:
        """Ask for a process; returns its channel, and the reading end of its output.

        Raises:
            OSError: it cannot be asked.
        """
        with contextlib.ExitStack() as undo:
            birth = Birth(launch.identity.uid, self.pid)
            undo.callback(birth.close)
            output, theirs = os.pipe()
            undo.callback(os.close, output)
            with contextlib.ExitStack() as sent:
                sent.callback(os.close, theirs)
                sent.callback(birth.theirs.close)
                orders = memory_file(self._orders(launch), sent)
                job = memory_file(launch.job, sent)
                ours = [orders, given.listener, job, theirs, birth.theirs.fileno()]
                socket.send_fds(self._control, [b"fork"], [*ours, given.notify, given.board])
            undo.pop_all()
        os.set_blocking(output, False)
        self.forks += 1
        self.last_fork = self._loop.now()
        return birth, output

    def _orders(self, launch: Launch) -> bytes:
        orders = {
            "env": launch.env,
            "mark": MARKER,
            "location": launch.location or launch.cwd,
            "cwd": launch.cwd,
            "umask": launch.umask,
            "nice": launch.nice,
            "nofile": self._limits.of(launch.nofile),
        }
        return json.dumps(orders).encode()

    def hear(self) -> None:
        """Take the next thing that it has said."""
        try:
            data = self._control.recv(_LONGEST)
        except OSError:  # nothing, or we have closed it
            return
        try:
            message = json.loads(data) if data else None
            if isinstance(message, dict):
                self._take(message)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
            # What a hostile one may send: an infinite number is an OverflowError, an object for a list a KeyError.
            data = b""
        if not data:
            self._loop.forget(self._control)
        self._changed(self)

    def _take(self, message: dict[str, Any]) -> None:
        """Believe it as far as it harms nobody: it runs code of the site's user."""
        told = message.get("ready")
        if isinstance(told, dict):
            self.loaded = min(int(told.get("modules") or 0), 100_000)
            self.reads = frozenset(map(str, told.get("reads", ())[:_MOST_READS]))
            self.failed = list(map(str, told.get("failed", ())))
            self.ready = True
        spoilt = message.get("spoilt")
        if isinstance(spoilt, dict):
            self.spoilt = {str(name): str(reason) for name, reason in spoilt.items()}
        if "refused" in message:
            self.refused = one_line(str(message["refused"])[:500])

    def _read(self) -> None:
        """Keep the last of what it prints."""
        try:
            data = os.read(self._output, _LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._tail.feed(data)
        if not data:
            self._loop.forget(self._output)

    def leave(self) -> None:
        """Have it end; the processes that it has forked go on."""
        self.ready = False
        self._loop.forget(self._control)
        self._control.close()

    def kill(self) -> None:
        """End it at once."""
        self.leave()
        self.child.kill()

    def ended(self) -> None:
        """Take note of its end."""
        self.gone = True
        self._read()
        with contextlib.suppress(OSError):
            self._tail.feed(os.read(self._failure, 4096) + b"\n")  # why it did not become its program
        self.leave()
        self._loop.forget(self._output)
        os.close(self._output)
        os.close(self._failure)
