"""What every request of a site passes before its app: counts, access log, `[access]`, static files, the bound.

A site without access log, `[access]` and static files pays for two counts. The first requests of each second are
measured in full (`multisite.sites.usage`), which costs a few microseconds and is bounded for that reason; what is
relayed costs more than that in any case, and is always measured.

A site that is out of service (`gate`) keeps its static files, and nothing else: nothing behind them is asked.

A slow site in the workers would come to hold all of their threads, so only a bounded number of its requests may be
there at once. Requests above that are answered by a separate process of the site, and no thread waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from multisite.config.model import Home, Site
from multisite.dispatch.closing import Closing
from multisite.dispatch.counted import PLACES, ended, followed, tells, told
from multisite.dispatch.environ import Completed
from multisite.dispatch.gate import Gate
from multisite.errors import SiteBusy
from multisite.inprocess.workdir import WorkDir, here
from multisite.logs import servicelog
from multisite.logs.requestlines import RequestLines
from multisite.logs.requests import ELSEWHERE, IN_PROCESS, KEY, PAGE, SPAWNED, STATIC, RequestRecord, Rescue, replaced
from multisite.runner.answer import ReadFile
from multisite.sites import usage
from multisite.sites.sitedir import Entry

if TYPE_CHECKING:
    from multisite.inprocess.generation import Generation
    from multisite.logs.accesslog import AccessLog
    from multisite.logs.requests import RequestLog

WSGI = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]

_log = logging.getLogger("multisite.inprocess")


class ConcurrencyLimit:
    """Lets `most` requests of one site in at once; `overflow` answers the others.

    A request is in until its answer is complete: with a list, when the call returns; with anything that makes its parts
    one by one, when the server closes it (PEP 3333).
    """

    def __init__(self, most: int, overflow: WSGI) -> None:
        free = [None] * most
        self.take_slot, self.give_slot = free.pop, free.append  # each atomic; `take_slot` raises IndexError
        self.overflow = overflow

    def around(self, app: WSGI) -> WSGI:
        """Return `app` behind this bound; several apps share it."""
        take, give, overflow, release = self.take_slot, self.give_slot, self.overflow, self.release

        def bounded(environ: Environ, start_response: Any) -> Iterable[bytes]:
            try:
                take()
            except IndexError:
                return overflow(environ, start_response)
            try:
                body = app(environ, start_response)
            except BaseException:
                give(None)
                raise
            return release(environ, body)

        return bounded

    def release(self, environ: Environ, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the result of a call, wrapped so that the request is out when its answer is complete."""
        kind = type(body)
        if kind is list or kind is tuple or kind is environ.get("wsgi.file_wrapper") or isinstance(body, list):
            self.give_slot(None)  # the rest is the server's to send
            return body
        return _Held(body, self.give_slot)


class _Held(Closing):
    """An answer that is still being made; the next request may come after it."""

    __slots__ = ("_give",)

    def __init__(self, body: Iterable[bytes], give: Callable[[None], None]) -> None:
        super().__init__(body)
        self._give: Callable[[None], None] | None = give

    def __del__(self) -> None:
        self._closed()  # a server that never closes must not use up the site's places

    def _closed(self) -> None:
        give, self._give = self._give, None
        if give:
            give(None)


