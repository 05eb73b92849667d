"""Commands and applications that misbehave: a clear error for that site only, and nothing of it left running.

What the relay makes of each kind of bad answer is in tests/proxy, the life of a process in tests/supervisor; here all
of it is there at once: a real server, neighbours, pages, the log, and what the commands tell.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.processes import is_running

from .harness import PATIENCE, Answer, Client, HomeDir, Server, eventually, gunicorn
from .load import Load
from .test_spawned import make_venv, pid_of, supervisor_of

pytestmark = pytest.mark.servers

GOOD = {"good": "spawned", "shared": "in-process"}


def new_home(path: Path) -> HomeDir:
    home = HomeDir(path).create()
    for name, mode in GOOD.items():
        home.site(name, mode=mode)
    return home


def command(home: HomeDir, name: str, code: str, arguments: str = "", /, **keys: str) -> Path:
    """A site whose command runs `code`; returns its directory."""
    where = home.path / "sites" / name
    where.mkdir(exist_ok=True)
    (where / "srv.py").write_text(textwrap.dedent(code))
    keys = {
        "domains": f"{name}.test",
        "location": str(where),
        "command": f"{sys.executable} srv.py {arguments}",
        **keys,
    }
    home.ini(name, "[service]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()))
    return where


def one_worker(home: HomeDir) -> Server:
    return gunicorn(home, "gthread", "--workers", "1", "--threads", "8")


def processes_of(home: HomeDir, name: str) -> list[int]:
    """All processes that bear the mark of a site."""
    found = []
    for pid in home.processes(backends=True):
        try:
            if f":{name}:".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeDir:
    return new_home(tmp_path_factory.mktemp("bad-commands"))


@pytest.fixture(scope="module")
def server(home: HomeDir) -> Iterator[Server]:
    with one_worker(home) as running:
        yield running
    eventually(lambda: not home.processes(), PATIENCE, "no process is left")


@pytest.fixture
def unharmed(server: Server) -> Iterator[None]:
    """The good sites answer from the same processes, before and after, and the worker is the same."""
    workers, before = server.workers(), pid_of(server.ask("good.test"))
    yield
    assert server.ask("shared.test").text == "site shared"
    assert pid_of(server.ask("good.test")) == before
    assert server.workers() == workers


# --- starts that fail -----------------------------------------------------------------------------------------------

DAEMONISES = """
import http.server, os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(0.3)  # its parent is gone before it listens
        address = ("127.0.0.1", int(sys.argv[1]))
        http.server.ThreadingHTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
    os._exit(0)
os.wait()
"""
ELSEWHERE = """
import http.server
http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
SLEEPS = "import time; time.sleep(60)"
COMMANDS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "exits": ("print('no flask here'); raise SystemExit(3)", "", {}, "exited with code 3 before it was ready"),
    "never": (SLEEPS, "", {"start_timeout": "0.7s"}, "it accepted no connection on the socket that it received"),
    "neverport": (SLEEPS, "%PORT", {"start_timeout": "3s"}, "within 3 s: it does not listen on port"),
    "neverpath": (SLEEPS, "%SOCKET", {"start_timeout": "3s"}, "neverpath/0.sock"),
    "elsewhere": (ELSEWHERE, "%PORT", {"start_timeout": "3s"}, "it does not listen on port"),
    "daemon": (DAEMONISES, "%PORT", {}, "exited with code 0 before it was ready; a command must stay in the for"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "", {}, "was killed by SIGKILL before it was ready"),
    "nothere": ("", "", {"command": "/no/such/program -x"}, "/no/such/program: there is no such program"),
}
NEVER_LISTEN = ("never", "neverport", "neverpath", "elsewhere")
APPLICATIONS: dict[str, tuple[str, dict[str, str], str]] = {
    "nofolder": ("", {"location": "/no/such/folder"}, "/no/such/folder: there is no such directory"),
    "nopython": ("", {"python": "/no/such/venv"}, "/no/such/venv: there is no such file or directory"),
    "exitszero": ("import sys; sys.exit(0)", {}, "SystemExit: 0"),
    "exitstext": ("import sys; sys.exit('no database')", {}, "SystemExit: no database"),
    "exitsatonce": ("import os; os._exit(0)", {}, "exited with code 0 before it was ready"),
    # the exit statuses of our own runner
    "exitsthree": ("import os; os._exit(3)", {}, "exited with code 3 before it was ready"),
    "exitssix": ("import os; os._exit(6)", {}, "exited with code 6 before it was ready"),
    "recursion": ("def f(): f()\nf()", {}, "RecursionError"),
    "crashes": ("import ctypes; ctypes.string_at(0)", {}, "was killed by SIGSEGV before it was ready"),
}


