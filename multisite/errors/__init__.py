"""What can go wrong, one class per answer: every error knows its HTTP status.

An error that reaches the dispatcher becomes a page (`multisite.errors.pages`); one that
reaches the command line becomes one line on standard error and exit code 1.

Face: the errors themselves, `Problem`, and `pages.for_error`.
May import: nothing of ours.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

#: errors of a system that has run out of something, for which the site or file at hand is not to blame
SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN})


class MultisiteError(Exception):
    """Base of every error of ours.

    Attributes:
        id: names the kind of error in the log and on the command line (`multisite.errors.codes`).
            A visitor never sees it.
        status: the HTTP status of the answer to this error.
        reason: one sentence for a person, without a final period.
        retry_after: seconds for a ``Retry-After`` header, or None.
        incident: its id in the log, "" if nothing was logged.
        detail: shown to a developer beside it; filled in only for that.
        headers: name and value of further header fields of the answer.
        is_last: it is unknown where another request would begin on this connection.
    """

    id = "MS910"
    status = 500
    retry_after: int | None = None
    incident = ""
    detail = ""
    headers: tuple[tuple[str, str], ...] = ()
    is_last = False

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConfigError(MultisiteError):
    """The configuration as a whole cannot be used (`problems` has the reasons)."""

    id = "MS110"
    status = 503

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
        if problems:
            self.id = problems[0].id


class BadHost(MultisiteError):
    """The request names no valid host (RFC 9110 section 7.2)."""

    id = "MS310"
    status = 400


class UnknownHost(MultisiteError):
    """No enabled site answers this host or path."""

    id = "MS311"
    status = 404


class Forbidden(MultisiteError):
    """The site does not answer this client's address."""

    id = "MS312"
    status = 403


class Unauthorized(MultisiteError):
    """The site asks for a user and a password, and the request names none that fit (RFC 9110 section 15.5.2)."""

    id = "MS313"
    status = 401

    def __init__(self, reason: str, realm: str) -> None:
        super().__init__(reason)
        self.headers = (("WWW-Authenticate", f'Basic realm="{realm}", charset="UTF-8"'),)  # RFC 7617


class AccessUnknown(MultisiteError):
    """The file of users cannot be read, so nobody may use the site."""

    id = "MS314"
    status = 503
    retry_after = 30


class AppLoadError(MultisiteError):
    """The site's application could not be imported; costs that site only."""

    id = "MS230"


class BrokenSite(MultisiteError):
    """The site's own file has an error and there is no earlier version to serve."""

    id = "MS231"


class NeedsProcess(MultisiteError):
    """The site may not share this interpreter.

    Attributes:
        why: completes "…, because …".
    """

    id = "MS232"
    status = 503
    retry_after = 60
    opening = "This site cannot share a process with others: "

    def __init__(self, why: str) -> None:
        super().__init__(self.opening + why)
        self.why = why


class SiteBusy(MultisiteError):
    """The site is at its limit of simultaneous requests, or is still being imported; try again."""

    id = "MS315"
    status = 503
    retry_after = 5


class BackendUnavailable(MultisiteError):
    """The site has no process that could take this request now: queue full, backoff, or fatal."""

    id = "MS520"
    status = 503

    def __init__(self, reason: str, retry_after: int = 5) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Asleep(MultisiteError):
    """The site has no process, and this request does not start one."""

    id = "MS521"
    status = 503
    retry_after = 600


class OutOfService(MultisiteError):
    """Somebody has taken the site out of service, for a while or for good."""

    id = "MS316"
    status = 503


class InMaintenance(OutOfService):
    """The site is being worked on."""

    id = "MS317"
    retry_after = 60


class Paused(OutOfService):
    """Requests wait for the site, and this one has waited as long as it may."""

    id = "MS318"
    retry_after = 10


class Expired(OutOfService):
    """The time of the site is over (RFC 9110 section 15.5.11)."""

    id = "MS319"
    status = 410


class Misdirected(OutOfService):
    """The site runs on other machines than this one (RFC 9110 section 15.5.20)."""

    id = "MS328"
    status = 421


class StillStarting(MultisiteError):
    """The site is not up yet, and a person looks at the page meanwhile, which tries again by itself."""

    id = "MS522"
    status = 503
    retry_after = 2
    headers = (("Refresh", "2"),)

    def __init__(self) -> None:
        super().__init__("The site is starting")


class UpstreamError(MultisiteError):
    """An error between us and the endpoint that a request was relayed to."""

    id = "MS460"
    status = 502


class ConnectFailed(UpstreamError):
    """The endpoint could not be reached; nothing of the request was sent."""

    id = "MS461"


class ConnectTimeout(ConnectFailed):
    """The endpoint did not answer the connection attempt in time; it might with more."""

    id = "MS462"


class UpstreamProtocolError(UpstreamError):
    """The answer is invalid, is cut short, or breaks the rules of HTTP (RFC 9112)."""

    id = "MS463"


class NoAnswer(UpstreamProtocolError):
    """The connection was closed before one byte of an answer; the request may have been executed."""

    id = "MS464"


class UpstreamTimeout(UpstreamError):
    """The endpoint took too long: to take the request, to answer, or between two parts of the answer."""

    id = "MS465"
    status = 504


class NoUpgrade(MultisiteError):
    """The request asks for a WebSocket, and the server does not give us the client's connection."""

    id = "MS468"
    status = 501


class RequestTooLarge(MultisiteError):
    """The request's header fields are larger than the endpoint's protocol can carry."""

    id = "MS466"
    status = 431


class BodyTooLarge(MultisiteError):
    """A request body without a length is larger than we keep for an endpoint that needs the length."""

    id = "MS467"
    status = 413


class BadRequest(MultisiteError):
    """The server accepted what cannot be passed on: control characters, a length that is no number, invalid chunks."""

    id = "MS320"
    status = 400
    is_last = True


class Unforeseen(MultisiteError):
    """Our own code failed in a way that it does not handle; the log has the traceback."""

    id = "MS323"


class ClientDisconnected(MultisiteError):
    """The client left before its request was complete; the answer reaches nobody (RFC 9112 section 8)."""

    id = "MS321"
    status = 400
    is_last = True


class TooSlow(MultisiteError):
    """The client sends the body of its request more slowly than it may (RFC 9110 section 15.5.9)."""

    id = "MS322"
    status = 408
    is_last = True


LONGEST_VALUE = 100  # characters of a value that a message repeats


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of the configuration, and what to do about it.

    Attributes:
        id: names the kind of problem (`multisite.errors.codes`).
        severity: "error" (the site is not served from this file) or "warning".
        line: number of the line in the file, from 1; 0: not known.
    """

    id: str
    file: str
    reason: str
    section: str = ""
    key: str = ""
    value: str = ""
    remedy: str = ""
    severity: str = "error"
    line: int = 0

    def __str__(self) -> str:
        """Give one line: ``FILE:LINE: [section] key = value: reason; remedy``."""
        setting = " = ".join(filter(None, (self.key, _shown(self.value))))
        where = " ".join(filter(None, (f"[{self.section}]" if self.section else "", setting)))
        place = f"{self.file}:{self.line}" if self.line else self.file
        reason = "; ".join(filter(None, (self.reason, self.remedy)))
        return one_line(": ".join(filter(None, (place, where, reason))))

    @property
    def is_error(self) -> bool:
        """Tell whether this keeps the site from being served."""
        return self.severity == "error"

    def as_dict(self) -> dict[str, object]:
        """Give all parts for ``--json``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _shown(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"


def one_line(text: str) -> str:
    """Return a text in which everything is escaped that could end the line or control a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
