"""The map of all sites as Traefik reads it from a key-value store (pure).

Each site has a router, and most routers have one service: every machine can serve every site, and decides itself which
site answers. Sites that run on some machines only share a service for each choice of machines. https://doc.traefik.io/traefik/routing/providers/kv/
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Container, Iterable, Mapping
from types import MappingProxyType

from multisite.cluster.registry import DEFAULT_NAME
from multisite.config.domains import expression, is_pattern

ROOT = "traefik/http/"
SERVICE = "multisite"
NO_PINS: Mapping[str, Collection[str]] = MappingProxyType({})
_ADDRESS = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+):[0-9]+\Z")


def prefixes(cluster: str) -> tuple[str, ...]:
    """Return what all keys of a cluster begin with, and no key of another one."""
    service, more = _names(cluster)
    return f"{ROOT}routers/{more}", f"{ROOT}services/{service}/", f"{ROOT}services/{more}"


def keys(
    claims: Mapping[tuple[str, str], str],
    machines: Iterable[str],
    status_host: str = "",
    cluster: str = DEFAULT_NAME,
    pins: Mapping[str, Collection[str]] = NO_PINS,
) -> dict[str, str]:
    """Return keys and their values; nothing while no machine is known.

    Args:
        claims: domain and mount → name of the site.
        machines: ``ADDRESS:PORT`` of those that are alive; other names have no address, and do not count.
        status_host: the host whose /health tells whether a machine is ready; "" if there is none.
        cluster: its name; several may share an engine.
        pins: name of a site → the machines that run it, alive or not, if it does not run on all of them.
    """
    alive = sorted(machine for machine in machines if _ADDRESS.match(machine))
    if not alive:
        return {}
    service, more = _names(cluster)
    found = _service(service, alive, status_host)
    rules: dict[str, list[str]] = {}
    for (domain, mount), site in claims.items():
        rules.setdefault(site, []).append(_rule(domain, mount))
    taken: set[str] = set()
    for site in sorted(rules):
        name, whose = _name(site, taken), service
        taken.add(name)
        if pinned := sorted(pins.get(site, ())):
            whose = f"{more}nodes-{zlib.crc32(' '.join(pinned).encode()):08x}"
            found |= _service(whose, [machine for machine in pinned if machine in alive] or pinned, status_host)
        found[f"{ROOT}routers/{more}{name}/rule"] = " || ".join(sorted(rules[site]))
        found[f"{ROOT}routers/{more}{name}/service"] = whose
    return found


def _names(cluster: str) -> tuple[str, str]:
    """Return the name of the service of all machines, and what other names begin with; a site's has no dot."""
    return (SERVICE, f"{SERVICE}-") if cluster == DEFAULT_NAME else (f"{SERVICE}.{cluster}", f"{SERVICE}.{cluster}.")


def _service(name: str, machines: Iterable[str], status_host: str) -> dict[str, str]:
    balancer = f"{ROOT}services/{name}/loadbalancer"
    found = {f"{balancer}/servers/{number}/url": f"http://{machine}" for number, machine in enumerate(machines)}
    if status_host:
        found |= {f"{balancer}/healthcheck/path": "/health", f"{balancer}/healthcheck/hostname": status_host}
        found |= {f"{balancer}/healthcheck/interval": "1s", f"{balancer}/healthcheck/timeout": "5s"}
    return found


def _rule(domain: str, mount: str) -> str:
    """Return a matcher; which of two that match gets the request makes no difference, as their service is the same."""
    host = f"HostRegexp(`^{expression(domain)}$`)" if is_pattern(domain) else f"Host(`{domain}`)"
    return f"({host} && PathPrefix(`{mount}`))" if mount != "/" and "`" not in mount else host


def _name(site: str, taken: Container[str]) -> str:
    """Return a router's name; Traefik's keys are the same in upper and lower case."""
    name = re.sub(r"[^a-z0-9_-]", "-", site.lower())
    return f"{name}-{zlib.crc32(site.encode('utf-8', 'surrogateescape')):08x}" if name in taken else name
