"""The supervisor itself: one loop over requests, processes, sockets and the clock."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections import deque
from typing import Any

from multisite import __version__
from multisite.control import draining
from multisite.control.rundir import RuntimeDir
from multisite.proxy import handoff
from multisite.router import statistics
from multisite.sites import statefile, usage
from multisite.sites.changes import QUIET
from multisite.sites.failures import of_starts
from multisite.sites.live import LiveHome
from multisite.supervisor import planner
from multisite.supervisor.accounts import Scales
from multisite.supervisor.cluster import membership
from multisite.supervisor.cluster.loadreport import LoadReport
from multisite.supervisor.cluster.membership import Membership
from multisite.supervisor.commands import Commands
from multisite.supervisor.control import ControlSockets
from multisite.supervisor.lifecycle import State
from multisite.supervisor.loop import Loop
from multisite.supervisor.nodestats import NodeStats
from multisite.supervisor.planner import SiteView, SpawnBudget
from multisite.supervisor.process import kernel, orphans
from multisite.supervisor.process.descriptors import DescriptorLimits
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.process.preloaders import Preloaders
from multisite.supervisor.promotion import Promotion
from multisite.supervisor.provisions import Provisions
from multisite.supervisor.records.recorder import Recorder
from multisite.supervisor.reexec import GIVEN, OPEN, PART, Form, Handed, Keeper, converted, given, kept
from multisite.supervisor.reexec import State as Packed
from multisite.supervisor.servers import Servers
from multisite.supervisor.site.context import Context
from multisite.supervisor.site.events import Events
from multisite.supervisor.site.leases import Leases
from multisite.supervisor.site.parts import NO_CONNECTIONS
from multisite.supervisor.site.supervised import SupervisedSite
from multisite.supervisor.sites import SupervisedSites
from multisite.supervisor.subscriptions import Subscriptions
from multisite.supervisor.upgrade import HELD_BACK, Upgrade, arrived

LOOK_EVERY = 1.0  # seconds between two looks at the configuration
SURVEY_EVERY = 0.5  # seconds between two looks for idle sites
CROWDED_PAUSE = 0.05  # seconds between two attempts to find room
LONELY_AT_FIRST = 10.0  # seconds that a detached supervisor waits for its first server

_log = logging.getLogger("multisite.supervisor")


def _numbered(serial: int, context: Context) -> Context:
    context.serial = serial
    return context


class Supervisor(Handed):
    """Starts, watches and stops the backends of one home.

    Args:
        live: the configuration, opened.
        lock: descriptor of the lock on the runtime directory, held until the end.
        foreground: keep running, however many servers there are.
        state: of the program that this one replaces.
    """

    KEPT = kept(
        "_lonely_since",
        _foreground=GIVEN,
        _started=GIVEN,
        _lock=OPEN,
        _rundir=given(lambda rundir, _keep: rundir.path),
        _limits=given(lambda limits, _keep: limits.nofile).at("nofile"),
        _context=Form(lambda context, _keep: context.serial, _numbered).at("serial"),
        _servers=PART,
        _budget=converted(lambda budget: list(budget.starts), lambda told: SpawnBudget(starts=deque(told))),
        _preloaders=PART,
        _promotion=PART.at("placing"),
        _sites=PART.at("roster"),
        _subscriptions=given(lambda part, keep: part.pack(keep)),
        _provisions=PART,
        _membership=PART,
        _control=given(lambda control, keep: control.pack(keep)).at("doors"),
    )
    ANEW = (
        "leaving",
        "_ends_at",
        "_loop",
        "_scales",
        "_recorder",
        "_connected",
        "_look_at",
        "_survey_at",
        "_crowded",
        "_upgrade",
        "_node_stats",
        "_events",
        "_load",
        "_leases",
    )

    def __init__(
        self, live: LiveHome, rundir: RuntimeDir, lock: int, *, foreground: bool, state: Packed | None = None
    ) -> None:
        self.leaving = False
        self._ends_at: float | None = None  # while it drains: when it exits in any case
        self._foreground = foreground
        self._lock = lock
        self._loop = Loop()
        self._started = state["started"] if state else self._loop.now()
        self._lonely_since: float | None = None
        self._servers = Servers(self._loop)
        self._rundir = rundir
        self._limits = DescriptorLimits(tuple(state["nofile"])) if state else DescriptorLimits()
        self._limits.raise_own()
        kernel.become_subreaper()
        self._preloaders = Preloaders(live.home, self._loop, self._limits, rundir.mark)
        notes = of_starts(live.home)
        self._context = Context(self._loop, rundir, self._limits, notes, rundir.mark, self._preloaders, self._servers)
        self._events = Events(self._loop, lambda: self._sites.home)
        self._context.tell = self._events.tell
        self._sites = SupervisedSites(live, self._context)
        counted = os.path.join(rundir.path, usage.FOLDER)
        self._load = LoadReport(live.home, counted)
        told = self._announced, lambda: self._sites.catalogue, self._others_changed, lambda: self._servers.pids
        self._membership = Membership(live.home, self._loop, *told)
        self._leases = Leases(self._loop, lambda: self._sites.home, lambda: self._sites, self._membership)
        self._context.leases = self._leases
        self._promotion = self._context.examining = Promotion(self._sites, counted, self._loop.now)
        self._budget = SpawnBudget()
        self._scales = Scales()
        self._recorder = Recorder(live.home, counted, self._sites.is_known, lambda: self._sites.bill.in_workers)
        self._connected: dict[str, Connections] = {}
        self._look_at = self._survey_at = 0.0
        self._crowded = False
        self._upgrade = Upgrade(self._loop, live.home.path)
        self._loop.catch(*HELD_BACK)
        self._subscriptions = Subscriptions(live.home, rundir, self._loop, state and state.get("subscriptions"))
        self._node_stats = NodeStats(self._loop, self._statistics)
        self._provisions = Provisions(self._loop, self._sites.claims, lambda: self._upgrade.is_due)
        commands = Commands(
            self._context,
            self._sites,
            self._promotion,
            self.look_soon,
            self._upgrade.begin,
            self._started,
            self._subscriptions.describe,
            self._provisions,
            self._membership.describe,
        )
        if state:
            self.take_over(state)
            self._loop.attempt(self._leases.take_over)
        else:
            self._recover()
            statefile.sweep(live.home.state_dir)
            self._sites.let_in()
        self._control = ControlSockets(rundir, self._loop, commands.answer, state["doors"] if state else None)
        for connection in self._control.connections:
            commands.follow(connection)
        arrived(self._control.connections)

    def _make_room(self) -> None:
        """Become the program that is on disk now."""
        for supervised in self._sites.busy:
            supervised.backends.end_forks()
        self._preloaders.close()
        keep = Keeper()
        self._upgrade.execute(self.pack(keep), keep)

    def _statistics(self) -> dict[str, Any]:
        me = {"version": __version__, "pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid(), "cwd": os.getcwd()}
        return statistics.document(self._sites.home, self._subscriptions.describe(), me)

    def _announced(self) -> dict[str, Any]:
        """Return what other machines are told."""
        sites = self._sites
        pool = self._subscriptions.pool.shared(membership.is_local(self._membership.node))
        figures = self._load.of(sites.values(), sites.accounts, len(sites.catalogue.entries), self._membership.machines)
        return {membership.FIGURES: figures, membership.POOL: pool}

    def _others_changed(self, entries: dict[str, dict[str, Any]]) -> None:
        pools = entries.get(membership.POOL, {})
        self._subscriptions.adopt(pools[node] for node in sorted(pools) if node != self._membership.node)

    def look_soon(self) -> None:
        """Look at the configuration at the next turn."""
        self._look_at = 0.0

    def _recover(self) -> None:
        """Clean up after a killed supervisor: its files in the runtime directory, and its processes."""
        left = orphans.of_another(self._context.mark)
        if left:
            _log.warning("MS554 ended %s processes of an earlier supervisor", left)
        self._rundir.clear()
        draining.undo(draining.leaving_file(self._rundir.path))

    # The loop

    def run(self) -> None:
        """Serve until a signal ends this, or until the last WSGI server has exited."""
        _log.info("supervisor of %s is ready, process %s", self._sites.home.path, os.getpid())
        while not self.leaving:
            if not self._loop.attempt(self._wait):
                time.sleep(CROWDED_PAUSE)
            for step in (self._signals, self._tick, self._see_who_is_there, self._see_what_is_left):
                self._loop.attempt(step)
            is_due = self._upgrade.is_due and not self.leaving and self._ends_at is None and not self._is_asked
            if is_due and not self._loop.attempt(self._make_room):
                self._upgrade.failed("the running program cannot pass on its state")
        self._leave()

    @property
    def _is_asked(self) -> bool:
        """Whether somebody waits for an answer that a successor would not have, or a lease for its last renewal."""
        return bool(self._provisions) or self._leases.is_asked or not self._leases.are_renewed(self._upgrade.due_since)

    def _wait(self) -> None:
        timeout = LOOK_EVERY
        try:
            timeout = self._timeout()
        finally:
            self._turn(self._loop.now() + timeout)

    def _turn(self, until: float) -> None:
        """Wait for something to do, and note meanwhile what the sites count, which is no reason to look at them all."""
        accounts, now = self._sites.accounts, self._loop.now()
        alive = [one for one in self._sites.values() if one.pids]
        while True:
            is_due = self._loop.turn((min(until, accounts.follow_at) if alive else until) - now)
            now = self._loop.now()
            self._loop.attempt(accounts.follow, alive, now)
            if is_due or now >= until:
                return

    def _see_who_is_there(self) -> None:
        is_lonely = self._servers.seen_any or self._loop.now() - self._started > LONELY_AT_FIRST
        if not self._foreground and not self._servers and is_lonely and not self._is_awaited():
            _log.info("the last WSGI server has exited")
            self.leaving = True

    def _is_awaited(self) -> bool:
        """Whether a request still waits for a site: one that was handed over no longer needs its server."""
        now = self._loop.now()
        if self._lonely_since is None:
            self._lonely_since = now
        if now - self._lonely_since >= self._grace():
            return False
        return any(map(self._may_be_handed_over, self._sites.connections().items()))

    def _may_be_handed_over(self, waiting: tuple[str, Connections]) -> bool:
        path, connected = waiting
        with contextlib.suppress(OSError):
            return bool(connected.waiting) and handoff.is_allowed(self._sites.home.supervisor.hand_over, path)
        return False

    def _timeout(self) -> float:
        now = self._loop.now()
        due = [self._look_at, self._subscriptions.next_look, self._leases.next_renewal, *self._provisions.deadlines]
        if self._servers:
            self._lonely_since = None
        elif self._lonely_since is not None:
            due.append(now + CROWDED_PAUSE)
        if self._crowded or self._ends_at is not None:
            due.append(now + CROWDED_PAUSE)
        for supervised in self._sites.busy:
            moments = supervised.backends.deadline, supervised.readiness.next_look
            due += [moment for moment in moments if moment is not None]
            rests_at = supervised.rests_at(now) if supervised.state is State.RUNNING else None
            if rests_at is not None:
                due.append(max(now + 0.02, rests_at))
            elif supervised.state is State.DRAINING:
                due.append(now + CROWDED_PAUSE)
        return min(due) - now

    def _signals(self) -> None:
        came, self._loop.signals = self._loop.signals, set()
        self._loop.attempt(self._reap)  # one SIGCHLD may stand for several
        if signal.SIGTERM in came and signal.SIGINT not in came and self._foreground and self._ends_at is None:
            self._drain()
        elif came & {signal.SIGTERM, signal.SIGINT}:
            self.leaving = True
        if signal.SIGHUP in came:
            self.look_soon()
        if signal.SIGUSR2 in came:
            self._begin_upgrade()

    def _begin_upgrade(self) -> None:
        try:
            self._upgrade.begin()
        except OSError as error:
            self._upgrade.failed(str(error))

    def _reap(self) -> None:
        anybody = False
        for pid in kernel.ended_children():
            anybody = True
            for supervised in self._sites.busy:
                self._loop.attempt(supervised.backends.read_forks)  # first learn whose process it is
            status, spent = kernel.reap(pid)
            parts = (self._upgrade, self._preloaders, self._provisions, self._events, self._membership)
            if any(part.ended(pid, status) for part in parts):
                continue
            for supervised in self._sites.busy:
                self._loop.attempt(supervised.ended, pid, status, spent)
        if anybody:
            alive = [one for supervised in self._sites.busy for one in supervised.backends if one.pid or one.is_unborn]
            living = {self._context.mark_of(one.site.name, one.serial): one.pid for one in alive}
            # A process that a preloader is forking still has the preloader's mark.
            living |= {one.maker.mark: one.maker.pid for one in alive if one.maker and one.is_unborn}
            orphans.strays(self._context.mark, living, {one.pid for one in alive}, self._preloaders.pids)

    def _tick(self) -> None:
        now = self._loop.now()
        self._loop.attempt(self._subscriptions.tick, now, self._sites.home)
        self._loop.attempt(self._node_stats.tick, now, self._sites.home.router.stats)
        self._loop.attempt(self._provisions.tick, now)
        self._loop.attempt(self._events.tick, now)
        self._loop.attempt(self._membership.tick, now, self._sites.home)
        self._loop.attempt(self._leases.tick, now)
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            self._upgrade.tick(now)
            for step in (self._sites.check_due, self._promotion.tick, self._weigh, self._record):
                self._loop.attempt(step, now)
            if self._sites.is_expecting:
                self._look_at = now + QUIET
            self._loop.attempt(self._control.let_in)
        busy = self._sites.busy
        if not busy:
            self._crowded = False
            return
        # With many sites it takes milliseconds to ask the kernel for all connections and see who is idle. Requests that
        # wait for a process should not wait for that.
        if now >= self._survey_at or self._crowded or any(one.needs_connections(now) for one in busy):
            self._survey(busy, now)
            return
        for supervised in busy:
            self._loop.attempt(supervised.tick, now, NO_CONNECTIONS)
        if any(one.is_waiting for one in busy):
            self._plan([one.at_a_glance(now) for one in busy], now)
            if self._crowded:
                self._survey(busy, now)

    def _record(self, now: float) -> None:
        self._recorder.tick(self._sites.values(), self._connected, now)

    def _weigh(self, now: float) -> None:
        """Measure memory if it is limited."""
        budget, sites = self._sites.home.supervisor.memory_budget, self._sites.values()
        self._scales.weigh(sites, budget, now)
        used = (
            sum(backend.memory for one in sites for backend in one.backends) + self._preloaders.weigh(now)
            if budget
            else 0
        )
        self._preloaders.tick(now, crowded=bool(budget and used > budget))

    def _survey(self, busy: list[SupervisedSite], now: float) -> None:
        self._survey_at = now + SURVEY_EVERY
        connected = self._connected = self._sites.connections()
        for supervised in busy:
            self._loop.attempt(supervised.tick, now, connected.get(supervised.listener.path, NO_CONNECTIONS))
        self._plan([one.view(now, connected.get(one.listener.path, NO_CONNECTIONS)) for one in busy], now)

    def _plan(self, views: list[SiteView], now: float) -> None:
        options = self._sites.home.supervisor
        budget = options.memory_budget and max(1, options.memory_budget - self._preloaders.memory)
        limits = planner.Limits(options.max_backends, budget, 2 * (os.cpu_count() or 1) + 2)
        decisions = planner.plan(views, limits, now, self._budget)
        for decision in decisions:
            self._loop.attempt(self._do, decision)
        self._crowded = any(self._sites[seen.name].is_waiting for seen in views)

    def _do(self, decision: planner.Stop | planner.Start) -> None:
        if isinstance(decision, planner.Stop):
            self._sites[decision.name].stop(decision.reason)
        else:
            self._sites.starting(decision.name).start(decision.count)

    # The end

    def _grace(self) -> float:
        """Return for how long requests may still be in flight: the longest `drain_timeout`, in seconds."""
        return max((one.site.drain_timeout for one in self._sites.values()), default=0.0)

    def _drain(self) -> None:
        """Make `/health` say that this machine drains, and exit when nothing is in flight; late requests are served."""
        grace = self._grace()
        self._ends_at = self._loop.now() + grace
        _log.info("supervisor of %s drains, for %g seconds at most", self._sites.home.path, grace)
        try:
            draining.note(draining.leaving_file(self._rundir.path), draining.begin(limit=grace + 1.0))
        except OSError as error:
            _log.warning("MS555 front ends do not learn of it: %s: %s", error.filename, error.strerror)

    def _see_what_is_left(self) -> None:
        if self._ends_at is not None and (self._loop.now() >= self._ends_at or not self._in_flight()):
            self.leaving = True

    def _in_flight(self) -> bool:
        """Whether a request waits for a site, or is being answered by one."""
        is_asked, connected = bool(self._provisions) or self._leases.is_asked, self._sites.connections()
        return is_asked or any(
            one.is_waiting or one.requests_in(connected.get(one.listener.path, NO_CONNECTIONS))
            for one in self._sites.values()
        )

    def _leave(self) -> None:
        """Stop everything: terminate, wait, kill; then remove our sockets."""
        _log.info("supervisor of %s exits", self._sites.home.path)
        sites = list(self._sites.values())
        parts = (self._sites.announcer, self._control, self._subscriptions, self._node_stats, self._provisions)
        closing = (part.close for part in parts)
        for step in (*closing, self._promotion.leave, self._preloaders.close, *(one.close for one in sites)):
            self._loop.attempt(step)
        deadline = self._loop.now() + max((one.site.stop_timeout for one in sites), default=0.0)
        while any(one.pids for one in sites) and self._loop.now() < deadline:
            self._loop.turn(min(CROWDED_PAUSE, deadline - self._loop.now()))
            for step in (self._reap, self._tick_leaving):
                self._loop.attempt(step)
        for supervised in sites:
            supervised.backends.kill()
        for step in (
            self._events.close,
            lambda: orphans.all_children(self._membership.pids),
            self._leases.close,  # once nothing runs any more
            self._membership.close,
            self._sites.put_away,
            self._recover,
            self._servers.close,
        ):
            self._loop.attempt(step)

    def _tick_leaving(self) -> None:
        self._loop.attempt(self._leases.tick, self._loop.now())
        connected = self._sites.connections()
        for supervised in self._sites.values():
            if supervised.pids:
                supervised.tick(self._loop.now(), connected.get(supervised.listener.path, NO_CONNECTIONS))
