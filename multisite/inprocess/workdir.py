"""The working directory and the umask that a site has while a thread of this process answers for it.

On Linux both belong to the thread once it has called ``unshare(CLONE_FS)`` (unshare(2), which needs no privilege for
this). Until then, all threads of a process share them. A thread that answers for a site is in that site's location, and
stays there until it answers for another one: between two calls of the same site nothing has to be done.

A thread that a site starts shares both with the thread that started it. So a thread is separated from those that it has
started before it goes to another place; a site's own threads stay in the site's place for good.

`os.chdir`, `os.fchdir` and `os.umask` forget where everybody is, so that the next call of a site begins in its place
again. What runs between two calls, and may open something by a relative path, is the server's: gunicorn's own code
does not, but an administrator's hooks may. Where there are such hooks, and under servers that we do not know, a
thread goes back after each call. So it does for a site with its own umask, which our files must not get.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from multisite.errors import BrokenSite
from multisite.sites import sharing
from multisite.sites.server import find_worker

WSGI = Callable[..., Iterable[bytes]]
Environ = dict[str, Any]

CLONE_FS = 0x200  # clone(2)
MOST_KEPT = 128  # directories that are kept open in one process
_FLAGS = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC


_chdir, _fchdir, _umask = os.chdir, os.fchdir, os.umask
_lock = threading.Lock()


class Directory:
    """A directory that is open as long as something refers to this."""

    __slots__ = ("descriptor", "identity")

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, _FLAGS)
        self.identity = _identity(os.fstat(self.descriptor))

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


NOWHERE: Any = object()  # the place of a thread that is in no site's place


#: tells in which `Directory` this thread is. The threads of a server have their own contexts, and a context variable
#: is read in less than half the time of a `threading.local`.
_at: ContextVar[Any] = ContextVar("multisite_at", default=NOWHERE)
here = _at.get


class _Parted(threading.local):
    """Whether this thread shares its directory only with threads that it has started."""

    yes = False


_parted = _Parted()


# Whether threads can have it, and what the server has


class _Server:
    """The server's own directory and umask; made in a thread that has answered for no site yet."""

    def __init__(self) -> None:
        _part()
        try:
            self.directory = Directory(".")
        except OSError:  # nobody could open anything from there
            self.directory = Directory("/")
        # A relative entry, which uWSGI has, would import from the working directory of the asking thread.
        sys.path[:] = map(os.path.abspath, sys.path)
        self.umask = _umask(0o077)
        _umask(self.umask)
        worker = find_worker()
        self.runs_hooks = worker is None or worker.runs_hooks
        if worker:
            worker.before_its_end(go_back)
        atexit.register(go_back)


_server: _Server | None = None
_obstacle: tuple[int, str] | None = None  # of which process


def obstacle() -> str:
    """Return why threads of this process share one working directory, as half a sentence; "" if they do not.

    The first call finds out, and separates this thread from the others.
    """
    global _obstacle
    if _obstacle is None or _obstacle[0] != os.getpid():
        _obstacle = (os.getpid(), _find_obstacle())
    return _obstacle[1]


def _find_obstacle() -> str:
    if not sharing.THREADS_HAVE_DIRECTORIES:
        return "all threads of a process share one on this system"
    for module, name in (("gevent.monkey", "gevent"), ("eventlet.patcher", "eventlet")):
        patcher: Any = sys.modules.get(module)
        asked = getattr(patcher, "is_module_patched", None) or getattr(patcher, "is_monkey_patched", None)
        if asked and (asked("threading") or asked("thread")):
            return f"{name} answers all requests of a worker in one thread"
    try:
        _part()
    except OSError as error:
        return f"the kernel refuses unshare(2) here: {error.strerror}"
    return ""


def _unshare() -> Callable[[int], object]:
    if hasattr(os, "unshare"):  # Python 3.12
        return os.unshare  # type: ignore[no-any-return]
    library = ctypes.PyDLL(None, use_errno=True)
    call = library.unshare
    call.argtypes = [ctypes.c_int]

    def unshare(flags: int) -> None:
        if call(flags):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return unshare


_call: Callable[[int], object] | None = None


def _part() -> None:
    """Share directory and umask with no other thread from now on."""
    global _call
    if _call is None:
        _call = _unshare()
    _call(CLONE_FS)


def is_own() -> bool:
    """Tell whether this thread has its own working directory and umask."""
    return _parted.yes


def _begin() -> _Server:
    """Return what the server has, which is read before any thread goes anywhere."""
    global _server
    with _lock:
        if _server is None:
            _server = _Server()
            os.chdir, os.fchdir, os.umask = map(_noticed, (_chdir, _fchdir, _umask))
            os.supports_fd.add(os.chdir)
    return _server


