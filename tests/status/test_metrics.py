"""The metrics of a home, as Prometheus' own client reads them, and what the docs offer beside them."""

from __future__ import annotations

import cProfile
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from multisite.runner.board import LATENCIES
from multisite.status import families, metrics

DEPLOY = Path(__file__).parent.parent.parent / "docs" / "deploy"
NOW = 1_800_000_000.0
HOSTILE = 'x"} 1\nevil{a="b\\'
Labels = dict[str, str]


def site(name: str = "blog", **more: Any) -> dict[str, Any]:
    """A site for which everything is counted that can be."""
    phases = {phase: {"count": 5, "seconds": 1.25} for phase in ("queued", "start", "relay", "app", "whole")}
    return {
        **{"name": name, "enabled": True, "state": "running", "service": "paused", "pids": [7], "requests": 99},
        **{"last_use": NOW, "errors": 3, "received": 10, "sent": 20, "in_flight": 2, "waiting": 1, "cpu": 12.5},
        "statuses": {"1xx": 1, "2xx": 5, "3xx": 0, "4xx": 2, "5xx": 4},
        "latencies": list(range(len(LATENCIES) + 1)),
        "latency": phases,
        "starts_by_kind": {"cold": 1, "warm": 2, "deploy": 0, "recycle": 3},
        "start_seconds": {"count": 6, "sum": 2.5},
        "start_failures": 1,
        "stops_by_reason": {"idle": 3, "evicted": 2, "asked": 4, "max_requests": 3, "reload": 1},
        "memory": 3 * 10**7,
        **more,
    }


def idle(name: str = "idle", **more: Any) -> dict[str, Any]:
    """A site that nobody has asked for in a while."""
    rests = {"state": "stopped", "service": None, "pids": [], "in_flight": 0, "waiting": 0, "last_use": NOW - 3600}
    return site(name, **{**rests, **more})


def document(*sites: dict[str, Any]) -> dict[str, Any]:
    supervisor = {"pid": 1, "version": "1.2", "uptime": 60.0, "backends": 3, "max_backends": 50}
    return {"supervisor": supervisor, "preloaders": [{"memory": 5}], "unknown_hosts": 4, "sites": list(sites)}


def series(told: dict[str, Any]) -> list[tuple[str, Labels, float]]:
    """What a scrape of it gives: names, labels and values."""
    text = metrics.exposition(told, NOW).decode()
    return [sample[:3] for family in text_string_to_metric_families(text) for sample in family.samples]


def of_site(told: dict[str, Any], name: str = "blog") -> dict[tuple[str, str], float]:
    """The values of a site, by the name of the metric and what its label is."""
    found = [one for one in series(told) if one[1].get("site") == name]
    return {
        (metric, "".join(value for label, value in labels.items() if label != "site")): value
        for metric, labels, value in found
    }


def test_each_figure_has_its_metric() -> None:
    found = of_site(document(site()))
    http = "multisite_http_server_"
    assert found[http + "requests_total", "5xx"] == 4
    assert found[http + "requests_total", "1xx"] == 1
    assert found[http + "active_requests", ""] == 2
    assert found[http + "sent_bytes_total", ""] == 20
    assert found[http + "phase_seconds_total", "queued"] == 1.25
    assert found["multisite_site_starts_total", "recycle"] == 3
    assert found["multisite_site_start_duration_seconds_sum", ""] == 2.5
    assert found["multisite_site_start_failures_total", ""] == 1
    assert found["multisite_site_stops_total", "other"] == 4
    assert found["multisite_site_state", "running"] == 1
    assert found["multisite_site_out_of_service", "paused"] == 1
    assert found["multisite_site_memory_bytes", ""] == 3e7
    assert found["multisite_site_cpu_seconds_total", ""] == 12.5
    assert found["multisite_site_queue_requests", ""] == 1


def test_the_home_has_its_metrics() -> None:
    found = {(name, labels.get("state", "")): value for name, labels, value in series(document(site(), idle()))}
    assert found["multisite_requests_unknown_host_total", ""] == 4
    assert found["multisite_supervisor_up", ""] == 1
    assert found["multisite_supervisor_start_time_seconds", ""] == NOW - 60
    assert found["multisite_processes_limit", ""] == 50
    assert found["multisite_sites", "stopped"] == found["multisite_sites", "running"] == 1
    assert found["multisite_sites", "broken"] == 0
    assert ("multisite_build_info", {"version": "1.2"}, 1.0) in series(document())


def test_buckets_are_those_of_opentelemetry_at_which_requests_are_counted() -> None:
    """A bound of its that lies within a bucket of ours is left out: nobody knows how many requests are below."""
    assert set(families.BUCKETS) == set(families.OPENTELEMETRY) & set(LATENCIES)
    assert len(families.BUCKETS) >= 11
    counts = [3**number for number in range(len(LATENCIES) + 1)]
    found = of_site(document(site(latencies=counts)))
    name = "multisite_http_server_request_duration_seconds"
    for bound in families.BUCKETS:
        below = sum(count for count, limit in zip(counts, LATENCIES, strict=False) if limit <= bound)
        assert found[name + "_bucket", repr(bound)] == below
    assert found[name + "_bucket", "+Inf"] == found[name + "_count", ""] == sum(counts)
    assert found[name + "_sum", ""] == pytest.approx(1.25 / 5 * sum(counts))


