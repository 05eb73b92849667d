"""Sites with processes of their own behind real gunicorns: started once, answered exactly once, nothing left behind."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import virtualenvs
from tests.processes import is_running

from .harness import PATIENCE, Answer, HomeDir, Server, eventually, gunicorn, not_tested
from .load import Load

pytestmark = pytest.mark.servers


WORKERS = [("sync", "--workers", "3"), ("gthread", "--workers", "2", "--threads", "8")]
ONE_WORKER = ("gthread", "--workers", "1", "--threads", "8")


@pytest.fixture
def own(tmp_path: Path) -> HomeDir:
    """A home for one test, which ends its server, or kills what all sites share."""
    return HomeDir(tmp_path).create()


@pytest.fixture(params=WORKERS, ids=lambda p: p[0])
def worker(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Worker class and options of a server of the test's own."""
    options: tuple[str, ...] = request.param
    return options


@dataclass(frozen=True)
class Front:
    """A server that the tests share; each has sites of its own in its home."""

    home: HomeDir
    server: Server


@contextlib.contextmanager
def running(path: Path, options: tuple[str, ...]) -> Iterator[Front]:
    home = HomeDir(path).create()
    home.conf((path / "moya.conf").read_text() + "[env]\nSHARED = all\n")
    with gunicorn(home, *options) as server:
        yield Front(home, server)
    eventually(lambda: not home.processes(), PATIENCE, "nothing is left")


@pytest.fixture(scope="module", params=WORKERS, ids=lambda p: p[0])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """The server with each worker class in turn."""
    with running(tmp_path_factory.mktemp("front"), request.param) as made:
        yield made


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """The server with one worker, for what does not differ among worker classes."""
    with running(tmp_path_factory.mktemp("single"), ONE_WORKER) as made:
        yield made


def pid_of(answer: Answer) -> int:
    """The process that a site of the harness says it runs in."""
    assert answer.status == 200, answer.text
    return int(answer.headers["x-worker"])


def supervisor_of(home: HomeDir) -> int:
    """The process that has signed the lock of the runtime directory."""
    return int((home.runtime / "multisite" / "supervisor.lock").read_text().split()[0])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid), PATIENCE, f"{pid} is dead")


def answers(server: Server, name: str, text: str, within: float) -> None:
    eventually(lambda: server.ask(f"{name}.test").text == text, within, f"{name} answers {text!r}")


# --- an interpreter and an environment of its own -------------------------------------------------------------------

IN_A_VENV = """
import importlib.util, os, sys
before = sorted(name for name in sys.modules if name.partition(".")[0] == "multisite")
import flask

app = flask.Flask(__name__)

@app.route("/")
def tell():
    unwanted = ("GUNICORN_", "LISTEN_", "MULTISITE_JOB", "MOYA_", "PYTHON")
    return {
        "prefix": sys.prefix, "ours": before, "importable": importlib.util.find_spec("multisite") is not None,
        "flask": flask.__file__, "cwd": os.getcwd(), "leaked": sorted(n for n in os.environ if n.startswith(unwanted)),
    }
"""


