"""Sites that fork, and whose child comes back out of the site's code.

Such a child would answer the same request once more on the same connection, count it, and go on to accept others, with
nobody who knows of it. Children that end by themselves, as those of `multiprocessing` and `subprocess`, never get
here.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

is_child = False


def watch(in_child: Callable[[], None] | None = None) -> None:
    """From now on `leave_if_child` knows a child of this process; `in_child` is called in each, at once.

    Signals to a child are no concern of ours: our handlers would keep it from ending, and tell the supervisor that
    we end; the wake-up descriptor would wake us.
    """

    def note() -> None:
        global is_child
        is_child = True
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        if in_child:
            in_child()

    os.register_at_fork(after_in_child=note)


def leave_if_child() -> None:
    """End this process, and nothing else, if the site has forked it."""
    if is_child:
        os._exit(0)
