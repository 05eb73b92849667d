"""Several endpoints that share the requests of one destination, and their health.

A request goes to another endpoint only while nothing of it was sent. An endpoint that could not be reached is left out
for a while; if all are left out, those that refused are tried all the same, which takes no time, and those that did not
answer are not.
"""

from __future__ import annotations

import itertools
import math
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import reduce

from multisite.config.endpoint import Endpoint
from multisite.errors import BackendUnavailable, ConnectFailed, ConnectTimeout, MultisiteError, UpstreamError
from multisite.proxy.body import Upload
from multisite.proxy.destination import Destination, NotNow, Proxy
from multisite.proxy.downstream import Environ
from multisite.proxy.upstream import Exchange
from multisite.sites.troubles import Troubles

AVOIDED = 10.0  # seconds for which an endpoint that could not be reached is left out
MOST_TRIES = 3  # endpoints that are tried for a request, and as many backups (uWSGI's max-retries)
STAND_IN = 256  # level of backups, for when no other endpoint can be reached
LONGEST_SCHEDULE = 256
MOST_SCHEDULES = 16  # of one balancer: which of its upstreams live changes seldom
TURN = "multisite.turn"  # in the environ of a request


class Health:
    """The health of an endpoint as this process knows it; destinations that share the endpoint share this, too.

    Attributes:
        dead_until: monotonic seconds until which it is left out; `math.inf` until it is well (`healthchecks`).
        far_until: until when it counts as too slow to reach for a thread that must not wait.
        is_silent: it did not answer the last attempt, rather than refuse.
        in_flight: requests that it has.
    """

    __slots__ = ("__weakref__", "dead_until", "far_until", "in_flight", "is_silent")

    def __init__(self) -> None:
        self.dead_until = self.far_until = 0.0
        self.is_silent = False
        self.in_flight = 0


class Upstream:
    """An endpoint of a balancer.

    Attributes:
        proxy: sends requests there.
        weight: its share of the requests.
        level: it is used only while no endpoint of a lower level can be reached.
    """

    def __init__(self, proxy: Proxy, weight: int = 1, level: int = 0, health: Health | None = None) -> None:
        self.proxy = proxy
        self.weight = max(1, weight)
        self.level = level
        self.health = health or Health()

    def began(self) -> None:
        """It was reached."""
        if self.health.dead_until:
            self.revived()

    def revived(self) -> None:
        """It can be reached again, or is well again."""
        self.health.dead_until = 0.0

    def failed(self, until: float, is_silent: bool) -> None:
        """It could not be reached, and is left out until then."""
        self.health.dead_until, self.health.is_silent = until, is_silent


class InFlight:
    """Counts a request of an endpoint as long as its exchange lives."""

    __slots__ = ("_health",)

    def __init__(self, health: Health) -> None:
        self._health = health
        health.in_flight += 1

    def __del__(self) -> None:
        self._health.in_flight -= 1


