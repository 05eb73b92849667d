"""For a command that only takes a port or a path: takes the site's socket and passes each connection on.

Run as a separate program (standard library only), as the site's user. It starts the command as its
child, asks with growing intervals until it listens, says READY=1, and relays bytes unchanged, both
directions with one bounded buffer each. SIGTERM: it takes no more connections, lets those that are
open end, then ends the command. When the command ends, it ends with the same code.

Any user of the machine may take a port first. So the process that listens there must belong to the site's user, as the
kernel tells it, before READY=1 and for every connection.

    socketproxy.py (--port HOST | --socket PATH) -- COMMAND ARGUMENT…     %PORT in an argument is the port
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from typing import Any

LISTENER = 3
PIECE = 65536
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.25  # seconds between two attempts to connect
GRACE = 10.0  # seconds for the command to end after SIGTERM
PR_SET_PDEATHSIG = 1  # the kernel kills the command when this process dies


def free_port() -> int:
    """Return a port that is free just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tell(message: str) -> None:
    """Report to the supervisor (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.send(message.encode())


class Stranger(OSError):
    """Another process listens where the command is expected."""


def listeners(family: int, address: Any) -> set[tuple[int, int]]:
    """Return who would take a connection to a TCP address: user and inode of each listening socket that might.

    The kernel's tables (proc_net_tcp.rst) begin with the sockets that listen, and need not be read further.
    """
    host, port = address[0], address[1]
    inside = socket.inet_pton(family, host.partition("%")[0])
    wanted = {(family, inside), (family, bytes(len(inside)))}
    if family == socket.AF_INET:
        wanted |= {(socket.AF_INET6, bytes(10) + b"\xff\xff" + inside), (socket.AF_INET6, bytes(16))}
    found = set()
    for table, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            with open(f"/proc/self/net/{table}", "rb", buffering=4096) as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    local, number = fields[1].split(b":")
                    if fields[3] != b"0A":  # TCP_LISTEN
                        break
                    words = bytes.fromhex(local.decode())
                    plain = b"".join(_in_order(words[at : at + 4]) for at in range(0, len(words), 4))
                    if int(number, 16) == port and (kind, plain) in wanted:
                        found.add((int(fields[7]), int(fields[9])))
        except (OSError, StopIteration):  # there is no IPv6
            continue
    return found


def _in_order(word: bytes) -> bytes:
    """Return four bytes of an address, which the table writes as a number of the machine."""
    return word[::-1] if sys.byteorder == "little" else word


class Far:
    """Where the command listens."""

    def __init__(self, addresses: list[tuple[int, Any]]) -> None:
        self.addresses = addresses
        self._known: set[tuple[int, int]] = set()  # who listened when we looked last

    def connect(self) -> socket.socket:
        """Connect to the first address that answers; from then on only that one is tried.

        Raises:
            OSError: none answers.
        """
        error: OSError | None = None
        for family, address in self.addresses:
            far = socket.socket(family, socket.SOCK_STREAM)
            try:
                far.settimeout(5.0)
                self._check(family, address)
                far.connect(address)
                self._check(family, address, is_connected=True)
                self.addresses = [(family, address)]
                return far
            except OSError as failed:
                error = error if isinstance(error, Stranger) else failed
                far.close()
        raise error or OSError("no address")

    def _check(self, family: int, address: Any, is_connected: bool = False) -> None:
        """Check that only our user, or root, listens there; if we are connected, that it has done so all the time.

        Raises:
            OSError: nobody listens, or someone else.
        """
        if family == socket.AF_UNIX:  # in a folder that only our user has
            return
        found = listeners(family, address)
        if is_connected and not found & self._known:  # beside one that stays, only its own user could have listened
            raise Stranger("another process listens there now")
        self._known = found
        if any(user not in (os.getuid(), 0) for user, _ in found):
            raise Stranger(f"another user listens on port {address[1]}")
        if not found:
            raise ConnectionRefusedError("nobody listens")


class Pipe:
    """One direction of a connection: from `source` to `sink`, at most one piece on the way."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.data = b""
        self.ended = self.done = False

    def pull(self) -> None:
        """Take a piece from the source."""
        try:
            self.data = self.source.recv(PIECE)
        except BlockingIOError:
            return
        if not self.data:
            self.ended = True
        self.push()

    def push(self) -> None:
        """Write what we have to the sink, and close that when the end is reached."""
        if self.data:
            try:
                self.data = self.data[self.sink.send(self.data) :]
            except BlockingIOError:
                return
        if self.ended and not self.data and not self.done:
            self.done = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class Relay:
    """The listening socket and all connections that pass through."""

    def __init__(self, listener: socket.socket, far: Far, command: subprocess.Popen[bytes]) -> None:
        self.listener, self.far, self.command = listener, far, command
        self.selector = selectors.DefaultSelector()
        self.pairs: dict[socket.socket, tuple[Pipe, Pipe]] = {}
        self.leaving = False

    def run(self) -> None:
        """Relay until the command has ended, or until all is done after we were asked to end."""
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        while self.command.poll() is None and not (self.leaving and not self.pairs):
            for key, events in self.selector.select(0.5):
                if key.fileobj is self.listener:
                    self.accept()
                elif isinstance(key.fileobj, socket.socket):
                    self.move(key.fileobj, events)
                else:
                    os.read(key.fd, 512)
            if self.leaving and self.listener.fileno() in self.selector.get_map():
                self.selector.unregister(self.listener)

    def accept(self) -> None:
        """Take a connection and make its other half."""
        try:
            near, _ = self.listener.accept()
        except OSError:
            return
        try:
            far = self.far.connect()
        except OSError as error:
            print("MS621 relay: the command does not take a connection:", error, file=sys.stderr, flush=True)
            near.close()
            return
        near.setblocking(False)
        far.setblocking(False)
        there, back = Pipe(near, far), Pipe(far, near)
        self.pairs[near] = self.pairs[far] = (there, back)
        self.watch(near)
        self.watch(far)

    def watch(self, one: socket.socket) -> None:
        """Wait until this socket can do something for its two pipes."""
        there, back = self.pairs[one]
        events = 0
        for pipe in (there, back):
            if pipe.source is one and not pipe.data and not pipe.ended:
                events |= selectors.EVENT_READ
            if pipe.sink is one and pipe.data:
                events |= selectors.EVENT_WRITE
        known = one in self.selector.get_map()
        if events and known:
            self.selector.modify(one, events)
        elif events:
            self.selector.register(one, events)
        elif known:
            self.selector.unregister(one)

    def move(self, one: socket.socket, events: int) -> None:
        """Move what can be moved."""
        if one not in self.pairs:
            return
        there, back = self.pairs[one]
        try:
            for pipe in (there, back):
                if pipe.source is one and events & selectors.EVENT_READ and not pipe.data:
                    pipe.pull()
                if pipe.sink is one and events & selectors.EVENT_WRITE:
                    pipe.push()
        except OSError:
            self.drop(there)
            return
        # An answer that is over ends the connection: a command that closes first has nothing to read any more.
        if back.done:
            self.drop(there)
            return
        self.watch(there.source)
        self.watch(there.sink)

    def drop(self, pipe: Pipe) -> None:
        """Close both halves."""
        for one in (pipe.source, pipe.sink):
            if self.pairs.pop(one, None):
                with contextlib.suppress(KeyError, ValueError):
                    self.selector.unregister(one)
                one.close()