class Beside:
    """Answers the requests that would be too many in the workers, by a separate process of the site."""

    def __init__(
        self,
        entry: Entry,
        site: Site,
        home: Home,
        elsewhere: Callable[[Site, Home], WSGI] | None,
        rescue: Rescue,
        has_lines: bool = False,
    ) -> None:
        self._entry, self._site, self._home = entry, site, home
        self._has_lines = has_lines
        self._elsewhere, self._rescue = elsewhere, rescue
        self._app: WSGI | None = None

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request (PEP 3333).

        Raises:
            SiteBusy: there are no processes.
        """
        if not self._elsewhere:
            raise SiteBusy("This site is answering as many requests as it can")
        if self._app is None:
            name = self._site.name
            _log.info("site %s: uses its full share of the workers, and gets its own process too", name)
            layers = Layers(self._entry, self._site, self._home, self._place, self._rescue, self._has_lines)
            layers.put(self._elsewhere(self._site, self._home), SPAWNED)
        assert self._app
        return self._app(environ, start_response)

    def _place(self, app: WSGI) -> None:
        self._app = app


class Layers:
    """The layers of one site, by its file.

    Args:
        place: makes a callable answer for the site from now on.
        rescue: answers for an app that raised; what it raises itself reaches the server.
        has_lines: whether each request prints a line.
    """

    def __init__(
        self,
        entry: Entry,
        site: Site,
        home: Home,
        place: Callable[[WSGI], None],
        rescue: Rescue,
        has_lines: bool = False,
    ) -> None:
        self._place = place
        if site.exclusive:
            from multisite.dispatch.received import behind_check  # a worker without such sites never loads it

            self._place = behind_check(site, home, place)
        self._rescue = rescue
        self._rescue_body = partial(rescue, is_body=True)
        self._how = PAGE
        self._workdir: WorkDir | None = None
        self._counts = usage.of_worker(home, _folder).of(site.name)
        self._files: Callable[..., Iterable[bytes] | None] | None = None
        self._log: RequestLog | None = None
        self._gate = Gate(site, home)
        self._putting = threading.Lock()
        self._behind: Callable[[], None] = lambda: None
        if site.static and not entry.broken:
            from multisite.dispatch.static import StaticFiles  # a worker without such sites never loads it

            self._files = StaticFiles(site, home)
        self._checked: Callable[..., Iterable[bytes] | None] | None = None  # checks who asks, and nothing else
        if site.is_restricted:
            from multisite.dispatch.access import AccessCheck

            self._files, self._checked = AccessCheck(site, home, self._files), AccessCheck(site, home, None)
        self._served = self._files
        if site.access_log:
            self._log = _access_log(site, home)
        if has_lines:
            self._log = RequestLines(site.name, self._log)

    def look_at_gate(self) -> None:
        """Open or shut the gate, as is due every second; whoever looks meanwhile waits until that is done."""
        with self._putting:
            if self._gate.has_moved():
                self._behind()

    def check_due(self) -> None:
        """Do the other work that is due every second."""
        self._counts.left = usage.MEASURED
        if self._workdir:
            self._workdir.check_due()
        with self._putting:
            self._place(self._following)

    def put(
        self,
        app: WSGI,
        how: str,
        workdir: WorkDir | None = None,
        bound: ConcurrencyLimit | None = None,
        imported: Generation | None = None,
    ) -> None:
        """Place `app` behind the layers.

        Args:
            how: the name of its way for the access log.
            workdir: where it is called.
            bound: on its requests in this process.
            imported: what it was imported as, None where it is elsewhere.
        """
        self._counts.imported(max(imported.size, 1) if imported else 0)
        with self._putting:
            self._behind = partial(self._put, app, how, workdir, bound)
            self._behind()

    def _put(self, app: WSGI, how: str, workdir: WorkDir | None, bound: ConcurrencyLimit | None) -> None:
        self._files = self._served
        if self._gate.is_closed:
            app, how, workdir, bound = self._gate.app, self._gate.how, None, None
            self._files = self._checked if self._gate.is_whole else self._served
        self._how, self._workdir = how, workdir
        measured = self._measured(
            workdir.calling(app) if workdir else app, self._counted(app, workdir), self._counted(app, workdir, bound)
        )
        self._following = bound.around(measured) if bound else measured
        self._place(self._following)

    def _counted(self, app: WSGI, workdir: WorkDir | None, bound: ConcurrencyLimit | None = None) -> WSGI:
        """Return `app` with each request counted, with the class of its status, and nothing more.

        Its start_response has to be a method of a response that knows its status (`multisite.dispatch.counted`).
        """
        files, counts, rescue, rescue_body = self._files, self._counts, self._rescue, self._rescue_body
        requests, cells, place_of = counts.cells[usage.REQUESTS :], counts.cells, PLACES.get
        if bound and workdir and workdir.stays and not files:
            return self._bounded_there(app, workdir, bound)
        app = workdir.calling(app) if workdir else app

        def counted(environ: Environ, start_response: Any) -> Iterable[bytes]:
            counts.requests = requests[0] = counts.requests + 1
            try:
                body = files(environ, start_response) if files else None
                if body is None:
                    body = app(environ, start_response)
            except BaseException as error:
                return self._rescued(rescue, error, environ, start_response)
            if type(body) is list:
                place = place_of(start_response.__self__.status)
                if place:
                    cells[place] += 1
                else:
                    ended(counts, start_response.__self__.status)
                return body
            return followed(counts, environ, start_response, body, rescue_body)

        return bound.around(counted) if bound else counted

    def _rescued(self, rescue: Rescue, error: BaseException, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer for an app that raised, and count that."""
        try:
            body = rescue(error, environ, start_response)
        except BaseException:
            ended(self._counts, None)
            raise
        return followed(self._counts, environ, start_response, body)

    def _bounded_there(self, app: WSGI, workdir: WorkDir, bound: ConcurrencyLimit) -> WSGI:
        """Return the same behind a bound, in one step: most requests of most sites come this way."""
        counts, rescue, rescue_body = self._counts, self._rescue, self._rescue_body
        requests, cells, place_of = counts.cells[usage.REQUESTS :], counts.cells, PLACES.get
        take, give, overflow, release = bound.take_slot, bound.give_slot, bound.overflow, bound.release
        bare = app.bare if isinstance(app, Completed) else app

        def bounded(environ: Environ, start_response: Any) -> Iterable[bytes]:
            try:
                take()
            except IndexError:
                return overflow(environ, start_response)
            counts.requests = requests[0] = counts.requests + 1
            try:
                if here() is not workdir.now:
                    workdir.enter()
                if "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
                    body = app(environ, start_response)
                else:
                    environ["wsgi.file_wrapper"] = ReadFile
                    body = bare(environ, start_response)
            except BaseException as error:
                give(None)
                return self._rescued(rescue, error, environ, start_response)
            if type(body) is list:
                give(None)
                place = place_of(start_response.__self__.status)
                if place:
                    cells[place] += 1
                else:
                    ended(counts, start_response.__self__.status)
                return body
            return release(environ, followed(counts, environ, start_response, body, rescue_body))

        return bounded

    def _measured(self, app: WSGI, counted: WSGI, lean: WSGI) -> WSGI:
        """Return `app` with each request followed to the end of its answer.

        A site of this process that has no access log gives way to `lean` once enough has been measured in this second.
        """
        files, log, counts, rescue = self._files, self._log, self._counts, self._rescue
        is_followed = bool(log) or self._how != IN_PROCESS

        def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
            if counts.left <= 0 and not is_followed:
                is_told = tells(start_response)
                if self._answer is answer:  # otherwise a reload has just put another app in place
                    self._place(lean if is_told else told(lean))
                return (counted if is_told else told(counted))(environ, start_response)
            if log:
                replaced(environ)
            this = RequestRecord(counts, log, environ, start_response, self._how)
            if self._how != IN_PROCESS:
                environ[KEY] = this
            try:
                body = files(environ, this.start) if files else None
                if body is None:
                    body = app(environ, this.start)
                    this.how = self._how  # now, because the first request finds it out
                else:
                    this.how = STATIC
            except BaseException as error:
                this.how = self._how
                if self._how in ELSEWHERE and isinstance(error, StopIteration):
                    raise  # the new owner of the connection ends the request
                this.how = PAGE
                try:
                    body = rescue(error, environ, this.start)
                except BaseException:
                    this.end()
                    raise
            return this.around(body, self._rescue_body if self._how == IN_PROCESS else None)

        self._answer = answer
        return answer


def count_unknown(home: Home, status: int) -> None:
    """Count a request whose host is that of no site, all such hosts together."""
    counts = usage.of_worker(home, _folder).of(usage.UNKNOWN)
    counts.count()
    counts.ended(status, False)


def _folder(home: Home) -> str:
    """Return the directory for the counts of workers; "" if it is unavailable."""
    from multisite.control.rundir import RuntimeDir, RuntimeDirError

    rundir = RuntimeDir(home)
    try:
        rundir.make()
    except RuntimeDirError:
        return ""  # the supervisor's client reports why
    return os.path.join(rundir.path, usage.FOLDER)


def _access_log(site: Site, home: Home) -> AccessLog | None:
    from multisite.logs.accesslog import AccessLog

    try:
        return AccessLog(site, home)
    except (OSError, ValueError) as fault:
        servicelog.tell_once(site, "access", site.access_log, fault)
        return None