def test_a_document_without_figures_has_few_metrics() -> None:
    """Older supervisors, sites with a server of their own, and users who may not see them tell less."""
    bare = {"name": "blog", "enabled": True, "state": "running", "pids": [1]}
    assert of_site({"supervisor": None, "sites": [bare]}) == {("multisite_site_state", "running"): 1}
    empty = site(**dict.fromkeys(("statuses", "latencies", "latency", "cpu", "memory", "start_seconds", "sent")))
    assert ("multisite_site_cpu_seconds_total", "") not in of_site(document(empty))
    assert series({})


def test_a_site_in_use_has_40_series_and_one_that_rests_six() -> None:
    assert len(of_site(document(site()))) <= 40
    assert len(of_site(document(idle()), "idle")) <= 6
    assert len(of_site(document(idle(state="in-process")), "idle")) <= 6
    assert len(of_site(document(idle(state="fatal")), "idle")) > 20, "one that fails is not resting"


def test_a_site_that_is_not_enabled_has_none() -> None:
    assert not of_site(document(site(enabled=False)))


def test_instances_of_a_hosting_site_count_together() -> None:
    """Their hosts are no labels."""
    hosting = idle("users", domains=["{user}.example.net"])
    instances = [site(f"users@{one}.example.net", host=f"{one}.example.net", template="users") for one in "abc"]
    told = document(hosting, *instances, site("users@d", host="d", template="users", state="backoff"))
    assert b"example.net" not in metrics.exposition(told, NOW)
    found = of_site(told, "users")
    assert found["multisite_site_cpu_seconds_total", ""] == 4 * 12.5
    assert found["multisite_http_server_requests_total", "5xx"] == 16
    assert found["multisite_site_state", "running"] == 3
    assert found["multisite_site_state", "backoff"] == 1


def test_hostile_names_stay_names() -> None:
    told = document(site(HOSTILE, stops_by_reason={HOSTILE: 1}, service=HOSTILE, state=HOSTILE), idle("\udcff\r\x1b"))
    names = {name for name, _, _ in series(told)}
    assert names <= metrics.names()
    assert HOSTILE in {labels.get("site") for _, labels, _ in series(told)}
    assert len([labels for _, labels, _ in series(told) if labels.get("site") == HOSTILE]) > 30


def test_no_series_occurs_twice_and_each_is_in_the_reference() -> None:
    found = series(document(site(), idle(), site("shop")))
    assert len({(name, *sorted(labels.items())) for name, labels, _ in found}) == len(found)
    assert {name for name, _, _ in found} == metrics.names()
    page = metrics.reference_rst()
    assert all(f"``{family.name}``" in page for family in families.FAMILIES)


def test_a_registry_gives_what_the_exposition_does() -> None:
    told = document(site(), idle(), site(HOSTILE))

    class Home:
        def collect(self) -> Iterable[Any]:
            return metrics.collect(told, NOW)

    registry = CollectorRegistry()
    registry.register(Home())  # type: ignore[arg-type]
    given = list(text_string_to_metric_families(generate_latest(registry).decode()))
    ours = list(text_string_to_metric_families(metrics.exposition(told, NOW).decode()))
    assert given == ours


def test_a_series_costs_a_few_calls_however_many_sites_there_are() -> None:
    """`bench/status.py` measures the time of a thousand sites; here calls are counted, which no other work changes."""
    for count in (10, 100):
        told = document(*(site(f"site{number}") for number in range(count)))
        profile = cProfile.Profile()
        text = profile.runcall(metrics.exposition, told, NOW)
        calls = sum(entry.callcount for entry in profile.getstats())
        assert calls <= 10 * text.count(b"\n"), calls / text.count(b"\n")


# What the docs offer


def expressions(node: Any) -> Iterable[str]:
    """All queries of a dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(node, list):
        for one in node:
            yield from expressions(one)


def test_every_metric_of_the_dashboard_exists() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    used = {name for query in expressions(board) for name in re.findall(r"\bmultisite_\w+", query)}
    assert len(used) > 15
    assert used <= {name for name, _, _ in series(document(site()))}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_metric_of_the_alert_rules_exists() -> None:
    text = (DEPLOY / "alerts.yml").read_text()
    assert len(re.findall(r"^ +- alert: \w+$", text, re.MULTILINE)) == 6
    rules = re.sub(r"description:.*|summary:.*", "", text)
    used = set(re.findall(r"\bmultisite_\w+", rules))
    assert used
    assert used <= {name for name, _, _ in series(document(site()))}


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")
def test_prometheus_takes_the_alert_rules_and_the_metrics() -> None:
    subprocess.run(["promtool", "check", "rules", str(DEPLOY / "alerts.yml")], check=True, timeout=60)
    text = metrics.exposition(document(site(), idle(), site(HOSTILE)), NOW)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
