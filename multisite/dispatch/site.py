"""A site in this worker: imported here at its first request, or served from elsewhere.

`InProcessSite.app` is all that the dispatcher calls: it loads the site, then it is the site's own callable, or the page
that explains why there is none. All changes happen under the site's own lock, so no site waits for another's import.

A generation is one import of a site. A reload makes the next one beside the one that serves, and puts it in place only
when it is complete. The table in `states` shows what happens when.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from multisite.config.model import Home, Site
from multisite.config.serving.development import OFF, Development
from multisite.dispatch.attempt import WHY_AGAIN, Attempt, FailedImport
from multisite.dispatch.automode import AutoMode
from multisite.dispatch.environ import Completed, Patience
from multisite.dispatch.middleware import Beside, ConcurrencyLimit, Layers
from multisite.dispatch.states import LIVES_HERE, TABLE, SiteAction, SiteEvent, SiteState
from multisite.errors import BrokenSite, MultisiteError, NeedsProcess, SiteBusy, StillStarting, UnknownHost, pages
from multisite.inprocess import generation, tracebacks, workdir
from multisite.inprocess.generation import WSGI, Generation
from multisite.inprocess.workdir import WorkDir
from multisite.logs import incidents, requests, servicelog
from multisite.logs.requests import IN_PROCESS, PAGE, PROXY, SPAWNED, Rescue
from multisite.logs.servicelog import Errors
from multisite.proxy.limits import Share
from multisite.proxy.waiting.coldstarts import patience_of
from multisite.sites import changes, placement, relativepaths, server, sharing
from multisite.sites.changes import Files, Watched, files
from multisite.sites.claims import Ledger
from multisite.sites.failures import LastFailures
from multisite.sites.placement import UNKNOWN
from multisite.sites.sitedir import Entry

LONGEST_PAUSE = 60.0  # seconds between two attempts to import a site that failed
LINGERS = 30.0  # seconds at least between the last request here and the removal of the modules of a site that has left

_log = logging.getLogger("multisite.inprocess")

#: the answer of a site without an application where it has no file
_NO_FILE = pages.error_page(404, text="There is no file at this address.")


class InProcessSite:
    """One enabled site in this worker.

    Attributes:
        name: of the site.
        key: identifies it for the dispatcher; its host is that of an instance of a hosting site, else "".
        app: the WSGI callable that answers for it now.
        layers: what each of its requests passes.
        check_at: monotonic seconds at which `check_due` is due; the dispatcher maintains it.
    """

    def __init__(
        self,
        entry: Entry,
        site: Site,
        home: Home,
        ledger: Ledger,
        failures: LastFailures,
        *,
        rescue: Rescue,
        elsewhere: Callable[[Site, Home], WSGI] | None = None,
        auto: AutoMode | None = None,  # None: nothing else decides where it runs
        development: Development = OFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = entry.file.name
        self.key = (self.name, "")
        self.check_at = 0.0
        self._entry, self._site, self._home = entry, site, home
        self._ledger, self._failures, self._elsewhere = ledger, failures, elsewhere
        self._auto, self._development, self._clock = auto, development, clock
        self._lock = threading.Lock()  # over the state and everything that belongs to it
        self._state = SiteState.UNUSED
        self._generation: Generation | None = None  # it exists exactly in the states of `LIVES_HERE`
        self._left: Generation | None = None  # it has left; requests may still be in it
        self._drop_at = 0.0
        self._failure: FailedImport | None = None
        self._attempt: Attempt | None = None
        self._triggers = Watched()
        self._update: tuple[Entry, Site, Home] | None = None
        self._is_to_close = False
        self._calls = UNKNOWN
        if not site.host:  # the supervisor writes those of a thousand instances
            servicelog.attach_site_log(site)
        self._rescue = rescue
        self._make_layers()
        self._put(self._first)

    def __repr__(self) -> str:
        states = {SiteState.FAILED: "failed", **dict.fromkeys(LIVES_HERE, "serving")}
        return f"<InProcessSite {self.name} {states.get(self._state, 'not used yet')}>"

    def _make_layers(self) -> None:
        def place(app: WSGI) -> None:
            self.app: WSGI = app

        served = (self._entry, self._site, self._home)
        has_lines = self._development.lines
        self.layers = Layers(*served, place, self._rescue, has_lines)
        self._beside = Beside(*served, self._elsewhere, self._rescue, has_lines)

    def _put(self, app: WSGI) -> None:
        """Make `app` answer, behind everything that each request of the site passes."""
        self._answering = app
        if self._generation:
            most, threads = self._site.in_process_at_once, server.of_this_server()
            is_bound = threads and 0 < most < threads.count  # otherwise the server has no more threads than that
            bound = ConcurrencyLimit(most, self._beside) if is_bound else None
            self.layers.put(app, IN_PROCESS, self._generation.workdir, bound, self._generation)
        elif self._state is SiteState.AWAY:
            self.layers.put(app, PROXY if self._site.upstreams else SPAWNED)
        else:
            self.layers.put(app, PAGE)

    @property
    def entry(self) -> Entry:
        """The site's latest entry."""
        return self._entry

    @property
    def is_always_due(self) -> bool:
        """Whether each request should look first, rather than one a second."""
        return self._development.reload or sharing.is_always_restarted(self._site)

    # From the dispatcher

    def update(self, entry: Entry, site: Site, home: Home) -> None:
        """Take note of a newer catalogue; the site's own next request acts on it."""
        newest_is_bad = entry.problems != entry.file.problems and entry.file == self._entry.file
        same = entry.file == self._entry.file and entry.stamp == self._entry.stamp and site == self._site
        had = self._home
        same_rules = home.supervisor == had.supervisor and (home.router == had.router or not site.upstreams)
        if (same or newest_is_bad) and same_rules:
            self._entry, self._home = entry, home
            return
        self._update = (entry, site, home)
        self.check_at = 0.0

    def check_due(self, now: float) -> None:
        """Do what else is due: take a changed file, follow a trigger or the supervisor, retry what failed."""
        self.layers.check_due()
        if self._update:
            self._take_update()
        elif event := self._due(now):
            self._take_event(event)

    def sweep(self, now: float) -> None:
        """Leave, if that is decided, and release what was left, whether or not anyone asks for the site."""
        if self._left and now >= self._drop_at:
            with self._unless_busy() as free:
                if free and self._left:
                    gone, self._left = self._left, None
                    generation.drop(self._site, self._ledger, gone)
        elif self._generation and (event := self._decision()):
            self._take_event(event)

    def close(self) -> None:
        """Remove everything that the site brought from the interpreter; requests in flight continue."""
        self._is_to_close = True
        with self._unless_busy():
            pass  # the thread that is busy with it removes it at the end

    # Events

    def _due(self, now: float) -> SiteEvent | None:
        failure = self._failure
        if failure and (failure.over(now) or (self._development.reload and self._fired(now))):
            return SiteEvent.RETRY
        if not failure and self._state is not SiteState.UNUSED and (event := self._decision()):
            return event
        if self._generation and self._fired(now):
            return SiteEvent.NEW_CODE if self._is_governed() else SiteEvent.ASKED
        return None

    def _is_governed(self) -> bool:
        """Whether the supervisor decides where it runs."""
        return bool(self._auto and not self._entry.broken and self._auto.governs(self._site, self._home))

    def _decision(self) -> SiteEvent | None:
        governed = self._auto if self._is_governed() else None
        return governed.event(self._state, self._site, self._home) if governed else None

    def _take_update(self) -> None:
        with self._unless_busy() as free:
            if not free or not self._update:
                return
            (self._entry, self._site, self._home), self._update = self._update, None
            servicelog.attach_site_log(self._site)
            self._make_layers()
            if self._generation:
                self._put(self._answering)
                self._feed(SiteEvent.NEW_CODE if self._is_governed() else SiteEvent.CHANGED)
            else:
                self._failure = None
                self._feed(SiteEvent.CHANGED)

    def _take_event(self, event: SiteEvent) -> None:
        """Do what `event` requires, unless another thread is doing it or has done it."""
        with self._unless_busy() as free:
            if free and event in TABLE[self._state]:
                self._feed(event)

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
        if self._is_to_close and self._state is not SiteState.CLOSED:
            self._feed(SiteEvent.CLOSE)
        self._lock.release()

    def _feed(self, event: SiteEvent, outcome: Any = None) -> None:
        """Do what the table requires; `outcome` is that of an import."""
        self._state, action = TABLE[self._state][event]
        match action:
            case SiteAction.AWAIT:
                self._put(self._first)
            case SiteAction.IMPORT:
                self._import_because(event)
            case SiteAction.EXAMINE:
                assert self._auto
                self._triggers.take_change()
                self._auto.tell(self._home, "examine")  # this version stays here until the supervisor has decided
            case SiteAction.SERVE:
                self._serve(outcome)
            case SiteAction.KEEP:
                self._fail(outcome, "its reload failed, so the old application keeps serving")
            case SiteAction.SHOW:
                self._show(outcome)
            case SiteAction.RELAY:
                self._relay(outcome)
            case SiteAction.LEAVE:
                self._leave()
            case SiteAction.DROP:
                self._drop()
                self._put(pages.for_error(UnknownHost("No site answers here any more")))
                servicelog.detach_site_log(self.name)

    def _first(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        patience = patience_of(self._site, environ)
        if not self._lock.acquire(timeout=patience):
            is_long = patience >= self._site.start_timeout
            late = SiteBusy("The site is still starting") if is_long else StillStarting()
            return pages.for_error(late)(environ, start_response)
        try:
            if self._state is SiteState.UNUSED and not self._is_to_close:
                self._calls = server.calls(environ)
                is_decided = self._auto and self._is_governed() and self._auto.may_be_had(self._site, self._clock())
                self._feed((self._decision() if is_decided else None) or SiteEvent.WANTED)
            app = self._answering  # even if the site was taken out of service meanwhile
            if self._generation:
                environ.pop(requests.KEY, None)
                environ.pop(requests.TIMED, None)
                app = self._generation.workdir.calling(app) if self._generation.workdir else app
        finally:
            self._release()
        return app(environ, start_response)

    # Importing

    def _import_because(self, event: SiteEvent) -> None:
        """Import the site, beside the old application if there is one; the outcome is the next event."""
        self._triggers.begin(self._files())  # before the import, so that no later change is missed
        self._attempt = Attempt(event, bool(self._generation))
        decided = self._auto if event is SiteEvent.MOVE_IN else None
        token = servicelog.current_site.set(self.name)
        if event in WHY_AGAIN:
            _log.info("site %s: reloading, because %s", self.name, WHY_AGAIN[event])
        try:
            if decided:
                decided.check_paths()
            newest = self._import()
        except MultisiteError as error:
            if decided:
                decided.refuse(self._home, error)
                self._feed(SiteEvent.STAY_OUT)
            else:
                self._feed(self._ended_by(error), error)
        else:
            if decided:
                decided.moved_in()
            self._feed(SiteEvent.IMPORTED, newest)
        finally:
            servicelog.current_site.reset(token)

    def _ended_by(self, error: MultisiteError) -> SiteEvent:
        """Return how an import has ended; a developer sees what is wrong with the new version rather than the old
        one."""
        if isinstance(error, NeedsProcess):
            return SiteEvent.UNFIT if self._elsewhere else SiteEvent.BROKEN
        return SiteEvent.NOT_RENEWED if self._generation and not self._development.debug else SiteEvent.BROKEN

    def _import(self) -> Generation:
        """Make a new generation, or leave everything as it was and raise a MultisiteError."""
        if self._entry.broken:
            raise BrokenSite(next(str(problem) for problem in self._entry.problems if problem.is_error))
        if self._site.files_only:
            return Generation(_NO_FILE, {}, "", frozenset())
        place = sharing.place(self._site, self._home, self._calls)
        if not place.shareable:
            raise NeedsProcess(place.reason)
        return generation.make(self._site, self._ledger, self._generation, self._new_workdir())

    def _new_workdir(self) -> WorkDir | None:
        """Return the directory in which the site is called; None if the threads here share one."""
        why = workdir.obstacle()
        if not why:
            relativepaths.clear(self._site, self._home)
            return WorkDir(self._site.location, self._site.umask)
        if self._site.umask is not None:
            raise NeedsProcess(f"it sets umask, and {why}")
        relativepaths.watch(self._site, self._home, why)
        return None

    # Answering

    def _serve(self, newest: Generation) -> None:
        did = incidents.DEPLOYED if self._generation else incidents.RESTARTED
        self._generation, self._left, self._failure = newest, None, None
        own, pin, app = servicelog.own_log(self.name), self._development.pin(self.name), newest.app
        if pin:
            from multisite.runner.debugger import debugged

            app = debugged(app, pin)
        patience = Patience(self._site.upload_rate, Share(server.of_this_server))
        self._put(Completed(app, Errors(own) if own else None, patience))
        if self._attempt and not self._site.files_only:
            self._attempt.write_down(self.name)
        incidents.did(self.name, incidents.RECOVERED if self._failures.clear(self.name) else did)

    def _relay(self, error: NeedsProcess | None) -> None:
        """Serve the site from elsewhere: it cannot run here, or the supervisor has decided so."""
        if self._generation:
            self._drop()
        if error is None:
            self._failures.clear(self.name)
        elif not self._site.host:
            _log.info("site %s: runs outside the workers: %s", self.name, error.why)
            # This holds until its file or moya.conf changes (`update`).
            basis, watched = placement.basis(self._home), (self._entry.path,)
            self._failures.note(
                self.name, error.reason, "", serving=False, own_process=True, watched=watched, basis=basis
            )
        self._put_elsewhere()

    def _leave(self) -> None:
        self._left, self._generation = self._generation, None
        self._drop_at = self._clock() + max(LINGERS, self._site.request_timeout)
        self._put_elsewhere()
        _log.info("site %s: has left the workers", self.name)

    def _put_elsewhere(self) -> None:
        assert self._elsewhere
        self._failure = None
        self._put(self._elsewhere(self._site, self._home))

    def _drop(self) -> None:
        generation.drop(self._site, self._ledger, self._generation or self._left)
        self._generation = self._left = None

    # Failing

    def _show(self, error: MultisiteError) -> None:
        """Show why the site does not answer."""
        message = "its reload failed" if self._generation else "the site cannot be served"
        if isinstance(error, NeedsProcess):
            message = "it cannot share the workers' process"
        if self._generation:
            self._drop()
        failure = self._fail(error, message)
        is_traced = self._development.debug and not isinstance(error, NeedsProcess)
        detail = tracebacks.traced(error) if is_traced else ""
        self._put(pages.for_error(error, incident=failure.incident, detail=detail))

    def _fail(self, error: MultisiteError, message: str) -> FailedImport:
        last, incident = self._failure, incidents.new()
        count = last.count if last else 0
        # An error in its file is not over before there is another file (`update`).
        retry_at = math.inf if self._entry.broken else self._clock() + min(2.0**count, LONGEST_PAUSE)
        is_told = last is not None and last.reason == error.reason
        if not isinstance(error, NeedsProcess):
            count += 1
            traced = error if error.__cause__ else None  # the site's own traceback, not ours
            incidents.log_failure(error.id, self.name, incident, f"{message}: {error.reason}", traced)
        elif last and is_told:
            incident = last.incident  # checked again every second, logged once
        else:
            incidents.log_failure(error.id, self.name, incident, f"{message}: {error.why}", level=logging.WARNING)
        watched = tracebacks.mending(error, self._site.location, self._site.application)
        if not is_told:
            files, serving, own = (self._entry.path, *watched), bool(self._generation), isinstance(error, NeedsProcess)
            self._failures.note(self.name, error.reason, incident, serving=serving, own_process=own, watched=files)
            if self._attempt:
                self._attempt.write_down(self.name, error.reason, incident)
        self._failure = FailedImport(error.reason, incident, retry_at, count, watched)
        return self._failure

    # Triggers

    def _fired(self, now: float) -> bool:
        """Tell whether a reload is requested, by a trigger that has settled."""
        is_due = self._triggers.is_due(self._files(), now)
        if not self.is_expecting:
            return sharing.is_always_restarted(self._site)
        if self._development.reload:
            return True  # an editor saves in one step, and the person who saved wants to see the change
        return is_due and not changes.is_being_written(self._site.location)

    @property
    def is_expecting(self) -> bool:
        """Whether a change has been seen that will be taken as soon as nothing more changes."""
        return self._triggers.due is not None

    def _files(self) -> Files:
        code: Files = {"code": (hash(changes.times(self._site)),)} if self._development.reload else {}
        return {**files(self._site, self._home), **code}
