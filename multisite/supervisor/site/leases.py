"""The leases of sites that must not run twice: who may start such a site, and where its requests go meanwhile."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol
from zlib import crc32

from multisite.cluster import nodes
from multisite.config.model import Home, Site
from multisite.supervisor.loop import Loop
from multisite.supervisor.site.failures import Unavailable
from multisite.supervisor.site.lease import Answer, Asker, Lease
from multisite.supervisor.site.leasekeeper import AGAIN, RENEWED, LeaseAnswer, LeaseKeeper, Lessor, Terms

LINGER = 2.0  # seconds for which a lease is kept although nothing of the site runs
FRESH = 1.0  # seconds for which it is taken as known who has a lease
UNKNOWN_AFTER = 2 * FRESH  # seconds after which no worker takes a site to run here that leaves
LONGEST_HELD = 8.0  # seconds for which workers wait for a site that leaves; they give up after 10

_log = logging.getLogger("multisite.supervisor")

LEAVES = "this node drains, and the site leaves for another one"


class Cluster(Lessor, Protocol):
    """The registry, which also knows the other nodes."""

    def successors(self, site: Site) -> list[str]:
        """Return the nodes that may run a site instead of this one: none unless this one drains, and they do not."""


class Leased(Protocol):
    """A site as its lease concerns it."""

    site: Site
    lease: Lease

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for a process."""

    @property
    def needs_lease(self) -> bool:
        """Whether anything of it runs, is about to, or should."""

    @property
    def pids(self) -> list[int]:
        """Its processes."""

    @property
    def is_waited_for(self) -> bool:
        """Whether a request waits for a process, known or not."""

    def ensure(self) -> str:
        """Return the path of its socket."""

    def stop(self, reason: str) -> None:
        """End its processes when they have answered what they have."""

    def turn_away(self, reason: str, retry_after: float) -> None:
        """Answer the requests that wait here: the site does not run here."""

    def lose_lease(self) -> None:
        """End its processes at once."""


