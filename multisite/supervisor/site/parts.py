"""The parts of one supervised site, each once: its file and home, its socket, its processes, its costs.

Its behaviour stands above: what follows from ends (`exits`), starts (`starter`), and the rest (`supervised`).
"""

from __future__ import annotations

import os

from multisite.config.model import Home, Site
from multisite.logs import servicelog
from multisite.sites.outages import Outage
from multisite.sites.sitedir import Stamp
from multisite.sites.tally import Tally
from multisite.supervisor.lifecycle import State
from multisite.supervisor.process import kernel
from multisite.supervisor.process.kernel import Connections, connections
from multisite.supervisor.process.sitelog import JOURNEY, Journey, SiteLog
from multisite.supervisor.reexec import PART, Handed, given, kept
from multisite.supervisor.site.backends import Backends
from multisite.supervisor.site.context import Context
from multisite.supervisor.site.costs import Activity, Costs, Figures, Scoreboard
from multisite.supervisor.site.deploy import Deploys
from multisite.supervisor.site.failures import Failures
from multisite.supervisor.site.lease import Lease
from multisite.supervisor.site.queue import SiteSocket, WaitQueue
from multisite.supervisor.site.readiness import Readiness
from multisite.supervisor.site.work import Work

NO_CONNECTIONS = Connections()


class SiteParts(Handed):
    """The parts of a site, and what they show.

    Attributes:
        domains: whose directories lead to its socket.
        stamp: of the version of its file that it has taken.
        journey: of its last start.
        is_put_to_rest: it was stopped, and nothing has asked for it since.
        outage: why it is out of service, None while it is in service.
        stays: it is not stopped for being idle.
        is_due: it should run although no request has asked for it (`multisite.supervisor.prewarm`).
    """

    KEPT = kept(
        "is_due is_put_to_rest _is_asked_for stamp",
        **dict.fromkeys(
            ("costs", "deploys", "failures", "activity", "work", "log", "lease", "listener", "scoreboard"), PART
        ),
        queue=PART.at("room"),
        journey=JOURNEY,
        backends=given(lambda backends, keep: [[one.slot, one.serial, one.pack(keep)] for one in backends]),
    )
    ANEW = ("site", "home", "domains", "outage", "stays", "context", "loop", "logger", "readiness")

    def __init__(self, site: Site, home: Home, domains: tuple[str, ...], stamp: Stamp, context: Context) -> None:
        self.site, self.home, self.domains, self.stamp = site, home, domains, stamp
        self.context, self.loop = context, context.loop
        self.logger = servicelog.site_logger(site.name)
        self.is_due = self.is_put_to_rest = self._is_asked_for = False
        self.stays = site.warm == "always"
        self.journey: Journey | None = None
        self.outage: Outage | None = None
        self.backends = Backends()
        self.costs = Costs()
        self.failures = Failures(site.name, context.notes, self.logger, context.tell)
        self.lease = Lease()
        self.activity = Activity(self.loop.now())
        self.work = Work()
        http, uwsgi = site.protocol != "uwsgi" or site.is_ours, site.protocol == "uwsgi" or site.is_ours
        links = ("http.sock",) * http + ("uwsgi.sock",) * uwsgi  # our own runner speaks both
        self.listener = SiteSocket(context.rundir.socket(site.name), context.rundir, links)
        self.queue = WaitQueue(self, self.listener, self.loop, self.logger)
        self.log = SiteLog(site)
        self.scoreboard = Scoreboard(context.rundir.board(site.name))
        self.readiness = Readiness(self.listener.path, self.backends, self.costs, self.loop)
        self.deploys = Deploys(self.backends, self.failures, self.queue)

    def __repr__(self) -> str:
        return f"<SupervisedSite {self.site.name} {self.state.name} {len(self.pids)} processes>"

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
        """Whether there is anything to watch: a process, a deadline, a waiting request or a lease."""
        return bool(self.backends) or self.is_waiting or bool(self.lease.number)

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for a process that has not been started."""
        return self.queue.since is not None

    def figures(self) -> Figures:
        """Return the counts of the site's own processes, if they count."""
        return self.scoreboard.read(self.pids)

    def tally(self, wall: float, cpu: float | None = None) -> Tally:
        """Return what the site has used since the supervisor has known it.

        Args:
            wall: Unix seconds now.
            cpu: seconds of its living processes, if known; otherwise they are measured, without their children.
        """
        now = self.loop.now()
        living = sum(map(kernel.cpu, self.pids)) if cpu is None else cpu
        served = sum(now - since for since in self.backends.serving_since)
        return self.costs.tally(self.figures(), living, served, wall - (now - self.activity.last_use))

    def connected(self) -> Connections:
        """Ask the kernel for this site's connections now."""
        return connections(os.path.dirname(self.listener.path)).get(self.listener.path, NO_CONNECTIONS)

    def turned_away(self, count: int) -> None:
        """Note that this many requests, which no worker counts, were answered with an error."""
        self.costs.turned_away(count)

    def want(self) -> None:
        """Note that a request waits."""
        self._is_asked_for = True
        self.is_put_to_rest = False
        self.activity.asked_at(self.loop.now())
        self.queue.want()
        self.activity.used(self.loop.now())
