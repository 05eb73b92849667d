"""The program that talks to the registry's engine, in a process of its own: the supervisor never waits for an engine.

``python -m multisite.cluster.agent`` has a socket at standard input. Both sides send lines of JSON. The first line that
it reads has the URL (which may hold a password, and is no argument for that reason), and what was known before:

    {"url": …, "version": [EPOCH, NUMBER] or null, "entries": {KIND: {KEY: VALUE}}}

Then each of these may follow:

    {"announce": {KIND: {KEY: VALUE}}}   all that this machine announces, from now on
    {"publish": {KEY: VALUE} or null, "owner": NODE}   Traefik's keys, which one machine writes
    {"ask": ID, "do": "lease" or "release" or "holder", …}
    {"beat": true}                       say at once that you are there, whatever else you are doing
    {"leave": true}                      withdraw all of it, and end

It writes ``{"state": "connected" or "away", "reason": …}`` when that changes, ``{"version": …, "entries": …}`` with
what is different from what was known, ``{"answer": ID, "result": …}`` or ``{"answer": ID, "error": …}``, and
``{"beat": true}``. It ends with the socket; what it announced then lives on for its time to live, which lets a new
supervisor carry on.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from multisite.cluster import traefik
from multisite.cluster.engines import open_registry
from multisite.cluster.localcopy import TTL, WITHDRAWN, Entries, LocalCopy, differences
from multisite.cluster.registry import Address, EngineAway, Registry, Version

POLL_EVERY = 1.0  # seconds between two looks at the version
RETRY_EVERY = 0.5  # seconds between two looks at an engine that is away
ANNOUNCE_EVERY = 2.0  # seconds between two announcements of the same
HINTS_EVERY = 0.25  # seconds between two looks for which hints were the reason
PUBLISHING = "publish"  # the lease of the one machine that writes the map
HINT_WITHIN = 5.0  # seconds that one wait for hints takes
LEAVE_WITHIN = 1.0  # seconds that a farewell may take

Message = dict[str, Any]
_HINT: Message = {"hint": True}
_END: Message = {"end": True}


class Agent:
    """Announces what is ours, and tells what the others announce.

    Args:
        tell: sends a message to the supervisor.
        prefixes: what Traefik's keys begin with.
    """

    def __init__(
        self, registry: Registry, copy: LocalCopy, tell: Callable[[Message], object], prefixes: tuple[str, ...] = ()
    ) -> None:
        self._registry, self._copy, self._tell, self._prefixes = registry, copy, tell, prefixes
        self._own: Entries = {}
        self._told = copy.entries
        self._map: dict[str, str] | None = None  # for Traefik
        self._owner = ""
        self._written: tuple[int, dict[str, str]] | None = None  # our lease then, and the map
        self._is_connected: bool | None = None
        self._reason = ""  # why it is not
        self._look_at = self._announce_at = self._hinted_at = 0.0

    def run(self, messages: queue.Queue[Message]) -> None:
        """Serve until there are no more messages."""
        while True:
            now = time.monotonic()
            with contextlib.suppress(queue.Empty):
                message = messages.get(timeout=max(0.0, self._due - now))
                if message is _END or "leave" in message:
                    return self._leave() if "leave" in message else None
                self._take(message)
            self._tick(time.monotonic())

    @property
    def _due(self) -> float:
        """When there is something to do, in monotonic seconds."""
        due = [self._look_at]
        if self._is_connected:
            due.append(self._announce_at)
            if self._copy.waits_until is not None:
                due.append(self._copy.waits_until)
        return min(due)

    def _take(self, message: Message) -> None:
        if message is _HINT:
            now = time.monotonic()
            if self._is_connected:
                self._look_at = min(self._look_at, max(now, self._hinted_at + HINTS_EVERY))
                self._hinted_at = self._look_at
        elif "announce" in message:
            self._announce(message["announce"])
        elif "publish" in message:
            former, self._map, self._owner = self._map, message["publish"], message["owner"]
            if former != self._map and self._is_connected:
                self._attempt(self._write)
        elif "ask" in message:
            self._answer(message)

    def _tick(self, now: float) -> None:
        if now >= self._look_at:
            self._attempt(self._look)
            pause = POLL_EVERY if self._is_connected else RETRY_EVERY
            self._look_at = time.monotonic() + pause  # a look may take long, and questions wait for its end
        if now >= self._announce_at and self._is_connected:
            self._announce(self._own)
        if self._copy.expire(now):
            self._publish()

    def _look(self) -> None:
        version, known = self._registry.version(), self._copy.version
        is_back = not self._is_connected
        if is_back or version != known:
            if is_back or not known or version.epoch != known.epoch:
                self._written = None
                self._announce_all(self._own)
            if self._copy.take(self._registry.snapshot(self._copy.since), time.monotonic()) or known is None:
                self._publish()

    def _announce(self, own: Entries) -> None:
        gone = [(kind, key) for kind, found in self._own.items() for key in found if key not in own.get(kind, ())]
        self._own = own
        self._announce_at = time.monotonic() + ANNOUNCE_EVERY
        if self._is_connected:
            self._attempt(lambda: self._announce_all(own, gone))

    def _announce_all(self, own: Entries, gone: Iterable[tuple[str, str]] = ()) -> None:
        for kind, key in gone:
            self._registry.announce(kind, key, WITHDRAWN, TTL)
        for kind, found in own.items():
            for key, value in found.items():
                self._registry.announce(kind, key, value, TTL)
        self._write()

    def _write(self) -> None:
        """Write the map, if we are the one who does."""
        if self._map is None and not self._written:
            return
        number = self._registry.lease(PUBLISHING, self._owner, TTL)
        if number is None:
            self._written = None
            return
        if self._written != (number, self._map):
            self._registry.publish(self._prefixes, self._map or {})
            self._written = number, dict(self._map or {})
        if self._map is None:
            self._registry.release(PUBLISHING, self._owner, number)
            self._written = None

    def _attempt(self, do: Callable[[], object]) -> None:
        """Ask the engine; tell when it is away, and when it is back."""
        try:
            do()
        except Exception as error:
            self._copy.away()
            self._reason = _reason(error)
            if self._is_connected is not False:
                self._is_connected = False
                self._tell({"state": "away", "reason": self._reason})
        else:
            if not self._is_connected:
                self._is_connected = True
                self._tell({"state": "connected", "reason": ""})

    def _answer(self, message: Message) -> None:
        """Answer a question. While the engine is away, only looks find out whether it is back: each may take long."""
        told: Message = {"answer": message["ask"]}
        if self._is_connected is False:
            told["error"] = self._reason
        else:
            try:
                told["result"] = self._result(message)
            except Exception as error:
                told["error"] = _reason(error)
        self._tell(told)

    def _result(self, message: Message) -> object:
        registry, key, owner = self._registry, str(message.get("key")), str(message.get("owner"))
        if message["do"] == "lease":
            return registry.lease(key, owner, float(message["ttl"]))
        if message["do"] == "release":
            registry.release(key, owner, int(message["number"]))
            return None
        return registry.holder(key)

    def _publish(self) -> None:
        """Tell what is different: figures are all the time, and the rest seldom."""
        before, self._told = self._told, self._copy.entries
        self._tell({"version": self._copy.version, "entries": differences(before, self._told)})

    def _leave(self) -> None:
        """Withdraw what is ours, if the engine answers at once."""
        threading.Timer(LEAVE_WITHIN, _end).start()
        with contextlib.suppress(Exception):
            for kind, found in self._own.items():
                for key in found:
                    self._registry.announce(kind, key, WITHDRAWN, TTL)
            if self._written:
                self._registry.release(PUBLISHING, self._owner, self._written[0])
        _end()


def _reason(error: Exception) -> str:
    """Return why there is no answer of use; whoever can write to an engine may have written anything."""
    return str(error) if isinstance(error, EngineAway) else f"it makes no sense: {type(error).__name__}: {error}"


def _end() -> None:
    os._exit(0)  # a thread may wait for the engine


def _hints(registry: Registry, messages: queue.Queue[Message]) -> None:
    """Pass on the engine's hints; without them there is still the next look."""
    while True:
        try:
            if registry.changes(HINT_WITHIN):
                messages.put(_HINT)
        except Exception:
            threading.Event().wait(RETRY_EVERY)