def make_venv(path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    return path


@pytest.fixture(scope="session")
def flask_venv() -> Path:
    """A virtualenv that has Flask and nothing of ours."""
    try:
        return Path(virtualenvs.kept(sys.executable, "flask")).parent.parent
    except subprocess.CalledProcessError as error:
        not_tested(f"a site in a virtualenv of its own: {virtualenvs.reason(error)}")


def test_python_names_a_virtualenv_with_nothing_of_ours(front: Front, flask_venv: Path) -> None:
    """`python =` is all it takes; the site sees its own packages, its folder and a clean environment."""
    where = front.home.site("venv", IN_A_VENV, application="venv_app:app", python=str(flask_venv))
    for _ in range(5):
        told = json.loads(front.server.ask("venv.test").text)
        assert told.pop("flask").startswith(str(flask_venv))
        right = {"prefix": str(flask_venv), "cwd": str(where), "ours": [], "importable": False, "leaked": []}
        assert told == right


def test_a_virtualenv_that_lacks_something_is_told(single: Front, tmp_path: Path) -> None:
    """503, and the log names the module, or the interpreter, that is missing."""
    server = single.server
    single.home.site("bare", IN_A_VENV, application="bare_app:app", python=str(make_venv(tmp_path / "empty")))
    single.home.site("gone", python=str(tmp_path / "nowhere"))
    for name, reason in (("bare", "No module named 'flask'"), ("gone", "nowhere")):
        refused = server.ask(f"{name}.test", accept="application/json")
        assert refused.status == 503
        assert json.loads(refused.text)["incident"] in server.log()
        assert any(reason in line and name in line for line in server.log().splitlines()), server.log()


def test_a_refusal_is_told_once_and_mended(single: Front, tmp_path: Path) -> None:
    """Twenty visitors of a site whose interpreter is missing make one report; it serves once that is there."""
    server = single.server
    single.home.site("comes", python=str(tmp_path / "later"))
    assert {server.ask("comes.test").status for _ in range(20)} == {503}
    assert len([line for line in server.log().splitlines() if "incident" in line and "later" in line]) == 1
    make_venv(tmp_path / "later")
    answers(server, "comes", "site comes", PATIENCE)


SETTING = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [repr((os.environ.get("COLOUR"), os.environ.get("SHARED"))).encode()]
"""


def env_site(home: HomeDir, name: str, colour: str) -> Path:
    """A site that tells the colour which its [env] sets; returns its file."""
    home.site(name, SETTING, enable=False)
    text = (home.path / "sites-available" / f"{name}.ini").read_text()
    return home.ini(name, f"{text}[env]\nCOLOUR = {colour}\n")


def test_env_reaches_its_site_and_no_neighbour(front: Front) -> None:
    """Two sites set one variable differently, a third does not; moya.conf's own reaches the spawned ones as well."""
    env_site(front.home, "red", "red")
    env_site(front.home, "blue", "blue")
    front.home.site("none", SETTING, mode="spawned")
    for _ in range(5):
        assert front.server.ask("red.test").text == "('red', 'all')"
        assert front.server.ask("blue.test").text == "('blue', 'all')"
        assert front.server.ask("none.test").text == "(None, 'all')"


# --- starting and stopping ------------------------------------------------------------------------------------------

DIGEST = """
import hashlib

def application(environ, start_response):
    stream, digest, size = environ["wsgi.input"], hashlib.sha256(), 0
    while block := stream.read(65536):
        digest.update(block)
        size += len(block)
    with open("calls", "a") as calls:
        calls.write("once")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{size} {digest.hexdigest()}".encode()]
"""


def post(port: int, host: str, body: bytes, *, chunked: bool) -> str:
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    pieces = (body[at : at + 30_000] for at in range(0, len(body), 30_000))
    wire.request("POST", "/", pieces if chunked else body, {"Host": host}, encode_chunked=chunked)
    answer = wire.getresponse()
    text = answer.read().decode()
    wire.close()
    return text if answer.status == 200 else f"{answer.status} {text}"


def test_cold_posts_are_answered_exactly_once(front: Front) -> None:
    """The request that starts a site has its body digested right and once, from 1 byte to 5 MB, chunked or not."""
    cases = [(f"{kind}{size}", size, kind) for size in (1, 65_537, 5_000_000) for kind in ("plain", "chunked")]
    where = {name: front.home.site(name, DIGEST, mode="spawned") for name, _, _ in cases}
    for name, size, kind in cases:
        body = os.urandom(size)
        got = post(front.server.port, f"{name}.test", body, chunked=kind == "chunked")
        assert got == f"{size} {hashlib.sha256(body).hexdigest()}", name
        assert (where[name] / "calls").read_text() == "once", name


SLEEPS = """
import os, time
with open("starts", "a") as starts:
    starts.write(f"{os.getpid()}\\n")
time.sleep(0.3)

def application(environ, start_response):
    time.sleep(float(environ["PATH_INFO"][1:] or 0))
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return [b"slept"]
"""


def test_many_first_requests_start_one_process(front: Front) -> None:
    """Forty parallel requests, in several workers, wait for one and the same process."""
    where = front.home.site("slow", SLEEPS, mode="spawned")
    with ThreadPoolExecutor(40) as pool:
        got = list(pool.map(lambda _: front.server.ask("slow.test"), range(40)))
    assert {(answer.status, answer.text) for answer in got} == {(200, "slept")}
    assert (where / "starts").read_text().split() == [got[0].headers["x-worker"]]
    assert len(front.home.processes(backends=True, of="slow")) == 1


def test_an_idle_site_stops_and_starts_again(single: Front) -> None:
    """After idle_timeout the process is gone, but not under a request; the next request starts another."""
    server = single.server
    single.home.site("idle", mode="spawned", idle_timeout="1s")
    where = single.home.site("busy", SLEEPS, mode="spawned", idle_timeout="1s")
    single.home.site("stays", mode="spawned")
    with ThreadPoolExecutor(1) as pool:
        stays, first = pid_of(server.ask("stays.test")), pid_of(server.ask("idle.test"))
        long = pool.submit(server.ask, "busy.test", "/2")
        eventually(lambda: not is_running(first), PATIENCE, "the idle process is gone")
        assert (long.result().status, long.result().text) == (200, "slept")
        assert len((where / "starts").read_text().split()) == 1
        assert pid_of(server.ask("idle.test")) != first
        assert pid_of(server.ask("stays.test")) == stays


def test_max_backends_is_never_exceeded(own: HomeDir) -> None:
    """Four sites take turns in two places, asked one after the other and all at once."""
    home = own
    home.conf("[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\nmax_backends = 2\n")
    names = ["n1", "n2", "n3", "n4"]
    for name in names:
        home.site(name, mode="spawned")
    seen: set[int] = set()
    done = threading.Event()

    def count() -> None:
        while not done.wait(0.02):
            seen.add(len(home.processes(backends=True)))

    counter = threading.Thread(target=count)
    with gunicorn(home, *ONE_WORKER) as server, ThreadPoolExecutor(4) as pool:
        counter.start()
        try:
            for name in names:
                assert server.ask(f"{name}.test").text == f"site {name}"
            texts = list(pool.map(lambda name: server.ask(f"{name}.test").text, names * 2))
            assert texts == [f"site {name}" for name in names * 2]
        finally:
            done.set()
            counter.join()
        seen.add(len(home.processes(backends=True)))
    assert max(seen) == 2


# --- killing --------------------------------------------------------------------------------------------------------


def test_a_killed_backend_is_replaced(front: Front) -> None:
    """The next request is answered by another process; the neighbours notice nothing."""
    server = front.server
    front.home.site("killed", mode="spawned")
    front.home.site("spared", mode="spawned")
    first, other = pid_of(server.ask("killed.test")), pid_of(server.ask("spared.test"))
    with Load(server.port, "spared.test", "site spared", threads=1) as load:
        kill(first)
        assert pid_of(server.ask("killed.test")) not in (first, other)
    assert load.failures == []
    assert pid_of(server.ask("spared.test")) == other


def test_a_killed_supervisor_is_replaced(own: HomeDir, worker: tuple[str, ...]) -> None:
    """Its processes go with it; every site answers again within seconds, and in-process ones all along."""
    home = own
    home.site("a", mode="spawned")
    home.site("b", mode="spawned")
    home.site("shared")
    with gunicorn(home, *worker) as server:
        old = {pid_of(server.ask("a.test")), pid_of(server.ask("b.test"))}
        supervisor = supervisor_of(home)
        with Load(server.port, "shared.test", "site shared", threads=1) as load:
            os.kill(supervisor, signal.SIGKILL)
            eventually(lambda: not is_running(supervisor), PATIENCE, "it is dead")
            answers(server, "a", "site a", PATIENCE)
            answers(server, "b", "site b", PATIENCE)
        assert load.failures == []
        eventually(lambda: not any(map(is_running, old)), PATIENCE, "the old processes are gone")
        assert supervisor_of(home) != supervisor
        assert {server.ask(f"{name}.test").status for name in ("a", "b") * 10} == {200}
        assert len(home.processes(backends=True)) == 2


def test_a_killed_worker_costs_no_backend(own: HomeDir) -> None:
    """The worker that started the supervisor is killed; supervisor and site go on."""
    home = own
    home.site("a", mode="spawned")
    with gunicorn(home, *ONE_WORKER) as server:
        backend, supervisor = pid_of(server.ask("a.test")), supervisor_of(home)
        (worker,) = server.workers()
        kill(worker)
        eventually(lambda: server.workers() - {worker}, PATIENCE, "another worker")
        assert pid_of(server.ask("a.test")) == backend
        assert supervisor_of(home) == supervisor


HELPER = """
import subprocess
child = subprocess.Popen(["sleep", "300"], start_new_session=True)

def application(environ, start_response):
    start_response("200 OK", [])
    return [str(child.pid).encode()]
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_nothing_outlives_the_server(own: HomeDir, end: int, worker: tuple[str, ...]) -> None:
    """After the master's end, however it came, no process of this home runs, helpers of a site included."""
    home = own
    home.site("a", mode="spawned")
    home.site("helper", HELPER, mode="spawned")
    with gunicorn(home, *worker, "--timeout", "8") as server:  # a sync worker looks for its master every 4 s then
        pid_of(server.ask("a.test"))
        helper = int(server.ask("helper.test").text)
        assert is_running(helper)
        server.process.send_signal(end)
        server.process.wait(PATIENCE)
        eventually(lambda: not home.processes() and not is_running(helper), PATIENCE, "nothing runs")
        assert not list((home.runtime / "multisite").rglob("*.sock"))


# --- failing and changing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mend", ["code", "file"])
def test_a_site_that_does_not_start_is_told_and_mended(single: Front, mend: str) -> None:
    """503 with Retry-After and an incident that the log explains; neighbours are served; an edit mends it."""
    home, server, bad = single.home, single.server, f"bad{mend}"
    where = home.site(bad, "import module_that_is_not\n", mode="spawned")
    other = home.site("mended", domains=f"mended{mend}.test")
    home.site("good", mode="spawned")
    for _ in range(3):
        refused = server.ask(f"{bad}.test", accept="application/json")
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert server.ask("good.test").text == "site good"
    incident = json.loads(refused.text)["incident"]
    told = [line for line in server.log().splitlines() if incident in line]
    assert told, f"{incident} is not in the log"
    assert "module_that_is_not" in told[0]
    if mend == "code":
        (where / f"{bad}_app.py").write_text((other / "mended_app.py").read_text())
    else:
        ini = (home.path / "sites-available" / f"{bad}.ini").read_text()
        home.ini(bad, ini.replace(str(where), str(other)).replace(f"{bad}_app", "mended_app"))
    answers(server, bad, "site mended", PATIENCE)


def test_a_broken_file_leaves_the_last_good_version(single: Front) -> None:
    """A typing error in the file of a running spawned site changes nothing; its correction restarts the process."""
    home, server = single.home, single.server
    file = env_site(home, "red", "red")
    text = file.read_text()
    first = server.ask("red.test")
    home.ini("red", text.replace("[service]", "[service"))
    eventually(lambda: server.ask("red.test") and "red.ini" in server.log(), PATIENCE, "the log names the file")
    assert pid_of(server.ask("red.test")) == pid_of(first)
    home.ini("red", text.replace("= red\n", "= pink\n"))
    answers(server, "red", "('pink', 'all')", PATIENCE)
    assert pid_of(server.ask("red.test")) != pid_of(first)


def test_an_edited_file_loses_no_request(single: Front) -> None:
    """The site is asked without pause while its file changes and another process takes over."""
    home, server = single.home, single.server
    text = env_site(home, "edited", "green").read_text()
    old = pid_of(server.ask("edited.test"))
    with Load(server.port, "edited.test", "('green', 'all')", threads=2) as load:
        home.ini("edited", text + "OTHER = x\n")
        eventually(lambda: pid_of(server.ask("edited.test")) != old, PATIENCE, "another process")
        eventually(lambda: not is_running(old), PATIENCE, "the old process is gone")
    assert load.failures == []


HELD = """
import os, time

def application(environ, start_response):
    open("begun", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.005)
    start_response("200 OK", [])
    return [b"let go"]
"""


def test_a_slow_site_keeps_to_its_own_process(single: Front) -> None:
    """While one site's only process sleeps, another spawned site and a shared one are answered."""
    server = single.server
    where = single.home.site("slow", HELD, mode="spawned")
    single.home.site("quick", mode="spawned")
    single.home.site("shared")
    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(server.ask, "slow.test") for _ in range(3)]
        eventually((where / "begun").exists, PATIENCE, "the site is at the first")
        for name in ("quick", "shared") * 10:
            assert server.ask(f"{name}.test").text == f"site {name}"
        assert not any(each.done() for each in held)
        (where / "go").touch()
        assert {each.result().text for each in held} == {"let go"}


