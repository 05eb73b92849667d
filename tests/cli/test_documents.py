"""What the commands print of sites, for programs and for people, held to the letter.

`python -m tests.cli.test_documents` writes the texts in `documents/` anew; programs read them, so look at the changes.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from multisite import __version__
from multisite.cli import main
from multisite.cli.session import Session
from multisite.config.read import read_home
from multisite.errors import NeedsProcess
from multisite.sites import catalogue, changes, failures
from multisite.sites.failures import LastFailures
from multisite.sites.placement import Examined, Saving, basis
from multisite.sites.placements import Placements, Row
from multisite.sites.tally import Tally

DOCUMENTS = pathlib.Path(__file__).parent / "documents"
NOW = 1_800_000_000.0
APP = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
SHARED = "[defaults]\nshare = yes\n[supervisor]\nallow_root = yes\nexamine = no\n"
EXAMINED = "[defaults]\nshare = yes\n[supervisor]\nallow_root = yes\n"

#: what is written below [service] of each site, beside its domain, its location and its application
SITES = {
    "api": "domains = blog.test\nmount = /api\nmode = spawned",
    "apart": "",
    "blank": "mode = spawned\napplication = ",
    "blog": "domains = blog.test, www.blog.test\nredirect_to_canonical = yes\n[static]\n/files = {home}/no/such/folder",
    "chrooted": "mode = spawned\nchroot = {home}/no/such/jail",
    "factory": "server = granian\napplication = app:application()",
    "failed": "",
    "far": "mode = proxy\nupstreams = http://127.0.0.1:9",
    "forgetful": "application = app:application\nserver = command",
    "gone": "location = {home}/no/such/place",
    "hosts": "domains = *.hosts.test\nlocation = {home}/www/%HOST\napplication = wsgi:application",
    "kept": "",
    "misspelt": "comand = serve %PORT",
    "nameless": "application = app:aplication",
    "nobody": "mode = spawned\nuser = nobody-at-all",
    "placed": "server = command\ncommand = {home}/no/such/program --port %PRT",
    "programless": "server = command\ncommand = {home}/no/such/program --port %PORT",
    "snake": "mode = spawned\npython = {home}/no/such/venv",
    "twin": "domains = blog.test, twin.test",
    "unlike": "mode = spawned\nserver = waitress\napplication = asgi:app:application",
    "woken": "mode = spawned",
}
DISABLED = {"off": "", "wrong": "mode = sometimes"}
BUSY = {"busy": "", "changed": "", "new": "", "saves": "share = no", "unshared": "share = no"}


def write(home: pathlib.Path, conf: str, sites: dict[str, str], disabled: dict[str, str]) -> None:
    """Make a home and its sites, all of one application."""
    for folder in ("sites-available", "sites-enabled", "www/ann.hosts.test"):
        (home / folder).mkdir(parents=True)
    (home / "www" / "app.py").write_text(APP)
    (home / "www" / "ann.hosts.test" / "wsgi.py").write_text(APP)
    places = "[service]\nstate_dir = state\ntemp_dir = temp\nruntime_dir = run\n"
    (home / "moya.conf").write_text(f"[projects]\nread = sites-enabled/*.ini\n{places}{conf}")
    for name, text in {**sites, **disabled}.items():
        said = {"domains": f"{name}.test", "location": f"{home}/www", "application": "app:application"}
        missing = (f"{key} = {value}" for key, value in said.items() if f"{key} = " not in text)
        lines = text.format(home=home).splitlines()
        (home / "sites-available" / f"{name}.ini").write_text("\n".join(["[service]", *missing, *lines, ""]))
    for name in sites:
        (home / "sites-enabled" / f"{name}.ini").symlink_to(f"../sites-available/{name}.ini")


def note(home: pathlib.Path) -> None:
    """Note failures as workers and the supervisor do."""
    settings = read_home(str(home))
    imports, starts = LastFailures(settings), failures.of_starts(settings)
    needs = NeedsProcess("it is an ASGI application").reason
    imports.note("apart", needs, "1", serving=False, own_process=True, basis=basis(settings))
    imports.note("failed", "there is no module shop", "2", serving=False)
    imports.note("kept", "its smoke request failed", "3", serving=True)
    starts.note("snake", "it ended at once", "4", serving=False, steps=[("spawn", 0.01234567)], output=["Traceback"])


def place(home: pathlib.Path) -> None:
    """Note where examined sites live, as the supervisor does."""
    settings = read_home(str(home))
    sites = catalogue.read(settings)
    version = {name: changes.version_of(sites.site(name), settings) for name in BUSY}
    clean, saving = Examined(requests=3, notes=("reads the clock",)), Saving(30 * 2**20, 1.5)
    rows = {
        "busy": Row(version["busy"], clean, "in-process", "it is busy", NOW - 200_000, was_here=True),
        "changed": Row("another", clean, "spawned", "it is idle", NOW, was_here=True),
        "saves": Row(version["saves"], clean, "spawned", "it may not share", NOW, saving=saving),
        "unshared": Row("another", clean, "spawned", "it may not share", NOW, saving=saving),
    }
    Placements(settings).store(rows)


def told(**known: Any) -> dict[str, Any]:
    """What the supervisor tells of one site."""
    latencies, statuses = (10, 20, 10, *[0] * 16), (1, 0, 36, 2, 0, 1)
    figures = Tally(
        *(3, 2, 40, 1, 0.5, 600, 7000, 1.25, 90.0, NOW - 900, NOW - 60, latencies, statuses),
        starts_by_kind={"cold": 2, "deploy": 1},
        stops_by_reason={"idle": 2},
        ready=3,
        start_seconds=1.5,
        queued=2,
        queued_seconds=0.01,
        app=50,
        app_seconds=0.75,
    ).as_dict()
    more = {"in_flight": 1, "waiting": 2, "idle": None, "up_since": None, "memory": 0, "journey": None}
    more |= {"failure": None, "replace_failure": "", "backends": [], "socket": None, "deploy": {}}
    return {"state": "stopped", "host": "", "template": "", "pids": [], **more, **figures, **known}


JOURNEY = {"way": "forked from a preloader", "failure": "", "steps": [{"step": "fork", "seconds": 0.0213}]}
FAILURE = {
    "failure": "it ended with exit code 1",
    "incident": "9",
    "at": NOW - 30,
    "steps": [{"step": "spawn", "seconds": 0.004}, {"step": "import", "seconds": 1.5}],
    "output": ["Traceback", "ImportError: shop"],
}
SUPERVISOR = {
    "supervisor": {"pid": 4711, "uptime": 8000.0, "backends": 3, "max_backends": 8},
    "preloaders": [
        {
            "pid": 4712,
            "user": "www",
            "interpreter": "/venv",
            "modules": 9,
            "children": 2,
            "memory": 7e6,
            "state": "ready",
        }
    ],
    "sites": {
        "api": told(state="running", pids=[21, 22], memory=2**25, up_since=NOW - 500, idle=7.5, journey=JOURNEY),
        "hosts..ann.hosts.test": told(state="running", pids=[23], host="ann.hosts.test", template="hosts"),
        "kept": told(state="stopped", replace_failure="the new one ended"),
        "snake": told(state="backoff", failure=FAILURE, requests=None),
        "woken": told(state="running", pids=[24], replace_failure="its smoke request failed", failure=FAILURE),
    },
}
OF_SITES = ("api", "apart", "blog", "failed", "far", "gone", "kept", "snake", "woken")
ADDRESSES = {"api": "blog.test/api", "blog": "www.blog.test"}
WORDS = {
    "list": ("list",),
    "status": ("status",),
    "stats": ("stats",),
    "check": ("check",),
    **{f"explain-{name}": ("explain", ADDRESSES.get(name, f"{name}.test")) for name in OF_SITES},
    "explain-hosts": ("explain", "ann.hosts.test"),
}


def say(home: pathlib.Path, *words: str) -> str:
    """Run a command, and return what it printed, without what differs from machine to machine."""
    done = CliRunner().invoke(main, ["--home", str(home), *words])
    assert done.exit_code in (0, 1, 3), done.output
    text = f"{done.stdout}{done.stderr}".replace(str(home), "HOME").replace(
        f"multisite {__version__},", "multisite VERSION,"
    )
    return text if "--json" in words else re.sub(r"─+", "──", re.sub(r"(?<=\S) {3,}", "  ", text))


def documents(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each document."""
    patch.setattr("time.time", lambda: NOW)
    patch.setenv("TZ", "UTC")
    time.tzset()
    patch.delenv("MOYA_SERVICE_HOME", raising=False)
    plain, examined = folder / "plain", folder / "examined"
    write(plain, SHARED, SITES, DISABLED)
    note(plain)
    write(examined, EXAMINED, BUSY, {})
    place(examined)
    for kind, words in WORDS.items():
        yield f"{kind}.json", say(plain, "--json", *words)
        yield f"{kind}.txt", say(plain, *words)
    for kind in ("list", "status", "check"):
        yield f"examined-{kind}.json", say(examined, "--json", kind)
        yield f"examined-{kind}.txt", say(examined, kind)
    for name in BUSY:
        yield f"examined-explain-{name}.json", say(examined, "--json", "explain", f"{name}.test")
    patch.setattr(Session, "ask", lambda _session, command, **_more: SUPERVISOR if command == "status" else None)
    for kind, words in WORDS.items():
        if kind != "check":
            yield f"supervised-{kind}.json", say(plain, "--json", *words)
            yield f"supervised-{kind}.txt", say(plain, *words)


def kept(name: str) -> str:
    """The file that has a document; `status` tells programs what `list` does."""
    return name.replace("status.json", "list.json")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        found = dict(documents(tmp_path_factory.mktemp("documents"), patch))
    time.tzset()
    return found


@pytest.mark.parametrize("kind", ["list", "status", "stats", "check", "explain"])
def test_documents_stay_what_they_are(printed: dict[str, str], kind: str) -> None:
    """Programs read them, and people know them."""
    mine = {name: text for name, text in printed.items() if kind in name.replace(".", "-").split("-")}
    assert mine
    for name, text in mine.items():
        assert text == (DOCUMENTS / kept(name)).read_text(), name


if __name__ == "__main__":
    DOCUMENTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, text in documents(pathlib.Path(folder), patch):
            (DOCUMENTS / kept(name)).write_text(text)
    sys.exit(os.EX_OK)
