"""Sites in every interpreter of this machine, and in virtualenvs with what sites are made of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .harness import backend, spec
from .interpreters import equipped, interpreters, newest, oldest
from .test_examine import examined

SHOW = """
import json, sys

def application(environ, start_response):
    body = environ["wsgi.input"].read().decode()
    text = json.dumps([sys.version_info[:2], body, environ["REMOTE_ADDR"], sorted(sys.modules)])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [text.encode()]
"""
HANGS = "import threading\ndef application(environ, start_response):\n    threading.Event().wait()\n"
ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["client"][0].encode() if scope["client"] else b"-"})
"""


@pytest.fixture(params=sorted(interpreters(), key=lambda version: int(version[2:])))
def python(request: pytest.FixtureRequest) -> str:
    return interpreters()[request.param]


def test_there_are_interpreters() -> None:
    """At least the one that runs this."""
    assert interpreters()


@pytest.mark.parametrize("threads", [1, 3])
def test_wsgi(tmp_path: Path, python: str, threads: int) -> None:
    """Both languages, a body, and a graceful end."""
    with backend(tmp_path, SHOW, python, threads=threads) as site:
        assert site.ask("/", b"abc", REQUEST_METHOD="POST").json[1:3] == ["abc", "203.0.113.9"]
        version, body, _, modules = site.http("/", "POST", b"abc").json
        assert (interpreters()[f"3.{version[1]}"], body) == (python, "abc")
        assert not [name for name in modules if name.partition(".")[0] in ("multisite", "click", "configobj", "rich")]
        assert site.terminate() == 0
        assert site.log == ""


def test_the_standard_library_is_found_clean(tmp_path: Path, python: str) -> None:
    """Whatever its classes are made of there."""
    names = "asyncio, concurrent.futures, email, enum, http.client, json, logging, multiprocessing, ssl, urllib.request"
    code = f"import {names}\n" + SHOW
    with backend(tmp_path, code, python, examine=True) as site:
        for _ in range(8):
            site.ask()
        assert examined(site, 8)["findings"] == []


def test_asgi(tmp_path: Path, python: str) -> None:
    """Both languages, and a graceful end."""
    with backend(tmp_path, ASGI, python, spec=spec("app", "app")) as site:
        assert site.ask().body == b"203.0.113.9"
        assert site.http().status == 200
        assert site.terminate() == 0
        assert site.log == ""


def test_a_hang(tmp_path: Path, python: str) -> None:
    """The stack is printed by every interpreter."""
    with backend(tmp_path, HANGS, python, request_timeout=1.0) as site:
        with pytest.raises(Exception):
            site.ask()
        assert site.exit() == 4
        assert "in application" in site.log


# --- frameworks -----------------------------------------------------------------------------------------------------

FLASK = """
import flask
application = flask.Flask(__name__)

@application.route("/<path:rest>", methods=["GET", "POST"])
def show(rest):
    from flask import request
    return {"url": request.url, "body": request.get_data(as_text=True), "ip": request.remote_addr}
"""
FASTAPI = """
import fastapi
app = fastapi.FastAPI()

@app.api_route("/{rest:path}", methods=["GET", "POST"])
async def show(request: fastapi.Request):
    ip = request.client.host if request.client else ""
    return {"url": str(request.url), "body": (await request.body()).decode(), "ip": ip}
"""
DJANGO_URLS = """
from django.http import JsonResponse
from django.urls import re_path

def show(request):
    ip = request.META.get("REMOTE_ADDR")
    return JsonResponse({"url": request.build_absolute_uri(), "body": request.body.decode(), "ip": ip})

urlpatterns = [re_path("", show)]
"""


@pytest.fixture(params=[oldest, newest], ids=["oldest", "newest"])
def framework_python(request: pytest.FixtureRequest) -> str:
    """A virtualenv with frameworks and nothing of ours."""
    return equipped(request.param())


@pytest.mark.servers
@pytest.mark.parametrize("framework", ["flask", "django", "django-asgi", "fastapi"])
def test_frameworks(tmp_path: Path, framework_python: str, framework: str) -> None:
    """Flask, Django and FastAPI see the client's address, scheme, host and body, in a virtualenv of their own."""
    (tmp_path / "app.py").write_text({"flask": FLASK}.get(framework, FASTAPI))
    (tmp_path / "urls.py").write_text(DJANGO_URLS)
    (tmp_path / "settings.py").write_text("SECRET_KEY = 'x'\nROOT_URLCONF = 'urls'\nALLOWED_HOSTS = ['*']\n"
        "SECURE_PROXY_SSL_HEADER = None\nMIDDLEWARE = []\n")  # fmt: skip
    job = {"spec": spec("app", "app" if framework == "fastapi" else "application")}
    if framework.startswith("django"):
        job = {"spec": spec("settings", kind="django")}
    with backend(
        tmp_path, "", framework_python, worker="asgi" if framework == "django-asgi" else "auto", **job
    ) as site:
        seen = site.ask("/a/b?c=d", b"hello", REQUEST_METHOD="POST", SERVER_PORT="443").json
        assert seen == {"url": "https://site.test/a/b?c=d", "body": "hello", "ip": "203.0.113.9"}, site.log
        assert json.loads(site.http("/x", "POST", b"direct").body)["body"] == "direct"
        assert site.terminate() == 0
        assert os.path.exists(site.socket_path)
