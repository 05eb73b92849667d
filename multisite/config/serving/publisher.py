"""A publisher file: which server publishes the sites, where, and with how many processes.

It has the form of Nagare's publisher files, whose names are accepted, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from multisite.config import checks
from multisite.config.checks import Fault
from multisite.config.ini import Chain
from multisite.config.options import KNOWN, PUBLISHER_FILE
from multisite.config.sections import PublisherOptions
from multisite.errors import Problem

SECTION = "publisher"
APPLICATION = "multisite.service:application"
#: key in Nagare's spelling, without capitals and underscores → ours
ALIASES = {"minspare": "min_children", "maxrequest": "max_requests"}


def spelled(key: str, known: Mapping[str, object]) -> str:
    """Return our spelling of a key of a publisher file: Nagare has maxChildren, and its manual maxRequest."""
    plain = key.replace("_", "").lower()
    return ALIASES.get(plain) or next((name for name in known if name.replace("_", "") == plain), key)


def unheeded(options: PublisherOptions, written: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return (key, why) for each key that has no meaning for the server."""
    means_nothing = {
        "granian": ("umask", "min_children", "max_spare", "max_requests", "socket"),
        "waitress": ("umask", "processes", "min_children", "max_spare", "max_children", "max_requests"),
        "uwsgi": ("umask", "max_spare"),
        "fastcgi": ("processes", "threads"),
    }.get(options.type, ("umask", "min_children", "max_spare"))
    only_gunicorn = () if options.type in ("gunicorn", "standalone") else ("debug", "tls")
    return [(key, f"{options.type} has nothing like it") for key in (*means_nothing, *only_gunicorn) if key in written]


def command(options: PublisherOptions, program: str, processes: int, prefix: str) -> list[str]:
    """Return the command line of a server that is a separate program.

    Args:
        program: its path.
        processes: how many.
        prefix: the virtualenv that multisite is installed in.
    """
    return [program, *_ARGUMENTS[options.type](options, processes, prefix)]


def _granian(options: PublisherOptions, processes: int, _prefix: str) -> list[str]:
    argv = ["--interface", "wsgi", "--host", options.host, "--port", str(options.bound_port)]
    return [*argv, "--workers", str(processes), "--blocking-threads", str(options.threads), APPLICATION]


def _waitress(options: PublisherOptions, _processes: int, _prefix: str) -> list[str]:
    where = f"--unix-socket={options.socket}" if options.socket else f"--listen={options.address}"
    return [where, f"--threads={options.threads}", APPLICATION]


def _uwsgi(options: PublisherOptions, processes: int, prefix: str) -> list[str]:
    """As docs/deploy/uwsgi.md explains it."""
    most = options.max_children or processes
    argv = ["--strict", "--master", "--die-on-term", "--need-app", "--vacuum", "--single-interpreter"]
    argv += ["--uwsgi-socket", options.address, "--virtualenv", prefix, "--module", APPLICATION]
    argv += ["--enable-threads", "--threads", str(options.threads), "--processes", str(most)]
    argv += ["--cheaper", str(options.min_children)] if options.max_children and options.min_children < most else []
    argv += ["--max-requests", str(options.max_requests)] if options.max_requests else []
    return argv


_ARGUMENTS = {"granian": _granian, "waitress": _waitress, "uwsgi": _uwsgi}
PROGRAMS = {"granian": "granian", "waitress": "waitress-serve", "uwsgi": "uwsgi"}


def read_publisher(path: str) -> tuple[PublisherOptions, dict[str, Any], tuple[Problem, ...]]:
    """Return the options of the file, the keys that it sets, and its problems; no content of the file raises."""
    chain = Chain(path, os.environ)
    chain.read()
    known = KNOWN[PUBLISHER_FILE][SECTION]
    texts = chain.texts.get(SECTION)
    if texts:
        for _, lines in chain.origins:
            for section, key in list(lines):
                lines[section, spelled(key, known)] = lines[section, key]
        chain.texts[SECTION] = {spelled(key, known): text for key, text in texts.items()}
    faults: list[Fault] = []
    written = checks.check(chain.texts, PUBLISHER_FILE, faults).get(SECTION, {})
    for key in {"socket", "tls"} & written.keys():  # relative to the file
        written[key] = os.path.join(os.path.dirname(path), os.path.expanduser(written[key]))
    options = PublisherOptions(**{key: value for key, value in written.items() if value not in ("", ())})
    faults += [Fault("MS133", SECTION, key, why, "leave it out", "warning") for key, why in unheeded(options, written)]
    return options, written, chain.report(faults)
