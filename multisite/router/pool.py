"""The nodes that have announced themselves, by key, as in uWSGI's subscription server (pure).

A node is identified by its key and its address, never by the source of its packets: each packet has another port.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from multisite.config import nodes
from multisite.config.nodes import MOST_NODES, Node
from multisite.router import keys
from multisite.router.announcement import ALGORITHMS, Announcement

TOLERANCE = 17.0  # seconds without a packet from a node after which it counts as gone (uWSGI's subscription-tolerance)
SIGNED_WITHIN = 86400  # seconds that the number of a signed packet may be off (subscriptions-sign-check-tolerance)
MOST_KEYS = 16384
MOST_MEMBERS = 65536  # nodes of all keys together
MOST_NUMBERS = 131072  # numbers of signed packets that are remembered


@dataclass(frozen=True, slots=True)
class Member:
    """A node that announced itself for a key.

    Attributes:
        node: it.
        cores: requests that it can answer at once, as it says.
        load: requests that it answered when it last said so.
        seen: monotonic seconds of its last word.
        uid: whose process it is, -1 where that is not known.
    """

    node: Node
    cores: int = 0
    load: int = 0
    seen: float = 0.0
    uid: int = -1


_Read = dict[str, tuple[str, dict[str, Member]]]  # key → algorithm, and members by address


class Pool:
    """All members, bounded in number.

    Attributes:
        generation: a number that changes whenever workers have to read the pool again.
        numbered: how many signed packets were taken.
        counted: how many packets had which outcome.
    """

    def __init__(self) -> None:
        self.generation = 1
        self.numbered = 0
        self.counted: Counter[str] = Counter()
        self._members: dict[str, dict[str, Member]] = {}
        self._algorithms: dict[str, str] = {}
        self._others: _Read = {}  # by key: algorithm and members of other machines
        self._documents: dict[int, tuple[Mapping[str, Any], _Read]] = {}  # theirs, by identity
        self._numbers: OrderedDict[tuple[str, str], int] = OrderedDict()  # of signed packets, the oldest first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, str, tuple[Member, ...]]]:
        """Yield each key, its algorithm ("" for the usual one) and its members, those of other machines included."""
        for key in dict.fromkeys((*self._members, *self._others)):
            algorithm, others = self._others.get(key, ("", {}))
            members = {**others, **self._members.get(key, {})}
            yield key, self._algorithms.get(key, "") or algorithm, tuple(members.values())[:MOST_NODES]

    @property
    def remembered(self) -> int:
        """How many nodes and numbers of signed packets there are to be stored."""
        return self._count + len(self._numbers)

    @property
    def changes(self) -> int:
        """Grows with each change that a successor has to know."""
        return self.generation + self.numbered

    def take(self, announced: Announcement, now: float, uid: int = -1, clock: float | None = None) -> str:
        """Take what a node announces; return the outcome, which is counted.

        Args:
            announced: what it says.
            now: monotonic seconds.
            uid: whose process it is, -1 where that is not known.
            clock: seconds since 1970 where the packet is signed; it is then taken once.

        Returns:
            "joined", "refreshed", "left", "unknown" (one left that was not there), "replayed", "bad" or "full".
        """
        outcome = self._take(announced, now, uid, clock)
        self.counted[outcome] += 1
        return outcome

    def _take(self, announced: Announcement, now: float, uid: int, clock: float | None) -> str:
        try:
            key, node = keys.normal(announced.key), _node(announced)
        except ValueError:
            return "bad"
        if clock is not None:
            refused = self._number(key, announced, clock)
            if refused:
                return refused
        address = str(node)
        if announced.leaves:
            return "left" if self._remove(key, address) else "unknown"
        members = self._members.get(key, {})
        known = members.get(address)
        if not known and (
            len(members) >= MOST_NODES
            or self._count >= MOST_MEMBERS
            or (not members and len(self._members) >= MOST_KEYS)
        ):
            return "full"
        algorithm = self._algorithms.get(key, "")
        if announced.algorithm and announced.algorithm != algorithm:
            self._algorithms[key] = announced.algorithm
            self.generation += 1
        self._members.setdefault(key, members)[address] = Member(node, announced.cores, announced.load, now, uid)
        if not known or known.node != node:
            self.generation += 1
        self._count += not known
        return "refreshed" if known else "joined"

    def _number(self, key: str, announced: Announcement, clock: float) -> str:
        """Check the number of a signed packet, which grows from one to the next; return why it is refused, or ""."""
        identity = key, announced.address
        last = self._numbers.get(identity)
        if abs(clock - announced.unix) > SIGNED_WITHIN or (last is not None and announced.unix <= last):
            return "replayed"
        if last is None and len(self._numbers) >= MOST_NUMBERS:
            oldest = next(iter(self._numbers))
            if clock - self._numbers[oldest] <= SIGNED_WITHIN:
                return "full"
            del self._numbers[oldest]
        self._numbers[identity] = announced.unix
        self.numbered += 1
        self._numbers.move_to_end(identity)
        return ""

    def expire(self, now: float) -> list[tuple[str, str]]:
        """Forget nodes that have been silent for too long; return their keys and addresses."""
        gone = [
            (key, address)
            for key, members in self._members.items()
            for address, member in members.items()
            if now - member.seen > TOLERANCE
        ]
        for key, address in gone:
            self._remove(key, address)
        return gone

    def _remove(self, key: str, address: str) -> bool:
        members = self._members.get(key)
        if not members or address not in members:
            return False
        del members[address]
        self._count -= 1
        self.generation += 1
        if not members:
            del self._members[key]
            self._algorithms.pop(key, None)
        return True

    def clear(self) -> None:
        """Forget all members, for a home that does not accept announcements any more."""
        if self._members:
            self.generation += 1
        self._members.clear()
        self._algorithms.clear()
        self._count = 0

    # Other machines

    def shared(self, is_local: bool = False) -> dict[str, Any]:
        """Return what other machines need to know: the nodes that announced themselves here and can be reached there.

        Args:
            is_local: the other machines are this one, at other addresses of the loopback interface.
        """
        found = {}
        for key, members in self._members.items():
            records = [_record(one.node) for one in members.values() if _is_reachable(one.node, is_local)]
            if records:
                found[key] = [self._algorithms.get(key, ""), records]
        return found

    def adopt(self, documents: Iterable[Mapping[str, Any]], now: float) -> bool:
        """Take what other machines share; return whether workers have to read the pool again.

        Args:
            documents: from `shared`, one of each machine. One that is wrong counts for nothing; one that is the same
                object as before is not read again.
            now: monotonic seconds.
        """
        known, self._documents = self._documents, {}
        found: _Read = {}
        for document in documents:
            _, part = self._documents[id(document)] = known.get(id(document)) or (document, _members(document, now))
            for key, (algorithm, members) in part.items():
                if key in found:
                    found[key] = found[key][0], {**found[key][1], **members}
                elif len(found) < MOST_KEYS:
                    found[key] = algorithm, members
        if _nodes(found) == _nodes(self._others):
            return False
        self._others = found
        self.generation += 1
        return True

    # Documents

    def document(self) -> dict[str, Any]:
        """Return what workers need to know, for `find`."""
        return {
            key: [algorithm, [_record(member.node) for member in members]] for key, algorithm, members in iter(self)
        }

    def _own(self) -> dict[str, Any]:
        return {
            key: [self._algorithms.get(key, ""), [_record(member.node) for member in members.values()]]
            for key, members in self._members.items()
        }

    def pack(self) -> dict[str, Any]:
        """Return all that a successor needs to know."""
        return {
            "pool": self._own(),
            "numbers": [[key, address, number] for (key, address), number in self._numbers.items()],
            "counted": dict(self.counted),
        }

    def take_over(self, state: Mapping[str, Any], now: float, is_recent: bool = True) -> None:
        """Continue with the state of a predecessor; each member has a while to announce itself again.

        If the state is not recent, only the numbers of signed packets count.

        Raises:
            ValueError, TypeError, KeyError: `state` is not from `pack`.
        """
        for key, algorithm, found in read(state["pool"] if is_recent else {}):
            self._members[key] = {str(node): Member(node, seen=now) for node in found}
            self._count += len(self._members[key])
            if algorithm:
                self._algorithms[key] = algorithm
        for key, address, number in state["numbers"]:
            self._numbers[str(key), str(address)] = int(number)
        self.counted.update({str(key): int(value) for key, value in state["counted"].items()})
        self.generation += 1


def read(document: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[Node, ...]]]:
    """Yield each key, its algorithm and its nodes from what `Pool.document` returned.

    Raises:
        ValueError, TypeError, KeyError: it is invalid.
    """
    for key, (algorithm, records) in document.items():
        yield key, algorithm if algorithm in ALGORITHMS else "", tuple(map(_of_record, records))


def _members(document: Mapping[str, Any], now: float) -> _Read:
    """Return what a document of another machine says, nothing if it is wrong."""
    found: _Read = {}
    try:
        for key, algorithm, nodes_of in islice(read(document), MOST_KEYS):
            known = found.setdefault(keys.normal(key), (algorithm, {}))[1]
            known.update({str(node): Member(node, seen=now) for node in nodes_of})
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return found


def _nodes(found: _Read) -> dict[str, Any]:
    return {key: (algorithm, [one.node for one in members.values()]) for key, (algorithm, members) in found.items()}


def _is_reachable(node: Node, is_local: bool) -> bool:
    """Tell whether other machines reach a node."""
    host = node.endpoint.host
    return bool(host) and (is_local or not is_loopback(host))


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine alone."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _record(node: Node) -> list[Any]:
    return [str(node), node.modifier1, node.modifier2, node.weight, node.backup]


def _of_record(record: list[Any]) -> Node:
    return _recorded(*record)


@lru_cache(maxsize=MOST_KEYS)  # of thousands of nodes that are read again, few are new
def _recorded(address: str, modifier1: int, modifier2: int, weight: int, backup: int) -> Node:
    return replace(
        nodes.parse(address),
        modifier1=int(modifier1),
        modifier2=int(modifier2),
        weight=max(1, int(weight)),
        backup=int(backup),
    )


def _node(announced: Announcement) -> Node:
    """Return the node that announces itself.

    Raises:
        ValueError: it has no usable address.
    """
    address = announced.address
    if announced.protocol == "http" and "://" not in address:
        address = f"http+unix:{address}" if address.startswith(("/", "@")) else f"http://{address}"
    return replace(
        nodes.parse(address),
        modifier1=announced.modifier1,
        modifier2=announced.modifier2,
        weight=announced.weight,
        backup=announced.backup,
    )
