"""The supervisor's own program: how to run it again, with the package as it is on disk now."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping

_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def command(home: str, **words: str) -> list[str]:
    """Return the command line; `words` are further options of ``python -m multisite.supervisor``.

    Run it in "/": Python looks for modules in the working directory.
    """
    options = [part for name, value in words.items() for part in (f"--{name.replace('_', '-')}", value)]
    return [own_interpreter(), "-m", "multisite.supervisor", "--home", home, *options]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ`, changed so that Python finds the package, and what it needs, where we found it."""
    path = os.pathsep.join(dict.fromkeys([_PACKAGE_PARENT, *filter(os.path.isabs, sys.path)]))
    return {**environ, "PYTHONPATH": path}


# A gunicorn that sees GUNICORN_PID believes that it was re-executed; the others belong to our own service manager.
SERVERS_OWN = ("GUNICORN_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "WEB_CONCURRENCY", "SERVER_SOFTWARE", "UWSGI_")


def scrub(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without the variables that a WSGI server or service manager set for itself."""
    return {name: value for name, value in environ.items() if not name.startswith(SERVERS_OWN)}


def own_interpreter() -> str:
    """Return the path of the Python that runs us: `sys.executable` is not that inside Apache or uWSGI."""
    names = (f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python")
    paths = [sys.executable or "", *(os.path.join(sys.prefix, "bin", name) for name in names)]
    paths += [os.path.join(sys.base_prefix, "bin", name) for name in names]
    for path in paths:
        if os.path.basename(path).startswith(("python", "pypy")) and os.access(path, os.X_OK):
            return path
    return shutil.which("python3") or "python3"
