"""A publisher file: which server publishes the sites, where, and with how many processes.

The form is that of Nagare's publisher files, whose names are taken, too. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from multisite.config.option import option

TYPES = ("gunicorn", "standalone", "granian", "waitress", "uwsgi", "fastcgi")
PORTS = {"fastcgi": 9000, "uwsgi": 3031}
DEFAULT_PORT = 8000
APPLICATION = "multisite.service:application"
#: key in Nagare's spelling, without capitals and underscores → ours
ALIASES = {"minspare": "min_children", "maxrequest": "max_requests"}


@dataclass(frozen=True, slots=True)
class PublisherOptions:
    """The section [publisher]."""

    type: str = option(
        "choice",
        "gunicorn",
        "The server: gunicorn (also called standalone), granian and waitress speak HTTP, uwsgi speaks uWSGI's protocol "
        "and fastcgi speaks FastCGI with a web server in front.",
        choices=TYPES,
    )
    host: str = option("text", "127.0.0.1", "Address to listen at.")
    port: int | None = option(
        "integer",
        help="Port to listen at.",
        note="8000, for uwsgi 3031, for fastcgi 9000",
        example="8080",
        limits=(1, 65535),
    )
    socket: str = option(
        "path",
        help="Path of a unix socket to listen at, in place of host and port.",
        example="/run/multisite/publisher.sock",
    )
    umask: int | None = option(
        "octal", help="Umask with which fastcgi makes its socket, in octal.", note="inherited", example="0007"
    )
    processes: int | None = option(
        "integer",
        help="Processes of gunicorn, granian and uwsgi.",
        note="one for each processor, 4 at most",
        example="2",
        limits=(1, 1024),
    )
    threads: int = option("integer", "8", "Threads of each process; fastcgi has one.", limits=(1, 4096))
    min_children: int = option(
        "integer", "1", "Idle processes that fastcgi keeps at least; uwsgi keeps as many processes.", limits=(1, 1024)
    )
    max_spare: int = option("integer", "5", "Idle processes that fastcgi keeps at most.", limits=(1, 1024))
    max_children: int | None = option(
        "integer",
        help="Processes of fastcgi at most. With it, uwsgi has between min_children and so many, as it needs them.",
        note="50",
        example="20",
        limits=(1, 1024),
    )
    max_requests: int = option(
        "integer",
        "0",
        "Requests after which a process is replaced; 0: never. granian and waitress know none.",
        limits=(0, 10**9),
    )
    debug: bool = option("boolean", "no", "As serve --debug; for gunicorn, on loopback addresses only.")
    tls: str = option("path", help="Folder of certificates, as serve --tls has it; for gunicorn.", example="/etc/tls")

    @property
    def bound_port(self) -> int:
        """The port to listen at."""
        return self.port or PORTS.get(self.type, DEFAULT_PORT)

    @property
    def address(self) -> str:
        """``HOST:PORT`` or the path of a socket."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.socket or f"{host}:{self.bound_port}"


def spelled(key: str, known: Mapping[str, object]) -> str:
    """Return our spelling of a key of a publisher file: Nagare writes maxChildren, and its manual maxRequest."""
    plain = re.sub("_", "", key).lower()
    return ALIASES.get(plain) or next((name for name in known if name.replace("_", "") == plain), key)


def unheeded(options: PublisherOptions, written: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return (key, why) for what is written and means nothing to the server."""
    means_nothing = {
        "granian": ("umask", "min_children", "max_spare", "max_requests", "socket"),
        "waitress": ("umask", "processes", "min_children", "max_spare", "max_children", "max_requests"),
        "uwsgi": ("umask", "max_spare"),
        "fastcgi": ("processes", "threads"),
    }.get(options.type, ("umask", "min_children", "max_spare"))
    only_gunicorn = () if options.type in ("gunicorn", "standalone") else ("debug", "tls")
    return [(key, f"{options.type} has nothing like it") for key in (*means_nothing, *only_gunicorn) if key in written]


def command(options: PublisherOptions, program: str, processes: int, prefix: str) -> list[str]:
    """Return the command line of a server that is a program of its own.

    Args:
        program: its path.
        processes: how many.
        prefix: the virtualenv that multisite is installed in.
    """
    return [program, *_ARGUMENTS[options.type](options, processes, prefix)]


def _granian(options: PublisherOptions, processes: int, _prefix: str) -> list[str]:
    where = ["--host", options.host, "--port", str(options.bound_port)]
    return [
        "--interface",
        "wsgi",
        *where,
        "--workers",
        str(processes),
        "--blocking-threads",
        str(options.threads),
        APPLICATION,
    ]


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
