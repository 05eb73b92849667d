"""The table of metrics: the name of each, what it means, and how it is read from a site of ``--json status``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from multisite.runner.board import LATENCIES

if TYPE_CHECKING:
    #: a value, and what its label is; the label "" stands for none
    Samples = Iterable[tuple[str, float]]
    Figures = Mapping[str, Any]

#: OpenTelemetry's bounds for http.server.request.duration (semantic conventions, HTTP metrics), in seconds
OPENTELEMETRY = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: those of them at which requests are counted: a count at another one would be a guess
BUCKETS = tuple(bound for bound in OPENTELEMETRY if bound in LATENCIES)
CLASSES = ("2xx", "3xx", "4xx", "5xx")
KINDS = ("cold", "warm", "deploy", "recycle")
PHASES = ("queued", "start", "app")
#: of stops; any other that the supervisor logs counts as the last
REASONS = ("idle", "evicted", "asked", "other")


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: with ``_total`` where it is a counter.
        kind: counter, gauge, summary or histogram.
        help: for the exposition and the reference.
        read: gives the samples of a site, or of the home.
        label: what the samples differ in, besides the site; "" for nothing.
        of: "site", for those in use; "any site"; "home".
    """

    name: str
    kind: str
    help: str
    read: Callable[[Figures], Samples]
    label: str = ""
    of: str = "site"


def _figure(key: str) -> Callable[[Figures], Samples]:
    """Read one figure."""

    def read(row: Figures) -> Samples:
        value = row.get(key)
        return () if value is None else (("", value),)

    return read


def _table(key: str, words: Sequence[str]) -> Callable[[Figures], Samples]:
    """Read a figure by word; each word has a series from the first on, so that its first increase is seen."""

    def read(row: Figures) -> Samples:
        table = row.get(key)
        return () if table is None else [(word, table.get(word) or 0) for word in words]

    return read


def _statuses(row: Figures) -> Samples:
    """Give the answers by class; few sites change the protocol (101)."""
    table = row.get("statuses")
    changed = [("1xx", table["1xx"])] if table and table.get("1xx") else []
    return (*changed, *_table("statuses", CLASSES)(row))


def _stops(row: Figures) -> Samples:
    table = row.get("stops_by_reason")
    if table is None:
        return ()
    counted = dict.fromkeys(REASONS, 0)
    for reason, count in table.items():
        counted[reason if reason in REASONS else "other"] += count or 0
    return counted.items()


def _states(row: Figures) -> Samples:
    return (row.get("states") or {str(row.get("state")): 1}).items()


def _service(row: Figures) -> Samples:
    return ((row["service"], 1),) if row.get("service") else ()


def _phases(row: Figures) -> Samples:
    latency = row.get("latency") or {}
    return [(phase, latency[phase].get("seconds") or 0) for phase in PHASES if latency.get(phase)]


def _duration(row: Figures) -> Samples:
    """Give the histogram of all requests that were timed; its sum is theirs, too."""
    counts = row.get("latencies") or ()
    if len(counts) != len(LATENCIES) + 1:
        return
    below, total, place = 0, sum(counts), 0
    for bound in BUCKETS:
        end = LATENCIES.index(bound) + 1
        below += sum(counts[place:end])
        place = end
        yield f"_bucket {bound!r}", below
    yield "_bucket +Inf", total
    yield "_count", total
    yield "_sum", _seconds(row, total)


def _seconds(row: Figures, timed: int) -> float:
    """Return how long the timed requests took: in the mean as long as those whose times were added up."""
    whole = (row.get("latency") or {}).get("whole") or {}
    if whole.get("count"):
        return float(whole["seconds"]) * timed / float(whole["count"])
    return float(row.get("busy") or 0.0)


def _starts(row: Figures) -> Samples:
    spent = row.get("start_seconds")
    return () if not spent else (("_count", spent.get("count") or 0), ("_sum", spent.get("sum") or 0.0))


# The home


def _build(home: Figures) -> Samples:
    from multisite import __version__

    return (((home.get("supervisor") or {}).get("version") or __version__, 1),)


def _supervisor(key: str) -> Callable[[Figures], Samples]:
    return lambda home: _figure(key)(home.get("supervisor") or {})


def _up(home: Figures) -> Samples:
    return (("", 1 if home.get("supervisor") else 0),)


def _started(home: Figures) -> Samples:
    uptime = (home.get("supervisor") or {}).get("uptime")
    return () if uptime is None else (("", home["now"] - uptime),)


