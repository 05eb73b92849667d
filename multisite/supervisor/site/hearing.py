"""From a process that has been started to one that serves: what it says, and what follows when it is ready."""

from __future__ import annotations

from dataclasses import dataclass

from multisite.supervisor.lifecycle import Event, State
from multisite.supervisor.notify import Said
from multisite.supervisor.process import launch
from multisite.supervisor.process.kernel import Connections
from multisite.supervisor.site.backend import Backend
from multisite.supervisor.site.backends import Backends
from multisite.supervisor.site.costs import Activity, Costs
from multisite.supervisor.site.deploy import Deploys
from multisite.supervisor.site.exits import Exits
from multisite.supervisor.site.failures import Failures
from multisite.supervisor.site.readiness import Readiness
from multisite.supervisor.site.starter import Launcher

MOST_LESSONS = 4  # of one process; each costs us milliseconds
MOST_REPORTS = 8  # of one process about its examination


@dataclass(frozen=True)
class Hearing:
    """Hears the backends of one site, and has those serve that are ready."""

    launcher: Launcher
    backends: Backends
    readiness: Readiness
    failures: Failures
    activity: Activity
    costs: Costs
    deploys: Deploys
    exits: Exits

    def told(self, backend: Backend, variables: Said) -> None:
        """Take note of what a process says of itself (sd_notify(3))."""
        if "MODULES" in variables:
            self._learn(backend, variables["MODULES"])
        if "FACTS" in variables and backend.state is State.RUNNING:
            self._hear_facts(backend, variables["FACTS"])
        if variables.get("RECYCLES") == "1":
            self.exits.recycle(backend)
        if variables.get("LEAVES") == "1":
            backend.leaves = True
        if backend.state is State.STARTING:
            self._hear_progress(backend, variables)

    def _learn(self, backend: Backend, modules: str) -> None:
        """Have a preloader know what a process imports; it does not teach without end."""
        if backend.launch and backend.lessons < MOST_LESSONS:
            backend.lessons += 1
            self.launcher.shared.preloaders.learn(backend.launch, modules)

    def _hear_facts(self, backend: Backend, told: str) -> None:
        """Take note of what a process has found out about its site; it does not speak without end."""
        placing = self.launcher.shared.placing
        if backend.launch and backend.launch.examine and placing and backend.reports < MOST_REPORTS:
            backend.reports += 1
            placing.take(self.launcher.site, backend.launch.examine, told)

    def _hear_progress(self, backend: Backend, variables: Said) -> None:
        backend.told_of_start(variables)
        if variables.get("READY") == "1":
            self.is_ready(backend)
        elif variables.get("TRIED") == "1" and backend.on_trial and not backend.told:
            backend.on_trial = False
            self.readiness.expect(backend)

    def look(self, now: float, connected: Connections) -> None:
        """Have those silent ones serve that are ready now."""
        for backend in self.readiness.look(now, connected):
            self.is_ready(backend)

    def is_ready(self, backend: Backend) -> None:
        """Have a process serve from now on."""
        now = self.launcher.shared.loop.now()
        backend.feed(Event.READY, f"ready after {now - backend.journey.begun:.3f} s")
        self.activity.used(now)
        self.failures.ready(backend.journey)
        self.costs.start_cost = backend.journey.duration
        self.deploys.ready(launch.backends(self.launcher.site))
        if backend.launch:
            self.launcher.shared.preloaders.served(backend.launch)
