"""What is told about a site while it serves: which modules it needs, and what it changes in its process."""

from __future__ import annotations

from .learn import Learner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .examine import Examination
    from .job import Job
    from .notify import Notifier


class Follower:
    """Is called by the backend: before the first request, after some of them, and after the last.

    Args:
        examination: begun before the import of the site; None where it is not examined.
    """

    def __init__(self, orders: Job, notifier: Notifier, examination: Examination | None) -> None:
        self._learner = Learner(notifier, orders.gunicorn) if orders.learn else None
        self._examination = examination
        self._notifier = notifier
        self._threads = bool(orders.request_timeout) + (orders.threads if orders.threads > 1 else 0)

    def begin(self) -> None:
        """Everything that is ours is set up, but for the threads that answer."""
        self._guarded(lambda examination: examination.serves(self._threads))

    def ready(self) -> None:
        """The first request may come."""
        self._guarded(lambda examination: examination.tell(self._notifier))

    def after(self) -> int:
        """A request has been answered; returns after how many more to call this again, 0 for never."""
        if self._learner:
            self._learner.tell()
        return self._guarded(lambda examination: examination.tell(self._notifier)) or 0

    def _guarded(self, step: Callable[[Examination], int | None]) -> int | None:
        """Take a step of the examination; a site may have broken what that takes."""
        if not self._examination:
            return 0
        try:
            return step(self._examination)
        except Exception as error:
            found = f"made its process unreadable ({type(error).__name__})"
            self._notifier.facts({"findings": [found], "seconds": 0, "memory": 0, "requests": 0})
            self._examination = None
            return 0

    def end(self) -> None:
        """The last request has been answered."""
        if self._learner:
            self._learner.tell()


def follower(orders: Job, notifier: Notifier, examination: Examination | None) -> Follower | None:
    """Return who follows the site, None where nobody wants to know."""
    return Follower(orders, notifier, examination) if orders.learn or examination else None