def _sites(home: Figures) -> Samples:
    """Count the enabled sites in each state; none in a state is nought, for an alert that is over."""
    enabled = (row for row in home.get("sites") or () if row.get("enabled", True))
    return {**dict.fromkeys(STATES, 0), **Counter(str(row.get("state")) for row in enabled)}.items()


def _draining(home: Figures) -> Samples:
    return (("", float(bool(home.get("draining")))),)


def _preloaders(home: Figures) -> Samples:
    found = home.get("preloaders")
    return () if found is None else (("", sum(one.get("memory") or 0 for one in found)),)


STATES = ("stopped", "starting", "running", "draining", "stopping", "backoff", "fatal", "in-process", "proxy", "broken")

FAMILIES = (
    Family(
        "multisite_http_server_request_duration_seconds",
        "histogram",
        "Time from the arrival of a request to the end of its answer, in OpenTelemetry's buckets as far as requests "
        "are counted at their bounds.",
        _duration,
    ),
    Family(
        "multisite_http_server_requests_total",
        "counter",
        "Requests that were answered, by the first digit of their status.",
        _statuses,
        "status_class",
    ),
    Family(
        "multisite_http_server_active_requests",
        "gauge",
        "Requests in flight: received and not yet answered.",
        _figure("in_flight"),
    ),
    Family(
        "multisite_http_server_phase_seconds_total",
        "counter",
        "Seconds that requests spent waiting for a free process (queued), for a process to start (start), and in the "
        "application (app).",
        _phases,
        "phase",
    ),
    Family("multisite_http_server_sent_bytes_total", "counter", "Bytes of answers.", _figure("sent")),
    Family(
        "multisite_site_starts_total",
        "counter",
        "Processes started: while a visitor waited (cold), ahead of need (warm), for a new version (deploy), or to "
        "replace one after ``max_requests`` or ``memory_limit`` (recycle).",
        _table("starts_by_kind", KINDS),
        "kind",
    ),
    Family(
        "multisite_site_start_duration_seconds",
        "summary",
        "Time from the decision to start a process until it was ready.",
        _starts,
    ),
    Family(
        "multisite_site_start_failures_total",
        "counter",
        "Processes that ended, or were given up, before they were ready.",
        _figure("start_failures"),
    ),
    Family(
        "multisite_site_stops_total",
        "counter",
        "Processes stopped because the site was idle, because another site needed the room (evicted), because somebody "
        "ran ``multisite stop`` (asked), or for another reason (other).",
        _stops,
        "reason",
    ),
    Family(
        "multisite_site_memory_bytes",
        "gauge",
        "Memory of the site's processes: their proportional set size (PSS).",
        _figure("memory"),
    ),
    Family(
        "multisite_site_cpu_seconds_total",
        "counter",
        "Processor time of all processes that the site has had.",
        _figure("cpu"),
    ),
    Family(
        "multisite_site_queue_requests",
        "gauge",
        "Requests that wait for a process of the site.",
        _figure("waiting"),
    ),
    Family(
        "multisite_site_state",
        "gauge",
        "1 for the state that the site is in; for a hosting site, how many of its instances are in the state.",
        _states,
        "state",
        of="any site",
    ),
    Family(
        "multisite_site_out_of_service",
        "gauge",
        "1 while the site is out of service, with the reason: paused, maintenance, expired or elsewhere.",
        _service,
        "reason",
        of="any site",
    ),
    Family("multisite_build_info", "gauge", "Always 1, with the version of multisite.", _build, "version", of="home"),
    Family(
        "multisite_requests_unknown_host_total",
        "counter",
        "Requests for a host that no site claims.",
        _figure("unknown_hosts"),
        of="home",
    ),
    Family("multisite_sites", "gauge", "Enabled sites in each state.", _sites, "state", of="home"),
    Family(
        "multisite_supervisor_up",
        "gauge",
        "1 while a supervisor is running; the first request for a spawned site starts it.",
        _up,
        of="home",
    ),
    Family(
        "multisite_supervisor_start_time_seconds",
        "gauge",
        "When the supervisor started, in Unix seconds.",
        _started,
        of="home",
    ),
    Family(
        "multisite_draining",
        "gauge",
        "1 while the machine is draining: ``/health`` answers 503, and front ends send new requests to others.",
        _draining,
        of="home",
    ),
    Family("multisite_processes", "gauge", "Running processes of sites.", _supervisor("backends"), of="home"),
    Family(
        "multisite_processes_limit",
        "gauge",
        "Processes of sites that may run at the same time (``max_backends``).",
        _supervisor("max_backends"),
        of="home",
    ),
    Family(
        "multisite_preloader_memory_bytes",
        "gauge",
        "Memory of the preloaders (PSS).",
        _preloaders,
        of="home",
    ),
)
