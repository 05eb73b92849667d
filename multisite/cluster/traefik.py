"""The map of all sites as Traefik reads it from a key-value store (pure).

Each site has a router, and all routers have one service: every machine can serve every site, and decides itself which
site answers. https://doc.traefik.io/traefik/routing/providers/kv/
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping

from multisite.config.domains import expression, is_pattern

ROOT = "traefik/http/"
SERVICE = "multisite"
#: what all our keys begin with
PREFIXES = (f"{ROOT}routers/{SERVICE}-", f"{ROOT}services/{SERVICE}/")
_ADDRESS = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+):[0-9]+\Z")


def keys(claims: Mapping[tuple[str, str], str], machines: Iterable[str], status_host: str = "") -> dict[str, str]:
    """Return keys and their values; nothing while no machine is known.

    Args:
        claims: domain and mount → name of the site.
        machines: ``ADDRESS:PORT`` of those that are alive; other names have no address, and do not count.
        status_host: the host whose /health tells whether a machine is ready; "" if there is none.
    """
    alive = sorted(machine for machine in machines if _ADDRESS.match(machine))
    if not alive:
        return {}
    balancer = f"{PREFIXES[1]}loadbalancer"
    found = {f"{balancer}/servers/{number}/url": f"http://{machine}" for number, machine in enumerate(alive)}
    if status_host:
        found |= {f"{balancer}/healthcheck/path": "/health", f"{balancer}/healthcheck/hostname": status_host}
        found |= {f"{balancer}/healthcheck/interval": "1s", f"{balancer}/healthcheck/timeout": "5s"}
    rules: dict[str, list[str]] = {}
    for (domain, mount), site in claims.items():
        rules.setdefault(site, []).append(_rule(domain, mount))
    names: dict[str, str] = {}
    for site in sorted(rules):
        names[site] = _name(site, names.values())
        found[f"{PREFIXES[0]}{names[site]}/rule"] = " || ".join(sorted(rules[site]))
        found[f"{PREFIXES[0]}{names[site]}/service"] = SERVICE
    return found


def _rule(domain: str, mount: str) -> str:
    """Return a matcher; which of two that match gets the request makes no difference, as their service is the same."""
    host = f"HostRegexp(`^{expression(domain)}$`)" if is_pattern(domain) else f"Host(`{domain}`)"
    return f"({host} && PathPrefix(`{mount}`))" if mount != "/" and "`" not in mount else host


def _name(site: str, taken: Iterable[str]) -> str:
    """Return a router's name; Traefik's keys are the same in upper and lower case."""
    name = re.sub(r"[^a-z0-9_-]", "-", site.lower())
    return f"{name}-{zlib.crc32(site.encode('utf-8', 'surrogateescape')):08x}" if name in set(taken) else name
