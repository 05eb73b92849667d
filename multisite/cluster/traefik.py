"""The map of all sites as Traefik reads it from a key-value store (pure).

Each site has a router, and all routers have one service: every machine can serve every site, and decides itself which
site answers. https://doc.traefik.io/traefik/routing/providers/kv/
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Container, Iterable, Mapping

from multisite.cluster.registry import DEFAULT_NAME
from multisite.config.domains import expression, is_pattern

ROOT = "traefik/http/"
SERVICE = "multisite"
_ADDRESS = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+):[0-9]+\Z")


def prefixes(cluster: str) -> tuple[str, str]:
    """Return what all keys of a cluster begin with, and no key of another one: of routers, and of its service."""
    service = _service(cluster)
    return f"{ROOT}routers/{service}{'-' if cluster == DEFAULT_NAME else '.'}", f"{ROOT}services/{service}/"


def keys(
    claims: Mapping[tuple[str, str], str], machines: Iterable[str], status_host: str = "", cluster: str = DEFAULT_NAME
) -> dict[str, str]:
    """Return keys and their values; nothing while no machine is known.

    Args:
        claims: domain and mount → name of the site.
        machines: ``ADDRESS:PORT`` of those that are alive; other names have no address, and do not count.
        status_host: the host whose /health tells whether a machine is ready; "" if there is none.
        cluster: its name; several may share an engine.
    """
    alive = sorted(machine for machine in machines if _ADDRESS.match(machine))
    if not alive:
        return {}
    routers, service = prefixes(cluster)
    balancer = f"{service}loadbalancer"
    found = {f"{balancer}/servers/{number}/url": f"http://{machine}" for number, machine in enumerate(alive)}
    if status_host:
        found |= {f"{balancer}/healthcheck/path": "/health", f"{balancer}/healthcheck/hostname": status_host}
        found |= {f"{balancer}/healthcheck/interval": "1s", f"{balancer}/healthcheck/timeout": "5s"}
    rules: dict[str, list[str]] = {}
    for (domain, mount), site in claims.items():
        rules.setdefault(site, []).append(_rule(domain, mount))
    taken: set[str] = set()
    for site in sorted(rules):
        name = _name(site, taken)
        taken.add(name)
        found[f"{routers}{name}/rule"] = " || ".join(sorted(rules[site]))
        found[f"{routers}{name}/service"] = _service(cluster)
    return found


def _service(cluster: str) -> str:
    return SERVICE if cluster == DEFAULT_NAME else f"{SERVICE}.{cluster}"


def _rule(domain: str, mount: str) -> str:
    """Return a matcher; which of two that match gets the request makes no difference, as their service is the same."""
    host = f"HostRegexp(`^{expression(domain)}$`)" if is_pattern(domain) else f"Host(`{domain}`)"
    return f"({host} && PathPrefix(`{mount}`))" if mount != "/" and "`" not in mount else host


def _name(site: str, taken: Container[str]) -> str:
    """Return a router's name; Traefik's keys are the same in upper and lower case."""
    name = re.sub(r"[^a-z0-9_-]", "-", site.lower())
    return f"{name}-{zlib.crc32(site.encode('utf-8', 'surrogateescape')):08x}" if name in taken else name
