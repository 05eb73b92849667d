"""The metrics of a home in Prometheus' text format, from the document that ``--json status`` prints.

`families.FAMILIES` is the one table of them: the exposition, the reference in the docs, and the tests of the dashboard
and of the alert rules read it. A figure that nobody measures has no series. A site that rests has one or two, however
much it did before: a counter that is there again later continues where it was, so ``increase`` over the gap is right.

Labels are names of sites and words of ours, never a host that a client sent. The instances of a hosting site count
together, under its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from multisite.status.families import FAMILIES, PHASES, Family

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from multisite.status.families import Figures, Samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LIVE_FOR = 300.0  # seconds after its last use in which a site has all its series: some scrapes see its last figures
_ADDED = ("sent", "in_flight", "waiting", "cpu", "memory", "start_failures", "requests", "busy")
_BY_WORD = ("statuses", "starts_by_kind", "stops_by_reason", "start_seconds")


def exposition(document: Figures, now: float) -> bytes:
    """Return the metrics of a home as text (Prometheus' exposition format, version 0.0.4).

    Args:
        document: what ``--json status`` prints; what is missing in it is left out.
        now: Unix seconds.
    """
    lines: list[str] = []
    for family, samples in _families(document, now):
        lines.append(f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n")
        lines += [f"{name}{labels} {value!r}\n" for name, labels, value in samples]
    return "".join(lines).encode()


def collect(document: Figures, now: float) -> Iterator[Metric]:
    """Yield the same for a registry of prometheus_client, which can push them, or add them to those of a program.

    Raises:
        ImportError: the extra ``metrics`` is not installed.
    """
    from prometheus_client.core import Metric
    from prometheus_client.parser import text_string_to_metric_families

    found = {family.name: family for family in text_string_to_metric_families(exposition(document, now).decode())}
    for name, family in found.items():
        metric = Metric(name, family.documentation, family.type)
        metric.samples = family.samples
        yield metric


def reference_rst() -> str:
    """Return the page of all metrics as reStructuredText."""
    title = "Metrics"
    lines = [".. This page is made from the table of metrics.", "", title, "=" * len(title), "", _INTRODUCTION, ""]
    for of, heading in _HEADINGS.items():
        lines += [heading, "-" * len(heading), ""]
        for family in (one for one in FAMILIES if one.of == of):
            labels = ", ".join(f"``{label}``" for label in _labels(family)) or "none"
            lines += [f"``{family.name}``", f"   {family.help}", "", f"   | Type: {family.kind}"]
            lines += [f"   | Labels: {labels}", ""]
    return "\n".join(lines)


def names() -> frozenset[str]:
    """Return the names of all series that there may be."""
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
    return frozenset(one.name + end for one in FAMILIES for end in suffixes.get(one.kind, ("",)))


def _labels(family: Family) -> tuple[str, ...]:
    bound = ("le",) if family.kind == "histogram" else ()
    return tuple(filter(None, ("" if family.of == "home" else "site", family.label, *bound)))


def _families(document: Figures, now: float) -> Iterator[tuple[Family, list[tuple[str, str, float]]]]:
    """Yield each family that has samples with them: name, labels as text, and value."""
    home = {**document, "now": now}
    sites = [(_escaped(name), row, _is_live(row, now)) for name, row in _by_site(document.get("sites") or ())]
    for family in FAMILIES:
        if family.of == "home":
            found = list(_lines(family, "", family.read(home)))
        else:
            everywhere = family.of == "any site"
            rows = ((site, row) for site, row, is_live in sites if is_live or everywhere)
            found = [line for site, row in rows for line in _lines(family, site, family.read(row))]
        if found:
            yield family, found


def _lines(family: Family, site: str, samples: Samples) -> Iterator[tuple[str, str, float]]:
    """Write the labels of the samples of a site, in the order of their names."""
    begin = f'{{site="{site}"' if site else "{"
    for word, value in samples:
        if family.kind in ("histogram", "summary"):  # the word is the end of the name, and the bound
            end, _, bound = word.partition(" ")
            labels = f'{{le="{bound}",{begin[1:]}}}' if bound else begin + "}"
            yield family.name + end, labels, float(value)
        elif not family.label:
            yield family.name, begin + "}" if site else "", float(value)
        else:
            own = f'{family.label}="{_escaped(word)}"'
            both = sorted(filter(None, (own, begin[1:])))
            yield family.name, f"{{{','.join(both)}}}", float(value)


def _escaped(text: str) -> str:
    """Escape the value of a label; what cannot be encoded, as a file's name may have it, is shown as its number."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


# Sites


def _by_site(rows: Iterable[Figures]) -> Iterator[tuple[str, Figures]]:
    """Yield each enabled site's name and figures; those of the instances of a hosting site are added up."""
    groups: dict[str, list[Figures]] = {}
    for row in rows:
        if row.get("enabled", True):
            groups.setdefault(str(row.get("template") or row["name"]), []).append(row)
    for name, group in groups.items():
        yield name, group[0] if len(group) == 1 else _together(group)


def _together(group: Sequence[Figures]) -> Figures:
    instances = [row for row in group if row.get("host")] or group
    summed: dict[str, Any] = {key: _sum(row.get(key) for row in instances) for key in _ADDED}
    summed |= {key: _sum_by_word(row.get(key) for row in instances) for key in _BY_WORD}
    phases = [row.get("latency") or {} for row in instances]
    summed["latency"] = {name: _sum_by_word(one.get(name) for one in phases) for name in (*PHASES, "whole")}
    counts = [row["latencies"] for row in instances if row.get("latencies")]
    summed["latencies"] = [sum(column) for column in zip(*counts, strict=False)]
    summed["pids"] = [pid for row in instances for pid in row.get("pids") or ()]
    summed["last_use"] = max((row.get("last_use") or 0.0 for row in instances), default=0.0)
    summed["states"] = Counter(str(row.get("state")) for row in instances)
    services = [row.get("service") for row in group]
    return {**summed, "service": next(filter(None, services), None)}


def _sum(values: Iterable[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _sum_by_word(tables: Iterable[Any]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for table in tables:
        total.update({word: value for word, value in (table or {}).items() if value is not None})
    return dict(total)


def _is_live(row: Figures, now: float) -> bool:
    """Tell whether a site is in use, or was a moment ago, or fails."""
    if row.get("pids") or row.get("in_flight") or row.get("waiting") or row.get("state") in _FAILING:
        return True
    last_use = row.get("last_use")
    return bool(row.get("requests")) if last_use is None else bool(last_use) and now - last_use < LIVE_FOR


_FAILING = ("backoff", "fatal", "starting")


_HEADINGS = {
    "site": "Of each site in use",
    "any site": "Of every enabled site",
    "home": "Of the home",
}
_INTRODUCTION = f"""\
``/metrics`` on the ``status_domain`` and ``multisite metrics`` give these, whatever the number of workers.
A site has the series of the first part while it has a process, and for {LIVE_FOR:.0f} seconds after its last use.
Counters continue over restarts of processes, workers and the supervisor."""
