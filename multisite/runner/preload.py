"""The preloader: it imports what the sites of one interpreter and user have in common, and forks their backends.

Started like a backend, with a control socket in place of the listening socket. Each message there is one JSON object:
``ready``, or ``spoilt`` if the import of a module has left something behind that other sites must not get. It ends
when the supervisor closes the socket, and when the files that it has imported have changed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
import time

from . import follow, forked, gunicorn_setup, purity
from .forked import BOARD, JOB, LISTENER, NOTIFY, ForkRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

VARIABLE = "MULTISITE_PRELOAD"
ROOM = "MULTISITE_ROOM"  # makes the memory of the environment large enough for that of a site
CONTROL = 3
NAME = b"multisite-preld"
DESCRIPTORS = 7
LOOK_EVERY = 1.0  # seconds
CHANGED = "what is installed there has changed"
# They patch the standard library, share one state of random numbers, or have threads that we cannot see.
NEVER = frozenset({"gevent", "eventlet", "numpy", "grpc", "torch", "tensorflow", "ddtrace", "newrelic", "coverage"})


def preload() -> None:
    """Import, and wait for requests; returns in each backend, and there alone."""
    before = set(sys.modules)
    with open(int(os.environ.pop(VARIABLE)), "rb") as file:
        orders: dict[str, Any] = json.loads(file.read())
    for name in ("LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", ROOM):
        os.environ.pop(name, None)
    preloader = ForkServer(socket.socket(fileno=CONTROL), orders, before)
    preloader.load(orders["modules"])
    preloader.serve()


class ForkServer:
    """Imports once and forks often."""

    def __init__(self, control: socket.socket, orders: dict[str, Any], before: set[str]) -> None:
        os.set_inheritable(control.fileno(), False)
        self._control = control
        self._supervisor = os.getppid()
        self._name = forked.get_name()
        self._before = before
        self._denied = NEVER | set(orders["denied"])
        self._failed: list[str] = []
        self._files: dict[str, tuple[int, int]] = {}
        self._looked_at = 0.0
        forked.set_name(NAME)
        is_own = gunicorn_setup.inject(orders["gunicorn"], gunicorn_setup.FOR_ASGI)
        if gunicorn_setup.inject(orders["gunicorn"], gunicorn_setup.FOR_WSGI) != is_own:
            self._denied |= {gunicorn_setup.NAME}  # one for some sites, and another for others

    def load(self, modules: Iterable[str]) -> None:
        """Import `modules`, and report the result; a module that spoils the process ends it."""
        found = purity.strangers(sys.path) if os.geteuid() == 0 else ""
        if found:  # root imports nothing that another user could have written
            self._leave({"refused": f"others than root may write {found}"})
        from . import wsgi  # noqa: F401  what most backends need of the runner itself

        gc.disable()  # what it clears away would leave holes, and each child its copies of the pages around them
        reads = purity.watched(os.environ)
        facts = purity.facts()
        for name in modules:
            if name in sys.modules or any(f"{name}.".startswith(f"{denied}.") for denied in self._denied):
                continue
            self._try(name)
            banned = next((f"imports {never}" for never in NEVER if never in sys.modules), "")
            what = banned or purity.broken(facts, purity.facts())
            spoilt = {name: what} if what else reads.tainted()
            if spoilt:
                self._leave({"spoilt": spoilt})
        purity.unwatched(os.environ)
        from . import examine  # last, since it needs more than a preloader does

        examine.prepare()
        self._note_files()
        follow.known.update(sys.modules)
        gc.freeze()
        new = len(sys.modules) - len(self._before)
        asked = sorted(reads.names | purity.said_at_startup())
        self._tell({"ready": {"modules": new, "reads": asked, "failed": self._failed}})

    def _try(self, name: str) -> None:
        """Import one module; those that need a configured framework are left to their sites."""
        try:
            importlib.import_module(name)
        except Exception:
            self._failed.append(name)
        except BaseException:
            self._leave({"spoilt": {name: "ends the process"}})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(message).encode()[:60000])
        except OSError:
            os._exit(0)

    def _leave(self, message: dict[str, Any]) -> None:
        self._tell(message)
        os._exit(0)

    # Forking

    def serve(self) -> None:
        """Fork for each request; returns in the new process."""
        while True:
            request = self._receive()
            why = self._why_not(request)
            if why:
                request.channel.send(b"no " + why.encode("utf-8", "replace"))
            elif forked.fork(request, self._supervisor, self._name):
                gc.enable()
                self._control.detach()  # its descriptor is the site's listening socket now
                return
            request.close()
            if why == CHANGED:
                os._exit(0)

    def _receive(self) -> ForkRequest:
        """Return the next request; the process ends when there are no more."""
        data, descriptors, _, _ = socket.recv_fds(self._control, 64, DESCRIPTORS)
        if not data or len(descriptors) != DESCRIPTORS:
            os._exit(0)
        orders, listener, job, output, channel, notify, board = descriptors
        places = {1: output, 2: output, LISTENER: listener, JOB: job, NOTIFY: notify, BOARD: board}
        with open(orders, "rb") as file:
            file.seek(0)
            return ForkRequest(json.loads(file.read()), places, socket.socket(fileno=channel))

    def _why_not(self, request: ForkRequest) -> str:
        """Return why a fork would differ from a plain start, "" if it would not."""
        if self._has_changed():
            return CHANGED
        try:
            names = os.listdir(request.location)
        except OSError:
            return ""
        found = {name.partition(".")[0] for name in names if not name.endswith(".py") or name.count(".") == 1}
        shadowed = min(found & self._tops, default="")
        return f"its location has its own {shadowed!r}" if shadowed else ""

    def _note_files(self) -> None:
        """Remember what has been imported, to notice changes."""
        new = {name: module for name, module in sys.modules.items() if name not in self._before}
        ours = __package__ or ""
        self._tops = {name.partition(".")[0] for name in new if name.partition(".")[0] not in (*self._before, ours)}
        paths = {getattr(module, "__file__", None) for module in new.values()}
        config = os.path.join(sys.prefix, "pyvenv.cfg")
        for path in filter(None, [*paths, *sys.path, config]):
            self._files[path] = _stamp(path)

    def _has_changed(self) -> bool:
        """Tell whether any file has changed; this is looked up once a second at most."""
        now = time.monotonic()
        if now < self._looked_at + LOOK_EVERY:
            return False
        self._looked_at = now
        return any(_stamp(path) != stamp for path, stamp in self._files.items())


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)
