"""Luisito's command templates: ``%HOST %PORT %SOCKET %UID %GID`` in a list of arguments, ``%%`` for a percent sign."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_PLACEHOLDER = re.compile(r"%(%|[A-Z]+)")
NAMES = ("HOST", "PORT", "SOCKET", "UID", "GID")


def placeholders(arguments: Iterable[str]) -> set[str]:
    """Return the names that stand in `arguments`."""
    return {found for argument in arguments for found in _PLACEHOLDER.findall(argument) if found != "%"}


def unknown(arguments: Iterable[str]) -> list[str]:
    """Return the placeholders that mean nothing."""
    return sorted(placeholders(arguments) - set(NAMES))


def render(arguments: Iterable[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """Replace each placeholder that `values` has; any other stays as it is."""

    def replace(match: re.Match[str]) -> str:
        return "%" if match[1] == "%" and "%" in values else values.get(match[1], match[0])

    return tuple(_PLACEHOLDER.sub(replace, argument) for argument in arguments)
