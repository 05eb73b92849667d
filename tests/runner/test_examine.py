"""What a process finds out about the site that it serves: sites that leave their mark, and sites that do not."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .harness import Backend, backend

SITE = """
{top}

def application(environ, start_response):
    {view}
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

MARKS = {
    "changed the working directory": "import os; os.chdir('/')",
    "changed the umask": "import os; os.umask(0o77)",
    "changed os.environ['MINE'] (set)": "import os; os.environ['MINE'] = 'secret'",
    "changed the time zone of the process": "import time, os; os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()",
    "changed the locale": "import locale; locale.setlocale(locale.LC_ALL, 'C')",
    "changed the warnings filters": "import warnings; warnings.simplefilter('ignore')",
    "changed the recursion limit": "import sys; sys.setrecursionlimit(5000)",
    "changed the handler of SIGUSR1": "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)",
    "set up the root logger": "import logging; logging.basicConfig()",
    "started a thread": "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "started a process": "import subprocess; CHILD = subprocess.Popen(['sleep', '60'])",
    "opened a socket and kept it": "import socket; SOCKET = socket.socket()",
    "registered a function to be called at the exit": "import atexit; atexit.register(lambda: None)",
    "replaced a hook for errors": "import sys; sys.excepthook = lambda *_: None",
    "replaced sys.stdin, sys.stdout or sys.stderr": "import io, sys; sys.stdout = io.StringIO()",
    "set a timer": "import signal; signal.setitimer(signal.ITIMER_REAL, 3600)",
    "set the default timeout of sockets": "import socket; socket.setdefaulttimeout(5)",
    "changed how the garbage collector works": "import gc; gc.disable()",
    "put Finder into the import system": "import sys\nclass Finder:\n    pass\nsys.meta_path.append(Finder())",
    "patched the standard library: time.sleep": "import time; time.sleep = lambda seconds: None",
    "patched the standard library: json.dumps": "import json; json.dumps = lambda *_, **__: 'x'",
    "patched the standard library: http.client.HTTPConnection.request": (
        "import http.client; http.client.HTTPConnection.request = lambda *_: None"
    ),
    "patched the standard library: builtins.repr": "import builtins; builtins.repr = lambda _: ''",
    "made its process unreadable": "import os; os.listdir = lambda *_: 1 / 0",
}


def examined(site: Backend, requests: int) -> dict[str, Any]:
    """What it tells after so many requests."""
    while True:
        notice = site.notice()
        if notice.startswith("FACTS="):
            facts: dict[str, Any] = json.loads(notice[6:])
            if facts["requests"] >= requests:
                return facts


def of_code(folder: Path, top: str = "", view: str = "pass") -> dict[str, Any]:
    with backend(folder, SITE.format(top=top, view=view), examine=True, env={"LC_ALL": "C.UTF-8"}) as site:
        for _ in range(8):
            assert site.ask().body == b"ok"
        return examined(site, 0 if "listdir" in top else 8)


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_that_an_import_leaves_is_told(tmp_path: Path, mark: str) -> None:
    """It is told as half a sentence, and the values of variables are not."""
    findings = of_code(tmp_path, MARKS[mark])["findings"]
    assert any(found.startswith(mark) for found in findings), findings
    assert "secret" not in str(findings)


@pytest.mark.parametrize(
    ("view", "mark"),
    [
        ("import os; os.chdir('/')", "changed the working directory"),
        ("import time; time.sleep = print", "patched the standard library: time.sleep"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "started a thread"),
    ],
)
def test_what_a_view_changes_is_told_as_well(tmp_path: Path, view: str, mark: str) -> None:
    """The import was clean, the first requests were not."""
    findings = of_code(tmp_path, view=view)["findings"]
    if "print" in view:  # a function of the standard library in the place of another is not told from it
        assert findings == []
        return
    assert [found for found in findings if found.startswith(mark) and found.endswith("when it answered requests")]


