"""Each row of the table of guarantees in docs/sharing.md, in each mode, in each way, under each kind of worker.

The table says what is to be seen. A cell begins with *yes* (as in a process of the site's own), *no* (otherwise), or
*own process* (the site runs in one, since its file asks for what the workers do not have). A row that nothing here
looks for fails, and so does one that the table does not have.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .everyway import Way
from .harness import REPOSITORY, HomeDir, Server, eventually, gunicorn, not_tested, remove

pytestmark = pytest.mark.servers

APP = """
import importlib, json, os, pickle, resource, signal, subprocess, sys, threading, time

LOCK = threading.Lock()
INSIDE = 0
MAIN = threading.current_thread() is threading.main_thread()

class Cart:
    pass

def handler(*_):
    pass

if os.path.exists(os.path.join(os.path.dirname(os.path.abspath(__file__)), "handles")):
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR2, handler)

def umask():
    for line in open("/proc/thread-self/status"):
        if line.startswith("Umask:"):
            return line.split()[1]

def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(os.getcwd()))
    thread.start()
    thread.join()
    return found[0]

def inside():
    global INSIDE
    with LOCK:
        INSIDE += 1
        most = INSIDE
    time.sleep(0.05)
    with LOCK:
        INSIDE -= 1
    return most

def named():
    again = pickle.loads(pickle.dumps(Cart()))
    return [__name__, Cart.__module__, type(again) is Cart, importlib.import_module(__name__).Cart is Cart]

SEEN = {
    "/directory": os.getcwd,
    "/umask": umask,
    "/variable": lambda: os.environ.get("GUARANTEED"),
    "/named": named,
    "/inside": inside,
    "/pid": os.getpid,
    "/main": lambda: [MAIN, threading.current_thread() is threading.main_thread()],
    "/handler": lambda: signal.getsignal(signal.SIGUSR2) is handler,
    "/user": os.geteuid,
    "/descriptors": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "/thread": in_thread,
    "/child": lambda: subprocess.check_output(["pwd"], text=True).strip(),
}

def application(environ, start_response):
    found = json.dumps([os.getpid(), SEEN[environ["PATH_INFO"]]()]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(found)))])
    return [found]
