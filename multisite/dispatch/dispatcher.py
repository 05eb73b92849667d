"""From a request to the site that answers it.

The usual request costs one dictionary look-up by its raw Host header, one glance at the clock and one call. Everything
else (normal form of the host, patterns, mounts, a look at the files) happens at a host's first request, or once a
second.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from types import MethodType
from typing import Any

from multisite.config.domains import normalise
from multisite.config.model import Home, Site
from multisite.config.serving.development import OFF, Development
from multisite.config.trusted import TrustedHeader, TrustedProxies
from multisite.dispatch import ask, mounts, newsite, statushost
from multisite.dispatch.automode import AutoMode, Reach
from multisite.dispatch.keepalive import checked
from multisite.dispatch.middleware import count_unknown
from multisite.dispatch.peer import Peers, front_ends_of
from multisite.dispatch.site import InProcessSite
from multisite.dispatch.statushost import HEALTH, PagesOf, StatusHost
from multisite.dispatch.target import HostRouter, Key, Target
from multisite.errors import BadHost, ConfigError, MultisiteError, UnknownHost, pages
from multisite.inprocess.generation import WSGI
from multisite.logs import incidents, servicelog
from multisite.proxy.waiting.slowclients import spare
from multisite.runner.body import Gone
from multisite.runner.requesthead import PROXY, RAW, resolve_target
from multisite.sites import addresses, catalogue
from multisite.sites.catalogue import Catalogue
from multisite.sites.changes import QUIET
from multisite.sites.claims import Ledger
from multisite.sites.failures import LastFailures
from multisite.sites.live import LOOK_EVERY, LiveHome
from multisite.sites.placements import Placements
from multisite.sites.server import find_worker, site_exits

Environ = dict[str, Any]

MOST_HOSTS = 4096  # raw Host headers remembered; a client can invent any number of them
SWEEP_EVERY = 5.0  # seconds between two looks at sites without requests
MOST_INSTANCES = 4096  # hosts of hosting sites that are remembered with their answers

_log = logging.getLogger("multisite.dispatcher")
_get_site, _set_site = servicelog.current_site.get, servicelog.current_site.set


#: id of an error on its way from `_rescue` to the server, so that it is not logged twice
_told: ContextVar[int] = ContextVar("multisite_told", default=0)


class Dispatcher:
    """The WSGI callable over all sites of a home; the first request opens the home."""

    def __init__(
        self,
        live: LiveHome,
        *,
        elsewhere: Callable[[Site, Home], WSGI] | None = None,  # for sites that cannot run in this process
        router_of: Callable[[Home, Any], HostRouter | None] = lambda home, former: None,
        pages_of: PagesOf | None = None,  # what status_domain shows
        development: Development = OFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._elsewhere = elsewhere
        self._router_of = router_of
        self._router: HostRouter | None = None
        self._pages_of = pages_of
        self._status: StatusHost | None = None
        self._development = development
        self._clock = clock
        self._lock = threading.Lock()  # over the live home and what is made from it; never held during an import
        self._catalogue: Catalogue | None = None
        self._ledger: Ledger | None = None
        self._header: TrustedHeader | None = None
        self._peers = Peers(TrustedProxies(()))
        self._believed: dict[str, bool] = {}  # by address; a peer that is not in it takes the long way
        self._raw = "PATH_INFO"  # the key of the target as it was sent, if the server provides it
        self._sites: dict[Key, InProcessSite] = {}  # those in use
        self._memory: dict[str, Target] = {}  # by raw host; only hosts that a site answers
        self._unusable: ConfigError | None = None
        self._open_at = self._sweep_at = 0.0
        self._placements: Placements | None = None
        self._reach: Reach | None = None

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._sites)} sites in use, {len(self._memory)} hosts remembered>"

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        try:
            target = self._memory[environ["HTTP_HOST"]]
            believed = self._believed[environ["REMOTE_ADDR"]]
            is_usual = environ[self._raw][0] == "/" and PROXY not in environ and self._clock() < target.check_at
        except LookupError:
            is_usual = False
        if not is_usual:
            return self._long_way(environ, start_response)
        if _get_site() is not target.name:  # this takes a quarter of the time that setting it takes
            _set_site(target.name)
        if not believed:
            self._peers.check(environ)
        try:
            body = target.app(environ, start_response)
        except StopIteration:  # gunicorn's sign that there is nothing to answer
            raise
        except BaseException as error:
            body = self._raised(error, environ, start_response)
        return checked(body, environ, start_response.__self__) if type(start_response) is MethodType else body

    def _long_way(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        body = self._found(environ, start_response)
        return checked(body, environ, start_response.__self__) if type(start_response) is MethodType else body

    def _found(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        servicelog.current_site.set("")
        if environ.get("PATH_INFO") == HEALTH and (home := statushost.asked(environ, self._status, self._live)):
            return statushost.health(environ, start_response, home)
        try:
            self._look()
            is_forwarded = self._status is not None and statushost.is_forwarded(environ)
            self._peers.check_first(environ)
            target = self._target(environ)
        except MultisiteError as error:
            return self._answer(error, environ, start_response)
        if isinstance(target, StatusHost):
            return target.answer(environ, start_response, is_forwarded)
        if isinstance(target, InProcessSite):
            return self._serve(target.key, environ, start_response)
        if target.check_at != float("inf"):
            target.check_at = self._clock() + LOOK_EVERY
            servicelog.current_site.set(target.name)
        try:
            return target.app(environ, start_response)
        except MultisiteError as error:
            return self._answer(error, environ, start_response)

    def _serve(self, key: Key, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Serve by one site, after its work that is due every second."""
        try:
            target = self._served_by(key, environ)
            servicelog.current_site.set(target.name)
            return target.app(environ, start_response)
        except BaseException as error:
            return self._raised(error, environ, start_response)

    def _served_by(self, key: Key, environ: Environ) -> Target:
        try:
            return self._checked(self._site(key))
        except UnknownHost:  # it is gone or has another name; its host may still be answered
            target = self._target(environ)
            if isinstance(target, mounts.Choice):  # it may have asked for just this one
                raise
            return target

    # Work that is due

    def _look(self) -> None:
        """Open the home if that is still to be done; otherwise do what is due every second."""
        if self._catalogue is None:
            with self._lock:
                if self._catalogue is None:
                    self._open()
        elif self._lock.acquire(blocking=False):
            try:
                if self._live.check_due(self._clock()):
                    self._install()
                self._sweep(self._clock())
            finally:
                self._lock.release()

    def _sweep(self, now: float) -> None:
        """Let sites without requests leave."""
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_EVERY
            for site in list(self._sites.values()):
                site.sweep(now)

    def _open(self) -> None:
        if self._unusable and self._clock() < self._open_at:
            raise ConfigError(*self._unusable.problems)  # a new one: a traceback grows with each raise
        self._open_at = self._clock() + LOOK_EVERY
        spare(find_worker())
        try:
            self._live.open()
        except ConfigError as error:
            if str(self._unusable) != str(error):
                _log.error("%s cannot serve any site: %s", error.id, error)
            self._unusable = error
            raise
        self._install()

    def _checked(self, site: InProcessSite) -> InProcessSite:
        """Let `site` notice what has changed since the last second; return the one to ask."""
        now = self._clock()
        if now < site.check_at:
            return site
        site.layers.look_at_gate()  # first: from the next line on, other requests go straight to the site's app
        site.check_at = now + LOOK_EVERY
        with self._lock:
            if self._live.refresh(site.entry.path):
                self._install()
            self._look_at_folder(site)
        site = self._site(site.key)
        site.check_due(now)
        pause = QUIET if site.is_expecting else LOOK_EVERY
        site.check_at = 0.0 if site.is_always_due else now + pause
        return site

    def _check(self, key: Key) -> None:
        """Notice what has changed about a site that is not being served."""
        with contextlib.suppress(MultisiteError):
            self._checked(self._site(key))

    def _look_at_folder(self, site: InProcessSite) -> None:
        """Forget an instance whose directory is gone or replaced; the next request for its host looks for it again."""
        if site.key[1] and site.key in self._sites:
            assert self._catalogue
            found = self._catalogue.instance(*site.key)
            if not found or found[0].stamp != site.entry.stamp or found[1].name != site.name:
                del self._sites[site.key]
                targets = list(self._memory.items())
                self._memory = {raw: target for raw, target in targets if target.key[1] != site.key[1]}

    def _forget_instances(self) -> None:
        # Nothing is closed: a request that has just found one continues, and its processes are the supervisor's.
        self._sites = {key: site for key, site in self._sites.items() if not key[1]}
        self._memory = {}

    def _install(self) -> None:
        """Replace our catalogue with the live one."""
        new = self._live.catalogue
        assert new
        service = new.home.service
        if not self._ledger or not self._catalogue or self._catalogue.home.state_dir != new.home.state_dir:
            self._ledger = catalogue.ledger(new.home, lambda: self._live.catalogue)
            self._placements = Placements(new.home, only_here=True)
            self._reach = Reach(new.home)
        self._header = TrustedHeader(service.host_header, service.trusted_proxies) if service.host_header else None
        proxies = TrustedProxies(service.trusted_proxies)
        worker = find_worker()
        # If a header may name the host, or the address may not be the peer's, all requests take the long way.
        self._peers = Peers(proxies, None if new.home.names_proxies else front_ends_of(new.home), service.host_header)
        self._believed = {} if self._header or (worker and worker.is_introduced_to) else self._peers.believed
        self._catalogue = new
        self._router = self._router_of(new.home, self._router)
        self._status = statushost.status_host(new.home, self._status, self._pages_of)
        self._forget_instances()
        for key, site in list(self._sites.items()):
            name = key[0]
            if name in new.entries and not new.hosting(name):
                site.update(new.entries[name], new.site(name), new.home)
            else:
                del self._sites[key]
                site.close()
                _log.info("site %s: no longer served", name)

    # Finding the site

    def _target(self, environ: Environ) -> Target:
        """Return what answers this request's host.

        Raises:
            BadHost, UnknownHost.
        """
        self._raw = next((key for key in RAW if key in environ), "PATH_INFO")
        named = self._header.host(environ) if self._header else ""
        sent = environ.get("HTTP_HOST")
        resolve_target(environ)
        if environ.get("SERVER_PROTOCOL") == "HTTP/1.1" and not (named or (sent and environ["HTTP_HOST"])):
            raise BadHost("A request of HTTP/1.1 must name its host")  # RFC 9112 section 3.2
        raw = str(named or environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""))
        if self._status and self._status.is_host(raw):
            return self._status
        known = self._memory.get(raw)
        if known is None and ask.is_question(environ) and not self._claims(normalise(raw)):
            return ask.Ask(self._claims)
        return known or self._find(raw, environ, named)

    def _claims(self, host: str) -> bool:
        """Tell whether a site or a node answers `host`, even if it was enabled a moment ago."""
        return self._newest(host).claims(host) or bool(self._router and self._router.claims(host))

    def _newest(self, host: str) -> Catalogue:
        """Return the catalogue, read again if `host` may belong to a site enabled a moment ago."""
        assert self._catalogue
        if host not in self._catalogue.table.exact:
            with self._lock:
                if self._live.look_again():
                    self._install()
        return self._catalogue

    def _find(self, raw: str, environ: Environ, named: str) -> Target:
        host = normalise(raw)
        self._newest(host)
        memory = self._memory  # read first: an installation replaces the catalogue before its memory
        current = self._catalogue
        assert current
        found = current.answering(host)
        is_claimed = bool(found and found[0].domain)
        if self._router and not is_claimed:
            routed = self._router.answering(environ, named, partial(self._by_default, raw) if found else None)
            if routed:
                if routed.lasts:
                    self._remember(memory, raw, routed)
                return routed
        target, lasts = self._of_sites(current, raw, host)
        if lasts and is_claimed:  # otherwise the host is still unknown, and a new site may claim it
            self._remember(memory, raw, target)
        return target

    def _of_sites(self, current: Catalogue, raw: str, host: str) -> tuple[Target, bool]:
        """Return the site that answers a host, and whether that lasts.

        Raises:
            UnknownHost: none does.
        """
        found = current.answering(host)
        if not found:
            raise UnknownHost("No site answers here under this name")
        if mounts.is_plain(current, found):
            return self._site(mounts.key_of(current, found[0].value[0][1], host)), True
        several = mounts.Choice(current, raw, host, found, self._serve, self._check)
        return several, several.lasts

    def _by_default(self, raw: str, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a host that has led to nodes until now by the default site."""
        assert self._catalogue
        target, _ = self._of_sites(self._catalogue, raw, normalise(raw))
        if isinstance(target, InProcessSite):
            return self._serve(target.key, environ, start_response)
        return target.app(environ, start_response)

    @staticmethod
    def _remember(memory: dict[str, Target], raw: str, target: Target) -> None:
        if len(memory) >= MOST_HOSTS:
            memory.clear()
        memory[raw] = target

    def _site(self, key: Key) -> InProcessSite:
        site = self._sites.get(key)
        if site:
            return site
        with self._lock:
            return self._sites.get(key) or self._new_site(key)

    def _new_site(self, key: Key) -> InProcessSite:
        current, ledger = self._catalogue, self._ledger
        assert current and ledger
        entry, settled = newsite.settled(current, *key)
        failures = LastFailures(current.home)
        if len(self._sites) >= len(current.entries) + MOST_INSTANCES:
            self._forget_instances()
        # Without processes, or for a developer, each site that may share does so at once.
        at_once = self._development.debug or self._development.reload or not self._elsewhere
        auto = None
        if self._placements and self._reach and not at_once:
            auto = AutoMode(entry.file.name, self._placements, self._reach)
        site = InProcessSite(
            entry,
            settled,
            current.home,
            ledger,
            failures,
            rescue=self._rescue,
            elsewhere=self._elsewhere,
            auto=auto,
            development=self._development,
            clock=self._clock,
        )
        site.key = key
        self._sites[key] = site
        return site

    # What the router needs to know about a domain that has just been set up

    def again(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request, perhaps by a site that did not exist when it came (PEP 3333)."""
        return self._found(environ, start_response)

    def destination_of(self, host: str, is_new: bool) -> Any:
        """Return where requests for a host go (`newsite.destination`); `is_new`: its site has just been made."""
        with self._lock:
            if is_new and self._live.look_again(at_once=True):
                self._install()
        is_free = bool(self._elsewhere) and not (self._development.debug or self._development.reload)
        assert self._catalogue
        return newsite.destination(self._catalogue, host, is_free)

    # Errors

    def _rescue(self, error: BaseException, environ: Environ, start: Any, is_body: bool = False) -> Iterable[bytes]:
        """Answer for an app behind the layers of its site; what is raised again has been logged.

        `is_body`: the server was asking for the body, so nothing that is raised again comes back to us.
        """
        try:
            return self._raised(error, environ, start)
        except BaseException as again:
            _told.set(0 if is_body else id(again))
            raise

    def _raised(self, error: BaseException, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer for a site that raised; errors that are not its fault are raised again."""
        if _told.get() == id(error):
            _told.set(0)
            raise error
        if isinstance(error, MultisiteError):
            return self._answer(error, environ, start_response)
        if isinstance(error, (StopIteration, Gone)) or not (isinstance(error, Exception) or site_exits(error)):
            raise error
        site = servicelog.current_site.get()
        incident = incidents.named(site, error, environ)
        incidents.log_failure("MS324", site, incident, "the application failed", error, environ)
        detail = "".join(traceback.format_exception(error)) if self._development.debug else ""
        page = pages.error_page(
            500, "The site failed", "This site could not answer the request.", incident=incident, detail=detail
        )
        pages.begin_anew(start_response)
        return page(environ, start_response, sys.exc_info())

    def _answer(self, error: MultisiteError, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if isinstance(error, ConfigError):
            text = "This server cannot use its configuration; its log shows why."
            page = pages.error_page(error.status, "Not configured", text, retry_after=int(LOOK_EVERY) * 5)
        else:
            page = pages.for_error(error)
        if isinstance(error, UnknownHost) and self._catalogue:
            count_unknown(self._catalogue.home, error.status)
            if self._development.local:
                page = replace(page, links=tuple(addresses.around(self._catalogue, environ)))
        if error.is_last:
            pages.close_after(start_response)
        return page(environ, start_response)