DEEDS = {
    "called signal.signal()": "import signal; signal.signal(signal.SIGALRM, signal.signal(signal.SIGALRM, print))",
    "called signal.alarm()": "import signal; signal.alarm(30); signal.alarm(0)",
    "called os.umask()": "import os; os.umask(os.umask(0o77))",
    "wrote os.environ['MINE']": "import os; os.environ['MINE'] = 'secret'; del os.environ['MINE']",
    "changed the working directory": "import os; os.chdir('/'); os.chdir(os.path.dirname(__file__))",
    "ran a program (true)": "import subprocess; subprocess.run(['true'])",
    "started a process": "import os; os.system('true')",
    "started a thread": "import threading; one = threading.Thread(target=int); one.start(); one.join()",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_view_does_and_undoes_is_told(tmp_path: Path, deed: str) -> None:
    """No comparison of before and after shows it, and the workers have neighbours meanwhile."""
    facts = of_code(tmp_path, view=DEEDS[deed])
    assert facts["findings"] == [f"{deed} when it answered requests"]
    assert facts["notes"] == []


RELATIVE = {
    "open": ("open('name', 'a').close()", "name"),
    "a database": ("import sqlite3; sqlite3.connect('guests.db').close()", "guests.db"),
    "a database by URI": ("import sqlite3; sqlite3.connect('file:b.db?mode=rwc', uri=True).close()", "b.db"),
    "a folder": ("import os; os.makedirs('one/two', exist_ok=True)", "one"),
    "a listing": ("import os; os.listdir()", "."),
    "a pathlib": ("import pathlib; pathlib.Path('x').write_text('')", "x"),
}


@pytest.mark.parametrize("what", RELATIVE)
def test_relative_paths_are_told_and_no_obstacle(tmp_path: Path, what: str) -> None:
    """The workers have its location for a working directory as well."""
    view, path = RELATIVE[what]
    facts = of_code(tmp_path, view=view)
    assert facts["findings"] == []
    assert f"uses the relative path {path}" in facts["notes"]


def test_absolute_paths_and_databases_in_memory_are_no_matter(tmp_path: Path) -> None:
    """Nor is what our own code opens."""
    view = "import os, sqlite3; open(os.devnull).close(); sqlite3.connect(':memory:').close(); os.listdir('/')"
    assert of_code(tmp_path, view=view)["notes"] == []


def test_nothing_is_noted_when_enough_has_been_seen() -> None:
    """The hook stays, and asks one question; the functions are Python's again."""
    code = """
import os, signal
from multisite.runner import audit
before = signal.signal, os.umask
seen = audit.AuditTrail()
seen.serves()
exec(compile("import os; os.umask(os.umask(0)); open('/dev/null').close(); os.putenv('A', 'b')", "/site.py", "exec"))
assert seen.besides([]) == ["called os.umask()", "wrote os.environ['A']"], seen.besides([])
seen.end()
assert (signal.signal, os.umask) == before and audit._note is None
exec(compile("import os; os.putenv('C', 'd')", "/site.py", "exec"))
assert len(seen.besides([])) == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)


COUNTED = """
import collections, json, sys
EVENTS = collections.Counter()
sys.addaudithook(lambda event, args: EVENTS.update([event]))

def application(environ, start_response):
    told = json.dumps(EVENTS).encode()
    start_response("200 OK", [("Content-Length", str(len(told)))])
    return [told]
"""


def test_our_own_part_of_a_request_raises_one_audit_event(tmp_path: Path) -> None:
    """So what the hook costs for good is one call of it, less than a microsecond."""
    with backend(tmp_path, COUNTED) as site:
        for ask in (site.ask, site.http):
            before, after = [ask().json for _ in range(3)][1:]
            raised = {name: count - before.get(name, 0) for name, count in after.items()}
            assert {name: count for name, count in raised.items() if count} == {"socket.__new__": 1}


ASIDE = """
import json, os, signal, sqlite3, asyncio, threading, time
MAIN, LOCAL, DB = threading.get_ident(), threading.local(), sqlite3.connect(":memory:")
LOCAL.answer = 7
MEET = threading.Barrier(2)

async def seven():
    return 7

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/loop":
        asyncio.get_event_loop().run_until_complete(seven())
    elif path == "/alarm":
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    elif path == "/local":
        LOCAL.answer
    elif path == "/database":
        DB.execute("select 7")
    elif path == "/meet":
        MEET.wait(30)
    elif path == "/broken":
        raise ValueError
    start_response("200 OK", [("Content-Length", "1")])
    return [b"1" if threading.get_ident() == MAIN else b"0"]
"""
IN_MAIN_ONLY = ("/loop", "/alarm", "/local", "/database")


@pytest.mark.parametrize("path", IN_MAIN_ONLY)
def test_what_only_the_main_thread_can_do_is_found(tmp_path: Path, path: str) -> None:
    """One visitor meets it, and never a second one."""
    with backend(tmp_path, ASIDE, examine=True, aside=True) as site:
        told = [site.ask(path=path) for _ in range(8)]
        assert [one.status for one in told] == [200, 500, *[200] * 6]
        facts = examined(site, 8)
        assert "failed in a thread other than the one that imported it when it answered requests" in facts["findings"]


def test_a_site_that_stands_it_is_answered_by_several_threads(tmp_path: Path) -> None:
    """The first request and those after the trial are the main thread's."""
    with backend(tmp_path, ASIDE, examine=True, aside=True) as site:
        assert [site.ask().body for _ in range(12)] == [b"1", *[b"0"] * 8, b"1", b"1", b"1"]
        facts = examined(site, 8)
        assert (facts["findings"], facts["is_untried"]) == ([], False)


def test_two_are_answered_at_once(tmp_path: Path) -> None:
    """Each waits for the other."""
    with backend(tmp_path, ASIDE, examine=True, aside=True) as site:
        assert site.ask().body == b"1"
        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(lambda _: site.ask(path="/meet").body, range(2)))
        assert sorted(told) == [b"0", b"1"]


