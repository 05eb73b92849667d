"""What can go wrong, one class per answer: every error knows its HTTP status.

An error that reaches the dispatcher becomes a page (`multisite.pages`); one that
reaches the command line becomes one line on standard error and exit code 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multisite.model import Problem


class MultisiteError(Exception):
    """Base of every error of ours.

    Attributes:
        status: the HTTP status this error is answered with.
        reason: one sentence for a person, without a final period.
        retry_after: seconds for a ``Retry-After`` header, or None.
    """

    status = 500
    retry_after: int | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConfigError(MultisiteError):
    """The configuration as a whole cannot be used (`problems` says why)."""

    status = 503

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class BadHost(MultisiteError):
    """The request names no valid host (RFC 9110 section 7.2)."""

    status = 400


class UnknownHost(MultisiteError):
    """No enabled site answers this host or path."""

    status = 404


class AppLoadError(MultisiteError):
    """The site's application could not be imported; costs that site only."""

    status = 500


class BrokenSite(MultisiteError):
    """The site's own file has an error and there is no earlier version to serve."""

    status = 500


class NeedsProcess(MultisiteError):
    """The site may not share this interpreter.

    Attributes:
        why: completes "…, because …".
    """

    status = 503
    retry_after = 60
    opening = "This site cannot share a process with others: "

    def __init__(self, why: str) -> None:
        super().__init__(self.opening + why)
        self.why = why


class SiteBusy(MultisiteError):
    """The site is still being imported; try again."""

    status = 503
    retry_after = 5
