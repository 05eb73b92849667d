"""From the sites to the blocks of a front end (pure).

The dispatcher decides which site answers; a block contains only what is certain for all its domains. So domains share a
block if the same sites answer them in the same way, and a block gets a rule only if no other site could claim the paths
that it covers.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from multisite.cli.frontends.blocks import Block, Sent, Static, has_control
from multisite.cluster import pins
from multisite.config import values
from multisite.config.domains import is_pattern
from multisite.config.filerules import parse_sender
from multisite.config.hosting import is_hosting
from multisite.config.model import Site
from multisite.config.nodes import Machine

MARGIN = 5  # seconds that a front end waits longer, so that we can send the page with the reason
WITHOUT_END = 86400  # seconds, for sites whose request_timeout is 0
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~!@:,=+-]+)*\Z")

Claims = Mapping[tuple[str, str], str]  # (domain, mount) → site name, in the order of registration


@dataclass(frozen=True, slots=True)
class Sites:
    """The sites to plan for.

    Attributes:
        claims: which site has which domain and mount.
        sites: all sites by name.
        broken: names of the sites that answer with an error page.
        is_file: tells whether a path of [static] is a file.
        certificate: finds the certificate chain and the key for a domain.
        nodes: the machines among which the rules distribute hosts.
        status: the domain of the status pages, whatever site claims it; "" for none.
    """

    claims: Claims
    sites: Mapping[str, Site]
    broken: Collection[str] = ()
    is_file: Callable[[str], bool] = lambda path: False
    certificate: Callable[[str], tuple[str, str] | None] = lambda domain: None
    nodes: tuple[Machine, ...] = ()
    status: str = ""


def timeout(sites: Iterable[Site]) -> int:
    """Return the seconds that a front end waits for the slowest of `sites`."""
    limits = [s.request_timeout + s.start_timeout if s.request_timeout else WITHOUT_END for s in sites]
    return math.ceil(max(limits, default=90)) + MARGIN


def blocks(sites: Sites, names: Collection[str] = ()) -> tuple[Block, ...]:
    """Return the blocks for the domains of the sites in `names`, by default of all sites and the status pages."""
    by_domain: dict[str, dict[str, str]] = {}
    for (domain, mount), name in sites.claims.items():
        if domain != sites.status:
            by_domain.setdefault(domain, {})[mount] = name
    wanted = [d for d, mounts in by_domain.items() if not names or any(name in names for name in mounts.values())]
    keys = {domain: _key(domain, by_domain[domain], sites) for domain in wanted}
    exact: dict[Key, list[str]] = {}
    for domain in wanted:
        if not is_pattern(domain):
            exact.setdefault(keys[domain], []).append(domain)
    patterns = [domain for domain in reversed(wanted) if is_pattern(domain)]
    grouped = [(key, list(domains)) for key, domains in itertools.groupby(patterns, keys.__getitem__)]
    made = tuple(_block(key, domains, sites) for key, domains in [*exact.items(), *grouped])
    return (_status(sites), *made) if sites.status and not names else made


def _status(sites: Sites) -> Block:
    """Return the block of the status pages; multisite itself decides who may see them."""
    name, domain = "the status pages", sites.status
    certificate = sites.certificate(domain)
    return Block(
        name, (("/", name),), (domain,), timeout=timeout(()), log=domain, certificate=certificate, streams=True
    )


def indirect(sites: Sites) -> tuple[str, ...]:
    """Return the exact domains whose requests do not all go to the application of one site."""
    found: dict[str, None] = {sites.status: None} if sites.status else {}
    for (domain, _mount), name in sites.claims.items():
        if not is_pattern(domain) and (sites.sites[name].static or not _is_reachable(sites.sites[name])):
            found[domain] = None
    return tuple(found)


def sent(sites: Sites, names: Iterable[str]) -> tuple[Sent, ...]:
    """Return the folders and files of the sites in `names` that the front end may send on our behalf."""
    found: dict[Sent, None] = {}
    for name in names:
        site = sites.sites[name]
        sender = parse_sender(site.static_send)
        if not sender or name in sites.broken or is_hosting(site.location):
            continue
        for path in itertools.chain(*site.static.values()):
            shown = (path.rstrip("/"), site.static_links, sites.is_file(path))
            found[Sent(sender.header, sender.prefix, *shown)] = None
    return tuple(found)


Key = tuple[tuple[str, str, bool], ...]  # (mount, site, whether it only redirects), the longest mount first


def _key(domain: str, mounts: Mapping[str, str], sites: Sites) -> Key:
    longest_first = sorted(mounts.items(), key=lambda pair: -len(pair[0]))
    return tuple((mount, name, _redirects(domain, sites.sites[name])) for mount, name in longest_first)


def _redirects(domain: str, site: Site) -> bool:
    return site.redirect_to_canonical and bool(site.domains) and domain != site.domains[0]


def _is_reachable(site: Site) -> bool:
    """Tell whether a front end may connect to the socket of `site`: it speaks HTTP, and we have nothing to add."""
    is_passed = site.access_log or site.is_restricted or site.is_greeted
    return site.protocol == "http" and not is_passed


def _block(key: Key, domains: list[str], sites: Sites) -> Block:
    mounts = [mount for mount, _, _ in key]
    rules: list[Static] = []
    check: Static | None = None
    left: list[str] = []
    for mount, name, redirects in key:
        if redirects or name in sites.broken:
            continue
        site = sites.sites[name]
        if site.static and is_hosting(site.location):
            left.append(f"multisite serves the files of {name}: each host has its own.")
            continue
        for prefix, paths in _merged(mount, site):
            rule, reason = _rule(prefix, paths, site, [m for m in mounts if len(m) > len(mount)], sites)
            rules += [rule] if rule else []
            left += [f"multisite serves {prefix or '/'} of {name}: {reason}."] if reason else []
        tried = site.static.get("check", ())
        reason = _hindrance("", tried, site, ()) or ("it has a mount" if mount != "/" else "") if tried else ""
        left += [f"multisite serves the folders of check of {name}: {reason}."] if reason else []
        check = _files("", tried, site) if tried and not reason else check
    first, owner = domains[0], key[-1][1]
    site = sites.sites[owner]
    alone = len(key) == 1 and mounts == ["/"] and not key[0][2] and owner not in sites.broken
    return Block(
        owner,
        tuple((mount, name) for mount, name, _ in key),
        tuple(domains),
        tuple(sorted(rules, key=lambda rule: -len(rule.prefix))),
        check,
        tuple(left),
        timeout(sites.sites[name] for _, name, _ in key),
        alone and not is_pattern(first) and "check" not in site.static and not left and _is_reachable(site),
        re.sub(r"[^A-Za-z0-9_.-]", "_", owner if is_pattern(first) else first),
        sites.certificate(first),
        sent(sites, (name for _, name, redirects in key if not redirects)),
        any(sites.sites[name].app_send for _, name, _ in key),
        nodes=pins.common((sites.sites[name].nodes for _, name, _ in key), sites.nodes),
    )


def _merged(mount: str, site: Site) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Yield each whole prefix of `site` once, with its paths: /s and /s/ are the same."""
    merged: dict[str, tuple[str, ...]] = {}
    for prefix, paths in site.static.items():
        if prefix != "check":
            whole = (mount.rstrip("/") + prefix).rstrip("/")
            merged[whole] = merged.get(whole, ()) + paths
    return merged.items()


