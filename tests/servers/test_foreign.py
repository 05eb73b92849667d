"""Sites that other servers run, in Python and in other languages, behind the dispatcher: the whole way and back."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.runner.interpreters import equipped, newest, oldest

from .harness import PATIENCE, HomeDir, Server, debian_program, eventually, find_program, gunicorn, not_tested
from .system_python import uwsgi_of_debian
from .test_bad_commands import processes_of

pytestmark = pytest.mark.servers

WSGI = """
import hashlib, json, os

def application(environ, start_response):
    digest, size = hashlib.sha256(), 0
    while block := environ["wsgi.input"].read(65536):
        digest.update(block)
        size += len(block)
    told = {
        "method": environ["REQUEST_METHOD"], "path": environ["PATH_INFO"], "query": environ["QUERY_STRING"],
        "host": environ["HTTP_HOST"], "for": environ.get("HTTP_X_FORWARDED_FOR"), "pid": os.getpid(),
        "trace": environ["HTTP_TRACEPARENT"],
        "size": size, "digest": digest.hexdigest(), "leaked": [n for n in os.environ if n.startswith("MOYA_")],
    }
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    start_response("200 OK", [("Content-Type", "application/json"), *cookies])
    return [json.dumps(told).encode()]
"""
NODE = """
const http = require("http"), crypto = require("crypto"), where = process.argv[2];
http.createServer((request, response) => {
    const digest = crypto.createHash("sha256");
    let size = 0;
    request.on("data", (data) => { digest.update(data); size += data.length; });
    request.on("end", () => {
        const [path, query] = request.url.split("?");
        response.setHeader("Set-Cookie", ["a=1", "b=2"]);
        response.end(JSON.stringify({
            method: request.method, path: decodeURIComponent(path), query: query || "", host: request.headers.host,
            for: request.headers["x-forwarded-for"], pid: process.pid, size, digest: digest.digest("hex"),
            trace: request.headers.traceparent,
            leaked: Object.keys(process.env).filter((name) => name.startsWith("MOYA_")),
        }));
    });
}).listen(where === "inherited" ? {fd: 3} : /^[0-9]+$/.test(where) ? {port: +where, host: "127.0.0.1"} : where);
"""
PHP = """<?php
$parts = explode("?", $_SERVER["REQUEST_URI"], 2);
$body = file_get_contents("php://input");
header("Set-Cookie: a=1", false);
header("Set-Cookie: b=2", false);
echo json_encode([
    "method" => $_SERVER["REQUEST_METHOD"], "path" => rawurldecode($parts[0]), "query" => $parts[1] ?? "",
    "host" => $_SERVER["HTTP_HOST"], "for" => $_SERVER["HTTP_X_FORWARDED_FOR"] ?? null, "pid" => getmypid(),
    "trace" => $_SERVER["HTTP_TRACEPARENT"],
    "size" => strlen($body), "digest" => hash("sha256", $body),
    "leaked" => array_values(preg_grep("/^MOYA_/", array_keys(getenv()))),
]);
"""


@dataclass
class Foreign:
    """A site that another server runs."""

    home: HomeDir
    server: Server
    name: str

    def ask(self, method: str, path: str, body: Any = None, *, chunked: bool = False) -> dict[str, Any]:
        wire = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        wire.request(method, path, body, {"Host": f"{self.name}.test", "traceparent": TRACE}, encode_chunked=chunked)
        answer = wire.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, f"{answer.status} {text}\n{self.server.log()[-3000:]}"
        assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        wire.close()
        told: dict[str, Any] = json.loads(text)
        return told


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# name: what runs it, and how it is told where to listen or what to speak
KINDS = {
    "gunicorn": "",
    "granian": "",
    "uwsgi": "http",
    "uwsgi-own": "uwsgi",
    "node-port": "%PORT",
    "node-path": "%SOCKET",
    "node-inherited": "inherited",
    "php": "127.0.0.1:%PORT",
}


def make(home: HomeDir, name: str) -> None:
    """Write the site called `name`, one of `KINDS`."""
    program, how = name.partition("-")[0], KINDS[name]
    if program == "node":
        node = find_program("node") or not_tested("a command in JavaScript: node (apt-get install nodejs)")
        command(home, name, "server.js", NODE, f"{node} server.js {how}")
    elif program == "php":
        php = debian_program("php", "php-cli")
        command(home, name, "index.php", PHP, f"{php} -S {how} index.php")
    else:
        python_server(home, name, program, how)


def command(home: HomeDir, name: str, file: str, code: str, words: str) -> None:
    where = home.path / "sites" / name
    where.mkdir()
    (where / file).write_text(code)
    home.ini(name, f"[service]\ndomains = {name}.test\nlocation = {where}\ncommand = {words}\n")


def python_server(home: HomeDir, name: str, program: str, protocol: str) -> None:
    keys = {"server": program, "processes": "2", "application": "foreign_app:application"}
    if program == "uwsgi":
        if not find_program("uwsgi"):
            uwsgi_of_debian()
        keys["protocol"] = protocol
    else:
        if not importlib.util.find_spec(program):
            not_tested(f"server = {program}: pip install {program}")
        keys["python"] = sys.executable
    home.site(name, WSGI, **keys)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HomeDir, Server]]:
    home = HomeDir(tmp_path_factory.mktemp("foreign")).create()
    with gunicorn(home, "gthread", "--workers", "2", "--threads", "8") as server:
        yield home, server
    eventually(lambda: not home.processes(), PATIENCE, "no process is left")


@pytest.fixture(params=KINDS)
def foreign(running: tuple[HomeDir, Server], request: pytest.FixtureRequest) -> Foreign:
    home, server = running
    if not home.link(request.param).exists():
        make(home, request.param)
    return Foreign(home, server, request.param)


def test_another_server_runs_the_site(foreign: Foreign) -> None:
    """Method, path, query, host, trace and body arrive, and who asked; our settings do not; both cookies come back."""
    told = foreign.ask("GET", "/some%20path/x?q=1&r=%20")
    assert told.pop("pid") in processes_of(foreign.home, foreign.name)
    asked = {"method": "GET", "path": "/some path/x", "query": "q=1&r=%20", "host": f"{foreign.name}.test"}
    peer = "127.0.0.1" if KINDS[foreign.name] != "uwsgi" else None  # whose variables say it
    assert told.pop("trace") == TRACE
    assert told == {**asked, "for": peer, "size": 0, "digest": hashlib.sha256().hexdigest(), "leaked": []}
    for body in (b"x", os.urandom(3_000_000)):
        told = foreign.ask("POST", "/", body)
        assert (told["size"], told["digest"]) == (len(body), hashlib.sha256(body).hexdigest())
    pieces = [os.urandom(30_000) for _ in range(10)]
    told = foreign.ask("POST", "/", iter(pieces), chunked=True)
    assert (told["size"], told["digest"]) == (300_000, hashlib.sha256(b"".join(pieces)).hexdigest())


def test_another_server_is_replaced_and_stopped(foreign: Foreign) -> None:
    """Killed, it comes back with the next request; stopped, nothing of it is left; twenty may ask at once."""
    foreign.ask("GET", "/")
    (site,) = [
        one for one in json.loads(foreign.home.multisite("--json", "status"))["sites"] if one["name"] == foreign.name
    ]
    os.kill(site["pids"][0], signal.SIGKILL)
    eventually(lambda: site["pids"][0] not in processes_of(foreign.home, foreign.name), PATIENCE, "it is killed")
    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(lambda number: foreign.ask("GET", f"/{number}"), range(20)))
    assert [one["path"] for one in told] == [f"/{number}" for number in range(20)]
    assert foreign.home.multisite("stop", foreign.name) == f"{foreign.name}: stopping\n"
    eventually(lambda: not processes_of(foreign.home, foreign.name), PATIENCE, "nothing of it is left")
    assert foreign.ask("GET", "/again")["path"] == "/again"


# --- frameworks in virtualenvs of other interpreters ----------------------------------------------------------------

FLASK = """
import sys, flask
application = flask.Flask(__name__)

