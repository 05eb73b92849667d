"""Sites that fork, and whose child returns from the site's code.

Such a child would answer the same request again on the same connection, count it, and then accept others, without the
supervisor's knowledge. Children that end by themselves, like those of `multiprocessing` and `subprocess`, never get
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
    """Make `leave_if_child` recognise a child of this process; `in_child` is called in each child at once.

    Our signal handlers are not for a child: they would keep it from ending, and report to the supervisor that we end;
    the wake-up descriptor would wake us. A signal that arrives before they are removed waits, since Python would
    otherwise lose it.
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
    """End this process, and no other, if the site has forked it."""
    if is_child:
        os._exit(0)