def wait_until_it_listens(far: Far, command: subprocess.Popen[bytes]) -> None:
    """Ask again and again, with growing pauses, until the command listens or has ended."""
    pause = FIRST_PAUSE
    while command.poll() is None:
        try:
            far.connect().close()
            return
        except OSError as error:
            if isinstance(error, Stranger):
                tell(f"STATUS={error}")
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 1.5)


def addresses_of(port: int, host: str) -> list[tuple[int, Any]]:
    """Return where a command may listen: loopback first, then the host that it was given, if that is this machine."""
    found: list[tuple[int, Any]] = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    with contextlib.suppress(OSError):
        known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM) if host else []
        found += [(entry[0], entry[4]) for entry in known if is_ours(entry[0], entry[4])]
    return found


def is_ours(family: int, address: Any) -> bool:
    """Tell whether an address is one of this machine: only such a one can be bound."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address[0], 0))
        except OSError:
            return False
    return True


def main(arguments: list[str]) -> int:
    """Run the command and relay to it; returns the exit code."""
    kind, value, dashes, *argv = arguments
    assert dashes == "--"
    listener = socket.socket(fileno=LISTENER)
    os.set_inheritable(LISTENER, False)
    port = free_port() if kind == "--port" else 0
    if port:
        argv = [argument.replace("%%", "\0").replace("%PORT", str(port)).replace("\0", "%") for argument in argv]
        addresses = addresses_of(port, value)
    else:
        argv = [argument.replace("%%", "%") for argument in argv]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(value)
        addresses = [(socket.AF_UNIX, value)]
    ours = ("LISTEN_FDS", "LISTEN_PID")
    env = {name: text for name, text in os.environ.items() if name not in ours}
    tie = partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        command = subprocess.Popen(argv, env=env, preexec_fn=tie)  # noqa: PLW1509 (no threads here)
    except OSError as error:
        print(f"MS622 cannot run {argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    relay = Relay(listener, Far(addresses), command)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    relay.selector.register(reader, selectors.EVENT_READ)

    def leave(_number: int, _frame: object) -> None:
        if relay.leaving:
            command.kill()
        relay.leaving = True

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    tell(f"STATUS=it does not listen on {f'port {port}' if port else value}")
    wait_until_it_listens(relay.far, command)
    if command.poll() is None:
        tell("READY=1")
        relay.run()
    return end(command)


def end(command: subprocess.Popen[bytes]) -> int:
    """End the command if it lives; returns the exit code."""
    if command.poll() is None:
        command.terminate()
        try:
            command.wait(GRACE)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
        return 0
    return command.returncode if command.returncode >= 0 else 128 - command.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
