"""One request on its way through a worker, from when it came until its answer has ended.

A `RequestRecord` stands between the server and whoever answers: `start` is the start_response of the app, and `around`
the answer as the server sees it, whose close is the end (PEP 3333). Where the relay loop takes the client's connection
over, the end comes long after the worker's callable was left: the record of a request that is relayed lies in its
environ, and the code that ends the request calls `ended`.

Every site's requests come through here when they are logged; that it is one object with few calls is what keeps
that cheap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from time import monotonic_ns, thread_time_ns
from typing import Any, Protocol

from multisite.errors import pages
from multisite.logs import past

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
#: answers in an app's place, given what it raised, the environ and start_response; or raises that again
Rescue = Callable[..., Iterable[bytes]]

#: who answers for a site: its app in this process, one elsewhere, a file, or a page of ours
IN_PROCESS, SPAWNED, PROXY, STATIC, PAGE = "in-process", "spawned", "proxy", "static", "page"
ELSEWHERE = (SPAWNED, PROXY)

KEY = "multisite.visit"
#: the key in the environ of a request whose answer is to say when the application had it, for the relay
TIMED = "multisite.timed"
_TIMES = re.compile("([0-9]{1,20}) ([0-9]{1,20})")
_SLOW = int(past.SLOW * 1e9)
NO_BODY = (204, 304)

LONGEST_LENGTH = 18  # digits; int() refuses thousands of them

#: bytes of a list that a server is given as one; what is smaller fits into a socket's buffer in any case
MOST_AT_ONCE = 65536


class _Counts(Protocol):
    """What counts a site's requests (`multisite.sites.usage.Counts`)."""

    left: int
    site: str

    def count(self) -> int:
        """Count one whose time is not measured."""

    def begin(self) -> int:
        """Count one, whose time is measured."""

    def enter(self, began: int, method: str, target: str) -> int:
        """Show one that is in flight; returns its place."""

    def leave(self, place: int) -> None:
        """Show it no more."""

    def ended(self, status: int, failed: bool) -> None:
        """Take note of the end of one whose time is not measured; `status` is 0 where it has none."""

    def end(self, began: int, failed: bool, sent: int, status: int, received: int, cpu: int) -> int:
        """Take note of the end of one whose time is measured; returns how many nanoseconds it took."""

    def relayed(self, took: int) -> None:
        """Take note of the nanoseconds that the relay has added to one."""

    def withdraw(self) -> None:
        """Have it not counted after all."""


class RequestLog(Protocol):
    """Writes down the requests of a site (`multisite.logs.accesslog`, `multisite.logs.requestlines`)."""

    def write(self, request: RequestRecord, status: int, sent: int, seconds: float, how: str) -> None:
        """Write down a request that has ended.

        Args:
            status: 0 where the client left before there was one.
            sent: bytes of the answer's body.
            seconds: that it took.
            how: it was answered.
        """


def raise_again(_status: str, _headers: Headers, exc_info: Any) -> Any:
    """Stand in for the start_response of an answer that has begun: no page may follow what was sent of it."""
    raise exc_info[1]


