"""One preloader: a process that has imported what the sites of an interpreter and user need, and forks them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from multisite.errors import one_line
from multisite.supervisor.loop import Loop
from multisite.supervisor.process import descriptors, kernel
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.kernel import Child
from multisite.supervisor.process.sitelog import LastLines
from multisite.supervisor.process.spawn import memory_file, spawn
from multisite.supervisor.process.spec import JOB, MARKER, Given, Launch

ROOM = 4096  # bytes of environment that a site's processes can show
_LONGEST = 65536
_MOST_READS = 2000
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_LONGEST_WORDS = 4096
_MOST_MESSAGES = 8  # taken at a time
BORN = b"born"
REFUSED = b"no "


class ForkChannel:
    """Our end of the channel of a process that we ask a preloader to fork.

    It is a pair of SEQPACKET sockets. The new process announces itself on it, and the kernel adds the sender's
    credentials. The process reports failures, and closes the channel when it is set up. If no process has announced
    itself when the channel ends, there is none, and a plain start takes its place.

    Args:
        uid: the user that the new process must have.
        preloader: the process that forks it.

    Attributes:
        child: the new process, once there is one.
        refused: why the preloader did not make it.
        failure: why the process could not become its program.
        over: nothing more will come.
    """

    def __init__(self, uid: int, preloader: int) -> None:
        self.child: Child | None = None
        self.refused = self.failure = ""
        self.over = False
        self._uid, self._preloader = uid, preloader
        self._socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.theirs.setblocking(True)

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def read_messages(self) -> None:
        """Take what has arrived."""
        for _ in range(_MOST_MESSAGES):
            if self.over:
                return
            try:
                data, extra, _flags, _address = self._socket.recvmsg(
                    _LONGEST_WORDS, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except BlockingIOError:
                return
            except OSError:
                data, extra = b"", []
            if data == BORN:
                self._believe(extra)
            elif data.startswith(REFUSED):
                self.refused = one_line(data[len(REFUSED) :].decode("utf-8", "replace"))
            elif data:
                self.failure = one_line(data.decode("utf-8", "replace"))
            else:
                self.over = True

    def _believe(self, extra: list[tuple[int, int, bytes]]) -> None:
        """Accept a process that is our own child and held by nothing else: we hold it from here on."""
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and not self.child:
                pid, uid, _gid = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
                if uid == self._uid and pid != self._preloader:
                    self._hold(pid)

    def _hold(self, pid: int) -> None:
        try:
            self.child = Child(pid)
        except OSError as error:
            self.refused = f"process {pid} cannot be held: {error.strerror}"
            if error.errno in (errno.EMFILE, errno.ENFILE) and kernel.parent(pid) == os.getpid():
                os.kill(pid, signal.SIGKILL)  # it has the site's socket, and nothing else knows of it

    def give_up(self) -> None:
        """Stop waiting: a process that announces itself from now on learns that it is too late, and ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        self.read_messages()
        self.over = True

    def close(self) -> None:
        """Close it."""
        self._socket.close()
        self.theirs.close()


class Preloader:
    """Started at once; forks when it is `ready`.

    Args:
        like: how one of its sites is started.
        modules: what it imports.
        mark: identifies what it leaves behind.
        changed: called when it has reported something, or has ended.

    Attributes:
        spoilt: modules whose import no fork may inherit, and why.
        refused: why it must not exist.
        failed: modules that could not be imported.
        key: the sites that it forks.
        mark: identifies what it leaves behind.
        children: pids of its living children.
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
        self.key, self.like, self.modules = like.preloader_key, like, frozenset(modules)
        self.since = self.last_fork = loop.now()
        self.ready = self.gone = False
        self.spoilt: dict[str, str] = {}
        self.refused = ""
        self.failed: list[str] = []
        self.loaded = self.forks = 0
        self.reads: frozenset[str] = frozenset()
        self.children: set[int] = set()
        self.mark = mark
        self.env = {**like.shared_env, MARKER: mark}
        self.nofile = limits.nofile[1]
        self._loop, self._limits, self._changed = loop, limits, changed
        self._tail = LastLines()
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
        loop.watch(self._control, lambda _events: self.read_message())
        loop.watch(self._output, lambda _events: self._read())

    def __repr__(self) -> str:
        return f"<Preloader {self.pid} {self.key} {'ready' if self.ready else 'loading'}>"

    @property
    def said(self) -> list[str]:
        """The last lines that it printed."""
        return list(map(one_line, self._tail.lines))

    def fork(self, launch: Launch, given: Given) -> tuple[ForkChannel, int]:
        """Ask for a process; returns its channel, and the reading end of its output.

        Raises:
            OSError: the preloader cannot be asked.
        """
        with contextlib.ExitStack() as undo:
            channel = ForkChannel(launch.identity.uid, self.pid)
            undo.callback(channel.close)
            output, theirs = os.pipe()
            undo.callback(os.close, output)
            with contextlib.ExitStack() as sent:
                sent.callback(os.close, theirs)
                sent.callback(channel.theirs.close)
                orders = memory_file(self._orders(launch), sent)
                job = memory_file(launch.job, sent)
                ours = [orders, given.listener, job, theirs, channel.theirs.fileno()]
                socket.send_fds(self._control, [b"fork"], [*ours, given.notify, given.board])
            undo.pop_all()
        os.set_blocking(output, False)
        self.forks += 1
        self.last_fork = self._loop.now()
        return channel, output

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

    def read_message(self) -> None:
        """Take the next message from it."""
        try:
            data = self._control.recv(_LONGEST)
        except OSError:  # nothing has come, or we have closed it
            return
        try:
            message = json.loads(data) if data else None
            if isinstance(message, dict):
                self._believe(message)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
            # A hostile one may send anything: an infinite number is an OverflowError, an object for a list a KeyError.
            data = b""
        if not data:
            self._loop.forget(self._control)
        self._changed(self)

    def _believe(self, message: dict[str, Any]) -> None:
        """Believe it only where that is harmless: it runs code of the site's user."""
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
        """Keep the end of what it prints."""
        data = descriptors.read(self._output, _LONGEST)
        if data:
            self._tail.feed(data)
        elif data is not None:
            self._loop.forget(self._output)

    def leave(self) -> None:
        """Let it end; the processes that it has forked keep running."""
        self.ready = False
        self._loop.forget(self._control)
        self._control.close()

    def kill(self) -> None:
        """End it at once."""
        self.leave()
        self.child.kill()

    def ended(self) -> None:
        """Handle its end."""
        self.gone = True
        self._read()
        with contextlib.suppress(OSError):
            self._tail.feed(os.read(self._failure, 4096) + b"\n")  # why it did not become its program
        self.leave()
        self._loop.forget(self._output)
        os.close(self._output)
        os.close(self._failure)