"""
MODULE = "guaranteed"
YES, NO, PROCESS = "yes", "no", "own process"
KINDS = {
    "sync": ("sync", "--workers", "2"),
    "gthread": ("gthread", "--workers", "2", "--threads", "4"),
    "gevent": ("gevent", "--workers", "2"),
}
OWN = "its own process"


@dataclass(frozen=True)
class Row:
    """How one guarantee is looked at.

    Attributes:
        path: of the application.
        expected: what is seen in a process of the site's own, by its location.
        keys: that the site's file has for it.
        is_tried: whether the trial of a site with ``share = yes`` looks the same.
        moves: whether a site with ``share = yes`` that is looked at so may move into the workers.
        see: looks; returns whose process answered and what was seen.
    """

    path: str
    expected: Callable[[str], Any]
    keys: dict[str, str] = field(default_factory=dict)
    variables: str = ""
    moves: bool = False
    is_tried: bool = True
    see: Callable[[Way, str], tuple[set[int], Any]] | None = None


def once(way: Way, path: str) -> tuple[set[int], Any]:
    found = way.ask(path)
    assert found.status == 200, (way, found.body)
    pid, seen = json.loads(found.body)
    return {pid}, seen


def at_once(way: Way, path: str) -> tuple[set[int], Any]:
    """The most calls that the application has seen inside at once."""
    told: list[tuple[set[int], Any]] = []
    threads = [threading.Thread(target=lambda: told.append(once(way, path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return set().union(*(pids for pids, _ in told)), max(most for _, most in told)


def copies(way: Way, path: str) -> tuple[set[int], Any]:
    """How many processes answer."""
    pids = set().union(*(once(way, path)[0] for _ in range(12)))
    return pids, len(pids)


ROWS = {
    "`location` is the working directory": Row("/directory", str, moves=True),
    "`umask` is its own": Row("/umask", lambda _: "0027", {"umask": "0027"}, moves=True),
    "`[env]` is its environment": Row("/variable", lambda _: "yes", variables="[env]\nGUARANTEED = yes\n"),
    "its module goes by its own name": Row("/named", lambda _: [MODULE, MODULE, True, True], moves=True),
    "`threads = 1`: one call at a time": Row("/inside", lambda _: 1, {"threads": "1"}, see=at_once),
    "`processes = 1`: one copy of its memory": Row("/pid", lambda _: 1, {"processes": "1"}, see=copies),
    "imported and called in the main thread": Row("/main", lambda _: [True, True], is_tried=False),
    "a signal handler of its import stays": Row("/handler", lambda _: True),
    "`user` runs it": Row("/user", lambda _: 65534, {"user": "nobody"}),
    "`nofile`, `nice` and `memory_limit` bound it": Row("/descriptors", lambda _: 256, {"nofile": "256"}),
    "its threads begin in `location`": Row("/thread", str),
    "its child processes begin in `location`": Row("/child", str),
}


def table() -> dict[str, dict[str, str]]:
    """What the docs say: guarantee → column → the first words of the cell."""
    text = (REPOSITORY / "docs" / "sharing.md").read_text()
    lines = re.search(r"^## What each mode guarantees\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert lines
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[1].splitlines() if line.startswith("|")
    ]
    heads = [head.removesuffix(" worker") for head in rows[0][1:]]
    return {row[0]: dict(zip(heads, map(_verdict, row[1:]), strict=True)) for row in rows[2:]}


def _verdict(cell: str) -> str:
    found = next((word for word in (YES, NO, PROCESS) if re.match(rf"{word}\b", cell)), "")
    assert found, f"{cell!r} says none of {YES}, {NO}, {PROCESS}"
    return found


def test_each_row_of_the_table_is_looked_at() -> None:
    found = table()
    assert found.keys() == ROWS.keys()
    assert all(cells.keys() == {*KINDS, OWN} and cells[OWN] == YES for cells in found.values())


class Stand:
    """The servers, and the sites of each row: imported by the workers, sharing, and spawned."""

    def __init__(self, home: HomeDir, servers: dict[str, Server]) -> None:
        self.home, self.servers = home, servers

    def location(self, mode: str, row: str) -> str:
        return str(self.home.path / "sites" / host(mode, row))

    def ways(self, row: str) -> Iterator[tuple[str, str, Way]]:
        """Column, mode and way."""
        for kind, server in self.servers.items():
            modes = ("in", "share") if kind != "gevent" else ("in",)
            for mode in modes:
                yield kind, mode, Way(f"{mode}-{kind}", f"{host(mode, row)}.test", server.port)
        for kind, server in self.servers.items():
            yield OWN, "own", Way(f"relayed-{kind}", f"{host('own', row)}.test", server.port)
            yield OWN, "own", Way(f"handed-{kind}", f"{host('own', row)}.test", server.port, says_close=True)
        path = str(self.home.runtime / "multisite" / "sites" / f"{host('own', row)}.sock")
        yield OWN, "own", Way("own-socket", f"{host('own', row)}.test", path=path, says_close=True)

    def workers(self) -> set[int]:
        return set().union(*(server.workers() for server in self.servers.values()))


def reaches_us(user: int) -> bool:
    """Whether somebody else can run what the tests run by."""
    argv = [sys.executable, "-c", "import multisite"]
    with contextlib.suppress(PermissionError):
        return subprocess.run(argv, user=user, group=user, cwd="/", capture_output=True, check=False).returncode == 0
    return False


def host(mode: str, row: str) -> str:
    return f"{mode}{list(ROWS).index(row)}"


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    path = Path(tempfile.mkdtemp(prefix="multisite-test-"))  # which other users may read
    path.chmod(0o755)
    home = HomeDir(path).create()
    supervisor = "allow_root = yes\nhand_over = yes\npromote_after = 10"
    home.conf(f"[projects]\nread = sites-enabled/*.ini\n[supervisor]\n{supervisor}\n")
    for row, how in ROWS.items():
        for mode, says in {"in": {"mode": "in-process"}, "share": {"share": "yes"}, "own": {"mode": "spawned"}}.items():
            where = home.site(host(mode, row), APP, application=f"{MODULE}:application", **says, **how.keys)
            if how.path == "/handler":
                (where / "handles").touch()
            file = home.path / "sites-available" / f"{host(mode, row)}.ini"
            home.ini(host(mode, row), file.read_text() + how.variables)
    before = os.umask(0o022)
    try:
        with contextlib.ExitStack() as stack:
            yield Stand(home, {kind: stack.enter_context(gunicorn(home, *how)) for kind, how in KINDS.items()})
    finally:
        os.umask(before)
        remove(path)
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("row", ROWS)
def test_it_is_seen_or_refused_as_the_table_says(stand: Stand, row: str) -> None:
    how, says = ROWS[row], table()[row]
    if how.path == "/user" and os.geteuid() != 0:
        pytest.skip("only root can run a site as somebody else")
    if how.path == "/user" and not reaches_us(65534):
        not_tested("a site of another user: nobody cannot reach the interpreter of these tests")
    see = how.see or once
    for column, mode, way in stand.ways(row):
        expected = how.expected(stand.location(mode, row))
        for _ in range(2):  # the first call is another one where it imports, starts or moves
            pids, seen = see(way, how.path)
        if mode == "share" and how.moves and says[column] == YES:
            eventually(partial(_answer_is_of, stand, see, way, how.path), what=f"{way} is in the workers")
            pids, seen = see(way, how.path)
        here = pids & stand.workers()
        assert here in (pids, set()), way
        if mode == "share" and not here:  # it has not moved, or may not
            assert seen == expected or not how.is_tried, way
        elif says[column] == NO:
            assert here and seen != expected, (way, seen)
        else:
            assert bool(here) == (says[column] == YES and column != OWN), way
            assert seen == expected, way


def _answer_is_of(stand: Stand, see: Callable[[Way, str], tuple[set[int], Any]], way: Way, path: str) -> bool:
    """Whether the workers answer."""
    return see(way, path)[0] <= stand.workers()