def _rule(
    prefix: str, paths: tuple[str, ...], site: Site, others: Collection[str], sites: Sites
) -> tuple[Static | None, str]:
    """Return the rule, and the reason if it passes requests on; no rule for a prefix that another site answers.

    Args:
        others: the mounts that are longer than this site's.
    """
    if any(_covers(other, prefix) for other in others):
        return None, ""
    if not _PLAIN_PATH.match(prefix) or {".", ".."} & set(prefix.split("/")):
        return None, "the prefix is not a plain path"
    files = [path for path in paths if sites.is_file(path)]
    reason = _hindrance(prefix, paths, site, files)
    if any(_covers(prefix, other) for other in others):
        reason = "another site is mounted below it"
    strange = [other for other, _ in _merged("", site) if not _PLAIN_PATH.match(other)]
    if any(_covers(prefix.removeprefix(site.mount.rstrip("/")), other) for other in strange):
        reason = "a prefix below it is not a plain path"
    if reason:
        return Static(prefix), reason
    return _files(prefix, () if files else paths, site, files[0] if files else ""), ""


def _files(prefix: str, folders: tuple[str, ...], site: Site, file: str = "") -> Static:
    expiries = [int(values.duration(item)) for item in site.static_expires]
    return Static(prefix, folders, file, site.static_links, site.static_hidden, expiries[-1] if expiries else None)


def _hindrance(prefix: str, paths: tuple[str, ...], site: Site, files: Collection[str]) -> str:
    """Return why these paths cannot become a rule, or ""."""
    if site.is_restricted:
        return "multisite checks who may use the site ([access])"
    if not paths or any(has_control(path) or not path.startswith("/") for path in paths):
        return "one of its paths cannot be written in the rules"
    if files and (len(paths) > 1 or not prefix):
        return "it lists a file among several paths"
    if site.static_types or site.static_send:
        return "the site sets static_types or static_send"
    patterned = any(len(item.split()) > 1 for item in site.static_expires)
    return "static_expires has a pattern" if patterned else ""


def _covers(mount: str, path: str) -> bool:
    return mount in ("", path) or path.startswith(mount + "/")
