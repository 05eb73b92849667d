"""Sites that share a worker's interpreter never get each other's code; those that would run elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import PATIENCE, HomeDir, gunicorn

pytestmark = pytest.mark.servers

FLASK = """
from flask import Flask, request
import threading

app = Flask(__name__)

@app.route("/<path:path>")
def answer(path):
    return f"{name} {{request.host}} /{{path}} {{request.args.get('n')}}"
"""

DJANGO_SETTINGS = """
SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "{project}.urls"
USE_TZ = True
"""

DJANGO_URLS = """
from django.http import HttpResponse
from django.urls import path

def answer(request, rest):
    return HttpResponse(f"{name} {{request.get_host()}} /{{rest}} {{request.GET.get('n')}}")

urlpatterns = [path("<path:rest>", answer)]
"""

# Asks `application` in this process, interleaving hosts from several threads, and prints what was wrong as JSON.
INTERLEAVE = """
import json, sys, threading
from webtest import TestApp
from multisite.service import application

hosts = json.loads(sys.argv[1])
wrong, asked = [], 0
lock = threading.Lock()

def ask(start, step, total):
    global asked
    client = TestApp(application)
    for number in range(start, total, step):
        host = hosts[number % len(hosts)]
        answer = client.get(f"/p/{number}?n={number}", extra_environ={"HTTP_HOST": host}, expect_errors=True)
        expected = f"{host.partition('.')[0]} {host} /p/{number} {number}"
        with lock:
            asked += 1
            if answer.status_int != 200 or answer.text != expected:
                wrong.append([host, answer.status_int, answer.text[:300], expected])

threads = [threading.Thread(target=ask, args=(start, 4, int(sys.argv[2]))) for start in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps({"asked": asked, "wrong": wrong[:5]}))
"""


def flask_site(home: HomeDir, name: str, **keys: str) -> None:
    home.site(name, FLASK.format(name=name), application=keys.pop("application", "app:app"), **keys)


def django_site(home: HomeDir, name: str) -> None:
    """A Django project in a package of its own name."""
    where = home.path / "sites" / name
    package = where / f"{name}_project"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "settings.py").write_text(DJANGO_SETTINGS.format(project=package.name))
    (package / "urls.py").write_text(DJANGO_URLS.format(name=name))
    keys = f"domains = {name}.test\nlocation = {where}\napplication = django:{package.name}.settings\n"
    home.ini(name, f"[service]\n{keys}")


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    """Two Flask sites that are both `app.py`, and one Django project."""
    home = HomeDir(tmp_path).create()
    flask_site(home, "red")
    flask_site(home, "blue")
    django_site(home, "green")
    return home


HOSTS = ["red.test", "blue.test", "green.test"]


def test_thousands_of_interleaved_requests_cross_no_answer(home: HomeDir) -> None:
    """Two Flask sites that are both `app.py` and a Django project, asked by four threads of one process."""
    run = subprocess.run(
        [sys.executable, "-c", INTERLEAVE, json.dumps(HOSTS), "3000"],
        env=home.environ(),
        cwd=home.path,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert json.loads(run.stdout.splitlines()[-1]) == {"asked": 3000, "wrong": []}, run.stderr[-4000:]


def test_one_gunicorn_worker_crosses_no_answer(home: HomeDir) -> None:
    """The same three over the wire, each request on another site than the one before."""
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "4") as server:
        for number in range(300):
            host = HOSTS[number % 3]
            answer = server.ask(host, f"/p/{number}?n={number}")
            assert answer.text == f"{host.partition('.')[0]} {host} /p/{number} {number}"


HELPED = """
import helper

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [helper.WHO.encode()]
"""


def helped_site(home: HomeDir, name: str, module: str) -> None:
    where = home.site(name, HELPED, application=f"{module}:application")
    (where / "helper.py").write_text(f"WHO = 'helper of {name}'\n")


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")], ids=["one first", "two first"])
def test_a_clashing_helper_runs_elsewhere_and_is_named(tmp_path: Path, order: tuple[str, str]) -> None:
    """Whichever is used first has the name; the other has a process of its own, and explain says why."""
    home = HomeDir(tmp_path).create()
    helped_site(home, "one", "app")
    helped_site(home, "two", "main")
    first, second = order
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        for _ in range(5):
            for name in order:
                answer = server.ask(f"{name}.test")
                assert (answer.status, answer.text) == (200, f"helper of {name}")
        assert len(home.processes(backends=True)) == 1
        told = [line for line in server.log().splitlines() if "helper" in line and second in line]
        assert told, "the log does not name the module"
        assert any(first in line for line in told), "the log does not name the other site"
        explained = line_of(home.multisite("explain", f"{second}.test"), "runs:")
        assert "spawned" in explained
        assert "helper" in explained
        assert first in explained
        assert "in-process" in line_of(home.multisite("explain", f"{first}.test"), "runs:")


def line_of(text: str, label: str) -> str:
    """The line that begins with `label`."""
    return next((line for line in text.splitlines() if line.startswith(label)), f"no {label!r} in: {text}")


def test_a_second_django_project_runs_elsewhere_with_a_reason(tmp_path: Path) -> None:
    """One interpreter has one Django settings module; the second project is served by a process of its own."""
    home = HomeDir(tmp_path).create()
    django_site(home, "first")
    django_site(home, "second")
    with gunicorn(home, "gthread", "--workers", "1", "--threads", "2") as server:
        for number in range(5):
            for name in ("first", "second"):
                assert server.ask(f"{name}.test", f"/x?n={number}").text == f"{name} {name}.test /x {number}"
        assert len(home.processes(backends=True)) == 1
        assert any("Django" in line and "second" in line for line in server.log().splitlines())
        explained = line_of(home.multisite("explain", "second.test"), "runs:")
        assert "spawned" in explained
        assert "Django" in explained