@application.route("/<path:rest>", methods=["POST"])
def show(rest):
    return [list(sys.version_info[:2]), rest, len(flask.request.get_data())]
"""
DJANGO = """
import json, sys
from django.conf import settings
settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, DEBUG=False)
import django
django.setup()
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

def show(request, rest):
    return JsonResponse([list(sys.version_info[:2]), rest, len(request.body)], safe=False)

urlpatterns = [path("<path:rest>", show)]
application = get_wsgi_application()
"""
FASTAPI = """
import sys, fastapi
application = fastapi.FastAPI()

@application.post("/{rest:path}")
async def show(rest: str, request: fastapi.Request):
    return [list(sys.version_info[:2]), rest, len(await request.body())]
"""
FRAMEWORKS = {"flask": FLASK, "django": DJANGO, "fastapi": FASTAPI}


@pytest.mark.parametrize("which", [oldest, newest], ids=["oldest", "newest"])
def test_frameworks_in_virtualenvs_of_other_interpreters(
    running: tuple[HomeDir, Server], which: Callable[[], str]
) -> None:
    """`python =` names the virtualenv, and nothing else is needed for Flask, Django and FastAPI."""
    version = which()
    python = equipped(version)
    home, server = running
    names = {f"{framework}{version.replace('.', '')}": code for framework, code in FRAMEWORKS.items()}
    for name, code in names.items():
        home.site(name, code, python=str(Path(python).parents[1]))
    for name in names:
        answer = server.ask(f"{name}.test", "/some/path", method="POST", body=b"x" * 100_000)
        assert answer.status == 200, f"{name}: {answer.text}\n{server.log()[-3000:]}"
        assert json.loads(answer.text) == [[3, int(version[2:])], "some/path", 100_000]
        home.disable(name)
