"""A process as it is to be: who runs it, and all that is needed to start it."""

from __future__ import annotations

from dataclasses import dataclass, field

LISTENER = 3  # the first descriptor after standard error, as sd_listen_fds(3) has it
JOB = 4


@dataclass(frozen=True)
class Identity:
    """Who a process runs as; `change` is False where the supervisor's own user is meant."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str = ""
    home: str = "/"
    change: bool = False


@dataclass(frozen=True)
class Pair:
    """An interpreter and who runs it: what sites must have in common to be forked from one process."""

    python: str
    identity: Identity

    def __str__(self) -> str:
        groups = "+".join(map(str, (self.identity.gid, *self.identity.groups)))
        return f"{self.python} {self.identity.name or self.identity.uid} {self.identity.uid}:{groups}"


@dataclass(frozen=True)
class Launch:
    """All that is needed to start one process.

    Attributes:
        argv: its first item is an absolute path or is looked up in PATH of `env`.
        socket_as_stdin: the listening socket becomes descriptor 0 (uWSGI's way) rather than 3 (systemd's).
        job: what a runner of ours is told on descriptor 4, JSON.
        told: it says READY=1 itself; otherwise its first accepted connection counts.
        graceful: SIGTERM lets requests in flight end.
        tried: it is another program first, which says TRIED=1 when it becomes the server.
        shared_env: the part of `env` that all sites of its pair have.
        location: whose modules are imported first.
        gunicorn: the folder of our own.
        preload: "" if a preloader may make it, else why not.
        examine: the version of the site's code that is to be examined, "" for none.
        once: it leaves after each request, and the next one starts another.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    identity: Identity
    chroot: str = ""
    umask: int = 0o022
    nice: int = 0
    nofile: int | None = None
    socket_as_stdin: bool = False
    job: bytes = b""
    told: bool = False
    graceful: bool = False
    tried: bool = False
    shared_env: dict[str, str] = field(default_factory=dict)
    location: str = ""
    gunicorn: str = ""
    preload: str = ""
    examine: str = ""
    once: bool = False
    notes: tuple[str, ...] = ()

    @property
    def pair(self) -> Pair:
        """Whose preloader may make it."""
        return Pair(self.argv[0], self.identity)
