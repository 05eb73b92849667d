"""Domains in the words of front ends: expressions without a backslash, which each server would unescape its own way."""

from __future__ import annotations

import re
from collections.abc import Sequence

from multisite.config.hosts import is_pattern

_WILDCARD = re.compile(r"\{(\*?)\w+\}|\*")


def expression(domain: str) -> str:
    """Return the regular expression, not anchored, of a domain in its normal form; the host is in lower case."""
    parts, position = [], 0
    for match in _WILDCARD.finditer(domain):
        parts.append(_literal(domain[position : match.start()]))
        parts.append("[a-z0-9_-]+" if match[0].startswith("{") and not match[1] else ".*")
        position = match.end()
    return "".join([*parts, _literal(domain[position:])])


def _literal(text: str) -> str:
    """Escape what stands in a host name: letters, digits and ``_-.``; of an IPv6 address ``[:]`` too."""
    return re.sub(r"[][.]", lambda match: f"[{match[0]}]", text)


def path(prefix: str) -> str:
    """Return the regular expression of a plain URL path."""
    return re.sub(r"[.+]", lambda match: f"[{match[0]}]", prefix)


def has_label(domain: str) -> bool:
    """Tell whether `domain` captures one label, which the wildcards of most servers cannot say."""
    return any(match[0].startswith("{") and not match[1] for match in _WILDCARD.finditer(domain))


def glob(domain: str) -> str:
    """Return `domain` with ``*`` for each of its wildcards."""
    return _WILDCARD.sub("*", domain)


def literal_suffix(pattern: str) -> str:
    """Return the whole labels that end every host of `pattern`: ``a.b`` for ``*x.a.b``."""
    last = max(pattern.rfind("*"), pattern.rfind("}"))
    return pattern[last + 1 :].partition(".")[2]


def lineage(suffix: str) -> frozenset[str]:
    """Return `suffix` and all the suffixes above it, "" included."""
    return frozenset({suffix.split(".", count)[-1] for count in range(suffix.count(".") + 1)} | {""})


def undisputed(patterns: Sequence[str]) -> frozenset[str]:
    """Return those ``*.SUFFIX`` of `patterns`, in their order of registration, that a server may look up first.

    Servers prefer their own wildcards to expressions, and the longer wildcard to the shorter; here the pattern that was
    registered last wins. So these are the ones that nothing registered later could take a host from.
    """
    found: set[str] = set()
    later: set[str] = set()
    above_later: set[str] = set()
    for pattern in reversed([pattern for pattern in patterns if is_pattern(pattern)]):
        suffix = literal_suffix(pattern)
        lines = lineage(suffix)
        if pattern == f"*.{suffix}" and suffix and suffix not in above_later and not lines & later:
            found.add(pattern)
        later.add(suffix)
        above_later |= lines
    return frozenset(found)
