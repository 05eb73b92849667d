"""The backends of one site, and the listening socket that outlives them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import replace

from multisite.config.model import Home, Site
from multisite.config.policies import Refused
from multisite.runner import leaseguard
from multisite.sites.outages import LASTING, NOTICED_WITHIN, Outage
from multisite.sites.sitedir import Stamp
from multisite.supervisor import planner
from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.planner import SiteView
from multisite.supervisor.process import kernel, launch
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.process.sitelog import SiteLog
from multisite.supervisor.reexec import State as Packed
from multisite.supervisor.site import deploy, exits, starter
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.backends import HELD
from multisite.supervisor.site.costs import Figures
from multisite.supervisor.site.failures import STOPPED_BEFORE, TOO_LATE, Unavailable
from multisite.supervisor.site.parts import SiteParts
from multisite.supervisor.site.work import idle_since

LEASE = "lease"  # why a process has ended that had lost its lease
NEVER = 3600  # seconds, for a client that asks when a site returns that is not expected to


class SupervisedSite(SiteParts):
    """One spawned site: one or more backends on one listening socket."""

    def take_over(self, state: Packed) -> None:
        """Continue where another program stopped."""
        super().take_over(state)
        for slot, serial, packed in state["backends"]:
            backend = starter.new_backend(self, slot, serial)
            backend.adopt(packed, self.log)
            starter.add(self, backend)
            if backend.state is State.STARTING and not backend.told and not backend.ready_at:
                self.readiness.expect(backend)
        if self.listener.is_open and not self.backends:
            with contextlib.suppress(Unavailable):
                self.queue.ensure(watch=True)

    # The listening socket

    def heed(self, outage: Outage | None, wall: float) -> None:
        """Take note of why the site is out of service, if it is: nothing reaches its socket except through the workers.

        Running processes keep running, unless the site's time is over or other machines run it. The socket stays open
        until every worker knows, so that no worker finds it shut.

        Args:
            outage: None: it is in service.
            wall: Unix seconds.
        """
        self.outage, listener = outage, self.listener
        if outage and wall - outage.since >= NOTICED_WITHIN:
            if not listener.is_shut:
                listener.shut()
                if outage.kind in LASTING:
                    self.stop(outage.kind, rest=True)
        elif not outage and listener.is_shut:
            listener.is_shut = False
            if listener.is_open:
                with contextlib.suppress(Unavailable):
                    self.queue.ensure(watch=not self.backends)

    def ensure(self) -> str:
        """Open the socket if necessary; returns its path.

        Raises:
            Unavailable: no process is available before some time has passed or something has changed.
        """
        if self.listener.is_shut and self.outage:
            raise Unavailable(self.outage.error.reason, self.outage.error.retry_after or NEVER)
        if not self.pids:
            starter.check(self)
        if self.state is State.FATAL or (self.state is State.BACKOFF and self.failures.in_a_row > 1):
            raise self.failures.unavailable(self.backends.deadline, self.loop.now())
        self.queue.ensure(watch=not self.backends)
        return self.listener.path

    # Starting

    def start(self, count: int) -> None:
        """Start `count` more backends."""
        kind = self._kind_of_start()
        waited = self.loop.now() - self.queue.since if kind == "cold" and self.queue.since is not None else None
        self.costs.started(count, kind, waited)
        self._is_asked_for = False
        self.queue.served()
        for number in range(count):
            starter.start(self, "warm" if kind == "cold" and number else kind)

    def _kind_of_start(self) -> str:
        """Return why a process is started now, as one of `multisite.sites.tally.KINDS`."""
        if self._is_asked_for and not self.backends.alive:
            return "cold"
        leaving = {backend.obsolete or (backend.reason if backend.leaving else "") for backend in self.backends.alive}
        if self.deploys.is_trial or leaving & {"reload", "restart"}:
            return "deploy"
        return "recycle" if leaving & {"memory", "max_requests"} else "warm"

    # Ending

    def stop(self, reason: str, *, rest: bool = False) -> None:
        """Stop all backends; requests in flight are finished.

        `rest`: requests that wait now must not start it again.
        """
        self.is_put_to_rest = rest
        self.is_due &= not rest
        self.queue.since = None
        if rest:
            self._put_to_rest()
        for backend in list(self.backends):
            backend.feed(Event.STOP, reason)
            if backend.state is State.DRAINING:
                deploy.end_if_drained(backend, self.connected(), self.connected)
            exits.settle(self, backend)

    def _put_to_rest(self) -> None:
        """Stop the site at somebody's request: what waits while none serves, our own probe too, must not start it
        again."""
        self.failures.end_row(STOPPED_BEFORE)
        now = self.loop.now()
        starter.serve_ready(self, max(now, self.readiness.next_look or now), self.connected())
        self.readiness.end()
        if not self.backends.any_in(State.RUNNING, State.DRAINING):
            self.queue.renew(watch=not self.backends)

    def replace(self, reason: str, *, starts: bool = False) -> None:
        """Start new backends beside the running ones; the old ones end when the new ones are ready.

        `starts`: if none runs, start one all the same (`Deploys.begin`).
        """
        exits.reset(self)
        self.is_put_to_rest = False
        self.deploys.begin(reason, self.stamp[0] / 1e9 if self.stamp else 0.0, starts=starts)

    def weigh(self, sizes: Mapping[int, int]) -> None:
        """Note how many bytes each process uses, and replace those above the site's memory_limit."""
        for backend in self.backends:
            backend.memory = sizes.get(backend.pid, 0)
        self.costs.weighed(self.backends)
        for large in deploy.mark_large(self.backends, self.site.memory_limit):
            self.failures.too_large(large)
            self.queue.want()

    def ended(self, pid: int, status: int, spent: float) -> Backend | None:
        """Handle the end of a process; returns the backend that it was, None if it is not ours."""
        backend = self.backends.of(pid)
        if backend:
            if status == leaseguard.LOST << 8 and self.site.exclusive:
                backend.feed(Event.STOP, LEASE)  # its guard has ended it
            mates = [one for one in self.backends.alive if one is backend or not one.obsolete]
            has_answered = any(starter.has_answered(self, one) for one in mates)
            exit_ = backend.ended(status)
            exit_.answered = has_answered
            lost = self.scoreboard.lost(backend.slot, pid) if exit_.code and exit_.served else 0
            self.costs.ended(spent, exit_.served, lost)
            exits.heed(self, backend)
            if self.is_put_to_rest and not self.backends:
                self.queue.forget_gone()
        return backend

    # Time

    def tick(self, now: float, connected: Connections) -> None:
        """Do what is due."""
        starter.serve_ready(self, now, connected)
        for backend in list(self.backends):
            if backend.child and backend.child.end:  # its end has been reported, and something failed then
                self.ended(backend.pid, *backend.child.end)
                continue
            backend.resume(now)
            deploy.end_if_drained(backend, connected, self.connected)
            overdue = backend.end_fork(now)
            if overdue:
                self.context.preloaders.lost(overdue)
            self._heed_time(backend, now)
        if self.queue.since is not None:  # nothing of an exclusive site runs beside its successor
            deploy.make_room(self.backends, math.inf if self.site.exclusive else now - self.queue.since)
        if self.context.leases and self.site.exclusive and not self.lease.number:
            if self.is_waiting:
                self.context.leases.want(self)
            elif self.needs_lease:
                self.context.leases.want_soon(self)
        self._keep_up()
        self.deploys.see()

    def _heed_time(self, backend: Backend, now: float) -> None:
        if backend.deadline is not None and now >= backend.deadline:
            if backend.state is State.STARTING and backend.reason != TOO_LATE and self._answers(backend, now):
                starter.serve(self, backend)
            else:
                exits.expire(self, backend)
        elif backend.state is State.RUNNING and now - backend.started >= planner.STABLE_AFTER:
            self.failures.well()
        elif backend.state is State.FATAL and now - backend.since >= planner.FATAL_PAUSE:
            exits.try_once(self, backend)

    def _answers(self, backend: Backend, now: float) -> bool:
        """Tell whether a process serves although it has not reported that it is ready: then it is not killed for
        that."""
        if backend.ours or backend.on_trial or len(self.backends.alive) > 1:
            return starter.has_answered(self, backend)
        asked_since = self.listener.last_use() > time.time() - (now - backend.since)
        return asked_since and not self.connected().waiting

    def _keep_up(self) -> None:
        """Keep as many processes as the file asks for, while one serves."""
        lasting = self.backends.lasting
        serves = any(backend.state is State.RUNNING for backend in lasting)
        if serves and len(lasting) < launch.backends(self.site) and not self.backends.any_in(*HELD):
            self.queue.want()

    # For the planner

    def at_a_glance(self, now: float) -> SiteView:
        """Describe a site for the planner by what is known at once; whether it is idle is not."""
        alive, lasting = self.backends.alive, self.backends.lasting
        missing = 0 if self.backends.any_in(*HELD) else max(0, launch.backends(self.site) - len(lasting))
        if deploy.is_first(self.backends) or self.deploys.is_trial:
            missing = min(missing, 0 if lasting else 1)
        if self.site.exclusive and (not self.lease.may_start or len(lasting) < len(alive)):
            missing = 0
        return SiteView(
            self.site.name,
            missing=missing,
            wanted_since=self.queue.since,
            not_before=self.failures.not_before,
            processes=len(alive),
            leaving=sum(backend.leaving for backend in alive),
            starting=sum(one.state is State.STARTING and now - one.since < planner.BUSY_STARTING for one in alive),
            idle_timeout=self.site.idle_timeout,
            memory=sum(backend.memory or self.costs.size for backend in alive),
            start_cost=self.costs.start_cost,
            failures=self.failures.in_a_row,
            expected=self.costs.size,
            is_due=self.is_due and not self.outage,
            stays=self.stays,
        )

    def view(self, now: float, connected: Connections) -> SiteView:
        """Describe a site for the planner, and note whether it is in use."""
        alive = self.backends.alive
        running = bool(alive) and all(backend.state is State.RUNNING for backend in alive)
        busy = self._note_use(now, connected)
        seen = self.at_a_glance(now)
        if not running or busy:
            return seen
        self._look_at_work(now)
        return replace(seen, idle_since=self._idle_since(now))

    def _idle_since(self, now: float) -> float | None:
        work, last_use = self.work, self.activity.last_use
        return idle_since(last_use, work.worked_at, work.is_working, self.site.busy_timeout, now)

    def _look_at_work(self, now: float) -> None:
        """See whether it works without a request."""
        site, last_use = self.site, self.activity.last_use
        if not site.busy_timeout:
            return
        self.work.look(now, last_use, self.says_busy, site.idle_timeout, self._cpu, kernel.processor_share)
        news = self.work.news(last_use, site.idle_timeout, site.busy_timeout, now)
        if news:
            self.logger.info("%s", news)

    def _cpu(self) -> float:
        return sum(map(kernel.cpu_of_all, self.pids))

    @property
    def says_busy(self) -> bool:
        """Whether one of its processes has reported that it is at work."""
        return any(backend.is_busy for backend in self.backends)

    def is_idle(self, now: float) -> bool:
        """Tell whether it does no work without a request, or has worked for too long without one."""
        return self._idle_since(now) is not None

    def rests_at(self, now: float) -> float | None:
        """Return the monotonic second at which its processes have been idle for too long, None for never."""
        if not self.site.idle_timeout:
            return None
        idle = self._idle_since(now)
        return self.activity.last_use + self.site.busy_timeout if idle is None else idle + self.site.idle_timeout

    def _note_use(self, now: float, connected: Connections) -> int:
        """Note whether the site is in use; returns how many requests and connections it has."""
        figures = self.figures()
        begun = max(self.backends.serving_since, default=now)
        self.activity.asked_at(figures.last_use if figures.last_use > begun else 0.0)
        busy = _busy(connected, figures)
        if figures.in_flight is None and (self.site.ignore_activity or self.site.ignore_agents):
            self.activity.update(now, 0, figures, self.listener.last_mark())
        else:
            self.activity.update(now, busy - figures.quiet, figures, self.listener.last_use())
        return busy

    def requests_in(self, connected: Connections) -> int:
        """Return how many requests wait or are in flight; where nobody counts requests, how many connections."""
        return _busy(connected, self.figures())

    def needs_connections(self, now: float) -> bool:
        """Tell whether the next decision depends on what the kernel knows about the connections."""
        due = self.rests_at(now)
        idle = due is not None and now >= due and self.state is State.RUNNING
        return idle or self.readiness.next_look is not None or self.backends.any_in(State.DRAINING)

    # Its lease

    @property
    def needs_lease(self) -> bool:
        """Whether anything of an exclusive site runs, is about to, or should."""
        return bool(self.backends.alive) or self.is_waiting or (self.is_due and not self.outage)

    @property
    def is_waited_for(self) -> bool:
        """Whether a request waits for a process, known or not."""
        return self.is_waiting or (not self.pids and self.queue.is_waited_in)

    def turn_away(self, reason: str, retry_after: float) -> None:
        """Answer the requests that wait here: the site does not run here."""
        self.queue.renew(watch=not self.backends, reason=reason, retry_after=retry_after)

    def lose_lease(self) -> None:
        """End its processes at once: another node may have its lease."""
        for backend in list(self.backends):
            backend.feed(Event.STOP, LEASE)
            backend.kill()

    # Its end

    def close(self) -> None:
        """Stop and take no more requests: the site is no longer enabled, or the supervisor exits."""
        self.readiness.end()
        self.failures.end_row(STOPPED_BEFORE)
        self.stop("disabled")
        self.queue.close()
        self.log.close()

    def put_away(self) -> None:
        """Release what outlives the processes: nothing of the site runs any more."""
        self.scoreboard.close()
        self.log.close()

    def _check_owner(self) -> None:
        """End another user's processes now, not when there is room for a new one; that is started at once."""
        with contextlib.suppress(Refused):
            before, running = self.queue.owner, bool(self.pids)
            starter.belong(self, starter.plan(self, 0, self.context.serial))
            if running and before != self.queue.owner:
                self.want()

    def update(self, site: Site, home: Home, domains: tuple[str, ...], stamp: Stamp) -> None:
        """Take a newer version of the site's file; running processes are replaced if it differs, or was touched."""
        changed = site != self.site or stamp != self.stamp or home.env != self.home.env
        may_be_anothers = changed or home.supervisor != self.home.supervisor
        self.site, self.home, self.domains, self.stamp = site, home, domains, stamp
        if changed:
            self.log.close()
            self.log = SiteLog(site, self.log.followers)
        if may_be_anothers:
            self._check_owner()
        if changed:
            self.replace("reload")
        elif self.failures.refused and not self.pids:
            starter.check(self)  # moya.conf may now allow what it did not before
        if self.listener.is_open:
            with contextlib.suppress(Unavailable):
                self.queue.ensure(watch=False)


def _busy(connected: Connections, figures: Figures) -> int:
    return connected.waiting + (connected.open if figures.in_flight is None else figures.in_flight)
