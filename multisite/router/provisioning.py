"""Unknown domains, in a worker: their requests wait until the supervisor has had them set up.

At the first request of a domain another thread asks the supervisor; this request and all that come meanwhile wait in
the relay loop, with their bodies, and hold no thread. Then each is sent to the result: the node that was named, or the
processes of the site whose file was written. If the server does not give us the connection, a thread waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from multisite.config.model import Home
from multisite.control.client import Client, SiteUnavailable
from multisite.errors import BackendUnavailable, MultisiteError, SiteBusy, UnknownHost
from multisite.proxy import downstream
from multisite.proxy.body import Upload
from multisite.proxy.destination import Destination, NotNow
from multisite.proxy.downstream import Environ
from multisite.proxy.relay import relay
from multisite.proxy.upstream import Exchange
from multisite.router.groups import Group, Groups
from multisite.router.mappers import NamedNodes
from multisite.router.provisioner import is_domain
from multisite.sites.server import head_limits

MOST_ASKING = 16  # domains that a worker asks the supervisor about at a time
MOST_WAITING = 512  # requests of one of them
MOST_REMEMBERED = 4096  # domains
MARGIN = 5.0  # seconds that the supervisor has for its answer when the time is over
TURNED_AWAY = 0.1  # seconds for which a worker stops asking when the supervisor is at its limit
RETRY_AFTER = 1

_log = logging.getLogger("multisite.router")


class SitesHere(Protocol):
    """The sites of the home as the worker has them."""

    def destination_of(self, host: str, is_new: bool) -> Destination | None:
        """Return where requests for `host` go; None if a site answers in this process, or through our own layers.

        Args:
            host: in its normal form.
            is_new: the file of a site has just been written.

        Raises:
            UnknownHost: no site answers it.
        """

    def again(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request, perhaps by a site that was not there when it came (PEP 3333)."""


def _unknown() -> MultisiteError:
    return UnknownHost("No site answers here under this name")


