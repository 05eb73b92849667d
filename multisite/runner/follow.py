"""What is reported about a site while it serves: which modules it needs, and what it changes in its process."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .examine import Examination
    from .job import Job
    from .report import Notifier

AGAIN_AFTER = (1, 8, 64, 256)  # requests; most of what a view changes it changes at once
LIBRARIES = ("site-packages", "dist-packages")
MOST = 4000  # names of modules
LONGEST = 60_000  # bytes of them that are reported
known: set[str] = set()  # what the supervisor knows already, because this process was forked with it


class Follower:
    """Is called by the backend: before the first request, after some of them, and after the last.

    Args:
        examination: begun before the import of the site; None where it is not examined.
    """

    def __init__(self, orders: Job, notifier: Notifier, examination: Examination | None) -> None:
        self._learner = Learner(notifier, orders.gunicorn) if orders.learn else None
        self._examination = examination
        self._notifier = notifier
        self._in_threads = orders.threads > 1
        self._threads = bool(orders.request_timeout) + (orders.threads if self._in_threads else 0)
        self._answered, self._due = 0, 1  # requests
        self._failure = ""

    def begin(self) -> None:
        """Begin: everything of ours is set up, except the threads that answer."""
        self._guarded(lambda examination: examination.serves(self._threads))

    def after(self, elsewhere: int = 0, failed: str = "") -> int:
        """Note that a request has been answered; return after how many more to call this again, 0 for never.

        Args:
            elsewhere: how many were answered in a thread other than the one that imported the site.
            failed: how that went wrong, "" if it did not.
        """
        self._answered += self._due
        self._guarded(lambda examination: examination.tried(self._answered if self._in_threads else elsewhere, failed))
        if self._learner:
            self._learner.tell()
        self.tell()
        self._notifier.flush()
        self._due = next((most - self._answered for most in AGAIN_AFTER if most > self._answered), 0)
        if self._examination and not self._due:
            self._examination.end()
        return self._due if self._examination else 0

    def tell(self) -> None:
        """Report what the examination has found so far; no visitor should wait for this."""
        self._guarded(lambda examination: examination.tell(self._notifier, self._answered))
        if self._failure:
            self._notifier.facts({"findings": [self._failure], "seconds": 0, "memory": 0, "requests": self._answered})
            self._failure = ""

    def _guarded(self, step: Callable[[Examination], None]) -> None:
        """Take a step of the examination; a failure ends it, since a site may have broken what it needs."""
        if self._examination:
            try:
                step(self._examination)
            except Exception as error:
                self._examination, self._failure = None, f"made its process unreadable ({type(error).__name__})"

    def end(self) -> None:
        """End: the last request has been answered."""
        if self._learner:
            self._learner.tell()


class Learner:
    """Reports to the supervisor which modules the site has needed, when it knows more than it has reported.

    Most of a site is loaded with its app; a framework may load some modules only with the first request.
    """

    def __init__(self, notifier: Notifier, gunicorn: str) -> None:
        self._notifier = notifier
        self._gunicorn = gunicorn
        self._told = 0

    def tell(self) -> None:
        """Report the names of all modules of the interpreter, in the order of their imports."""
        if len(sys.modules) > self._told:
            self._told = len(sys.modules)
            found = names(self._gunicorn)
            if found:
                self._notifier.modules(found)


def names(gunicorn: str = "") -> str:
    """The modules that were imported from the interpreter's own folders, separated by blanks, within bounds."""
    folders = tuple(folder + os.sep for folder in _folders(gunicorn))
    new = ((name, module) for name, module in list(sys.modules.items()) if name not in known)
    found = [name for name, module in new if _is_from(folders, name, module)]
    text = " ".join(found[:MOST])
    return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0]


def _folders(gunicorn: str) -> list[str]:
    """Where the standard library is, and what is installed."""
    standard = os.path.dirname(os.__file__)
    installed = [path for path in sys.path if os.path.basename(path) in LIBRARIES]
    return [path for path in (standard, os.path.join(standard, "lib-dynload"), *installed, gunicorn) if path]


def _is_from(folders: tuple[str, ...], name: str, module: object) -> bool:
    spec: Any = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if not isinstance(origin, str) or spec.name != name:
        return False
    return origin.startswith(folders) and name.isascii() and all(map(str.isidentifier, name.split(".")))