def test_commands_that_do_not_start(server: Server, home: HomeDir, unharmed: None) -> None:
    """503 with Retry-After and an incident; log, `explain` and `status` know the reason; nothing goes on running."""
    for name, (code, arguments, keys, _) in COMMANDS.items():
        command(home, name, code, arguments, **keys)
    for name, (code, keys, _) in APPLICATIONS.items():
        home.site(name, code, **{"mode": "spawned", **keys})
    reasons = {name: row[-1] for table in (COMMANDS, APPLICATIONS) for name, row in table.items()}
    with ThreadPoolExecutor(8) as visitors:
        pages = list(visitors.map(lambda name: server.ask(f"{name}.test", accept="application/json"), reasons))
    for (name, reason), refused in zip(reasons.items(), pages, strict=True):
        assert_told(server, home, name, reason, refused)
    status = home.multisite("status", "--wide")
    sites = {site["name"]: site for site in json.loads(home.typed("--json", "list").stdout)["sites"]}
    for name in NEVER_LISTEN:
        assert sites[name]["starts"] == 1, f"{name}: whoever waits has waited for long enough"
        assert all(word in sites[name]["failure"]["failure"] for word in ("%PORT", "%SOCKET", "LISTEN_FDS")), name
    for name, reason in reasons.items():
        assert any(f"{name}: cannot start, incident" in line and reason in line for line in status.splitlines()), status
        eventually(lambda name=name: not processes_of(home, name), PATIENCE, f"{name} is gone")  # type: ignore[misc]
        home.disable(name)


def test_a_template_with_an_unknown_placeholder(server: Server, home: HomeDir, unharmed: None) -> None:
    """The file is at fault: the page has an incident, and the log, `explain` and `check` name the placeholder."""
    command(home, "unknown", "", "%WHAT")
    refused = server.ask("unknown.test", accept="application/json")
    assert refused.status in (500, 503)
    incident = json.loads(refused.text)["incident"]
    assert any(incident in line and "%WHAT" in line for line in server.log().splitlines())
    assert "%WHAT" in home.multisite("explain", "unknown.test")
    assert "%WHAT" in home.multisite("check")
    home.disable("unknown")


def assert_told(server: Server, home: HomeDir, name: str, reason: str, refused: Answer) -> None:
    assert refused.status == 503, f"{name}: {refused}"
    assert int(refused.headers["retry-after"]) >= 1, name
    incident = json.loads(refused.text)["incident"]
    told = [line for line in server.log().splitlines() if f"incident {incident}" in line]
    assert len(told) == 1, f"{name}: {incident} is in the log {len(told)} times"
    assert reason in told[0]
    events = [
        line for line in server.log().splitlines() if f"({name})" in line and re.search("incident [0-9a-f]{8}:", line)
    ]
    assert events == told, "what fails again at once is the same event"
    shown = home.multisite("explain", f"{name}.test")
    assert f"incident {incident}: " in shown, shown
    assert reason in shown