class NewDomain(Destination):
    """A domain that is being set up, and where its first requests go then.

    Args:
        patience: seconds that a request waits.

    Attributes:
        name: the domain.
        is_known: whether that is known.
    """

    key = ("", "")
    lasts = False
    can_explain = True

    def __init__(self, domain: str, sites: SitesHere, patience: float) -> None:
        super().__init__()
        self.name = domain
        self.check_at = 0.0
        self._sites, self._patience = sites, patience
        self._told = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []
        self._has_failed = False
        self._outcome: Destination | Callable[[], MultisiteError] = _unknown

    def __repr__(self) -> str:
        return f"<NewDomain {self.name} {self._outcome if self.is_known else 'being set up'}>"

    def __str__(self) -> str:
        return f"the new domain {self.name}"

    @property
    def is_known(self) -> bool:
        """Whether the result is known."""
        return self._told.is_set()

    @property
    def failure(self) -> MultisiteError | None:
        """Why there is no result; None if there is one, or not yet."""
        failed = self._has_failed and not isinstance(self._outcome, Destination)
        return self._outcome() if failed else None  # type: ignore[operator]

    def tell(self, outcome: Destination | Callable[[], MultisiteError], has_failed: bool) -> None:
        """Set the result: where its requests go, or how they are answered."""
        with self._lock:
            self._outcome, self._has_failed = outcome, has_failed
            if isinstance(outcome, Destination):
                self.queue = outcome.queue
            self._told.set()
            calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except MultisiteError as error:
                _log.error("%s %s: %s", error.id, self, error)

    def app(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        if downstream.connection(environ):
            return relay(self, environ, start_response)
        release = self.share.take_thread()
        try:
            self._wait()
        finally:
            release()
        failure = self.failure
        if failure:
            raise failure
        return self._sites.again(environ, start_response)

    def _wait(self) -> None:
        if not self._told.wait(self._patience):
            raise self.late

    @property
    def late(self) -> BackendUnavailable:
        """The error for a request that has waited as long as it may."""
        return BackendUnavailable("this domain is still being set up", RETRY_AFTER)

    def delay(self, call: Callable[[], None]) -> float:
        """Return how long a request may have to wait (see `Destination`)."""
        with self._lock:
            if self.is_known:
                return 0.0
            if len(self._calls) >= MOST_WAITING:
                raise SiteBusy("too many requests are waiting for this domain to be set up")
            self._calls.append(call)
        return self._patience

    def begin(self, environ: Environ, upload: Upload, hurry: bool) -> Exchange:
        """Send a request to the result (see `Destination`)."""
        if not self.is_known:
            if hurry:
                raise NotNow
            self._wait()
        outcome = self._outcome
        if not isinstance(outcome, Destination):
            raise outcome()
        return outcome.begin(environ, upload, hurry)

    def explain(self, error: MultisiteError) -> None:
        """Ask why there was no answer (see `Destination`)."""
        if isinstance(self._outcome, Destination):
            self._outcome.explain(error)


class Provisioning:
    """Has domains set up.

    Attributes:
        named: the mapper of those for which a node was named.

    Args:
        home: whose [router] says who is asked.
        sites: of this worker.
        relaying: returns what relays to the nodes of a key.
        standing_in: returns what relays to the fallback nodes; None where there are none.
    """

    def __init__(
        self,
        home: Home,
        groups: Groups,
        sites: SitesHere,
        relaying: Callable[[str, Group], Destination],
        standing_in: Callable[[], Destination | None],
    ) -> None:
        self._client = Client(home)
        self._patience = home.router.provision_timeout
        self.named, self._sites = NamedNodes(groups), sites
        self._relaying, self._standing_in = relaying, standing_in
        self._lock = threading.Lock()
        self._waiting: dict[str, NewDomain] = {}
        self._settled: OrderedDict[str, tuple[float, bool]] = (
            OrderedDict()
        )  # until when it holds, and whether it failed
        self._ask_at = 0.0

    def new_domain(self, wanted: Sequence[str]) -> NewDomain | None:
        """Return what a request with these keys waits for; None where its domain is refused, or is none.

        Raises:
            BackendUnavailable: as much is being set up as may be, or it has failed of late.
        """
        domain = wanted[-1] if wanted else ""
        if not is_domain(domain):
            return None
        now = time.monotonic()
        with self._lock:
            waiting = self._waiting.get(domain)
            if waiting:
                return waiting
            until, has_failed = self._settled.get(domain, (0.0, False))
            if now < until:
                if has_failed:
                    raise _failed()
                return None
            if len(self._waiting) >= MOST_ASKING or now < self._ask_at:
                raise _busy()
            return self._new(domain)

    def _new(self, domain: str) -> NewDomain:
        made = NewDomain(domain, self._sites, self._patience)
        thread = threading.Thread(target=self._ask, args=(made,), name="multisite-provision", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise BackendUnavailable(f"cannot ask the supervisor: {error}", RETRY_AFTER) from error
        self._waiting[domain] = made
        return made

    def _ask(self, new: NewDomain) -> None:
        outcome: Destination | Callable[[], MultisiteError] = _failed
        settled = 0.0, True
        try:
            answer = self._client.provision(new.name, self._patience + MARGIN, head_limits())
            settled = time.monotonic() + float(answer["for"]), answer["outcome"] == "failed"
            outcome = self._became(new.name, answer)
        except SiteUnavailable as error:
            _log.debug("%s: %s", new.name, error)
            outcome, self._ask_at = _busy, time.monotonic() + TURNED_AWAY
        except Exception as error:
            settled = time.monotonic() + RETRY_AFTER, True
            _log.error(
                "MS737 %s: cannot ask the supervisor: %s",
                new.name,
                error,
                exc_info=not isinstance(error, MultisiteError),
            )
        finally:
            with self._lock:
                del self._waiting[new.name]
                if outcome is not _busy:
                    self._settle(new.name, settled)
            new.tell(outcome, outcome is _busy or settled[1])

    def _settle(self, domain: str, settled: tuple[float, bool]) -> None:
        self._settled.pop(domain, None)
        while len(self._settled) >= MOST_REMEMBERED:
            self._settled.popitem(last=False)
        self._settled[domain] = settled

    def _became(self, domain: str, answer: dict[str, Any]) -> Destination | Callable[[], MultisiteError]:
        """Return where the requests of a domain go, or how they are answered."""
        outcome = answer["outcome"]
        if outcome == "failed":
            return _failed
        if outcome == "node":
            with self._lock:
                self.named.remember(domain, str(answer["node"]))
            group = self.named.find(domain)
            return self._relaying(domain, group) if group else _failed
        try:
            return self._sites.destination_of(domain, outcome == "site") or _ready
        except UnknownHost:
            return self._standing_in() or _unknown


def _busy() -> MultisiteError:
    return BackendUnavailable("too many new domains are being set up", RETRY_AFTER)


def _failed() -> MultisiteError:
    return BackendUnavailable("this domain could not be set up; the log has the reason", 10)


def _ready() -> MultisiteError:
    return BackendUnavailable("this domain has just been set up; its site answers the next request", RETRY_AFTER)