class RequestRecord:
    """One request.

    Attributes:
        how: who answers.
        environ: of the request, as the app may have changed it.
        method, uri, peer: what it said when the request came; `uri` is as it was sent, where the server tells that.
        sent: bytes of the answer's body that were passed on.
    """

    __slots__ = (
        "_answered",
        "_began",
        "_body",
        "_close",
        "_counts",
        "_cpu",
        "_headers",
        "_log",
        "_measured",
        "_next",
        "_open",
        "_place",
        "_rescue",
        "_split",
        "_start",
        "_state",
        "_status",
        "_thread",
        "_write",
        "environ",
        "how",
        "method",
        "peer",
        "sent",
        "uri",
    )

    def __init__(
        self, counts: _Counts, log: RequestLog | None, environ: Environ, start_response: Any, how: str
    ) -> None:
        self._start = start_response
        self._counts = counts
        self._log = log
        self._status = self._state = ""
        self._open = True
        self._answered = 0
        self._split: past.Split = (None, None, None)
        self._close: Callable[[], object] | None = None
        self.sent = 0
        self.how = how
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]  # now, since an app may write what it likes into its environ
        if log:
            get = environ.get
            self.uri: str = get("RAW_URI") or _uri(environ)
            self.peer: str = get("REMOTE_ADDR", "")
        if counts.left > 0:
            self._measured = True
            if how != IN_PROCESS:
                environ[TIMED] = True
        else:
            self._measured = how in ELSEWHERE
        self._began = counts.begin() if self._measured else counts.count()
        self._place = counts.enter(self._began, self.method, _target(environ))
        self._thread = get_ident() if self._measured and how not in ELSEWHERE else 0
        self._cpu = thread_time_ns() if self._thread else 0

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
        """Pass on how the answer begins, and note it (PEP 3333)."""
        self._status, self._headers = status, headers
        self._write = self._start(status, headers, exc_info) if exc_info else self._start(status, headers)
        return self._counted_write

    def force_close(self) -> None:
        """Have the server close the connection after this answer."""
        pages.close_after(self._start)

    def begin_anew(self) -> bool:
        """Forget how the answer began; tell whether nothing of it was sent."""
        return pages.begin_anew(self._start)

    def _counted_write(self, data: bytes) -> object:
        self.sent += len(data)
        return self._write(data)

    def around(self, body: Iterable[bytes], rescue: Rescue | None = None) -> Iterable[bytes]:
        """Return `body` so that its end is noticed; one that the server sends as a file stays what it is.

        `rescue` answers for a body that raises while it is made, or raises again where the answer has begun.
        """
        if type(body) is list:
            size = len(body[0]) if len(body) == 1 else sum(map(len, body))
            if size <= MOST_AT_ONCE:  # it is as good as sent
                status, sent = int(self._status[:3] or 0), self.sent + size
                self.done(status, sent, self._is_short(status, sent))
                return body
        self._body = body
        self._next: Callable[[], bytes] | None = None
        self._rescue = rescue
        self._close = getattr(body, "close", None)
        if self.method == "HEAD":
            self._state = "whole"
        wrapper = self.environ.get("wsgi.file_wrapper")
        if type(body) is wrapper or (wrapper and not isinstance(wrapper, type) and hasattr(body, "read")):
            return self._file(body)
        return self

    def _file(self, body: Any) -> Iterable[bytes]:
        """Notice the end of a file that the server sends, which tells nobody how much of it has gone."""
        self._state = "whole"
        self.sent += self._length() or 0
        try:
            body.close = self.close
        except AttributeError:  # it is none of Python's own objects: this is the last that is heard of it
            self.end()
        found: Iterable[bytes] = body
        return found

    def _length(self) -> int | None:
        for name, value in self._headers:
            if name.lower() == "content-length" and value.isascii() and value.isdigit():
                return int(value)
        return None

    def forget(self) -> None:
        """Leave the request to another record."""
        self._open = False

    # The answer as the server sees it

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        following = self._next
        try:
            if following is None:
                following = self._next = iter(self._body).__next__
                data = following()
                self._answered = monotonic_ns()
            else:
                data = following()
        except StopIteration:
            self._state = "whole"
            raise
        except BaseException as error:
            self._state = "failed"
            rescue, self._rescue = self._rescue, None
            if not rescue:
                raise
            start = raise_again if self._answered or self.sent else self.start
            self._next = iter(rescue(error, self.environ, start)).__next__
            self.how = PAGE
            return next(self)
        self.sent += len(data)
        return data

    def close(self) -> None:
        """Close the body, and note the end."""
        try:
            if self._close:
                self._close()
        finally:
            self.end()

    # The end

    def end(self) -> None:
        """Note the end of an answer that went through here."""
        code = self._status[:3]
        if code and self._state == "whole":
            self.done(int(code), self.sent, self._is_short(int(code), self.sent))
            return
        failed = self._state == "failed"
        status = int(code) if code else 500 if failed else 0
        cut = failed or (self._state != "whole" and not self._is_complete())
        self.done(status, self.sent, cut)

    def _is_short(self, status: int, sent: int) -> bool:
        """Tell whether the app gave less than it had announced."""
        length = self._length() if status else None
        return length is not None and sent < length and self.method != "HEAD" and status not in NO_BODY

    def _is_complete(self) -> bool:
        """Tell whether all was passed on though the server did not ask until the end."""
        length = self._length() if self._status else None
        return length is not None and self.sent >= length

    def done(self, status: int, sent: int, cut: bool = False) -> None:
        """Count the request, and write its line; only the first call does anything.

        Args:
            status: of the answer; 0 where the client left before there was one.
            sent: bytes of the body that were passed on.
            cut: whether the answer did not arrive whole.
        """
        if not self._open:
            return
        self._open = False
        self._counts.leave(self._place)
        failed = status >= 500 or (cut and status > 0)
        took = 0
        if self._measured:
            # Another thread may send the end of the answer; what it has used is not the site's.
            cpu = thread_time_ns() - self._cpu if self._thread == get_ident() else 0
            took = self._counts.end(self._began, failed, sent, status, _length_of(self.environ), cpu)
        else:
            self._counts.ended(status, failed)
        if self._log:
            how = f"{self.how},cut" if cut else self.how
            took = took or monotonic_ns() - self._began
            self._log.write(self, status, sent, took / 1e9, how)
        if took >= _SLOW:
            self._write_slow(status, took)

    def answered(self, sent_at: float, now: float, times: str) -> None:
        """Note when the answer of a backend began.

        Args:
            sent_at: monotonic seconds when the request was sent to it.
            now: monotonic seconds.
            times: when it took the request and when it began to answer, in nanoseconds of the same clock; "" where it
                does not say so.
        """
        timed = _TIMES.fullmatch(times)
        sent, self._answered = int(sent_at * 1e9), int(now * 1e9)
        if not timed:
            self._split = (sent - self._began) / 1e9, None, (self._answered - sent) / 1e9
            return
        taken = min(max(sent, int(timed[1])), self._answered)  # a site can write anything there
        app = min(max(0, int(timed[2]) - taken), self._answered - taken)
        added = self._answered - taken - app
        self._counts.relayed(added)
        self._split = (taken - self._began) / 1e9, added / 1e9, app / 1e9

    def _write_slow(self, status: int, took: int) -> None:
        """Write a slow request down, unless only its answer took long."""
        seconds = (self._answered - self._began if self._answered else took) / 1e9
        if seconds >= past.SLOW and self._counts.site:
            split = (None, None, seconds) if self.how == IN_PROCESS else self._split
            past.was_slow(self._counts.site, self.method, _target(self.environ), status, seconds, split)

    @property
    def is_open(self) -> bool:
        """Whether its end is still to be noted here."""
        return self._open

    def withdraw(self) -> bool:
        """Look for the end no more; False where there is a line to be written then."""
        if self._log:
            return False
        if self._open:
            self._counts.leave(self._place)
            self._counts.withdraw()
        self._open = False
        return True


