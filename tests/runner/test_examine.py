"""What a process finds out about the site that it serves: sites that leave their mark, and sites that do not."""

from __future__ import annotations

import json
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
        for _ in range(40):  # one that is answered while another is heeded does not count
            site.ask()
        assert examined(site, 8)["findings"] == []


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
