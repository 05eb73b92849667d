"""A process before it exists: its user, all that is needed to start it, and whether it could be forked. Pure."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields

LISTENER = 3  # the first descriptor after standard error, as in sd_listen_fds(3)
JOB = 4
NOTIFY = 5  # where our runner reports
BOARD = 6  # where it counts
SLOTS = 64  # of one such file
FENCE_VARIABLE = "MULTISITE_FENCE"  # the number of the lease under which a process of an exclusive site runs
MARKER = "MULTISITE_BACKEND"  # the variable that identifies what a site leaves behind

# Read by the interpreter, the dynamic loader or the C library before any module could ask for them.
_AT_START = ("PYTHON", "LD_", "LC_", "MALLOC_", "OPENSSL_", "COVERAGE_", "COV_CORE_")
_AT_START_WHOLE = ("LANG", "LANGUAGE", "GLIBC_TUNABLES")


@dataclass(frozen=True)
class Identity:
    """The user of a process; `change` is False if it is the supervisor's own user."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str = ""
    home: str = "/"
    change: bool = False


@dataclass(frozen=True)
class Given:
    """The descriptors that a process of a site receives, besides its job and its output; -1: it has none."""

    listener: int
    notify: int = -1
    board: int = -1
    fence: int = -1


@dataclass(frozen=True)
class Surroundings:
    """What a launch needs to know about its supervisor.

    Attributes:
        notify: path of the socket at which a process reports, or a site that our runner runs.
        private: directory for the socket that a command binds itself.
        mark: value of `MARKER`.
        smoke: it must answer the smoke request first, if the site has one.
        trusts_front_end: whether a front end that connects to the site's own socket is a trusted proxy.
        examine: the version of the site's code to examine, "" for none.
        claims: keys of further fields that only a trusted front end may send.
        head_limits: how large the head of a request may be, by gunicorn's names; empty for the runner's own limits.
        fence: number of the site's lease, 0 if it needs none.
        warning: seconds before the end of the lease at which the process is asked to end.
    """

    environ: Mapping[str, str]
    notify: str
    private: str
    mark: str = ""
    slot: int = 0
    smoke: bool = False
    trusts_front_end: bool = False
    examine: str = ""
    head_limits: Mapping[str, int] = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    fence: int = 0
    warning: float = 0.0


@dataclass(frozen=True)
class PreloaderKey:
    """An interpreter and its user: what sites must share to be forked from one process."""

    python: str
    identity: Identity

    def __str__(self) -> str:
        groups = "+".join(map(str, (self.identity.gid, *self.identity.groups)))
        return f"{self.python} {self.identity.name or self.identity.uid} {self.identity.uid}:{groups}"


@dataclass(frozen=True)
class Launch:
    """All that is needed to start one process.

    Attributes:
        argv: its first item is an absolute path, or is looked up in PATH of `env`.
        socket_as_stdin: the listening socket becomes descriptor 0 (uWSGI's way) rather than 3 (systemd's).
        job: what our runner receives on descriptor 4, JSON.
        notify: path of the socket at which it reports; our runner has a descriptor for that, and leaves it to the site.
        told: it sends READY=1 itself; otherwise its first accepted connection counts.
        graceful: SIGTERM lets requests in flight end.
        tried: it is another program first, which sends TRIED=1 when it becomes the server.
        shared_env: the part of `env` that all sites of its preloader share.
        location: the directory whose modules are imported first.
        gunicorn: the directory of our own gunicorn.
        preload: "" if a preloader may make it, else why not.
        examine: the version of the site's code to examine, "" for none.
        once: it exits after each request, and the next request starts another one.
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
    notify: str = ""
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
    def owner(self) -> str:
        """Who owns the site, and from where: what one of them receives must not reach another."""
        return f"{PreloaderKey('', self.identity)} {self.chroot}"

    @property
    def preloader_key(self) -> PreloaderKey:
        """The key of the preloader that may make it."""
        return PreloaderKey(self.argv[0], self.identity)


def packed(launch: Launch) -> str:
    """Return what `unpacked` takes: as repr(), because JSON has no tuples and no bytes."""
    return repr(asdict(launch))


def unpacked(text: str) -> Launch:
    """Return the launch that another program packed, without attributes that we do not know."""
    known = {field.name for field in fields(Launch)}
    values = {name: value for name, value in literal_eval(text).items() if name in known}
    return Launch(**{**values, "identity": Identity(**values["identity"])})


def fork_obstacle(launch: Launch) -> str:
    """Return why no preloader at all can make this process; "" if one can."""
    if launch.preload:
        return launch.preload
    if not launch.job:
        return "only multisite's own runner is forked"
    if launch.chroot:
        return "it has its own root directory"
    relative = [path for path in launch.env.get("PYTHONPATH", "").split(":") if path and not path.startswith("/")]
    return "PYTHONPATH is relative" if relative else ""


def fork_difference(launch: Launch, started_with: Mapping[str, str], reads: Collection[str], nofile: int) -> str:
    """Return what this process and its preloader differ in and cannot be changed any more; "" if nothing.

    Args:
        launch: of the process.
        started_with: the preloader's environment.
        reads: names of variables that the preloaded modules have read.
        nofile: how many descriptors the preloader may have at most.
    """
    for name in sorted(launch.env.keys() | started_with.keys()):
        is_read = name in reads or name in _AT_START_WHOLE or name.startswith(_AT_START)
        if is_read and launch.env.get(name) != started_with.get(name):
            return f"the environment variable {name} differs and has been read"
    if launch.identity.uid:
        if launch.nice < 0:
            return "nice is below 0"
        if (launch.nofile or 0) > nofile:
            return f"nofile is above {nofile}"
    return ""
