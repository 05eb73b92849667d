"""The sockets at which the supervisor is asked: one for its own user, and one for the workers of socket_group."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from multisite.control.rundir import RuntimeDir
from multisite.supervisor.control import Answer, Caller, Control, Handler
from multisite.supervisor.loop import Loop
from multisite.supervisor.reexec import Keeper

FOR_WORKERS = ("ping", "meet", "ensure")  # what another user's workers may ask for

_log = logging.getLogger("multisite.supervisor")


class WorkersControl(Control):
    """Open to whom the mode of its file lets in."""

    own = False


class Doors:
    """The control socket, which is always there, and that of the workers, which is there if they are let in."""

    def __init__(self, rundir: RuntimeDir, loop: Loop, handler: Handler, state: list[Any] | None = None) -> None:
        self._rundir, self._loop, self._handler = rundir, loop, handler
        control, workers = state or (None, None)
        self._workers: Control | None = None
        self._failure = ""
        with contextlib.suppress(OSError):
            if not workers:
                os.unlink(rundir.workers)  # of a supervisor that was killed
        if workers:
            self._workers = WorkersControl(rundir.workers, loop, self._answer_worker, workers)
        self.let_in()
        try:
            self._control = Control(rundir.control, loop, handler, control)
        except OSError as error:
            raise rundir.error(f"{rundir.control}: {(error.strerror or 'it fails').lower()}") from None

    @property
    def connections(self) -> list[Caller]:
        """All that are open."""
        return [*self._control.connections, *(self._workers.connections if self._workers else ())]

    def let_in(self) -> None:
        """Open or close the workers' socket as the runtime directory's access says now."""
        try:
            self._let_in()
        except OSError as error:
            if self._failure != str(error):
                _log.error("%s: %s", self._rundir.workers, error.strerror)
            self._failure = str(error)

    def _let_in(self) -> None:
        access = self._rundir.access
        if access.group is None:
            if self._workers:
                self._workers.close()
                self._workers = None
            return
        if not self._workers:
            self._workers = WorkersControl(self._rundir.workers, self._loop, self._answer_worker)
        access.admit_to_socket(self._rundir.workers)

    def _answer_worker(self, request: Answer, connection: Caller) -> Answer | None:
        if request.get("do") not in FOR_WORKERS and connection.uid not in (os.geteuid(), 0):
            return {"error": "only the supervisor's own user and root may ask for that", "status": 403}
        return self._handler(request, connection)

    def pack(self, keep: Keeper) -> list[Any]:
        """Return what successors are made of."""
        return [self._control.pack(keep), self._workers.pack(keep) if self._workers else None]

    def close(self) -> None:
        """Take no more connections."""
        self._control.close()
        if self._workers:
            self._workers.close()
