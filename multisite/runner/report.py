"""Errors of the site's code, for the site's log.

The log is whatever descriptor 2 is: ``sys.stderr`` is the site's to replace and to close.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

STDERR = 2
FOLDER = os.path.dirname(os.path.abspath(__file__))


def say(text: str) -> None:
    """Write a line to the log; where there is none, nobody is told."""
    data = (text + "\n").encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass


def report(error: BaseException, what: str) -> str:
    """Print the traceback as the site's author knows it, without our frames; return its last line."""
    import traceback

    lines = traceback.format_exception(type(error), error, _without_ours(error.__traceback__))
    say(f"{what}\n{''.join(lines)}".rstrip("\n"))
    return lines[-1].strip().rpartition("\n")[2]


def _without_ours(frames: TracebackType | None) -> TracebackType | None:
    """The frames from the first that is neither ours nor of the import system; all of them if there is none."""
    first = frames
    while first is not None and _is_ours(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    return first


def _is_ours(path: str) -> bool:
    return os.path.dirname(path) == FOLDER or path.startswith("<frozen importlib") or "/importlib/" in path