def test_a_virtualenv_without_the_framework(
    server: Server, home: HomeDir, unharmed: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is missing is named, and installing it mends the site with no other step."""
    venv = make_venv(tmp_path_factory.mktemp("venv") / "empty")
    code = "import framework_of_mine as f\ndef application(environ, start_response):\n"
    code += "    start_response('200 OK', [])\n    return [f.WORD]\n"
    home.site("bare", code, python=str(venv))
    refused = server.ask("bare.test", accept="application/json")
    assert_told(server, home, "bare", "it needs the module 'framework_of_mine'", refused)
    next(venv.glob("lib/python*/site-packages")).joinpath("framework_of_mine.py").write_text("WORD = b'installed'\n")
    eventually(lambda: server.ask("bare.test").text == "installed", PATIENCE, "the site is mended")
    home.disable("bare")


def test_starts_that_hang_hold_up_nobody_else(tmp_path: Path) -> None:
    """Twelve sites hang in their import, more than may start at once; a thirteenth is started all the same."""
    home = new_home(tmp_path)
    for number in range(12):
        home.site(f"hangs{number}", SLEEPS, mode="spawned", start_timeout="20s", stop_timeout="1s")
    with one_worker(home) as server:
        waiting = [Client(server.port) for _ in range(12)]
        for number, client in enumerate(waiting):
            client.connection.request("GET", "/", headers={"Host": f"hangs{number}.test"})
        eventually(lambda: len(home.processes(backends=True)) >= 5, PATIENCE, "they hang")
        answer = server.ask("good.test")
        assert (answer.status, answer.text) == (200, "site good")
        assert len(home.processes(backends=True)) <= 13
        for client in waiting:
            client.close()


# --- answers that are none ------------------------------------------------------------------------------------------

# Talks plain HTTP on the socket that it is given, and does with a request what its path says.
ODD = """
import socket, threading

def endless(wire, data):
    try:
        while True:
            wire.sendall(data)
    except OSError:
        with open("left", "a") as file:
            file.write("x")

def answer(wire):
    with wire:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            data = wire.recv(65536)
            if not data:  # the supervisor looked whether we accept
                return
            head += data
        path = head.split()[1].decode()
        ok = b"HTTP/1.1 200 OK\\r\\nContent-Length: "
        if path == "/right":
            wire.sendall(ok + b"5\\r\\n\\r\\nright")
        elif path == "/garbage":
            wire.sendall(b"\\x00\\xff SSH-2.0-garbage\\r\\n" * 20)
        elif path == "/half":
            wire.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Le")
        elif path == "/silent":
            pass
        elif path == "/long":
            wire.sendall(ok + b"100\\r\\n\\r\\nonly this")
        elif path == "/short":
            wire.sendall(ok + b"5\\r\\n\\r\\nrightHTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nforged")
        elif path == "/both":
            wire.sendall(ok + b"5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5\\r\\nright\\r\\n0\\r\\n\\r\\n")
        elif path == "/lengths":
            wire.sendall(ok + b"5\\r\\nContent-Length: 7\\r\\n\\r\\nright12")
        elif path == "/continues":
            endless(wire, b"HTTP/1.1 100 Continue\\r\\n\\r\\n" * 100)
        elif path == "/header":
            wire.sendall(b"HTTP/1.1 200 OK\\r\\nX-Endless: ")
            endless(wire, b"x" * 65536)
        elif path == "/headers":
            wire.sendall(b"HTTP/1.1 200 OK\\r\\n")
            endless(wire, b"X-Endless: x\\r\\n" * 1000)
        elif path == "/body":
            wire.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 999999999999\\r\\n\\r\\n")
            endless(wire, b"x" * 65536)

listener = socket.socket(fileno=3)
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
"""


@pytest.fixture(scope="module")
def odd(home: HomeDir, server: Server) -> Path:
    where = command(home, "odd", ODD)
    assert server.ask("odd.test", "/right").text == "right"
    return where


NO_ANSWER = ["garbage", "half", "silent", "both", "lengths", "continues", "header", "headers"]


@pytest.mark.parametrize("kind", NO_ANSWER)
def test_an_answer_that_is_none_is_502(server: Server, odd: Path, unharmed: None, kind: str) -> None:
    """The page and the log have the incident; the next request on the same connection is answered rightly."""
    client = Client(server.port)
    answer = client.ask("odd.test", f"/{kind}", accept="application/json")
    assert answer.status == 502
    incident = json.loads(answer.text)["incident"]
    assert sum(f"incident {incident}: " in line for line in server.log().splitlines()) == 1
    assert client.ask("odd.test", "/right").text == "right"
    client.close()


def test_a_length_that_is_too_long_shows_as_a_truncated_body(server: Server, odd: Path, unharmed: None) -> None:
    """The client must not take what came for the whole."""
    client = Client(server.port)
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.ask("odd.test", "/long")
    assert caught.value.partial == b"only this"
    client.close()


def test_a_length_that_is_too_short_forges_no_second_answer(server: Server, odd: Path, unharmed: None) -> None:
    """What follows the announced bytes is dropped: the next answer on the connection is the right one."""
    client = Client(server.port)
    assert client.ask("odd.test", "/short").text == "right"
    assert client.ask("odd.test", "/right").text == "right"
    assert client.ask("good.test").text == "site good"
    client.close()


def test_a_client_that_leaves_an_endless_body_frees_the_command(server: Server, odd: Path, unharmed: None) -> None:
    """Twenty clients read a little and go; the command learns of it each time, and the worker keeps nothing."""
    (worker,) = server.workers()
    (odd / "left").unlink(missing_ok=True)
    before = resident(worker)
    for _ in range(20):
        client = Client(server.port)
        client.connection.request("GET", "/body", headers={"Host": "odd.test"})
        assert client.connection.getresponse().read(1000) == b"x" * 1000
        client.close()
    eventually(
        lambda: (odd / "left").exists() and (odd / "left").stat().st_size == 20, PATIENCE, "all connections broke"
    )
    assert resident(worker) - before < 30 << 20


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- processes without manners --------------------------------------------------------------------------------------

ANSWERS = """
import os
def application(environ, start_response):
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return [b"answered"]
"""
FLOODS = """
import threading
def flood():
    while True:
        print("x" * 200)
threading.Thread(target=flood, daemon=True).start()
"""


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_flood_of_output_costs_little(tmp_path: Path) -> None:
    """Log, memory and the supervisor's share of the processor stay bounded; neighbours and commands are served."""
    home = new_home(tmp_path)
    log = tmp_path / "flood.log"
    where = home.site("flood", FLOODS + ANSWERS, enable=False)
    service = f"[service]\ndomains = flood.test\nlocation = {where}\n"
    service += "application = flood_app:application\nmode = spawned\n"
    home.ini("flood", f"{service}[logging]\nerror = {log}\n")
    with one_worker(home) as server:
        pid = pid_of(server.ask("flood.test"))
        assert server.ask("good.test").text == "site good"
        supervisor = supervisor_of(home)
        memory, used, begun = resident(supervisor), processor_seconds(supervisor), time.monotonic()
        with Load(server.port, "good.test", "site good", threads=1) as load:
            eventually(
                lambda: "lines of output left out" in log.read_text(errors="replace"), PATIENCE, "lines are left out"
            )
            assert pid_of(server.ask("flood.test")) == pid
            assert "running" in home.multisite("status")
            assert "xxxx" in home.multisite("logs", "flood")
            argv = [sys.executable, "-m", "multisite", "logs", "-f", "flood"]
            with subprocess.Popen(argv, env=home.environ(), stdout=subprocess.PIPE) as following:
                assert following.stdout
                assert all(following.stdout.readline() for _ in range(1000))
                following.kill()
            while time.monotonic() < begun + 3:
                assert server.ask("shared.test").text == "site shared"
        used, size = processor_seconds(supervisor) - used, log.stat().st_size
        seconds = time.monotonic() - begun
        assert load.failures == []
        assert used / seconds < 0.6
        assert resident(supervisor) - memory < 30 << 20
        assert size < (seconds + 2) * (300 << 10)
        assert home.multisite("stop", "flood") == "flood: stopping\n"
        eventually(lambda: not is_running(pid), PATIENCE, "it ends")


FORKS = "import os\nos.fork()\n" + ANSWERS
DEAF = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.socket()
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
while True:
    with listener.accept()[0] as wire:
        wire.recv(65536)
        wire.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\nConnection: close\\r\\n\\r\\ndeaf")
"""
# Fifty children, each in a session of its own and deaf, and theirs.
BOMB = """
import os, signal, time
def application(environ, start_response):
    for _ in range(25):
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.fork()
            time.sleep(600)
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return [b"forked"]
"""
SOCKETS = """
import os, resource, socket
HELD = []
def application(environ, start_response):
    try:
        while len(HELD) < 5_000:
            HELD.append(socket.socketpair())
        told = "enough"
    except OSError as error:
        told = error.strerror
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return [f"{told} {len(HELD)}".encode()]
"""
BURNS = """
import os, threading
def burn():
    while True:
        sum(range(100_000))
for _ in range(3):
    if os.fork() == 0:
        burn()
threading.Thread(target=burn, daemon=True).start()
"""


def test_noisy_neighbours_are_heard_by_nobody(tmp_path: Path) -> None:
    """Children, sockets, a burnt processor: others answer, the commands know what there is, `stop` sweeps it all."""
    home = new_home(tmp_path)
    sites = {"forks": FORKS, "bomb": BOMB, "sockets": SOCKETS, "burns": BURNS + ANSWERS}
    for name, code in sites.items():
        home.site(name, code, mode="spawned", stop_timeout="1s", drain_timeout="1s", nofile="12000")
    command(home, "deaf", DEAF, "%PORT", stop_timeout="1s", drain_timeout="1s")
    with one_worker(home) as server, Load(server.port, "good.test", "site good", threads=1) as load:
        assert server.ask("good.test").text == "site good"
        supervisor = supervisor_of(home)
        assert server.ask("forks.test").text == "answered"
        assert server.ask("bomb.test").text == "forked"
        eventually(lambda: len(processes_of(home, "bomb")) == 51, PATIENCE, "fifty children")
        assert server.ask("sockets.test").text == "enough 5000"
        assert server.ask("burns.test").text == "answered"
        assert server.ask("deaf.test").text == "deaf"
        for name in ("good", "shared"):
            assert server.ask(f"{name}.test").text == f"site {name}"
        assert_commands_know(home, [*sites, "deaf"])
        for name in [*sites, "deaf"]:
            assert home.multisite("stop", name) == f"{name}: stopping\n"
            eventually(lambda name=name: not processes_of(home, name), PATIENCE, f"{name} is gone")  # type: ignore[misc]
        assert supervisor_of(home) == supervisor
        asked = load.asked
        eventually(lambda: load.asked > asked + 5, PATIENCE, "the neighbour is asked")
    assert load.failures == []


def assert_commands_know(home: HomeDir, names: list[str]) -> None:
    """`status`, `list`, `explain` and `restart` are right while all that goes on."""
    told = json.loads(home.multisite("--json", "status"))
    running = {site["name"]: len(site["pids"]) for site in told["sites"] if site["state"] == "running"}
    assert running == dict.fromkeys([*names, "good"], 1)
    listed = json.loads(home.multisite("--json", "list"))
    assert {site["name"] for site in listed["sites"]} == {*names, *GOOD}
    assert "state:       running, process " in home.multisite("explain", "bomb.test")
    assert home.multisite("restart", "burns").startswith("burns: a new process is starting")


def test_the_end_of_the_server_is_the_end_of_all_of_it(tmp_path: Path) -> None:
    """Deaf commands, children in sessions of their own, sites in the middle of their start: nothing is left."""
    home = new_home(tmp_path)
    home.site("bomb", BOMB, mode="spawned", stop_timeout="1s")
    home.site("hangs", SLEEPS, mode="spawned", stop_timeout="1s")
    command(home, "deaf", DEAF, "%PORT", stop_timeout="1s")
    with one_worker(home) as server:
        assert server.ask("bomb.test").text == "forked"
        assert server.ask("deaf.test").text == "deaf"
        client = Client(server.port)
        client.connection.request("GET", "/", headers={"Host": "hangs.test"})
        eventually(lambda: processes_of(home, "hangs"), PATIENCE, "it starts")
        client.close()
        assert len(home.processes(backends=True)) > 50
        server.process.kill()
        server.process.wait()
        eventually(lambda: not home.processes(), PATIENCE, "nothing is left")


EATS = """
import os
HELD = []
def application(environ, start_response):
    HELD.append(b"x" * (5 << 20))
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return [b"ate"]
"""


def test_a_site_that_eats_memory_is_replaced_and_loses_no_request(tmp_path: Path) -> None:
    """Above `memory_limit` another process takes over; the old one ends; who asks meanwhile notices nothing."""
    home = new_home(tmp_path)
    home.site("eats", EATS, mode="spawned", memory_limit="60M")
    with one_worker(home) as server:
        first = pid_of(server.ask("eats.test"))
        for _ in range(15):
            assert server.ask("eats.test").text == "ate"

        def replaced() -> bool:
            answer = server.ask("eats.test")
            assert (answer.status, answer.text) == (200, "ate")
            time.sleep(0.1)
            return pid_of(answer) != first

        eventually(replaced, PATIENCE, "another process")
        eventually(lambda: not is_running(first), PATIENCE, "the old process is gone")
        assert any("more than memory_limit" in line for line in server.log().splitlines())
