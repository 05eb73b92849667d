"""What the examination of a site has found: read from what its process says, which may be anything (pure)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

MOST = 12  # findings that are kept
LONGEST = 200  # characters of one
_LARGEST = 2.0**50


@dataclass(frozen=True, slots=True)
class Examined:
    """One examination of one version of a site's code.

    Attributes:
        findings: what it changes in its process, each as half a sentence: "started a thread when it was imported".
        seconds: that its import took.
        memory: bytes that it and its first requests added to the process.
        requests: how many had been answered when this was told.
        is_untried: no request has been answered yet in another thread than the one that imported the site.
        notes: what it does that the workers stand, as half sentences too.
    """

    findings: tuple[str, ...] = ()
    seconds: float = 0.0
    memory: int = 0
    requests: int = 0
    is_untried: bool = False
    notes: tuple[str, ...] = ()

    def after(self, before: Examined) -> Examined:
        """Return this, told later than `before` of the same version, with what that process had seen."""
        notes = tuple(dict.fromkeys((*before.notes, *self.notes)))[:MOST]
        untried = self.is_untried and before.is_untried
        return replace(self, requests=max(before.requests, self.requests), is_untried=untried, notes=notes)

    @property
    def figures(self) -> str:
        """Memory and import time for a sentence."""
        return f"{max(1, round(self.memory / 2**20))} MiB, {max(1, round(self.seconds * 1000))} ms to import"

    def as_dict(self) -> dict[str, Any]:
        """Return what `examined` takes."""
        return asdict(self)


def heard(text: str) -> Examined | None:
    """Return what a site's process says of it; None where that cannot be meant so."""
    try:
        return examined(json.loads(text))
    except (ValueError, RecursionError):
        return None


def examined(told: Any) -> Examined | None:
    """Believe no more of a document than its types, and bound it."""
    if not isinstance(told, dict):
        return None
    findings, notes = told.get("findings"), told.get("notes", ())
    figures = [told.get("seconds"), told.get("memory"), told.get("requests")]
    if not (_is_list(findings) and _is_list(notes) and all(map(_is_figure, figures))):
        return None
    seconds, memory, requests = figures
    untried = told.get("is_untried") is True
    counts = int(memory or 0), int(requests or 0)
    return Examined(_phrases(findings), float(seconds or 0.0), *counts, untried, _phrases(notes))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _phrases(told: Any) -> tuple[str, ...]:
    return tuple(_phrase(str(one)[: 2 * LONGEST]) for one in told[:MOST])


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LARGEST


def _phrase(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:LONGEST]
