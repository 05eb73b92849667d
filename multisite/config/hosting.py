"""One file for many hosts, ``location = /var/www/%HOST``, and Luisito's placeholders in a command (pure).

A *hosting site* is one whose location has a placeholder. Each requested host whose folder exists is an *instance* of
it: a separate site, with its own name, socket, processes and figures.

A host that comes here is in its normal form (`config.domains.normalise`): labels of letters, digits, ``-`` and ``_``
with single dots between them. So it is always exactly one component of a path, never several, none or "..".

``%HOST %PORT %SOCKET %UID %GID`` may be used in every command, and ``%%`` is a percent sign.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

from multisite.config.domains import compile_pattern, is_pattern

NAMES = ("HOST", "PORT", "SOCKET", "UID", "GID")  # Luisito's, in a command
HOST = "HOST"
BETWEEN = ".."  # occurs in no host, and in no name that a file may set
LONGEST_NAME = 64

_SAFE = re.compile(r"[a-z0-9_](?:[a-z0-9_-]|\.(?!\.|\Z))*\Z")
_PLACEHOLDER = re.compile(r"%(%|[A-Z]+)")
_CAPTURED = re.compile(r"\{\*?([A-Za-z]+)\}")


def is_hosting(location: str) -> bool:
    """Tell whether a site with this location has an instance for each host."""
    return "%" in location and bool(placeholders([location]))


def names(domains: Iterable[str]) -> tuple[str, ...]:
    """Return the placeholders that a hosting site with these domains may use: HOST, and the captures of all of them."""
    captured = [{name.upper() for name in _CAPTURED.findall(domain)} for domain in domains]
    return (HOST, *sorted(set.intersection(*captured) - set(NAMES) if captured else ()))


def values(domains: Iterable[str], host: str) -> dict[str, str] | None:
    """Return the values of the placeholders for `host`; None if it could not be the name of a folder.

    Args:
        domains: of the hosting site; the last of its patterns that matches counts, as everywhere.
        host: in its normal form.
    """
    found = {HOST: host}
    patterns = [domain for domain in domains if is_pattern(domain)]
    matches = (compile_pattern(pattern).match(host) for pattern in reversed(patterns))
    match = next(filter(None, matches), None)
    if match:
        found = {**{name.upper(): text for name, text in match.groupdict().items()}, **found}
    return found if all(map(_SAFE.match, found.values())) else None


def fill_command(arguments: Iterable[str], found: Mapping[str, str]) -> tuple[str, ...]:
    """Replace the captures in a command; its own placeholders are replaced when it runs."""
    return render(arguments, {name: text for name, text in found.items() if name not in NAMES})


def instance_name(site: str, host: str) -> str:
    """Return the name of an instance, which no other instance and no site has.

    It is a valid name of a site, except that it contains `BETWEEN`; a long one is cut, and made unique by a digest.
    """
    name = site + BETWEEN + host
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(f"{site}\0{host}".encode()).hexdigest()[:16]
    return f"{site[:24]}{BETWEEN}{host[:20]}{BETWEEN}{digest}"


def split_name(name: str) -> tuple[str, str]:
    """Return site and host of an instance's name; the host is "" if it is no such name, or was cut."""
    site, between, host = name.rpartition(BETWEEN)
    return (site, host) if between and instance_name(site, host) == name and BETWEEN not in site else (name, "")


def placeholders(arguments: Iterable[str]) -> set[str]:
    """Return the names that stand in `arguments`."""
    return {found for argument in arguments for found in _PLACEHOLDER.findall(argument) if found != "%"}


def unknown(arguments: Iterable[str], names: Collection[str] = NAMES) -> list[str]:
    """Return the placeholders without a meaning."""
    return sorted(placeholders(arguments) - set(names))


def listed(names: Iterable[str]) -> str:
    """Return placeholders as words of a sentence."""
    return ", ".join("%" + name for name in names)


def render(arguments: Iterable[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """Replace each placeholder that `values` has; any other stays as it is."""
    return tuple(fill(argument, values) for argument in arguments)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder that `values` has; any other stays as it is."""

    def replace(match: re.Match[str]) -> str:
        return "%" if match[1] == "%" and "%" in values else values.get(match[1], match[0])

    return _PLACEHOLDER.sub(replace, text) if "%" in text else text