class Balancer(Destination):
    """Upstreams that share the requests.

    Args:
        upstreams: at least one.
        algorithm: "wrr" (in turn, by weight), "lrc" (to the one with the fewest requests), "wlrc" (the same, by weight)
            or "iphash" (by the client's address), as in uWSGI.
        grace: seconds for which one that could not be reached is left out.
        sends, upload_rate: see `Destination`.
        troubles: of the site whose upstreams they are.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        clock: Callable[[], float] = time.monotonic,
        *,
        algorithm: str = "wrr",
        grace: float = AVOIDED,
        sends: bool = False,
        upload_rate: float = 0.0,
        troubles: Troubles | None = None,
    ) -> None:
        super().__init__(sends, upload_rate)
        self.upstreams = tuple(upstreams)
        self._clock = clock
        self._algorithm = algorithm
        self._grace = grace
        self._turn = itertools.count()  # its next() is atomic
        self._schedules: dict[tuple[Upstream, ...], list[tuple[Upstream, ...]]] = {}
        self._troubles = troubles
        self.can_explain = troubles is not None
        self._has_levels = any(upstream.level for upstream in upstreams)

    def __repr__(self) -> str:
        return f"<Balancer over {', '.join(str(upstream.proxy.endpoint) for upstream in self.upstreams)}>"

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send a request to one of them (see `Destination`).

        One that takes too long to reach gets its turn all the same.

        Raises:
            ConnectFailed, BackendUnavailable: none could be reached; the error of the last.
        """
        error: ConnectFailed | BackendUnavailable | None = None
        for upstream in self._order(environ):
            try:
                return self._begin(upstream, environ, upload, hurry)
            except BackendUnavailable as failure:  # it is busy, or we are: waiting would not help
                error = failure
            except ConnectFailed as failure:
                upstream.failed(self._clock() + self._grace, isinstance(failure, ConnectTimeout))
                error = failure
        error = error or ConnectTimeout(f"none can be reached: {', '.join(map(str, self._endpoints))}")
        self.explain(error)
        raise error

    @property
    def _endpoints(self) -> list[Endpoint]:
        return [upstream.proxy.endpoint for upstream in self.upstreams[:MOST_TRIES]]

    def explain(self, error: MultisiteError) -> None:
        """Give an error that a visitor is told its incident (see `Destination`)."""
        if self._troubles and isinstance(error, UpstreamError) and not error.incident:
            self._troubles.note(error)

    def _begin(self, upstream: Upstream, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        health = upstream.health
        if hurry and health.far_until > self._clock():
            raise NotNow
        try:
            exchange = upstream.proxy.begin(environ, upload, hurry)
        except NotNow:
            health.far_until = self._clock() + AVOIDED
            raise
        upstream.began()
        if self._algorithm in ("lrc", "wlrc"):
            exchange.held = InFlight(health)
        return exchange

    def _order(self, environ: Environ) -> Iterable[Upstream]:
        """Return the endpoints to try, one after another; a request keeps its turn until it is sent."""
        turn = environ.get(TURN)
        if turn is None:
            turn = environ[TURN] = next(self._turn)
        now = self._clock()
        live = tuple(one for one in self.upstreams if one.health.dead_until <= now)
        if len(live) == len(self.upstreams) and not self._has_levels:
            return self._ranked(live, turn, environ)[:MOST_TRIES]
        lowest = min((one.level for one in live), default=0)
        best = self._ranked(tuple(one for one in live if one.level == lowest), turn, environ)[:MOST_TRIES]
        others = sorted((one for one in live if one.level > lowest), key=lambda one: one.level)
        refusing = tuple(one for one in self.upstreams if one.health.dead_until > now and not one.health.is_silent)
        return (*best, *[*others, *self._rotated(refusing, turn)][:MOST_TRIES])

    def _ranked(self, several: tuple[Upstream, ...], turn: int, environ: Environ) -> tuple[Upstream, ...]:
        """Return those among whom a request is distributed, the one that it goes to first."""
        if self._algorithm == "iphash":
            return _by_address(environ.get("REMOTE_ADDR", ""), several)
        several = self._rotated(several, turn)
        if self._algorithm == "lrc":
            return tuple(sorted(several, key=lambda one: one.health.in_flight))
        if self._algorithm == "wlrc":
            return tuple(sorted(several, key=lambda one: one.health.in_flight / one.weight))
        return several

    def _rotated(self, several: tuple[Upstream, ...], turn: int) -> tuple[Upstream, ...]:
        """Return `several` in the order in which a turn asks them."""
        if len(several) < 2:
            return several
        turns = self._schedules.get(several)
        if turns is None:
            if len(self._schedules) >= MOST_SCHEDULES:
                self._schedules.clear()
            order = schedule([one.weight for one in several])
            rotations = (dict.fromkeys(order[first:] + order[:first]) for first in range(len(order)))
            turns = self._schedules[several] = [tuple(several[number] for number in each) for each in rotations]
        return turns[turn % len(turns)]


def schedule(weights: Sequence[int]) -> tuple[int, ...]:
    """Return the order of the turns for these weights, spread as evenly as possible.

    Each turn goes to the one that is owed most (smooth weighted round robin, as in nginx). Weights whose sum is
    larger than `LONGEST_SCHEDULE` are rounded, to 1 at least.
    """
    divisor = reduce(math.gcd, weights)
    parts = [weight // divisor for weight in weights]
    if sum(parts) > LONGEST_SCHEDULE:
        scale = max(1, LONGEST_SCHEDULE - len(parts)) / sum(parts)
        parts = [max(1, round(part * scale)) for part in parts]
    owed = [0] * len(parts)
    turns = []
    for _ in range(sum(parts)):
        owed = [have + part for have, part in zip(owed, parts, strict=True)]
        most = owed.index(max(owed))
        owed[most] -= sum(parts)
        turns.append(most)
    return tuple(turns)


def _by_address(address: str, several: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
    """Return `several` with the one first that a client's address belongs to; an IPv4 one as uWSGI reckons."""
    try:
        number = int.from_bytes(socket.inet_aton(address), "little")
    except (OSError, ValueError):
        number = zlib.crc32(address.encode("utf-8", "replace"))
    first = number % (len(several) or 1)
    return several[first:] + several[:first]
