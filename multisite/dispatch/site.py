"""A site as this worker has it: imported here at its first request, or served from elsewhere.

`InProcessSite.app` is all that the dispatcher calls. It starts as the act of loading,
becomes the site's own callable, or the page that says why there is none; what happens
in between is under the site's own lock, so that no site waits for another's import.

A generation is one import of a site. A reload makes the next one beside the one that
serves and puts it in place only when it is whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from multisite.config.development import OFF, Development
from multisite.config.model import Home, Site
from multisite.dispatch.environ import Completed, Patience
from multisite.dispatch.middleware import ConcurrencyLimit, Layers, Rescue
from multisite.errors import BrokenSite, MultisiteError, NeedsProcess, SiteBusy, UnknownHost, pages
from multisite.inprocess import generation, tracebacks, workdir
from multisite.inprocess.generation import WSGI, Generation
from multisite.inprocess.workdir import WorkDir
from multisite.logs import requests, servicelog
from multisite.logs.requests import IN_PROCESS, PAGE, PROXY, SPAWNED
from multisite.logs.servicelog import Errors
from multisite.proxy.limits import Share
from multisite.sites import changes, claims, relativepaths, server, sharing
from multisite.sites.changes import Files, Identity, Watched, files, identity
from multisite.sites.claims import Ledger
from multisite.sites.failures import LastFailures
from multisite.sites.placement import UNKNOWN, basis
from multisite.sites.sitedir import Entry

LONGEST_PAUSE = 60.0  # seconds between two attempts to import a site that failed

_log = logging.getLogger("multisite.inprocess")

#: what a site without an application answers beside its files
_NO_FILE = pages.error_page(404, text="There is no file at this address.")


@dataclass(slots=True)
class _Failure:
    """Why the newest attempt gave no application, and what will cause another one."""

    reason: str  # rather than the error, whose traceback would keep the site's frames alive
    incident: str
    retry_at: float
    watched: tuple[str, ...] = ()
    files: list[Identity] = field(init=False)

    def __post_init__(self) -> None:
        self.files = list(map(identity, self.watched))

    def over(self, now: float) -> bool:
        """Tell whether another attempt may end otherwise."""
        return now >= self.retry_at or list(map(identity, self.watched)) != self.files


class InProcessSite:
    """One enabled site in this worker.

    Attributes:
        name: the site's.
        key: by which the dispatcher knows it; its host is that of an instance of a hosting site, else "".
        app: the WSGI callable that answers for it just now.
        check_at: monotonic seconds from when `look` is due; the dispatcher's to keep.
    """

    def __init__(
        self,
        entry: Entry,
        site: Site,
        home: Home,
        ledger: Ledger,
        verdicts: LastFailures,
        *,
        rescue: Rescue,
        elsewhere: Callable[[Site, Home], WSGI] | None = None,
        development: Development = OFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = entry.file.name
        self.key = (self.name, "")
        self.check_at = 0.0
        self._entry, self._site, self._home = entry, site, home
        self._ledger, self._verdicts, self._elsewhere = ledger, verdicts, elsewhere
        self._development, self._clock = development, clock
        self._lock = threading.Lock()
        self._generation: Generation | None = None
        self._failure: _Failure | None = None
        self._failures = 0
        self._triggers = Watched()
        self._offer: tuple[Entry, Site, Home] | None = None
        self._closed = False
        self._calls = UNKNOWN
        self._beside: WSGI | None = None
        if not site.host:  # the supervisor writes those of a thousand instances
            servicelog.attach_site_log(site)
        self._rescue = rescue
        self._layers = Layers(entry, site, home, self._place, rescue)
        self._put(self._first)

    def __repr__(self) -> str:
        state = "serving" if self._generation else "failed" if self._failure else "not used yet"
        return f"<InProcessSite {self.name} {state}>"

    def _put(self, app: WSGI, how: str = PAGE) -> None:
        """Have `app` answer, behind what every request of the site passes."""
        self._answering, self._how = app, how
        if how == IN_PROCESS:
            self._layers.put(app, how, self._workdir, self._bound())
        else:
            self._layers.put(app, how)

    @property
    def _workdir(self) -> WorkDir | None:
        return self._generation.workdir if self._generation else None

    def _place(self, app: WSGI) -> None:
        self.app: WSGI = app

    def _bound(self) -> ConcurrencyLimit | None:
        """Return a bound for its requests in this process, None where the server has no more threads than that."""
        most, threads = self._site.in_process_at_once, server.of_this_server()
        return ConcurrencyLimit(most, self._overflow) if threads and 0 < most < threads.count else None

    def _overflow(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request that would be one too many here."""
        if not self._elsewhere:
            raise SiteBusy("This site is answering as many requests as it may")
        if self._beside is None:
            _log.info("site %s: has as many requests at once as it may, and gets a process of its own too", self.name)
            layers = Layers(self._entry, self._site, self._home, self._place_beside, self._rescue)
            layers.put(self._elsewhere(self._site, self._home), SPAWNED)
        assert self._beside
        return self._beside(environ, start_response)

    def _place_beside(self, app: WSGI) -> None:
        self._beside = app

    @property
    def entry(self) -> Entry:
        """The site's entry that this has last been given."""
        return self._entry

    @property
    def names(self) -> claims.Names:
        """The module names that it holds in this interpreter."""
        return self._generation.names if self._generation else {}

    # From the dispatcher

    def offer(self, entry: Entry, site: Site, home: Home) -> None:
        """Take note of a newer catalogue; the site's own next request acts on it."""
        newest_is_bad = entry.problems != entry.file.problems and entry.file == self._entry.file
        same = entry.file == self._entry.file and entry.stamp == self._entry.stamp and site == self._site
        if (same or newest_is_bad) and home.supervisor == self._home.supervisor:
            self._entry, self._home = entry, home
            return
        self._offer = (entry, site, home)
        self.check_at = 0.0

    def look(self, now: float) -> None:
        """Do what is due: take a changed file, obey a trigger, try again what failed."""
        self._layers.look()
        if self._offer:
            self._renew()
        elif self._failure and (self._failure.over(now) or (self._development.reload and self._fired(now))):
            self._again()
        elif self._generation and self._fired(now):
            self._reload("its reload was asked for")

    @property
    def is_always_due(self) -> bool:
        """Whether each request is to look first, rather than one a second."""
        return self._development.reload or self.always_restarts()

    def always_restarts(self) -> bool:
        """Tell whether ``tmp/always_restart.txt`` asks for a reload before each request."""
        return sharing.is_always_restarted(self._site)

    def _renew(self) -> None:
        with self._unless_busy() as free:
            if not free or not self._offer:
                return
            (self._entry, self._site, self._home), self._offer = self._offer, None
            servicelog.attach_site_log(self._site)
            self._beside = None
            self._layers = Layers(self._entry, self._site, self._home, self._place, self._rescue)
            if not self._generation:
                self._failure, self._failures, self._answering = None, 0, self._first
            self._put(self._answering, self._how)
        if self._generation:
            self._take_file()

    def _take_file(self) -> None:
        self._reload("its file changed")

    def close(self) -> None:
        """Take all that the site brought out of the interpreter; requests in flight go on."""
        self._closed = True
        with self._unless_busy():
            pass  # who is busy with it takes it out at the end

    # Loading

    @contextlib.contextmanager
    def _unless_busy(self) -> Iterator[bool]:
        """Hold the site's lock if it is free; yields whether it was."""
        if not self._lock.acquire(blocking=False):
            yield False
            return
        try:
            yield True
        finally:
            self._release()

    def _release(self) -> None:
        if self._closed:
            self._drop()
            self._put(pages.for_error(UnknownHost("No site answers here any more")))
            servicelog.detach_site_log(self.name)
        self._lock.release()

    def _drop(self) -> None:
        generation.drop(self._site, self._ledger, self._generation)
        self._generation = None

    def _first(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not self._lock.acquire(timeout=self._site.start_timeout):
            busy = SiteBusy("The site is still starting")
            return pages.for_error(busy)(environ, start_response)
        try:
            if self._answering == self._first and not self._closed:
                self._calls = server.calls(environ)
                self._load()
            app = self._answering  # even if the site was taken out of service meanwhile
            if self._how == IN_PROCESS:
                environ.pop(requests.KEY, None)
                app = self._workdir.calling(app) if self._workdir else app
        finally:
            self._release()
        return app(environ, start_response)

    def _load(self) -> None:
        self._triggers.begin(self._files())  # before the import, so that nothing after it is missed
        try:
            self._serve(self._import())
        except NeedsProcess as error:
            self._move_out(error)
        except MultisiteError as error:
            failure = self._fail(error, "the site cannot be served")
            self._put(pages.for_error(error, incident=failure.incident, detail=self._detail(error)))

    def _again(self) -> None:
        if self._generation:
            self._reload("its last reload had failed")
            return
        with self._unless_busy() as free:
            if free:
                self._put(self._first)

    def _reload(self, reason: str) -> None:
        """Import anew beside the old application, which stays if that fails."""
        with self._unless_busy() as free:
            if not free:
                return  # somebody is at it
            self._triggers.begin(self._files())
            token = servicelog.current_site.set(self.name)
            _log.info("site %s: reloading, since %s", self.name, reason)
            try:
                self._serve(self._import())
            except NeedsProcess as error:
                self._move_out(error)
            except MultisiteError as error:
                self._stay_or_show(error)
            finally:
                servicelog.current_site.reset(token)

    def _stay_or_show(self, error: MultisiteError) -> None:
        """Have the old application go on; a developer rather sees what is wrong with the new one."""
        if not self._development.debug:
            self._fail(error, "its reload failed, so the old application goes on serving")
            return
        self._drop()
        failure = self._fail(error, "its reload failed")
        self._put(pages.for_error(error, incident=failure.incident, detail=self._detail(error)))

    def _move_out(self, error: NeedsProcess) -> None:
        """Have the site served from elsewhere; where that cannot be, say why it is not served."""
        if self._generation:
            self._drop()
        if self._elsewhere:
            if not self._site.host:
                _log.info("site %s: runs outside the workers: %s", self.name, error.why)
                self._note_own_process(error)
            self._failure = None
            self._put(self._elsewhere(self._site, self._home), PROXY if self._site.upstreams else SPAWNED)
        else:
            failure = self._fail(error, "it cannot share the workers' process")
            self._put(pages.for_error(error, incident=failure.incident))

    def _note_own_process(self, error: NeedsProcess) -> None:
        """Note why the site is not here, which holds until its file or moya.conf says something else (`offer`)."""
        watched, says = (self._entry.path,), basis(self._home)
        self._verdicts.note(self.name, error.reason, "", serving=False, own_process=True, watched=watched, basis=says)

    def _serve(self, newest: Generation) -> None:
        self._generation, self._failure, self._failures = newest, None, 0
        own = servicelog.own_log(self.name)
        patience = Patience(self._site.upload_rate, Share(server.of_this_server))
        self._put(Completed(self._debugged(newest.app), Errors(own) if own else None, patience), IN_PROCESS)
        self._verdicts.clear(self.name)

    def _debugged(self, app: WSGI) -> WSGI:
        pin = self._development.pin(self.name)
        if not pin:
            return app
        from multisite.runner.debugger import debugged

        return debugged(app, pin)

    def _import(self) -> Generation:
        """Make a new generation, or leave everything as it was and raise a MultisiteError."""
        if self._entry.broken:
            raise BrokenSite(next(str(problem) for problem in self._entry.problems if problem.is_error))
        if self._site.files_only:
            return Generation(_NO_FILE, {}, "", frozenset())
        placement = sharing.place(self._site, self._home, self._calls)
        if not placement.shareable:
            raise NeedsProcess(placement.reason)
        return generation.make(self._site, self._ledger, self._generation, self._new_workdir())

    def _new_workdir(self) -> WorkDir | None:
        """Return where the site is called; None where the threads here have one place in common."""
        why = workdir.obstacle()
        if not why:
            relativepaths.clear(self._site, self._home)
            return WorkDir(self._site.location, self._site.umask)
        if self._site.umask is not None:
            raise NeedsProcess(f"it sets umask, and {why}")
        relativepaths.watch(self._site, self._home, why)
        return None

    # Failing

    def _fail(self, error: MultisiteError, message: str) -> _Failure:
        last, incident = self._failure, servicelog.incident()
        pause = min(2.0**self._failures, LONGEST_PAUSE)
        if not isinstance(error, NeedsProcess):
            self._failures += 1
            traced = error if error.__cause__ else None  # the site's own traceback, not ours
            servicelog.log_failure(self.name, incident, f"{message}: {error.reason}", traced)
        elif last and last.reason == error.reason:
            incident = last.incident  # looked at again every second, told once
        else:
            servicelog.site_logger(self.name).warning("incident %s: %s: %s", incident, message, error.why)
        if not last or last.reason != error.reason:
            serving, own = self._generation is not None, isinstance(error, NeedsProcess)
            watched = (self._entry.path, *self._watched(error))
            self._verdicts.note(self.name, error.reason, incident, serving=serving, own_process=own, watched=watched)
        self._failure = _Failure(error.reason, incident, self._clock() + pause, self._watched(error))
        return self._failure

    def _watched(self, error: BaseException) -> tuple[str, ...]:
        """Return the files whose change may mend what failed: those of the traceback, and the folder."""
        if not self._site.location:
            return ()
        paths = {self._site.location, os.path.join(self._site.location, self._site.application.partition(":")[0])}
        cause: BaseException | None = error
        while cause:
            paths |= {frame.filename for frame in traceback.extract_tb(cause.__traceback__)}
            paths |= {cause.filename} if isinstance(cause, SyntaxError) and cause.filename else set()
            cause = cause.__cause__ or cause.__context__
        return tuple(sorted(p for p in paths if p.startswith(self._site.location)))

    def _detail(self, error: MultisiteError) -> str:
        return tracebacks.traced(error) if self._development.debug else ""

    # Triggers

    def _fired(self, now: float) -> bool:
        """Tell whether a reload is asked for, by whoever is done with it."""
        is_due = self._triggers.look(self._files(), now)
        if not self.is_expecting:
            return self.always_restarts()
        if self._development.reload:
            return True  # an editor saves in one step, and who saved wants to see it
        return is_due and not changes.is_being_written(self._site.location)

    @property
    def is_expecting(self) -> bool:
        """Whether a change has been seen that is taken as soon as nothing more changes."""
        return self._triggers.due is not None

    def _files(self) -> Files:
        found = files(self._site, self._home)
        if self._development.reload:
            found["code"] = (hash(changes.times(self._site)),)
        return found
