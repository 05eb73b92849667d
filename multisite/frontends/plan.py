"""From the sites to the blocks of a front end (pure).

Which site answers stays the dispatcher's decision; a block may only say what is certain about all its domains. So
domains share a block when the same sites answer them in the same way, and a rule is made when no other site could
claim what it covers.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from multisite.frontends.view import Block, Static, has_control
from multisite.hosts import is_pattern
from multisite.model import Site

MARGIN = 5  # seconds that a front end waits longer, so that the page with the reason is ours
WITHOUT_END = 86400  # seconds, for sites whose request_timeout is 0
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~!@:,=+-]+)*\Z")

Claims = Mapping[tuple[str, str], str]  # (domain, mount) → site name, in the order of registration


@dataclass(frozen=True, slots=True)
class Sites:
    """The sites to plan for.

    Attributes:
        claims: who has which domain and mount, of all sites.
        sites: all sites by name.
        broken: names of those that answer with an error page.
        is_file: tells whether a path of [static] is a file.
        certificate: finds the certificate chain and the key for a domain.
    """

    claims: Claims
    sites: Mapping[str, Site]
    broken: Collection[str] = ()
    is_file: Callable[[str], bool] = lambda path: False
    certificate: Callable[[str], tuple[str, str] | None] = lambda domain: None


def timeout(sites: Iterable[Site]) -> int:
    """Return the seconds that a front end waits for the slowest of `sites`."""
    limits = [s.request_timeout + s.start_timeout if s.request_timeout else WITHOUT_END for s in sites]
    return math.ceil(max(limits, default=90)) + MARGIN


def blocks(sites: Sites, names: Collection[str] = ()) -> tuple[Block, ...]:
    """Return the blocks for the domains of the sites called `names`, by default of all."""
    by_domain: dict[str, dict[str, str]] = {}
    for (domain, mount), name in sites.claims.items():
        by_domain.setdefault(domain, {})[mount] = name
    wanted = [d for d, mounts in by_domain.items() if not names or any(name in names for name in mounts.values())]
    keys = {domain: _key(domain, by_domain[domain], sites) for domain in wanted}
    exact: dict[Key, list[str]] = {}
    for domain in wanted:
        if not is_pattern(domain):
            exact.setdefault(keys[domain], []).append(domain)
    patterns = [domain for domain in reversed(wanted) if is_pattern(domain)]
    grouped = [(key, list(domains)) for key, domains in itertools.groupby(patterns, keys.__getitem__)]
    return tuple(_block(key, domains, sites) for key, domains in [*exact.items(), *grouped])


def indirect(sites: Sites) -> tuple[str, ...]:
    """Return the exact domains whose requests are not all for the application of one site."""
    found: dict[str, None] = {}
    for (domain, _mount), name in sites.claims.items():
        if not is_pattern(domain) and not _is_whole(sites.sites[name]):
            found[domain] = None
    return tuple(found)


Key = tuple[tuple[str, str, bool], ...]  # (mount, site, whether it only redirects), the longest mount first


def _key(domain: str, mounts: Mapping[str, str], sites: Sites) -> Key:
    longest_first = sorted(mounts.items(), key=lambda pair: -len(pair[0]))
    return tuple((mount, name, _redirects(domain, sites.sites[name])) for mount, name in longest_first)


def _redirects(domain: str, site: Site) -> bool:
    return site.redirect_to_canonical and bool(site.domains) and domain != site.domains[0]


def _is_whole(site: Site) -> bool:
    """Tell whether the socket of `site` speaks HTTP and answers all its requests."""
    return not site.static and site.protocol == "http"


def _block(key: Key, domains: list[str], sites: Sites) -> Block:
    mounts = [mount for mount, _, _ in key]
    rules: list[Static] = []
    check: tuple[str, ...] = ()
    left: list[str] = []
    for mount, name, redirects in key:
        site = sites.sites[name]
        if redirects or name in sites.broken:
            continue
        for prefix, paths in site.static.items():
            if prefix == "check":
                check = paths if mount == "/" else check
                left += [f"the folders of check of {name} are {BY_US}: it has a mount"] if mount != "/" else []
                continue
            rule, reason = _rule(mount, prefix, paths, mounts, sites)
            rules += [rule] if rule else []
            left += [f"{prefix} of {name} is {BY_US}: {reason}"] if reason else []
    first, owner = domains[0], key[-1][1]
    site = sites.sites[owner]
    plain = len(key) == 1 and mounts == ["/"] and not key[0][2] and not is_pattern(first)
    return Block(
        owner,
        tuple((mount, name) for mount, name, _ in key),
        tuple(domains),
        tuple(sorted(rules, key=lambda rule: -len(rule.prefix))),
        check,
        tuple(left),
        timeout(sites.sites[name] for _, name, _ in key),
        plain and not check and not left and site.protocol == "http" and owner not in sites.broken,
        re.sub(r"[^A-Za-z0-9_.-]", "_", owner if is_pattern(first) else first),
        sites.certificate(first),
    )


BY_US = "served by multisite"


def _rule(
    mount: str, prefix: str, paths: tuple[str, ...], mounts: Iterable[str], sites: Sites
) -> tuple[Static | None, str]:
    """Return the rule, or the reason why there is none; neither where another site has what it covers."""
    whole = (mount.rstrip("/") + prefix).rstrip("/")
    others = [other for other in mounts if len(other) > len(mount)]
    if any(_covers(other, whole) for other in others):
        return None, ""
    files = [path for path in paths if sites.is_file(path)]
    reason = _hindrance(whole, paths, files)
    if any(_covers(whole, other) for other in others):
        reason = "another site is mounted beneath it"
    if reason:
        return None, reason
    return (Static(whole, (), files[0]) if files else Static(whole, paths)), ""


def _hindrance(prefix: str, paths: tuple[str, ...], files: list[str]) -> str:
    if not _PLAIN_PATH.match(prefix) or {".", ".."} & set(prefix.split("/")):
        return "the prefix is not a plain path"
    if not paths or any(has_control(path) or not path.startswith("/") for path in paths):
        return "a path in it cannot be written"
    return "it has a file among several" if files and (len(paths) > 1 or not prefix) else ""


def _covers(mount: str, path: str) -> bool:
    return mount in ("", path) or path.startswith(mount + "/")
