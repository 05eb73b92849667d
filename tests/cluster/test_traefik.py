"""Traefik's keys, as its documentation has them."""

from __future__ import annotations

import re

from multisite.cluster import traefik

CLAIMS = {
    ("blog.example.com", "/"): "blog",
    ("*.blog.example.org", "/"): "blog",
    ("example.com", "/shop"): "shop",
    ("a.example", "/"): "A",
    ("b.example", "/"): "a",
}


def test_each_site_has_a_router_and_each_machine_is_a_server() -> None:
    found = traefik.keys(CLAIMS, ["10.0.0.2:8000", "10.0.0.1:8000", "web3"], "status.example.com")
    service = "traefik/http/services/multisite/loadbalancer"
    assert found[f"{service}/servers/0/url"] == "http://10.0.0.1:8000"
    assert found[f"{service}/servers/1/url"] == "http://10.0.0.2:8000"
    assert f"{service}/servers/2/url" not in found
    assert found[f"{service}/healthcheck/path"] == "/health"
    assert found[f"{service}/healthcheck/hostname"] == "status.example.com"
    routers = "traefik/http/routers/multisite-"
    assert found[f"{routers}blog/rule"] == "Host(`blog.example.com`) || HostRegexp(`^.*[.]blog[.]example[.]org$`)"
    assert found[f"{routers}shop/rule"] == "(Host(`example.com`) && PathPrefix(`/shop`))"
    assert {value for key, value in found.items() if key.endswith("/service")} == {"multisite"}
    assert all(key.startswith(traefik.prefixes("default")) for key in found)


def test_names_that_differ_by_case_are_different_routers() -> None:
    found = traefik.keys(CLAIMS, ["10.0.0.1:8000"])
    names = [match[1] for key in found if (match := re.match(r".*/routers/multisite-([^/@]+)/rule", key))]
    assert len(names) == len({name.lower() for name in names}) == 4
    assert not [key for key in found if "healthcheck" in key]


def test_a_site_that_some_machines_run_is_asked_for_only_there() -> None:
    """Any other machine would answer 421."""
    machines = [f"10.0.0.{number}:8000" for number in (1, 2, 3)]
    claims = {("a.example", "/"): "one", ("b.example", "/"): "two", ("c.example", "/"): "three"}
    pins = {"one": {machines[1], machines[0]}, "two": {machines[0], machines[1]}, "three": {machines[2]}}
    found = traefik.keys(claims, machines[:2], "status.example.com", pins=pins)

    def servers(site: str) -> list[str]:
        service = found[f"traefik/http/routers/multisite-{site}/service"]
        assert f"traefik/http/services/{service}/loadbalancer/healthcheck/path" in found
        prefix = f"traefik/http/services/{service}/loadbalancer/servers/"
        return [value for key, value in found.items() if key.startswith(prefix)]

    assert servers("one") == servers("two") == [f"http://{machine}" for machine in machines[:2]]
    assert servers("three") == [f"http://{machines[2]}"]


def test_without_a_machine_there_is_no_map() -> None:
    """Traefik would answer 503 for every site."""
    assert traefik.keys(CLAIMS, ["web1"]) == {}


def test_clusters_that_share_an_engine_share_no_key() -> None:
    names = ["default", "shop", "shop-2", "shop_2"]
    of = {name: traefik.keys(CLAIMS, ["10.0.0.1:8000"], "", name, {"shop": ["10.0.0.1:8000"]}) for name in names}
    for name, found in of.items():
        others = [key for other in names if other != name for key in of[other]]
        assert all(key.startswith(traefik.prefixes(name)) for key in found)
        assert not [key for key in others if key.startswith(traefik.prefixes(name))]
        services = {key.split("/")[3] for key in found if "/services/" in key}
        assert len(services) == 2
        assert {value for key, value in found.items() if key.endswith("/service")} == services
