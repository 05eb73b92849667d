"""What the supervisor hands over: a listening socket, a job, a channel to report on and a scoreboard to count on.

All of it comes in descriptors and environment variables, and is gone from the environment before the site's code
runs, so that neither the site nor what it starts takes any of it for its own.
"""

from __future__ import annotations

import json
import os

from .board import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "MULTISITE_JOB")


class BadJob(Exception):
    """The supervisor did not start this backend."""


class Spec:
    """Where the app is: `multisite.config.application.AppSpec` as JSON.

    ``args`` and ``kwargs`` are null where the attribute is no factory. Each may also be the `repr` of its value,
    since JSON has no tuples and no bytes.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.kind: str = spec["kind"]
        self.target: str = spec.get("target") or ""
        self.attribute: str = spec.get("attribute") or ""
        args, kwargs = spec.get("args"), spec.get("kwargs")
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        if args is not None or kwargs is not None:
            self.call = tuple(_literal(args) or ()), dict(_literal(kwargs) or {})

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names to look for in the module, best first."""
        if self.attribute:
            return (self.attribute,)
        return ("application", "app") if self.target.endswith(".py") else ("application",)


class Job:
    """One backend's orders.

    Attributes:
        listen: the descriptor of the listening socket.
        file: the site's; "" where nobody has said.
        application: as it is written there.
        notify: the descriptor to report on, -1 for none.
        board: where to count; it is mapped before the site could replace the file.
        site: the values of its file, for the loaders of other packages.
        threads: how many requests at once.
        processes: how many such processes the site has.
        max_requests: after how many requests to exit, 0 for never.
        request_timeout: seconds in which a request has to make progress, 0 for ever.
        pin: of the site's debugger, "" for none.
        learn: report what the site imports.
        examine: report what it changes in its process.
        aside: answer some requests in another thread, while it is examined.
        smoke: the request to answer before anything is accepted; empty: none.
        trusts_front_end: whether a front end that comes straight to the socket is believed about its clients.
        claims: keys of further fields that a front end alone may send.
        head_limits: gunicorn's settings of how large the head of a request may be.
    """

    def __init__(self, job: dict[str, Any], listen: int) -> None:
        self.listen = listen
        self.notify = int(job.get("notify", -1))
        self.name: str = job["name"]
        self.file: str = job.get("file") or ""
        self.application: str = job.get("application") or ""
        self.spec = Spec(job["spec"])
        self.location: str = job.get("location") or ""
        self.ini: list[str] = list(_listed(job.get("ini")))
        self.overlay: dict[str, dict[str, str]] = job.get("overlay") or {}
        self.site: dict[str, Any] = job.get("site") or {}
        self.worker: str = job.get("worker") or "auto"
        self.threads = max(1, int(job.get("threads") or 1))
        self.processes = max(1, int(job.get("processes") or 1))
        self.max_requests = _with_jitter(int(job.get("max_requests") or 0), int(job.get("max_requests_jitter") or 0))
        self.request_timeout = float(job.get("request_timeout") or 0)
        self.trusts_front_end = bool(job.get("trusts_front_end"))
        self.claims: list[str] = job.get("claims") or []
        self.head_limits: dict[str, int] = job.get("head_limits") or {}
        self.gunicorn: str = job.get("gunicorn") or ""
        number = os.getppid() if job.get("guarded") else os.getpid()  # the supervisor knows the guard
        self.board = opened(int(job.get("board", -1)), int(job.get("slot") or 0), number)
        self.pin: str = job.get("pin") or ""
        self.learn = bool(job.get("learn"))
        self.examine = bool(job.get("examine"))
        self.aside = bool(job.get("aside"))
        self.smoke: dict[str, Any] = job.get("smoke") or {}


def take_job(environ: MutableMapping[str, str]) -> Job:
    """Return the job of this process, and take it out of `environ`.

    Raises:
        BadJob: something is missing, or is for another process.
    """
    found = {name: environ.pop(name, "") for name in VARIABLES}
    if found["LISTEN_PID"] not in ("", str(os.getpid())) or found["LISTEN_FDS"] != "1":
        raise BadJob("no listening socket was handed over (LISTEN_FDS=1); multisite's supervisor starts this program")
    try:
        job = json.loads(_read(int(found["MULTISITE_JOB"])))
        taken = Job(job, FIRST_DESCRIPTOR)
        if taken.notify >= 0:
            os.set_inheritable(taken.notify, False)
        return taken
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise BadJob(f"cannot read the job: {type(error).__name__}: {error}") from error


def _read(descriptor: int) -> bytes:
    """Read all of a pipe, or of a memory file from its beginning; close it afterwards."""
    with open(descriptor, "rb") as file:
        if file.seekable():
            file.seek(0)
        return file.read()


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    import ast

    return ast.literal_eval(value)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) and value else value or []


def _with_jitter(count: int, jitter: int) -> int:
    """Return `count` and up to `jitter` more, so that processes started together do not exit together."""
    if count <= 0 or jitter <= 0:
        return max(count, 0)
    return count + int.from_bytes(os.urandom(4), "big") % (jitter + 1)