def ended(environ: Environ, status: int, sent: int, cut: bool = False) -> None:
    """Say, once, that a relayed request has ended (`RequestRecord.done`); harmless where nobody wants to know."""
    request: RequestRecord | None = environ.pop(KEY, None)
    if request:
        request.done(status, sent, cut)


def answered(environ: Environ, sent_at: float, now: float, times: str) -> None:
    """Say that the answer to a relayed request has begun (`RequestRecord.answered`)."""
    request: RequestRecord | None = environ.get(KEY)
    if request:
        request.answered(sent_at, now, times)


def let_go(environ: Environ) -> bool:
    """Leave a request to others, who see its end; False where it is to be logged here."""
    request: RequestRecord | None = environ.get(KEY)
    if request is None:
        return True
    if not request.withdraw():
        return False
    del environ[KEY]
    return True


def replaced(environ: Environ) -> None:
    """Forget the record of a request for which a site makes its own."""
    former: RequestRecord | None = environ.pop(KEY, None)
    if former:
        former.forget()


def _target(environ: Environ) -> str:
    target: str = environ.get("RAW_URI") or environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return target


def _length_of(environ: Environ) -> int:
    """Return how long the body of a request is, 0 where its head does not say so."""
    length = environ.get("CONTENT_LENGTH")
    return int(length) if length and length.isascii() and length.isdigit() and len(length) <= LONGEST_LENGTH else 0


def _uri(environ: Environ) -> str:
    """Return the path and the query, from what a server tells that does not keep what was sent."""
    from urllib.parse import quote

    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    path = quote(path, safe="/:@!$&'()*+,;=~", encoding="latin-1", errors="replace")
    query = environ.get("QUERY_STRING", "")
    return environ.get("REQUEST_URI") or (f"{path}?{query}" if query else path)