# --- ASGI -----------------------------------------------------------------------------------------------------------

ASGI = """
import json, os

async def application(scope, receive, send):
    assert scope["type"] == "http", scope["type"]
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body")
    told = [scope["method"], scope["path"], scope["query_string"].decode(), scope["scheme"], scope["client"][0],
            dict(scope["headers"])[b"host"].decode(), body.decode(),
            [name.decode() for name, _ in scope["headers"] if name.startswith(b"x-")]]
    headers = [(b"content-type", b"application/json"), (b"x-worker", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""

FASTAPI = """
from contextlib import asynccontextmanager
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    app.state.begun = "begun"
    yield

app = FastAPI(lifespan=lifespan)

@app.get("/items/{number}")
async def item(number: int, q: str = ""):
    return {"number": number, "q": q, "lifespan": app.state.begun}
"""


@pytest.mark.parametrize("told", ["", "asgi:", "server = asgi\n"])
def test_asgi_applications(front: Front, told: str) -> None:
    """A coroutine is recognised, and may be announced; nothing is added to its request either way."""
    prefix, more = (told, "") if told.endswith(":") else ("", told)
    name = f"async{len(told)}"
    where = front.home.site(name, ASGI, enable=False)
    text = (front.home.path / "sites-available" / f"{name}.ini").read_text()
    front.home.ini(name, text.replace(f"{name}_app:application", f"{prefix}async_main:application") + more)
    (where / "async_main.py").write_text(ASGI)
    for number in range(5):
        answer = front.server.ask(f"{name}.test", f"/x%2Fy?n={number}", method="POST", body=b"posted")
        assert pid_of(answer) not in front.server.workers()
        assert json.loads(answer.text) == [
            "POST",
            "/x/y",
            f"n={number}",
            "http",
            "127.0.0.1",
            f"{name}.test",
            "posted",
            [],
        ]


def test_fastapi(single: Front) -> None:
    """A FastAPI application with its lifespan."""
    if importlib.util.find_spec("fastapi") is None:
        not_tested("FastAPI: pip install fastapi")
    single.home.site("fast", FASTAPI, application="fast_app:app")
    told = json.loads(single.server.ask("fast.test", "/items/7?q=z").text)
    assert told == {"number": 7, "q": "z", "lifespan": "begun"}
    assert single.server.ask("fast.test", "/nowhere").status == 404
