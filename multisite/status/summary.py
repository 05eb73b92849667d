"""A home in one line: its supervisor, the states of its sites and their use (pure)."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from multisite import __version__

#: the order in which states are counted in the line; the bad ones come first
STATES = (
    *("broken", "fatal", "backoff", "starting", "running", "draining", "stopping"),
    *("in-process", "proxy", "stopped", "unknown"),
)


@dataclass(frozen=True)
class Summary:
    """The figures of a whole home.

    Attributes:
        uptime: seconds of the supervisor; None if none is running, or this user may not see it.
        servers: processes that serve requests and know the supervisor.
        sites: number of enabled sites in each state.
        memory, memory_budget: bytes of all processes of sites; None: unknown, or no budget.
        processes, max_processes: processes of sites.
        requests_a_minute, errors_in_the_last_hour: None if they are not counted.
        draining_since: Unix time; None if the machine takes new requests.
    """

    version: str
    home: str
    pid: int | None
    uptime: float | None
    servers: int | None
    sites: dict[str, int]
    disabled: int
    memory: int | None
    memory_budget: int | None
    processes: int | None
    max_processes: int
    requests_a_minute: float | None = None
    errors_in_the_last_hour: int | None = None
    draining_since: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Describe it for ``--json``."""
        return asdict(self)

    def __str__(self) -> str:
        """The line, without unknown figures."""
        return "; ".join(self.parts())

    def parts(self) -> list[str]:
        """Return the parts of the line."""
        return [*filter(None, (self._service(), self._sites(), self._use(), self._traffic()))]

    def _service(self) -> str:
        runs = f", supervisor {self.pid}, up {duration(self.uptime)}" if self.uptime is not None else ""
        servers = f", {_counted(self.servers, 'server process')}" if self.servers is not None else ""
        drains = ", draining" if self.draining_since is not None else ""
        return f"multisite {self.version}, {self.home}{runs}{servers}{drains}"

    def _sites(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self.sites.items())
        disabled = f", {self.disabled} not enabled" if self.disabled else ""
        return f"{_counted(sum(self.sites.values()), 'site')}{f' ({states})' if states else ''}{disabled}"

    def _use(self) -> str:
        if self.processes is None:
            return ""
        budget = f" of {size(self.memory_budget)}" if self.memory_budget else ""
        over = ", over its budget" if self.memory_budget and (self.memory or 0) > self.memory_budget else ""
        return f"{self.processes} of {self.max_processes} processes, {size(self.memory or 0)}{budget} of memory{over}"

    def _traffic(self) -> str:
        rate, errors = self.requests_a_minute, self.errors_in_the_last_hour
        parts = [f"{rate:.0f} requests a minute" if rate is not None else ""]
        parts += [f"{_counted(errors, 'error')} in the last hour" if errors is not None else ""]
        return ", ".join(filter(None, parts))


def summed(
    document: dict[str, Any],
    home: str,
    max_processes: int = 0,
    memory_budget: int | None = None,
    requests_a_minute: float | None = None,
    errors_in_the_last_hour: int | None = None,
) -> Summary:
    """Sum up a document.

    Args:
        document: as `multisite.status.document.document` returns it.
        home: its directory.
        max_processes, memory_budget: the values in moya.conf; a running supervisor knows the first.
        requests_a_minute, errors_in_the_last_hour: if they are known.
    """
    supervisor, sites = document["supervisor"] or {}, document["sites"]
    states = Counter(site["state"] for site in sites if site["enabled"])
    known = sorted(states, key=lambda state: (STATES.index(state) if state in STATES else len(STATES), state))
    return Summary(
        version=supervisor.get("version", __version__),
        home=home,
        pid=supervisor.get("pid"),
        uptime=supervisor.get("uptime"),
        servers=len(supervisor["servers"]) if "servers" in supervisor else None,
        sites={state: states[state] for state in known},
        disabled=sum(not site["enabled"] for site in sites),
        memory=sum(site.get("memory") or 0 for site in sites) if supervisor else None,
        memory_budget=memory_budget,
        processes=supervisor.get("backends"),
        max_processes=supervisor.get("max_backends", max_processes),
        requests_a_minute=requests_a_minute,
        errors_in_the_last_hour=errors_in_the_last_hour,
        draining_since=(document.get("draining") or {}).get("since"),
    )


def _counted(count: int | None, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def duration(seconds: float | None) -> str:
    """Return a time in its largest whole unit: ``42s``, ``7m``, ``3h``, ``2d``."""
    seconds = seconds or 0.0
    for unit, unit_size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * unit_size:
            return f"{seconds / unit_size:.0f}{unit}"
    return f"{seconds:.0f}s"


def size(count: float) -> str:
    """Return a number of bytes in its largest unit."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"
