"""Sites that fork, and whose child comes back out of the site's code.

Such a child would answer the same request once more on the same connection, count it, and go on to accept others, with
nobody who knows of it. Children that end by themselves, as those of `multiprocessing` and `subprocess`, never get
here.
"""

from __future__ import annotations

import os
import signal
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
is_child = False


def watch(in_child: Callable[[], None] | None = None) -> None:
    """From now on `leave_if_child` knows a child of this process; `in_child` is called in each, at once.

    Signals to a child are no concern of ours: our handlers would keep it from ending, and tell the supervisor that
    we end; the wake-up descriptor would wake us. One that arrives before the handlers are gone waits for that, since
    Python forgets it otherwise.
    """
    masks: dict[int, set[signal.Signals]] = {}  # by thread: the mask from before its fork

    def before() -> None:
        masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # type: ignore[assignment]

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop(get_ident()))

    def note() -> None:
        global is_child
        is_child = True
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        in_parent()
        if in_child:
            in_child()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=note)


def leave_if_child() -> None:
    """End this process, and nothing else, if the site has forked it."""
    if is_child:
        os._exit(0)
