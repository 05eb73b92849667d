"""Mappers that ask another service: Redis, a database, a function, or a mapper of another package.

The service may be slow, unavailable or wrong. So a request never asks it directly: another thread does, and the request
waits at most a moment for a first answer. Answers are kept for a limited time and in a limited number, also the answer
that there is no node; other threads refresh them, and the last good one is used while nothing answers.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import cast

from multisite.config.nodes import MOST_NODES
from multisite.router.groups import Group, Groups

MOST_ANSWERS = 8192  # keys whose nodes are kept, and as many keys that have none
MOST_DUE = 256  # keys that wait to be asked for
MOST_THREADS = 4  # that ask at once; others are started only while one does not return
WAIT = 1.0  # seconds that a request waits for the first answer of Redis, a database or a package
KEEP = 5.0  # seconds that an answer of theirs is fresh
COMPLAIN_EVERY = 60.0  # seconds between two lines about the same problem

_log = logging.getLogger("multisite.router")


class LastAnswer:
    """The last answer for a key.

    Attributes:
        group: its nodes, None for none.
        until: monotonic seconds until which it is fresh.
        is_known: whether there has been an answer at all.
        took: seconds that it took.
        asking: while the service is being asked: set when the answer is there.
    """

    __slots__ = ("asking", "group", "is_known", "took", "until")

    def __init__(self) -> None:
        self.group: Group | None = None
        self.until = self.took = 0.0
        self.is_known = False
        self.asking: threading.Event | None = None


class Lookup:
    """Asks `ask` for the text of a key's nodes, in other threads than the requests.

    Args:
        name: of the mapper.
        ask: returns nodes as text, or None; may raise anything, and may take long.
        wait: seconds that a request waits for a key's first answer.
        keep: seconds that an answer is fresh.
        keep_none: seconds that it is fresh where there is no node.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[str], str | None],
        groups: Groups,
        *,
        wait: float,
        keep: float,
        keep_none: float = 1.0,
    ) -> None:
        self.name = name
        self._ask, self._groups = ask, groups
        self._wait, self._keep, self._keep_none = wait, keep, keep_none
        self._answers: OrderedDict[str, LastAnswer] = OrderedDict()  # those with nodes
        self._unknown: OrderedDict[str, LastAnswer] = OrderedDict()  # the others, which anybody can make up
        self._lock = threading.Lock()
        self._due: deque[tuple[str, LastAnswer]] = deque()
        self._idle = threading.Semaphore(0)
        self._threads: dict[int, float] = {}  # those alive: since when each has been asking, 0.0 for those that wait
        self._told: dict[str, float] = {}

    def find(self, key: str) -> Group | None:
        """Return the nodes of a key, as they were last known."""
        answer = self._last(key)
        if answer and time.monotonic() < answer.until:
            return answer.group
        if answer is None:
            with self._lock:
                answer = self._last(key) or _kept(self._unknown, key, LastAnswer())
        asking = self._refresh(key, answer)
        if not (answer.is_known or asking.wait(self._wait / 2)):
            self.look()
            if not asking.wait(self._wait / 2):
                self._complain(f"no answer within {self._wait * 1000:g} ms", key)
        return answer.group

    def look(self) -> None:
        """Start another thread if those that there are do not return."""
        if self._due and len(self._threads) < MOST_THREADS:
            late = time.monotonic() - self._wait / 2
            if all(0.0 < since <= late for since in list(self._threads.values())):
                self._start()

    def forget(self) -> None:
        """Forget all answers: another service is asked from now on."""
        with self._lock:
            self._answers.clear()
            self._unknown.clear()

    def _last(self, key: str) -> LastAnswer | None:
        return self._answers.get(key) or self._unknown.get(key)

    def _refresh(self, key: str, answer: LastAnswer) -> threading.Event:
        """Let a thread ask, unless one does already; return the event that is set when that is done."""
        with self._lock:
            if answer.asking:
                asking = answer.asking
            else:
                asking = answer.asking = threading.Event()
                self._due.append((key, answer))
            if len(self._due) > MOST_DUE:
                key, answer = self._due.popleft()  # the request that has waited longest has given up, or soon will
                _settle(answer)
        self._idle.release()
        if not self._threads:
            self._start()
        else:
            self.look()
        return asking

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"multisite-{self.name}", daemon=True)
        self._threads[id(thread)] = 0.0
        try:
            thread.start()
        except RuntimeError as error:  # the next request tries again
            del self._threads[id(thread)]
            self._complain(str(error), "")

    def _work(self) -> None:
        me = id(threading.current_thread())
        while True:
            self._idle.acquire()
            try:
                key, answer = self._due.popleft()
            except IndexError:
                continue
            self._threads[me] = time.monotonic()
            self._answer(key, answer, self._ask)
            self._threads[me] = 0.0

    def _answer(self, key: str, answer: LastAnswer, ask: Callable[[str], str | None]) -> None:
        began = time.monotonic()
        try:
            text = ask(key)
            if text is not None and not isinstance(text, str):
                raise TypeError(f"it returned {type(text).__name__} instead of text or None")
            group = self._groups.of(text, self.name) if text else None
        except (Exception, SystemExit) as error:  # the function must not end the thread
            self._complain(f"{type(error).__name__}: {error}", key, error)
            keep = self._keep_none  # the last good one is used meanwhile
        else:
            if bool(group) != bool(answer.group):
                self._file(key, answer, bool(group))
            answer.group = group
            keep = self._keep if group else self._keep_none
        now = time.monotonic()
        answer.until, answer.took = now + keep, now - began
        answer.is_known = True
        _settle(answer)

    def _file(self, key: str, answer: LastAnswer, has_nodes: bool) -> None:
        """Keep an answer among those of its kind, so that invented keys displace none that has nodes."""
        old, new = self._unknown, self._answers
        if not has_nodes:
            old, new = new, old
        with self._lock:
            old.pop(key, None)
            _kept(new, key, answer)

    def _complain(self, reason: str, key: str, error: BaseException | None = None) -> None:
        now = time.monotonic()
        kind = reason.partition(":")[0]
        if now >= self._told.get(kind, 0.0):
            if len(self._told) > 100:
                self._told.clear()
            self._told[kind] = now + COMPLAIN_EVERY
            _log.error("MS738 %s, asked for %.255r: %.500s", self.name, key, reason, exc_info=error)


