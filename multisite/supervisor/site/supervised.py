"""The backends of one site, and the listening socket that outlives them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

from multisite.config.model import Home, Site
from multisite.config.policies import Refused
from multisite.logs import servicelog
from multisite.sites.sitedir import Stamp
from multisite.sites.tally import Tally
from multisite.supervisor import planner
from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.process import kernel, launch
from multisite.supervisor.process.kernel import Connections, connections
from multisite.supervisor.process.sitelog import SiteLog
from multisite.supervisor.process.spec import Launch
from multisite.supervisor.reexec import Handed, Keeper
from multisite.supervisor.reexec import State as Packed
from multisite.supervisor.site import deploy
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.backends import HELD, Backends
from multisite.supervisor.site.context import Context
from multisite.supervisor.site.costs import Activity, Costs, Figures, Scoreboard
from multisite.supervisor.site.deploy import Deploys
from multisite.supervisor.site.exits import Exits
from multisite.supervisor.site.failures import TOO_LATE, Failures, Unavailable
from multisite.supervisor.site.hearing import Hearing
from multisite.supervisor.site.queue import SiteSocket, WaitQueue
from multisite.supervisor.site.readiness import Readiness
from multisite.supervisor.site.starter import Launcher, Starter

NO_CONNECTIONS = Connections()
ANOTHERS = "the site has another user, group or chroot now"


class SupervisedSite(Handed):
    """One spawned site: from one to many backends on one listening socket.

    Attributes:
        stamp: of the version of its site that it has.
        is_put_to_rest: somebody has stopped it, and nobody has asked for it since.
        is_due: it is to run although nobody has asked for it (`multisite.supervisor.prewarm`).
    """

    HANDED = ("is_due", "is_put_to_rest", "_is_asked_for")
    PARTS = (
        *("site", "home", "domains", "stamp", "backends", "costs", "failures", "activity", "listener", "room"),
        *("log", "scoreboard", "deploys", "starter", "readiness"),
    )
    ANEW = ("_shared", "_loop", "_logger", "_launcher", "_exits", "hearing")

    def __init__(self, site: Site, home: Home, domains: tuple[str, ...], stamp: Stamp, shared: Context) -> None:
        self.site, self.home, self.domains, self.stamp = site, home, domains, stamp
        self.backends = Backends()
        self.costs = Costs()
        self._is_asked_for = False
        self.is_due = self.is_put_to_rest = False
        self._shared, self._loop = shared, shared.loop
        self._logger = servicelog.site_logger(site.name)
        self.failures = Failures(site.name, shared.notes, self._logger)
        self.activity = Activity(self._loop.now())
        link = "uwsgi.sock" if site.protocol == "uwsgi" else "http.sock"
        self.listener = SiteSocket(shared.rundir.socket(site.name), shared.rundir, link)
        self.room = WaitQueue(self.listener, self._loop, self._logger, self.want)
        self.room.offer(site, domains)
        self.log = SiteLog(site)
        self.scoreboard = Scoreboard(shared.rundir.board(site.name))
        self._launcher = Launcher(site, home, shared, self.scoreboard, self.log)
        self.readiness = Readiness(self.listener.path, self.backends, self.costs, self._loop)
        self.deploys = Deploys(self.backends, self.failures, self.room)
        self._exits = Exits(
            self.backends, self.failures, self.room, self.readiness, self.deploys, self.costs, self._loop
        )
        self.hearing = Hearing(
            self._launcher,
            self.backends,
            self.readiness,
            self.failures,
            self.activity,
            self.costs,
            self.deploys,
            self._exits,
        )
        self._launcher.heard = self.hearing.told
        self.starter = Starter(
            self._launcher, self.backends, self.room, self.readiness, self.deploys, self._exits, self._belong
        )

    def __repr__(self) -> str:
        return f"<SupervisedSite {self.site.name} {self.state.name} {len(self.pids)} processes>"

    def pack(self, keep: Keeper) -> Packed:
        """Return what `take_over` takes."""
        return {
            **self.hand(),
            "stamp": self.stamp,
            "costs": self.costs.pack(),
            "room": self.room.hand(),
            "deploys": self.deploys.pack(),
            "failures": self.failures.pack(),
            "activity": self.activity.hand(),
            "log": self.log.hand(),
            "listener": self.listener.pack(keep),
            "scoreboard": self.scoreboard.pack(keep),
            **self.starter.pack(keep),
        }

    def take_over(self, state: Packed) -> None:
        """Go on where another program was."""
        self.go_on(state)
        self.costs.take_over(state["costs"])
        self.deploys.take_over(state["deploys"])
        self.failures.take_over(state["failures"])
        self.activity.go_on(state["activity"])
        self.log.go_on(state["log"])
        self.listener.take_over(state["listener"])
        self.scoreboard.take_over(state["scoreboard"])
        self.room.go_on(state["room"])
        self.starter.take_over(state)
        if self.listener.is_open and not self.backends:
            with contextlib.suppress(Unavailable):
                self.room.ensure(watch=True)

    # As others see it

    @property
    def state(self) -> State:
        """The state of the site as a whole: that of its best backend."""
        return self.backends.state

    @property
    def pids(self) -> list[int]:
        """The processes that it owns."""
        return self.backends.pids

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to watch: a process, a deadline or somebody who waits."""
        return bool(self.backends) or self.is_waiting

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for a process that has not been started."""
        return self.room.since is not None

    def figures(self) -> Figures:
        """Return what the site's own processes count, where they do."""
        return self.scoreboard.read(self.pids)

    def tally(self, wall: float, cpu: float | None = None) -> Tally:
        """Return what the site has used since this crew was made.

        Args:
            wall: Unix seconds now.
            cpu: seconds of its living processes, where that is known; else they are asked, without their children.
        """
        now = self._loop.now()
        living = sum(map(kernel.cpu, self.pids)) if cpu is None else cpu
        served = sum(now - since for since in self.backends.serving_since)
        return self.costs.tally(self.figures(), living, served, wall - (now - self.activity.last_use))

    def connected(self) -> Connections:
        """Ask the kernel for this site's connections now."""
        return connections(os.path.dirname(self.listener.path)).get(self.listener.path, NO_CONNECTIONS)

    # The listening socket

    def ensure(self) -> str:
        """Have the socket there; returns its path.

        Raises:
            Unavailable: no process can be had before some time has passed or something has changed.
        """
        if not self.pids:
            self._check_plan()
        if self.state is State.FATAL or (self.state is State.BACKOFF and self.failures.in_a_row > 1):
            raise self.failures.unavailable(self.backends.deadline, self._loop.now())
        self.room.ensure(watch=not self.backends)
        return self.listener.path

    def _check_plan(self) -> None:
        self.starter.check(self.failures.refused)

    def want(self) -> None:
        """Note that somebody waits."""
        self._is_asked_for = True
        self.is_put_to_rest = False
        self.activity.asked_at(self._loop.now())
        self.room.want()
        self.activity.used(self._loop.now())

    # Starting

    def start(self, count: int) -> None:
        """Start `count` more backends."""
        self.costs.started(count, cold=self._is_asked_for and not self.backends.alive)
        self._is_asked_for = False
        self.room.served()
        for _ in range(count):
            self.starter.start()

    def _belong(self, how: Launch) -> None:
        """Be of whom `how` says; whoever had the site before has it no more."""
        if self.room.owner not in ("", how.owner):
            self._change_hands()
        self.room.owner = how.owner

    def _change_hands(self) -> None:
        """Part with all processes, and with the socket and the scoreboard that they have.

        They finish what they have begun. Who waits for them is told to come again.
        """
        self._logger.warning("%s: its processes end, and its socket and scoreboard are made anew", ANOTHERS)
        self.readiness.end()
        for backend in [one for one in self.backends if one.child or one.is_unborn]:
            backend.feed(Event.STOP, ANOTHERS)
        self.room.renew(watch=False, reason=ANOTHERS)
        self.costs.settle(self.figures())
        self.scoreboard.close()
        for backend in self.backends:
            backend.answered_before = 0

    # Ending

    def stop(self, reason: str, *, rest: bool = False) -> None:
        """Have all backends end; requests in flight are finished.

        `rest`: whoever waits for it now is not to start it again.
        """
        self.is_put_to_rest = rest
        self.is_due &= not rest
        self.room.since = None
        if rest:
            self._put_to_rest()
        for backend in list(self.backends):
            backend.feed(Event.STOP, reason)
            if backend.state is State.DRAINING:
                deploy.end_if_drained(backend, self.connected(), self.connected)
            self._exits.settle(backend)

    def _put_to_rest(self) -> None:
        """Somebody stops it: whoever waits while none serves, our own probe among them, is not to start it again."""
        self.failures.end_row()
        now = self._loop.now()
        self.hearing.look(max(now, self.readiness.next_look or now), self.connected())
        self.readiness.end()
        if not self.backends.any_in(State.RUNNING, State.DRAINING):
            self.room.renew(watch=not self.backends)

    def replace(self, reason: str) -> None:
        """Have new backends beside the running ones, which end when the new ones are ready."""
        self.reset()
        self.is_put_to_rest = False
        self.deploys.begin(reason)

    def weigh(self, sizes: Mapping[int, int]) -> None:
        """Note how many bytes each process uses, and replace those above the site's memory_limit."""
        for backend in self.backends:
            backend.memory = sizes.get(backend.pid, 0)
        self.costs.weighed(self.backends)
        if deploy.mark_large(self.backends, self.site.memory_limit, self._logger):
            self.room.want()

    def reset(self) -> None:
        """Forget all failures."""
        self._exits.reset()

    def ended(self, pid: int, status: int, spent: float) -> Backend | None:
        """Take note of the end of a process; returns the backend that it was, None if it is none of ours."""
        backend = self.backends.of(pid)
        if backend:
            mates = [one for one in self.backends.alive if one is backend or not one.obsolete]
            has_answered = any(map(self._launcher.has_answered, mates))
            exit_ = backend.ended(status)
            exit_.answered = has_answered
            self.costs.ended(spent, exit_.served)
            self._exits.take(backend)
            if self.is_put_to_rest and not self.backends:
                self.room.forget_gone()
        return backend

    # Time

    def tick(self, now: float, connected: Connections) -> None:
        """Do what is due."""
        self.hearing.look(now, connected)
        for backend in list(self.backends):
            if backend.child and backend.child.end:  # its end has been told, and something failed then
                self.ended(backend.pid, *backend.child.end)
                continue
            backend.resume(now)
            deploy.end_if_drained(backend, connected, self.connected)
            overdue = backend.end_fork(now)
            if overdue:
                self._shared.preloaders.lost(overdue)
            self._heed_time(backend, now)
        if self.room.since is not None:
            deploy.make_room(self.backends, now - self.room.since)
        self._keep_up()
        self.deploys.see()

    def _heed_time(self, backend: Backend, now: float) -> None:
        if backend.deadline is not None and now >= backend.deadline:
            if backend.state is State.STARTING and backend.reason != TOO_LATE and self._answers(backend, now):
                self.hearing.is_ready(backend)
            else:
                self._exits.expire(backend)
        elif backend.state is State.RUNNING and now - backend.started >= planner.STABLE_AFTER:
            self.failures.well()
        elif backend.state is State.FATAL and now - backend.since >= planner.FATAL_PAUSE:
            self._exits.try_once(backend)

    def _answers(self, backend: Backend, now: float) -> bool:
        """Tell whether a process that has not said that it is ready serves all the same: it is not killed for that."""
        if backend.ours or backend.on_trial or len(self.backends.alive) > 1:
            return self._launcher.has_answered(backend)
        asked_since = self.listener.last_use() > time.time() - (now - backend.since)
        return asked_since and not self.connected().waiting

    def _keep_up(self) -> None:
        """Have as many processes as the file says, as long as one serves."""
        lasting = [one for one in self.backends.alive if not one.leaving and not one.obsolete]
        held = self.backends.any_in(*HELD)
        serves = any(backend.state is State.RUNNING for backend in lasting)
        if serves and len(lasting) < launch.backends(self.site) and not held:
            self.room.want()

    # The end of it

    def close(self) -> None:
        """Stop and take no more requests: the site is no longer enabled, or the supervisor leaves."""
        self.readiness.end()
        self.stop("disabled")
        self.room.close()
        self.log.close()

    def put_away(self) -> None:
        """Let go of what outlives the processes: nothing of the site runs any more."""
        self.scoreboard.close()
        self.log.close()

    def kill(self) -> None:
        """End all processes at once."""
        for backend in self.backends:
            backend.kill()

    def _look_who_has_it(self) -> None:
        """Have another user's processes end now, not when there is room for a new one; that is started at once."""
        with contextlib.suppress(Refused):
            before, running = self.room.owner, bool(self.pids)
            self._belong(self._launcher.plan(0, self._shared.serial))
            if running and before != self.room.owner:
                self.want()

    def offer(self, site: Site, home: Home, domains: tuple[str, ...], stamp: Stamp) -> None:
        """Take a newer version of the site's file; running processes are replaced if it differs, or was touched."""
        changed = site != self.site or stamp != self.stamp or home.env != self.home.env
        may_be_anothers = changed or home.supervisor != self.home.supervisor
        self.site, self.home, self.domains, self.stamp = site, home, domains, stamp
        self._launcher.site, self._launcher.home = site, home
        self.room.offer(site, domains)
        if changed:
            self.log.close()
            self.log = self._launcher.log = SiteLog(site, self.log.followers)
        if may_be_anothers:
            self._look_who_has_it()
        if changed:
            self.replace("reload")
        elif self.failures.refused and not self.pids:
            self._check_plan()  # moya.conf may allow now what it did not
        if self.listener.is_open:
            with contextlib.suppress(Unavailable):
                self.room.ensure(watch=False)