def _read(lines: Iterable[bytes], messages: queue.Queue[Message], tell: Callable[[Message], object]) -> None:
    """Pass on what the supervisor writes, and say that this process is there, even if its work waits for the engine."""
    for line in lines:
        message = json.loads(line)
        if "beat" in message:
            with contextlib.suppress(OSError):  # the end of the lines says the same
                tell(message)
        else:
            messages.put(message)
    messages.put(_END)


def main() -> None:
    """Serve the supervisor at standard input."""
    connected = socket.socket(fileno=os.dup(0))
    connected.setblocking(True)

    telling = threading.Lock()

    def tell(message: Message) -> None:
        with telling:
            connected.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    lines = connected.makefile("rb")
    first = json.loads(lines.readline() or b"{}")
    if not first:
        return
    messages: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=_read, args=(lines, messages, tell), daemon=True).start()
    try:
        registry = open_registry(first["url"])
    except ValueError as error:
        tell({"state": "refused", "reason": str(error)})
        return
    version = first["version"]
    copy = LocalCopy(Version(*version) if version else None, first["entries"])
    threading.Thread(target=_hints, args=(registry, messages), daemon=True).start()
    try:
        Agent(registry, copy, tell, traefik.prefixes(Address.parse(first["url"]).name)).run(messages)
    except OSError:
        _end()  # the supervisor has gone
    except Exception as error:
        tell({"state": "away", "reason": f"{type(error).__name__}: {error}"})
    _end()


if __name__ == "__main__":
    main()