def _noticed(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of `os` after which nobody is known to be anywhere: threads of a site have it in common."""

    @functools.wraps(call)
    def noticed(*args: Any, **named: Any) -> Any:
        try:
            return call(*args, **named)
        finally:
            _forget()

    return noticed


def _forget() -> None:
    with _lock:
        for workdir in _kept:
            workdir.now = None
        _kept.clear()


def go_back() -> None:
    """Move this thread to the server's place."""
    if _server and _parted.yes:
        _go(_server.directory, _server.umask)
        _at.set(NOWHERE)


def _go(directory: Directory, umask: int) -> None:
    _at.set(NOWHERE)  # until it is there
    _part()
    _parted.yes = True
    _fchdir(directory.descriptor)
    _umask(umask)
    _at.set(directory)


# A site's place

_kept: dict[WorkDir, None] = {}


class WorkDir:
    """Where one site is called.

    Args:
        path: of the directory; "" for the server's own.
        umask: None for the server's.

    Attributes:
        now: the directory at `path`; None if it is still to be opened. A thread is there if `here()` is this.
        stays: whether a thread may stay until it is called for another site.
    """

    def __init__(self, path: str, umask: int | None) -> None:
        self.now: Directory | None = None
        self._server = _begin()
        self._path, self._umask = path or f"/proc/self/fd/{self._server.directory.descriptor}", umask
        self.stays = umask is None and not self._server.runs_hooks

    def enter(self) -> None:
        """Move this thread there.

        Raises:
            BrokenSite: the directory is not there, or may not be entered.
        """
        directory = self.now or self._open()
        if here() is directory:
            return
        try:
            _go(directory, self._server.umask if self._umask is None else self._umask)
        except OSError as error:
            raise BrokenSite(f"cannot enter location {self._path}: {error.strerror}") from error

    def _open(self) -> Directory:
        try:
            self.now = directory = Directory(self._path)
        except OSError as error:
            raise BrokenSite(f"cannot open location {self._path}: {error.strerror}") from error
        with _lock:
            _kept[self] = None
            while len(_kept) > MOST_KEPT:
                oldest = next(iter(_kept))
                del _kept[oldest]
                oldest.now = None
        return directory

    def check_due(self) -> None:
        """Notice a new directory at its path, which the next call enters; a removed one is kept."""
        if self.now is None:
            return
        try:
            if _identity(os.stat(self._path)) != self.now.identity:
                self.now = None
        except OSError:
            pass

    def close(self) -> None:
        """Release it; threads that are there may stay."""
        with _lock:
            _kept.pop(self, None)
        self.now = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Run the block there."""
        self.enter()
        try:
            yield
        finally:
            if not self.stays:
                go_back()

    def calling(self, app: WSGI) -> WSGI:
        """Return `app` so that the thread of each call is there."""
        return self._staying(app) if self.stays else self._visiting(app)

    def _staying(self, app: WSGI) -> WSGI:
        """Return `app` so that its thread goes there, and stays."""

        def there(environ: Environ, start_response: Any) -> Iterable[bytes]:
            if here() is not self.now:
                self.enter()
            return app(environ, start_response)

        return there

    def _visiting(self, app: WSGI) -> WSGI:
        """Return `app` so that its thread goes there for each call, and back after the answer's end."""

        def there(environ: Environ, start_response: Any) -> Iterable[bytes]:
            self.enter()
            try:
                body = app(environ, start_response)
            except BaseException:
                go_back()
                raise
            if type(body) is list or type(body) is tuple:
                go_back()
                return body
            wrapper = environ.get("wsgi.file_wrapper")
            return _sent(body) if isinstance(wrapper, type) and type(body) is wrapper else _Made(self.enter, body)

        return there


def _sent(body: Any) -> Iterable[bytes]:
    """Return an answer that the server may send as a file, and that therefore has to stay what it is."""
    close = getattr(body, "close", None)

    def close_and_go() -> None:
        try:
            if close:
                close()
        finally:
            go_back()

    try:
        body.close = close_and_go
    except AttributeError:
        go_back()
    found: Iterable[bytes] = body
    return found


class _Made:
    """An answer whose parts are still made."""

    __slots__ = ("_at", "_body", "_enter", "_next")

    def __init__(self, enter: Callable[[], None], body: Iterable[bytes]) -> None:
        self._enter, self._body, self._at = enter, body, here()
        self._next: Callable[[], bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if here() is not self._at:  # the server has gone on with something else meanwhile
            self._return()
        if self._next is None:
            self._next = iter(self._body).__next__
        return self._next()

    def _return(self) -> None:
        self._enter()
        self._at = here()

    def close(self) -> None:
        """Close it, and go back."""
        try:
            close = getattr(self._body, "close", None)
            if close:
                if here() is not self._at:
                    self._return()
                close()
        finally:
            go_back()