def test_what_fails_everywhere_is_no_matter_of_threads(tmp_path: Path) -> None:
    """A page may be broken."""
    with backend(tmp_path, ASIDE, examine=True, aside=True) as site:
        paths = ("/", "/broken", "/broken", "/", "/", "/", "/", "/")
        assert [site.ask(path=path).status for path in paths] == [200, 500, 500, *[200] * 5]
        assert examined(site, 8)["findings"] == []


def test_without_leave_no_other_thread_is_tried(tmp_path: Path) -> None:
    """Who does not share is to be called as ever."""
    with backend(tmp_path, ASIDE, examine=True) as site:
        assert [site.ask().body for _ in range(12)] == [b"1"] * 12
        assert examined(site, 8)["is_untried"] is True


CLEAN = {
    "nothing": "",
    "standard library": (
        "import asyncio, concurrent.futures, decimal, email, gettext, http.client, json, logging, multiprocessing, "
        "sqlite3, ssl, urllib.request, weakref\nweakref.finalize(decimal.Decimal(1).__class__, print)"
    ),
    "flask": "from flask import Flask\nFLASK = Flask(__name__)",
    "its own folder": "import os, sys; sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))",
    "django's settings": "import os; os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'settings')",
    "output": "print('hello')",
    "a log file": "import os\nLOG = open(os.path.join(os.path.dirname(__file__), 'log.txt'), 'a')",
}


@pytest.mark.parametrize("what", CLEAN)
def test_a_clean_site_is_found_clean(tmp_path: Path, what: str) -> None:
    """Frameworks and the standard library are no reason for a process."""
    facts = of_code(tmp_path, CLEAN[what])
    assert facts["findings"] == []
    assert facts["seconds"] > 0


def test_threads_that_answer_are_not_the_sites(tmp_path: Path) -> None:
    """Neither is the one that watches for requests that hang."""
    code = SITE.format(top="", view="pass")
    with backend(tmp_path, code, examine=True, threads=4, request_timeout=30) as site:
        facts: dict[str, Any] = {"requests": 0}
        for _ in range(2000):  # a request that is answered while another is noted does not count
            site.ask()
            notice = site.next_notice(0)
            if notice.startswith("FACTS="):
                facts = json.loads(notice[6:])
            if facts["requests"] >= 8:
                break
        assert facts["requests"] >= 8 and facts["findings"] == []


def test_an_asgi_application_is_told(tmp_path: Path) -> None:
    """The workers could not call it."""
    code = "async def application(scope, receive, send):\n    pass\n"
    with backend(tmp_path, code, examine=True) as site:
        assert examined(site, 0)["findings"] == ["turned out to be an ASGI application when it was imported"]


def test_who_is_not_examined_tells_nothing(tmp_path: Path) -> None:
    """No reading is made."""
    with backend(tmp_path, SITE.format(top="", view="pass")) as site:
        assert site.ask().body == b"ok"
        assert site.terminate() == 0
        assert not [notice for notice in site.told if notice.startswith("FACTS")]
