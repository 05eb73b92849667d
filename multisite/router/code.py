"""``code = mapper.py:get``: a function that is called with the key of each request and returns its node.

The Fastrouter calls it in the same way, one call after another, and the function may keep state between them: nodes in
turn, for example. A key's first call is made in another thread than its request (`lookups`). If it was quick, the next
requests call the function themselves, one at a time; a call that takes longer than `SLOW` delays its own request, and
from then on that key is asked for in another thread, while requests use the last good answer, until a call is quick
again.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from multisite.router.groups import Group, Groups
from multisite.router.lookups import Lookup

SLOW = 0.05  # seconds after which a call is slow
TURN = 0.005  # seconds that a request waits for its turn to call the function

_log = logging.getLogger("multisite.router")


class Code(Lookup):
    """Calls a function of the administrator's.

    Args:
        target: ``FILE:FUNCTION``, relative to `home`, or ``MODULE:FUNCTION``.
        home: folder of moya.conf.
    """

    def __init__(self, target: str, home: str, groups: Groups) -> None:
        super().__init__("code", self._in_turn, groups, wait=2 * SLOW, keep=0.0, keep_none=0.0)
        self._function = Function(target, home)
        self._turn = threading.Lock()
        self._since = 0.0  # when the call began that has the turn

    def find(self, key: str) -> Group | None:
        """Return the nodes of a key."""
        self._function.prepare()
        answer = self._last(key)
        if answer and answer.is_known and answer.took < SLOW and not answer.asking:
            turn = self._turn
            if turn.acquire(blocking=False) or turn.acquire(timeout=TURN):
                self._since = time.monotonic()
                try:
                    self._answer(key, answer, self._function)
                finally:
                    turn.release()
                if answer.took > SLOW:
                    self._complain(f"it took {answer.took * 1000:.0f} ms", key)
                return answer.group
        return super().find(key)

    def look(self) -> None:
        """Load the file again if it has changed; what it answered before is forgotten."""
        super().look()
        if self._function.reload():
            self.forget()

    def _in_turn(self, key: str) -> Any:
        """Call the function, in one thread at a time; a call that does not return loses its turn."""
        turn = self._turn
        if not turn.acquire(timeout=max(0.0, self._since + SLOW - time.monotonic())):
            turn = self._turn = threading.Lock()
            turn.acquire()
        self._since = time.monotonic()
        try:
            return self._function(key)
        finally:
            turn.release()


class Function:
    """A function in a file or a module, loaded once, and again when the file changes.

    Raises:
        ValueError: `target` is not FILE:FUNCTION or MODULE:FUNCTION.
    """

    def __init__(self, target: str, home: str) -> None:
        self._target = target
        where, separator, self._name = target.rpartition(":")
        if not separator or not where or not self._name.isidentifier():
            raise ValueError("it is not FILE:FUNCTION or MODULE:FUNCTION")
        self._home = home
        self._is_file = where.endswith(".py") or "/" in where
        self._where = os.path.join(home, where) if self._is_file else where
        self._module: ModuleType | None = None
        self._stamp: tuple[int, ...] | None = None
        self._failure = ""
        self._loading = threading.Lock()

    def __call__(self, key: str) -> Any:
        """Call it; errors are the caller's to handle."""
        self.prepare()
        if self._module is None:
            raise ImportError(f"cannot load it: {self._failure}")
        function: Callable[[str], Any] = getattr(self._module, self._name)
        return function(key)

    def prepare(self) -> None:
        """Load it if that has not been tried; a call is not slow because of that."""
        if self._stamp is None:
            with self._loading:
                if self._stamp is None:
                    self._try_to_load()

    def _try_to_load(self) -> None:
        """Load it, or leave what there was."""
        stamp = self._stamped()
        try:
            self._load()
        except (Exception, SystemExit) as error:
            last = "; the last good version is used" if self._module else ""
            _log.error("MS739 cannot load %s%s: %s", self._target, last, error, exc_info=error)
            self._failure = f"{type(error).__name__}: {error}"
        self._stamp = stamp

    def _load(self) -> None:
        if not self._is_file:
            self._module = _imported(self._where, self._home)
            return
        spec = importlib.util.spec_from_file_location("multisite_mapper", self._where)
        if spec is None or spec.loader is None:
            raise ImportError(f"{self._where} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._module = module

    def _stamped(self) -> tuple[int, ...]:
        if not self._is_file:
            return ()
        try:
            status = os.stat(self._where)
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_ino, status.st_size

    def reload(self) -> bool:
        """Load it again if its file has changed; tell whether it had. If that fails, the last good one stays."""
        if self._stamp is None or self._stamped() in (self._stamp, ()):
            return False
        old = self._module
        with self._loading:
            self._try_to_load()
        return self._module is not old


def _imported(name: str, home: str) -> ModuleType:
    """Import a module of the home, or any other that can be imported."""
    if home not in sys.path:
        sys.path.append(home)
    return importlib.import_module(name)