class Leases:
    """The leases of all sites of a home.

    Args:
        loop: an answer that cannot be handled costs its own site only.
        home: returns the home as it is now.
        sites: returns the supervised sites, by name.
        cluster: is asked for leases, and for nodes that take a site over.
    """

    def __init__(
        self, loop: Loop, home: Callable[[], Home], sites: Callable[[], Mapping[str, Leased]], cluster: Cluster
    ) -> None:
        self._loop, self._home, self._sites, self._cluster = loop, home, sites, cluster
        self._keeper: LeaseKeeper | None = None
        self._away = ""

    @property
    def is_asked(self) -> bool:
        """Whether a worker waits for an answer."""
        return any(one.lease.is_awaited for one in self._sites().values())

    @property
    def node(self) -> str:
        """Address of this node, "" before the first lease."""
        return self._keeper.terms.node if self._keeper else ""

    @property
    def warning(self) -> float:
        """Seconds that a process has to end by itself when its lease ends."""
        return self._keeper.terms.warning if self._keeper else 0.0

    @property
    def next_renewal(self) -> float:
        """When the next lease has to be renewed, in monotonic seconds."""
        return self._keeper.next_renewal if self._keeper else math.inf

    def _open(self) -> LeaseKeeper:
        """Return what asks; other terms in moya.conf count once no lease is ours or asked for.

        Raises:
            Unavailable: it is not known which node this is.
        """
        try:
            terms = Terms.of(self._home())
        except nodes.UnknownNode as error:
            raise Unavailable(f"[cluster] {error}; {error.remedy}", AGAIN) from None
        is_needed = any(one.lease.number or one.lease.is_asked_for for one in self._sites().values())
        if not self._keeper or (self._keeper.terms != terms and not is_needed):
            self._keeper = LeaseKeeper(terms, self._cluster, self._take_outcome)
        return self._keeper

    def _held(self) -> list[Leased]:
        return [one for one in self._sites().values() if one.lease.number]

    def take_over(self) -> None:
        """Renew the leases that another program had."""
        for supervised in self._held():
            lease = supervised.lease
            self._open().keep(supervised.site.name, lease.number, lease.fence, is_new=False)

    def are_renewed(self, since: float) -> bool:
        """Renew all leases before a pause; tells whether the registry has answered, so that the pause may begin."""
        return not self._keeper or self._keeper.are_renewed(since)

    # For workers, and for sites that have to start

    def place(self, supervised: Leased, caller: Asker, anew: bool = False) -> Answer | None:
        """Return where requests for a site go; None: the caller is answered when it is known.

        The answer has the path of its "socket", or is "elsewhere": the address of a node; it is valid "for" seconds.
        If it has "passed_on", another node may have relayed the request to this one, which drains.

        With `anew`, the registry is asked even if it was a moment ago.

        Raises:
            Unavailable: no process of it is available here.
        """
        path, lease = supervised.ensure(), supervised.lease
        if lease.may_start:
            return {"socket": path, "for": FRESH}
        if lease.owner and not anew and self._loop.now() - lease.known_at < FRESH:
            return self._elsewhere(supervised, lease.owner)
        if lease.leaves_since is not None and self._loop.now() - lease.leaves_since > LONGEST_HELD:
            raise Unavailable(LEAVES, AGAIN)
        self._open()  # if it cannot be asked for, nobody waits
        is_stale = lease.is_over and lease.leaves_since is None
        (lease.later if is_stale or (anew and lease.is_asked_for) else lease.callers).append(caller)
        caller.on_close.append(partial(_forget, lease, caller))
        if not lease.number:
            self.want(supervised)
        return None

    def _elsewhere(self, supervised: Leased, node: str) -> Answer:
        return {"elsewhere": node, "for": FRESH, "passed_on": bool(self._cluster.successors(supervised.site))}

    def want(self, supervised: Leased) -> None:
        """Ask for the lease of a site that has to run; if another node is to run it, ask only which one does.

        Raises:
            Unavailable: it is not known which node this is.
        """
        if not supervised.lease.is_asked_for:
            keeper = self._open()
            supervised.lease.is_asked_for = True  # first, because an answer may come at once
            ask = keeper.find if self._cluster.successors(supervised.site) else keeper.take
            ask(supervised.site.name)

    def want_soon(self, supervised: Leased) -> None:
        """Ask for the lease of a site that has to run without a request, unless another node had it a moment ago."""
        lease, home = supervised.lease, self._home()
        pause = home.cluster.lease / RENEWED if lease.owner else AGAIN
        if self._loop.now() - lease.known_at >= pause and not self._cluster.successors(supervised.site):
            self.want(supervised)

    # Answers

    def _take_outcome(self, outcome: LeaseAnswer) -> None:
        self._tell(outcome)
        supervised = self._sites().get(outcome.key)
        if supervised:
            self._loop.attempt(self._take, supervised, outcome)
        elif outcome.number and not outcome.is_lost and self._keeper:
            self._keeper.release(outcome.key, outcome.number)

    def _tell(self, outcome: LeaseAnswer) -> None:
        """Log that the registry is away, and that it is back, once each."""
        if outcome.failure and not self._away and outcome.failure.startswith("the registry"):
            _log.error(
                "MS569 %s; exclusive sites that run here end within %g seconds unless it returns, and none is started",
                outcome.failure,
                self._keeper.terms.ttl if self._keeper else 0.0,
            )
            self._away = outcome.failure
        elif not outcome.failure and self._away:
            _log.warning("MS570 the registry answers again; exclusive sites are started where they are asked for")
            self._away = ""

    def _take(self, supervised: Leased, outcome: LeaseAnswer) -> None:
        lease, now = supervised.lease, self._loop.now()
        if lease.number:
            if outcome.number == lease.number and outcome.is_lost:
                _log.error(
                    "MS571 site %s: another node may have its lease now; its processes end", supervised.site.name
                )
                lease.drop()
                supervised.lose_lease()
                if lease.is_awaited:
                    self.want(supervised)
            elif outcome.number == lease.number:  # it was renewed, or not
                if outcome.failure and lease.is_over:
                    self._turn_away(supervised, outcome)
                waiting, lease.later = lease.later, []
                self._send(waiting, supervised, outcome)
            return
        if outcome.is_lost or (outcome.number and not lease.is_asked_for):
            return  # about a lease that has been given back since
        outcome = self._hold(lease, outcome) if outcome.number else self._known(outcome)
        lease.is_asked_for, lease.known_at = False, now
        is_free = outcome.is_free and not self._cluster.successors(supervised.site)
        lease.is_asked_again = is_free and not lease.is_asked_again
        if lease.is_asked_again:  # another node gave it back in between
            return self.want(supervised)
        lease.owner, lease.failure = outcome.owner, outcome.failure
        if not outcome.number:
            self._turn_away(supervised, outcome)
        self._answer_all(supervised, outcome)
        if lease.later:
            lease.callers, lease.later = lease.later, []
            self._answer_all(supervised, outcome) if outcome.number else self.want(supervised)
        return None

    def _turn_away(self, supervised: Leased, outcome: LeaseAnswer) -> None:
        """Answer the requests that wait here for a process: none may start."""
        if supervised.is_waiting:
            supervised.turn_away(_reason(outcome), AGAIN)

    def _answer_all(self, supervised: Leased, outcome: LeaseAnswer) -> None:
        """Answer the workers that wait."""
        callers, supervised.lease.callers = supervised.lease.callers, []
        self._send(callers, supervised, outcome)

    def _send(self, callers: list[Asker], supervised: Leased, outcome: LeaseAnswer) -> None:
        for caller in callers:
            caller.send(self._answer(supervised, outcome))

    def _answer(self, supervised: Leased, outcome: LeaseAnswer) -> Answer:
        others = self._cluster.successors(supervised.site) if outcome.is_free else []
        if outcome.owner or others:
            return self._elsewhere(supervised, outcome.owner or _one_of(others, supervised.site.name))
        try:
            if outcome.number and not outcome.failure:
                return {"socket": supervised.ensure(), "for": FRESH}
            raise Unavailable(f"it is not known which node may run it: {outcome.failure}", 5.0)
        except Unavailable as error:
            return {"error": error.reason, "status": 503, "retry_after": max(1, round(error.retry_after))}

    def _hold(self, lease: Lease, outcome: LeaseAnswer) -> LeaseAnswer:
        """Keep a lease that has become ours; if that is impossible, give it back."""
        assert self._keeper
        try:
            lease.hold(outcome.number, outcome.until)
        except OSError as error:
            self._keeper.release(outcome.key, outcome.number)
            return LeaseAnswer(outcome.key, failure=f"this node cannot keep its lease: {error.strerror}")
        self._keeper.keep(outcome.key, outcome.number, lease.fence, is_new=True)
        _log.info("site %s: this node has its lease, number %s", outcome.key, outcome.number)
        return outcome

    def _known(self, outcome: LeaseAnswer) -> LeaseAnswer:
        """Relay to no address that moya.conf does not list: whoever can write to the registry may claim a lease."""
        if not outcome.owner or outcome.owner in map(str, nodes.machines(self._home())):
            return outcome
        reason = f"{outcome.owner[:100]!r} has its lease, and is not among [cluster] nodes"
        return LeaseAnswer(outcome.key, failure=reason)

    def tick(self, now: float) -> None:
        """Renew leases, and give back those of sites of which nothing has run for a while."""
        if not self._keeper:
            return
        self._keeper.tick(now)
        for supervised in self._held():
            lease = supervised.lease
            if lease.leaves_since is not None or self._cluster.successors(supervised.site):
                self._let_leave(supervised, now)
            elif supervised.needs_lease or lease.is_awaited:
                lease.quiet_since = None
            elif lease.quiet_since is None:
                lease.quiet_since = now
            elif now - lease.quiet_since >= LINGER:
                self._give_back(supervised)

    def _let_leave(self, supervised: Leased, now: float) -> None:
        """End a site that another node is to run, and give its lease back. Workers that ask for it wait meanwhile."""
        lease = supervised.lease
        if lease.leaves_since is None:
            lease.leaves_since = now
            _log.info("site %s: this node drains, so another one is to run it", supervised.site.name)
        elif not self._cluster.successors(supervised.site):
            lease.leaves_since = None
            self._answer_all(supervised, LeaseAnswer(supervised.site.name, lease.number))
        elif now - lease.leaves_since >= UNKNOWN_AFTER:
            self._end(supervised, now - lease.leaves_since)

    def _end(self, supervised: Leased, since: float) -> None:
        """End a site that leaves; give its lease back when it has ended, unless a late request waits for it here."""
        lease = supervised.lease
        if supervised.pids:
            supervised.stop("drained")
            if since >= LONGEST_HELD:
                self._answer_all(supervised, LeaseAnswer(supervised.site.name, failure=LEAVES))
        elif supervised.is_waited_for:
            lease.leaves_since = None  # it starts once more, and then leaves
        else:
            self._give_back(supervised)
            if lease.is_awaited:
                self.want(supervised)

    def _give_back(self, supervised: Leased) -> None:
        assert self._keeper
        number = supervised.lease.number
        supervised.lease.drop()
        self._keeper.release(supervised.site.name, number)
        _log.info("site %s: this node has given its lease back", supervised.site.name)

    def close(self) -> None:
        """Give all leases back: nothing runs any more."""
        for supervised in self._held() if self._keeper else ():
            self._give_back(supervised)


def _reason(outcome: LeaseAnswer) -> str:
    return f"it runs on the node {outcome.owner}" if outcome.owner else outcome.failure


def _forget(lease: Lease, caller: Asker) -> None:
    """Forget a worker that has left."""
    for waiting in (lease.callers, lease.later):
        if caller in waiting:
            waiting.remove(caller)


def _one_of(others: list[str], site: str) -> str:
    """Return the node that is to run a site: the sites of one that leaves are distributed among the others."""
    return others[crc32(site.encode()) % len(others)]
