"""Why an app was not loaded."""

from __future__ import annotations

from collections.abc import Iterable

from multisite.config.values import alike


class NotLoaded(Exception):
    """What is wrong and what to do, without the name of the site: `multisite.inprocess.loader` adds that.

    Attributes:
        reason: one sentence without a final period.
        remedy: what to do about it, or "".
        key: the key of the site's ``[service]`` that is to blame.
    """

    def __init__(self, reason: str, remedy: str = "", key: str = "application") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.key = key


def name_remedy(name: str, known: Iterable[str]) -> str:
    """A remedy that names what is alike, else what there is at all, else ""."""
    names = sorted(set(known))
    near = alike(name, names)
    if near:
        return f"did you mean {near[0]!r}?"
    return "there is " + ", ".join(map(repr, names[:8])) if names else ""
