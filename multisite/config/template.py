"""Luisito's templates: ``%HOST %PORT %SOCKET %UID %GID`` in a command's arguments, ``%%`` for a percent sign.

In a site whose location has ``%HOST``, it stands in other values too (`multisite.config.hosting`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

_PLACEHOLDER = re.compile(r"%(%|[A-Z]+)")
NAMES = ("HOST", "PORT", "SOCKET", "UID", "GID")


def placeholders(arguments: Iterable[str]) -> set[str]:
    """Return the names that stand in `arguments`."""
    return {found for argument in arguments for found in _PLACEHOLDER.findall(argument) if found != "%"}


def unknown(arguments: Iterable[str], names: Collection[str] = NAMES) -> list[str]:
    """Return the placeholders that mean nothing."""
    return sorted(placeholders(arguments) - set(names))


def listed(names: Iterable[str]) -> str:
    """Return placeholders as a sentence names them."""
    return ", ".join("%" + name for name in names)


def render(arguments: Iterable[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """Replace each placeholder that `values` has; any other stays as it is."""
    return tuple(fill(argument, values) for argument in arguments)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder that `values` has; any other stays as it is."""

    def replace(match: re.Match[str]) -> str:
        return "%" if match[1] == "%" and "%" in values else values.get(match[1], match[0])

    return _PLACEHOLDER.sub(replace, text) if "%" in text else text