def _kept(answers: OrderedDict[str, LastAnswer], key: str, answer: LastAnswer) -> LastAnswer:
    """Keep an answer; if there are too many, drop the oldest."""
    while len(answers) >= MOST_ANSWERS:
        answers.popitem(last=False)
    answers[key] = answer
    return answer


def _settle(answer: LastAnswer) -> None:
    """Wake all that wait for an answer."""
    asking, answer.asking = answer.asking, None
    if asking:
        asking.set()


def of_redis(url: str, groups: Groups) -> Lookup:
    """``redis = URL``: the value of a key is its nodes.

    Raises:
        ValueError: the URL is not one of Redis, or the library is not installed.
    """
    try:
        import redis
    except ImportError:
        raise ValueError("the library redis is missing; pip install 'multisite-wsgi[redis]'") from None
    client = redis.Redis.from_url(url, socket_timeout=WAIT, socket_connect_timeout=WAIT, decode_responses=True)
    return Lookup("redis", lambda key: cast("str | None", client.get(key)), groups, wait=WAIT, keep=KEEP)


def of_sql(url: str, query: str, home: str, groups: Groups) -> Lookup:
    """``sql = URL`` and ``query``: the first column of each row is a node; the key is a parameter, never text of it.

    Raises:
        ValueError: the URL or the query is invalid, or the library is not installed.
    """
    try:
        import sqlalchemy
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    except ImportError:
        raise ValueError("the library SQLAlchemy is missing; pip install 'multisite-wsgi[sql]'") from None
    if not query:
        raise ValueError("query is missing; it finds the nodes of :key")
    try:
        target = sqlalchemy.make_url(url)
        if target.get_backend_name() == "sqlite" and target.database and target.database != ":memory:":
            target = target.set(database=os.path.join(home, target.database))
        engine = sqlalchemy.create_engine(target, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ValueError(str(error)) from None
    statement = sqlalchemy.text(query)

    def ask(key: str) -> str | None:
        with engine.connect() as connection:
            rows = connection.execute(statement, {"key": key}).fetchmany(MOST_NODES)
        return "|".join(str(row[0]) for row in rows if row[0]) or None

    return Lookup("sql", ask, groups, wait=WAIT, keep=KEEP)


def of_package(name: str, home: str, groups: Groups) -> Lookup:
    """A mapper of another package, by the entry point group ``multisite.mappers``.

    The entry point is called with the folder of moya.conf, and returns a function from a key to nodes as text, or None.

    Raises:
        ValueError: there is no such mapper, or it cannot be made.
    """
    from importlib_metadata import entry_points

    for found in entry_points(group="multisite.mappers", name=name):
        try:
            return Lookup(name, found.load()(home), groups, wait=WAIT, keep=KEEP)
        except Exception as error:
            raise ValueError(f"cannot make the mapper {name}: {error}") from error
    known = sorted({each.name for each in entry_points(group="multisite.mappers")})
    raise ValueError(f"no package has a mapper {name}; there are: {', '.join(known) or 'none'}")
