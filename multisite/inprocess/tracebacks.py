"""Why an app was not loaded, in one sentence with the place in the site's own files."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from multisite.runner.missing import NoSuchApp, no_module

if TYPE_CHECKING:
    from multisite.config.application import AppSpec
    from multisite.config.model import Site

_OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_EXITS_OF_THE_SERVER = "gunicorn.workers."
_GREENLET = ("greenlet", "gevent")


def is_for_the_worker(error: BaseException) -> bool:
    """Tell whether this ends the worker rather than the import: Ctrl-C, a killed greenlet, or the server's own exit.

    gunicorn's signal handlers call ``sys.exit`` in whatever frame they interrupt.
    """
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        return True
    if isinstance(error, SystemExit):
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        return bool(frames) and str(frames[-1].f_globals.get("__name__", "")).startswith(_EXITS_OF_THE_SERVER)
    return not isinstance(error, Exception) and type(error).__module__.partition(".")[0] in _GREENLET


def explain(error: BaseException, site: Site, spec: AppSpec) -> NoSuchApp:
    """Return the reason and remedy of an exception from a site's code.

    Args:
        error: with its traceback.
        site: frames in its location are its own.
        spec: the application that was requested.
    """
    location = site.location
    place = _place(error, location)
    if isinstance(error, SystemExit):
        return NoSuchApp(f"the site called sys.exit({error.code!r}){place}", "an import must not end the process")
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}, line {error.lineno})" if error.filename else place
        return NoSuchApp(f"{type(error).__name__}: {error.msg}{place}")
    if isinstance(error, ModuleNotFoundError) and error.name:
        searched = os.path.join(sys.prefix, "bin", "python3")  # inside Apache `sys.executable` is another program
        return no_module(site.name, error.name, spec, location, searched, place)
    return NoSuchApp(f"{_summary(error)}{place}")


def mending(error: BaseException, location: str, application: str) -> tuple[str, ...]:
    """Return the files of a site whose change may mend what failed: those of the traceback, and the folder."""
    if not location:
        return ()
    paths = {location, os.path.join(location, application.partition(":")[0])}
    cause: BaseException | None = error
    while cause:
        paths |= {frame.filename for frame in traceback.extract_tb(cause.__traceback__)}
        paths |= {cause.filename} if isinstance(cause, SyntaxError) and cause.filename else set()
        cause = cause.__cause__ or cause.__context__
    return tuple(sorted(path for path in paths if path.startswith(location)))


def traced(error: BaseException) -> str:
    """Return the traceback of a failed import as the site's author knows it, without our frames and the importer's."""
    cause = error.__cause__
    if cause is None:
        return "".join(traceback.format_exception(error))
    first = cause.__traceback__
    while first is not None and _is_ours(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    told = "".join(traceback.format_exception(type(cause), cause, first or cause.__traceback__))
    return f"{told}\n{error}\n"


def _is_ours(path: str) -> bool:
    return path.startswith((_OURS, "<frozen importlib")) or "/importlib/" in path


def _summary(error: BaseException) -> str:
    """``ZeroDivisionError: division by zero``, on one line even if ``str()`` itself fails."""
    return " ".join("".join(traceback.format_exception_only(type(error), error)).split())[:500]


def _place(error: BaseException, location: str) -> str:
    """`` (/srv/blog/app.py, line 3)``: the innermost frame in the site's files, else the innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = os.path.join(os.path.realpath(location), "") if location else os.sep
    own = [frame for frame in frames if os.path.realpath(frame.filename).startswith(inside)]
    return f" ({(own or frames)[-1].filename}, line {(own or frames)[-1].lineno})" if frames else ""
