"""This machine among others: what it announces to the registry, and what it knows of the others.

The entries survive: a program that replaces us receives them, and one that starts later reads them from the state
directory. They count until their owners have had time to announce them again.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from multisite import __version__
from multisite.cluster import nodes, pins, registry, traefik
from multisite.cluster.localcopy import applied
from multisite.cluster.registry import Address
from multisite.config.model import Home, Site
from multisite.control import draining
from multisite.router.pool import is_loopback
from multisite.sites.catalogue import Catalogue
from multisite.sites.statefile import StateFile
from multisite.supervisor.cluster.agentprocess import Message
from multisite.supervisor.cluster.agents import STUCK, Agents, Done
from multisite.supervisor.loop import Loop
from multisite.supervisor.reexec import PART, Handed, kept

NODE, FIGURES, POOL = "node", registry.FIGURES, "pool"  # kinds of entries; the key of each is the node's name
LOOK_EVERY = 1.0  # seconds between two looks at what there is to announce
START_EVERY = 5.0  # seconds between two starts of the process that talks to the engine
REFUSED_FOR = 60.0  # seconds after which a library may have been installed
STORE_EVERY = 5.0
LEAVE_WITHIN = 5.0  # seconds to give leases back and to withdraw the node
NO_REGISTRY = "moya.conf names no [cluster] url"
NEW_REGISTRY = "moya.conf names another [cluster] url"

_log = logging.getLogger("multisite.cluster")


class Membership(Handed):
    """The registry as the supervisor knows it.

    Args:
        figures: returns what is to be announced beside the node: kind → value of JSON.
        catalogue: returns the sites, for Traefik.
        changed: is called with the pools that the others announce, where they change: kind → node → value.
        servers: returns the WSGI servers of the home that run.

    Attributes:
        node: the name of this machine, "" without a registry.
        state: "" without a registry, "connecting", "connected", "away" or "refused".
        reason: why it is not connected.
        since: Unix seconds since which the state is so.
    """

    KEPT = kept("state reason since _begun _entries _version", _agents=PART)
    ANEW = (
        *("node", "_loop", "_home", "_figures", "_catalogue", "_changed", "_servers", "_drained_since"),
        *("_look_at", "_start_at", "_store_at", "_stored", "_said", "_map_of", "_pools"),
    )

    def __init__(
        self,
        home: Home,
        loop: Loop,
        figures: Callable[[], dict[str, Any]],
        catalogue: Callable[[], Catalogue],
        changed: Callable[[dict[str, dict[str, Any]]], None],
        servers: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        self._loop, self._figures, self._catalogue, self._changed = loop, figures, catalogue, changed
        self._servers, self._drained_since = servers, 0.0  # Unix seconds, 0.0: this machine does not drain
        self._home: Home | None = None
        self.node = self.reason = ""
        self.state = "connecting" if home.cluster.url else ""
        self.since = self._begun = round(time.time(), 3)
        self._entries: dict[str, dict[str, str]] = {}
        self._version: list[Any] | None = None
        self._agents = Agents(loop, self._heard)
        self._look_at = self._start_at = self._store_at = 0.0
        self._said: dict[str, dict[str, str]] = {}
        self._map_of: tuple[Any, ...] = ()  # what Traefik's map was made of: it is long where there are many sites
        self._pools: dict[str, tuple[str, Any]] = {}  # by node: as announced, and as read
        if home.cluster.url:
            self._recall(home)
        self._stored = self._lasting

    @property
    def _lasting(self) -> dict[str, dict[str, str]]:
        """What is worth a new file: figures are not."""
        return {kind: found for kind, found in self._entries.items() if kind != FIGURES}

    def _recall(self, home: Home) -> None:
        """Read what an earlier supervisor knew."""
        known = StateFile(home, "cluster", guides_us=True).rows()
        if known.get("url") == str(_address(home)) and isinstance(known.get("entries"), dict):
            self._entries = {kind: dict(found) for kind, found in known["entries"].items()}
            self._version = known.get("version")

    def tick(self, now: float, home: Home) -> None:
        """Follow the configuration, and announce what is new."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        if home is not self._home:
            self._follow(home)
        if not home.cluster.url:
            return
        if self._agents.tick(now) and self.state != "connecting":
            _log.warning("MS749 %s, so another one takes its place", STUCK)
            self._become("connecting", STUCK)
        if not self._agents.is_current and now >= self._start_at:
            self._start_at = now + START_EVERY
            self._start(home)
        drain = draining.of_home(home, self._servers)
        self._drained_since = drain.since if drain else 0.0
        self._announce()
        if now >= self._store_at and self._stored != self._lasting:
            self._store_at = now + STORE_EVERY
            self._store(home)

    def _follow(self, home: Home) -> None:
        former, self._home = self._home, home
        if former and former.cluster == home.cluster:
            return
        self.node = _name(home) if home.cluster.url else ""
        url = former.cluster.url if former else self._agents.url
        is_another = bool(former or url) and url != home.cluster.url
        if is_another:
            self._forget(NEW_REGISTRY if home.cluster.url else NO_REGISTRY)
        elif self._entries:
            self._tell_pools()
        if not home.cluster.url:
            self.state = self.reason = ""
        elif is_another or self.state in ("", "refused"):
            self._start_at = 0.0
            self._become("connecting", "")

    def _forget(self, reason: str) -> None:
        """Leave an engine that is not ours any more."""
        self._agents.leave()
        self._agents.fail(reason)
        self._entries, self._version = {}, None
        self._changed({})

    def _start(self, home: Home) -> None:
        first = {"url": home.cluster.url, "version": self._version, "entries": self._entries}
        self._said, self._map_of = {}, ()
        try:
            self._agents.start(first)
        except OSError as error:
            _log.error("MS745 [cluster]: cannot start the process that talks to the engine: %s", error.strerror)
            if not self._agents.is_open:
                self._agents.fail(f"the process that talks to it cannot be started: {error.strerror}")

    def _announce(self) -> None:
        if not (self._agents.is_current and self._home):
            return
        said = {kind: {self.node: json.dumps(value, separators=(",", ":"))} for kind, value in self._ours().items()}
        if said != self._said:
            self._said = said
            self._agents.say({"announce": said})
        self._publish(self._home)

    def _publish(self, home: Home) -> None:
        """Say what Traefik is to know: the machines that are alive, and the sites."""
        reasons: tuple[Any, ...] = ()
        address = _address(home)
        if home.cluster.publish and isinstance(address, Address):
            listed = {str(machine) for machine in nodes.machines(home)}
            alive = self._entries.get(NODE, {}).keys() | {self.node}
            alive = alive & listed if listed else alive
            reasons = (self._catalogue(), alive, home.service.status_domain, address.name)
        if reasons != self._map_of:
            self._map_of = reasons
            self._agents.say({"publish": _map(home, *reasons) if reasons else None, "owner": self.node})

    def _ours(self) -> dict[str, Any]:
        assert self._home
        node: dict[str, Any] = {
            "host": socket.gethostname(),
            "home": self._home.path,
            "pid": os.getpid(),
            "version": __version__,
            "since": self._begun,
        }
        if self._drained_since:
            node["draining"] = self._drained_since
        return {NODE: node, **self._figures()}

    # What the agent says

    def _heard(self, message: Message) -> None:
        if "state" in message:
            self._become(message["state"], message["reason"])
            if self.state == "refused":
                self._start_at = self._loop.now() + REFUSED_FOR
                self._agents.fail(self.reason)
        elif "entries" in message:
            self._entries, self._version = applied(self._entries, message["entries"]), message["version"]
            if POOL in message["entries"]:
                self._tell_pools()

    def _tell_pools(self) -> None:
        """Tell the pools of the others; one that has not changed is the same object as before."""
        known, self._pools = self._pools, {}
        for node, text in self._entries.get(POOL, {}).items():
            if node in known and known[node][0] == text:
                self._pools[node] = known[node]
                continue
            for _, value in _read({node: text}):
                self._pools[node] = text, value
        self._changed({POOL: {node: value for node, (_, value) in self._pools.items()}})

    def _become(self, state: str, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        before, self.state, self.reason = self.state, state, reason
        address = _address(self._home)
        if state == "away" and before != "away":
            then = "what is known of the other machines stays as it is; sites are served"
            _log.warning("MS744 the registry %s is away: %s; %s", address, reason, then)
        elif state == "refused":
            _log.error("MS743 [cluster] url = %s: %s", address, reason)
        elif state == "connected" and before == "away":
            _log.info("the registry %s is back after %.0f s", address, time.time() - self.since)
        if state != before:
            self.since = round(time.time(), 3)

    # What others want: whoever asks before the process has started gets the answer later

    @property
    def machines(self) -> int:
        """How many machines are known."""
        return len(self._entries.get(NODE, ()))

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return what is known: kind → node → what that node announced."""
        return {kind: dict(_read(found)) for kind, found in self._entries.items()}

    def successors(self, site: Site) -> list[str]:
        """Return the nodes that may run a site instead of this one: none unless this one drains, and they do not."""
        if not (self._drained_since and self._home):
            return []
        listed = nodes.machines(self._home)
        may = set(map(str, pins.chosen(site.nodes, listed) if site.nodes else listed))
        known = _read(self._entries.get(NODE, {}))
        alive = {name for name, node in known if isinstance(node, dict) and not node.get("draining")}
        return sorted(may & alive - {self.node})

    def lease(self, key: str, owner: str, ttl: float, done: Done) -> None:
        """Take a lease or renew it (`Registry.lease`); `done` gets its number or None later, or why nobody knows."""
        self._ask({"do": "lease", "key": key, "owner": owner, "ttl": ttl}, done)

    def release(self, key: str, owner: str, number: int, done: Done = lambda _result, _error: None) -> None:
        """Give a lease back (`Registry.release`)."""
        self._ask({"do": "release", "key": key, "owner": owner, "number": number}, done)

    def holder(self, key: str, done: Done) -> None:
        """Ask who has a lease (`Registry.holder`); `done` gets a list of owner and number, or None."""
        self._ask({"do": "holder", "key": key}, done)

    def _ask(self, question: Message, done: Done) -> None:
        if self.state in ("", "refused") or (self.state == "away" and not self._agents.is_open):
            done(None, self.reason or NO_REGISTRY)
        else:
            self._agents.ask(question, done)

    def describe(self) -> dict[str, Any]:
        """Return what commands show; times are Unix seconds."""
        if not self.node:
            return {"url": "", "node": "", "state": "", "reason": "", "since": None, "entries": {}}
        engine = {"url": str(_address(self._home)), "state": self.state, "reason": self.reason, "since": self.since}
        return {**engine, "node": self.node, "entries": self.entries()}

    # The end

    def ended(self, pid: int, _status: int) -> bool:
        """Handle the end of a process; False if it is not ours."""
        if not self._agents.ended(pid):
            return False
        if not self._agents.is_current and self.state == "connected":
            self._become("connecting", "")
        return True

    def _store(self, home: Home) -> None:
        document = {"url": str(_address(home)), "version": self._version, "entries": self._entries}
        if StateFile(home, "cluster", guides_us=True).store(document):
            self._stored = self._lasting

    @property
    def pids(self) -> set[int]:
        """The process that talks to the engine, if there is one."""
        return self._agents.pids

    def close(self) -> None:
        """Withdraw this machine, after all that has been asked for: the supervisor exits."""
        if self._home and self._home.cluster.url:
            self._store(self._home)
            self._agents.leave(LEAVE_WITHIN)
            self._agents.fail("the supervisor exits")


def is_local(node: str) -> bool:
    """Tell whether a node is one of several on this machine, at addresses of the loopback interface."""
    return is_loopback(node.rpartition(":")[0].strip("[]"))


def _map(home: Home, catalogue: Catalogue, alive: set[str], status_host: str, cluster: str) -> dict[str, str]:
    """Return the map for Traefik."""
    return traefik.keys(catalogue.owners, alive, status_host, cluster, pins.of_sites(catalogue.sites, home))


def _address(home: Home | None) -> Address | str:
    """Return the URL without a password."""
    try:
        return Address.parse(home.cluster.url if home else "")
    except ValueError:
        return "(not a URL)"


def _name(home: Home) -> str:
    """Return the name of this machine in the cluster."""
    try:
        return str(nodes.own(home))
    except nodes.UnknownNode:
        return socket.gethostname()  # `multisite check` says why


def _read(found: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Return the values that are JSON: whoever can write to the engine may have written anything."""
    values = []
    for key, text in found.items():
        try:
            values.append((key, json.loads(text)))
        except (ValueError, RecursionError):
            continue
    return values
