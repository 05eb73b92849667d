"""Ways to get a site wrong: what the visitor, the log, and each command report of it, and that they agree.

Every mistake is made in a home of its own name, beside all the others; each place must name the cause, the commands
the remedy, and all of them the incident that the visitor saw.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from .harness import HELLO, PATIENCE, Answer, HomeDir, Server, eventually, gunicorn

pytestmark = pytest.mark.servers

GOOD = HELLO.replace("{text}", "good")
INCIDENT = re.compile(r"[Ii]ncident ([0-9a-f]{8})")


@dataclass(frozen=True)
class Mistake:
    """One way to get a site wrong, and what an administrator must be able to read of it."""

    name: str  # of the site, too
    cause: str  # expression that every place has: the log, explain, status, and the checks where they can see it
    remedy: str  # expression that explain, and the checks where they can see it, have
    code: str = GOOD  # of the module NAME_app
    keys: dict[str, str] = field(default_factory=dict)  # of [service]
    more: str = ""  # further sections
    text: str | bytes = ""  # the whole site file instead
    checked: bool = True  # whether `check` and `ensite` can find it without running the site
    status: tuple[int, ...] = (500, 503)  # what the visitor gets
    state: str = ""  # where it matters: the state that list, status and explain name


HANGING = {"start_timeout": "2s"}
RAISES = "import os\nSECRET = os.environ['SECRET_KEY_OF_SHOP']\n"
MISTAKES = [
    # the site's file
    Mistake("unknownkey", r"aplication.*unknown key", "did you mean application", keys={"aplication": "x"}),
    Mistake("badvalue", "is not a duration", "write it like 15m", keys={"idle_timeout": "5 parsecs"}),
    Mistake("badsize", "is not a size", "write it like", keys={"memory_limit": "lots"}),
    Mistake("badchoice", r"mode = spawnd", "spawned", keys={"mode": "spawnd"}),
    Mistake("unknownsection", r"\[statics\].*unknown section", "did you mean static", more="[statics]\n/a = /b\n"),
    Mistake("latin", "is not UTF-8", "iconv", text="[service]\n# café\ndomains = latin.test\n".encode("latin-1")),
    Mistake("noparse", r"is not a section", r"write \[name\] alone", text="[service\ndomains = noparse.test\n"),
    # where the site is, and who runs it
    Mistake(
        "nolocation", "/srv/nowhere.*no such directory", "mkdir -p /srv/nowhere", keys={"location": "/srv/nowhere"}
    ),
    Mistake(
        "filelocation", "not a directory", "multisite set filelocation location=", keys={"location": "/etc/passwd"}
    ),
    Mistake("nouser", "no user 'nosuchuser'", "useradd --system nosuchuser", keys={"user": "nosuchuser"}),
    Mistake(
        "nopython",
        "/srv/none/.venv.*no such file",
        "python3 -m venv /srv/none/.venv",
        keys={"python": "/srv/none/.venv"},
    ),
    Mistake("novenv", "no bin/python", "multisite set novenv python=", keys={"python": "/etc"}),
    # the application
    Mistake(
        "nomodule", "no module.*shop", "multisite set nomodule application=", keys={"application": "shop.wsgi:app"}
    ),
    Mistake("nowsgi", r"missing\.wsgi", "multisite set nowsgi application=", keys={"application": "missing.wsgi"}),
    Mistake(
        "dotted",
        r"dotted_app\.application",
        "dotted_app:application",
        keys={"application": "dotted_app.application"},
    ),
    Mistake("nocallable", "no .?application", r"\bapp\b", GOOD.replace("def application", "def app")),
    Mistake("notcallable", "cannot be called|not callable", "application", "application = 5\n"),
    Mistake("syntax", "SyntaxError|not valid Python", "line 1", "def application(:\n"),
    Mistake("noframework", "sandal_framework", "pip install", "import sandal_framework\n" + GOOD, checked=False),
    Mistake("raises", "KeyError: 'SECRET_KEY_OF_SHOP'", "raises_app.py.*line 2", RAISES + GOOD, checked=False),
    Mistake("exits", "SystemExit", "exits_app.py.*line 2", "import sys\nsys.exit(0)\n" + GOOD, checked=False),
    Mistake(
        "hangs",
        "not ready within 2 s",
        "start_timeout",
        "import time\ntime.sleep(1000)\n" + GOOD,
        HANGING,
        checked=False,
    ),
    # the command
    Mistake(
        "noprogram",
        "/usr/bin/nosuchserver",
        "multisite set noprogram command=",
        keys={"command": "/usr/bin/nosuchserver %PORT"},
    ),
    Mistake(
        "quits",
        "exited with code 7",
        "cannot open the database",
        keys={"command": "/bin/sh -c 'echo cannot open the database >&2; exit 7' %PORT"},
        checked=False,
    ),
    Mistake(
        "neverlistens",
        "not ready within 2 s",
        r"(?s)%PORT.*%SOCKET.*LISTEN_FDS",
        keys={"command": "/bin/sleep 1000", **HANGING},
        checked=False,
    ),
    # while it serves
    Mistake(
        "crashes",
        "exited with code 9",
        "while serving",
        "import os\ndef application(e, s):\n    os._exit(9)\n",
        checked=False,
        status=(502,),
    ),
    Mistake(
        "killed",
        "SIGKILL",
        "while serving",
        "import os\ndef application(e, s):\n    os.kill(os.getpid(), 9)\n",
        checked=False,
        status=(502,),
    ),
    Mistake(
        "slow",
        "request_timeout",
        r"request_timeout.*\b1 ?s",
        "import time\ndef application(e, s):\n    time.sleep(1000)\n",
        {"request_timeout": "1s"},
        checked=False,
        status=(502, 504),
    ),
    Mistake(
        "down",
        "Connection refused",
        r"http://127\.0\.0\.1:9\b",
        text="[service]\ndomains = down.test\nmode = proxy\nupstreams = http://127.0.0.1:9\n",
        checked=False,
        status=(502, 503),
    ),
]
NAMES = [mistake.name for mistake in MISTAKES]
# Mistakes that leave the site serving: the checks and the log name them.
LESSER = [
    Mistake("nostatic", "/srv/none.*no such folder", "mkdir -p /srv/none", more="[static]\n/static = /srv/none\n"),
    Mistake(
        "nologs", "/var/log/nowhere", "mkdir -p /var/log/nowhere", more="[logging]\nerror = /var/log/nowhere/x.log\n"
    ),
    Mistake("nodomains", "no domains", "set domains", keys={"domains": ""}),
]


def make(home: HomeDir, mistake: Mistake) -> None:
    """Write the site of a mistake, and enable it."""
    place = home.path / "sites" / mistake.name
    place.mkdir()
    (place / f"{mistake.name}_app.py").write_text(mistake.code)
    keys = {"domains": f"{mistake.name}.test", "location": str(place), "mode": "spawned"} | mistake.keys
    if "command" not in keys:
        keys.setdefault("application", f"{mistake.name}_app:application")
    text = "[service]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value) + mistake.more
    home.ini(mistake.name, mistake.text or text)


@dataclass(frozen=True)
class Walk:
    """What every place says of every mistake, gathered once."""

    home: HomeDir
    server: Server
    pages: dict[str, Answer]

    def log_of(self, name: str) -> str:
        return "\n".join(line for line in self.server.log().splitlines() if f"({name})" in line or f"/{name}." in line)

    def document(self, command: str, *names: str) -> dict[str, dict[str, Any]]:
        """What a command tells of these sites, or of all."""
        return {site["name"]: site for site in json.loads(self.home.typed("--json", command, *names).stdout)["sites"]}


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    home = HomeDir(tmp_path_factory.mktemp("mistakes")).create()
    home.site("neighbour", mode="spawned")
    for mistake in [*MISTAKES, *LESSER]:
        make(home, mistake)
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "16") as server:
        with ThreadPoolExecutor(8) as visitors:
            pages = dict(zip(NAMES, visitors.map(lambda name: server.ask(f"{name}.test"), NAMES), strict=True))
        walk = Walk(home, server, pages)

        def settled() -> bool:
            """Every site that failed has its incident, and none is being started."""
            sites = walk.document("status")
            return all(sites[name]["state"] != "starting" for name in NAMES)

        eventually(settled, PATIENCE, "every start has ended")
        yield walk
        assert server.ask("neighbour.test").status == 200  # whom none of it has cost anything


@pytest.mark.parametrize("mistake", MISTAKES, ids=NAMES)
class TestEachPlace:
    def test_the_visitor_gets_an_incident_and_no_cause(self, walk: Walk, mistake: Mistake) -> None:
        page = walk.pages[mistake.name]
        assert page.status in mistake.status
        assert INCIDENT.search(page.text), page.text
        assert str(walk.home.path) not in page.text

    def test_the_log_names_the_cause_under_the_visitors_incident(self, walk: Walk, mistake: Mistake) -> None:
        incident = self.incident(walk, mistake)
        lines = [line for line in walk.log_of(mistake.name).splitlines() if incident in line]
        assert lines, walk.log_of(mistake.name)
        assert any(re.search(mistake.cause, line) and re.search("ERROR|WARNING", line) for line in lines), lines

    def test_explain_names_cause_remedy_and_incident(self, walk: Walk, mistake: Mistake) -> None:
        text = walk.home.multisite("explain", f"{mistake.name}.test")
        assert re.search(mistake.cause, text), text
        assert re.search(mistake.remedy, text), text
        assert self.incident(walk, mistake) in text, text

    def test_status_names_cause_and_incident(self, walk: Walk, mistake: Mistake) -> None:
        text = json.dumps(walk.document("status", mistake.name)[mistake.name], ensure_ascii=False)
        assert re.search(mistake.cause, text), text
        assert self.incident(walk, mistake) in text, text
        table = walk.home.multisite("status", "--wide", mistake.name)
        assert self.incident(walk, mistake) in table, table

    def test_list_status_and_explain_name_one_state(self, walk: Walk, mistake: Mistake) -> None:
        state = walk.document("status", mistake.name)[mistake.name]["state"]
        assert walk.document("list", mistake.name)[mistake.name]["state"] == state
        explained = json.loads(walk.home.typed("--json", "explain", f"{mistake.name}.test").stdout)
        assert explained["state"] == state, explained

    def test_the_checks_agree(self, walk: Walk, mistake: Mistake) -> None:
        done = walk.home.typed("check", mistake.name)
        text = done.stdout + done.stderr
        if mistake.checked:
            assert done.exit_code == 1, text
            assert re.search(mistake.cause, text), text
            assert re.search(mistake.remedy, text), text
        again = walk.home.typed("ensite", mistake.name)
        text = again.stdout + again.stderr
        if mistake.checked:
            assert again.exit_code == 1, text
            assert re.search(mistake.cause, text), text
            assert re.search(mistake.remedy, text), text

    def incident(self, walk: Walk, mistake: Mistake) -> str:
        """The incident that the visitor saw."""
        found = INCIDENT.search(walk.pages[mistake.name].text)
        assert found
        return found[1]


@pytest.mark.parametrize("mistake", LESSER, ids=[mistake.name for mistake in LESSER])
def test_a_lesser_mistake_costs_a_warning(walk: Walk, mistake: Mistake) -> None:
    for command in ("check", "ensite"):
        done = walk.home.typed(command, mistake.name)
        text = done.stdout + done.stderr
        assert re.search(mistake.cause, text), text
        assert re.search(mistake.remedy, text), text
