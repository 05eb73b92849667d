"""Every way to say where the app is, and which gunicorn a site gets."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multisite.runner.load import is_asgi

from .harness import GUNICORN, Backend, backend, receive_all, spec

HELLO = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [TEXT]
app = application
TEXT = b"{text}"
def make(*args, **kwargs):
    def made(environ, start_response):
        start_response("200 OK", [])
        return [repr((args, kwargs)).encode()]
    return made
class box:
    inner = application
    inside = staticmethod(application)
"""


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (spec("pkg.wsgi"), b"module"),
        (spec("pkg.wsgi", "app"), b"module"),
        (spec("my-app", "application"), b"dash"),
        (spec("my-pkg.my-app", "make", args=[1], kwargs={}), b"((1,), {})"),
        (spec("pkg.wsgi", "box.inside"), b"module"),
        (spec("wsgi/site.wsgi", kind="file"), b"file"),
        (spec("wsgi/only.py", kind="file"), b"(('only',), {})"),
        (spec("wsgi/only.py", "app", kind="file"), b"(('only',), {})"),
        (spec("pkg.wsgi", "make", args=[1, "a"], kwargs={"b": None}), b"((1, 'a'), {'b': None})"),
        (spec("pkg.wsgi", "make", args="(1, (2,), b'x')", kwargs="{}"), b"((1, (2,), b'x'), {})"),
        (spec("pkg.wsgi", "make", args=[], kwargs={}), b"((), {})"),
        (spec("development.ini", kind="paste"), b"main"),
        (spec("development.ini", "other", kind="paste"), b"other"),
        (spec("project.settings", kind="django"), b"/hello"),
    ],
    ids=lambda value: f"{value['kind']}-{value['target']}-{value['attribute']}" if isinstance(value, dict) else "",
)
def test_kinds(tmp_path: Path, wanted: dict[str, Any], text: bytes) -> None:
    """A module, a file, a factory with its arguments, a PasteDeploy file, a Django project."""
    write(tmp_path, "pkg/__init__.py", "")
    for name in ("my-app.py", "my-pkg/my-app.py"):
        write(tmp_path, name, HELLO.replace("{text}", "dash"))
    write(tmp_path, "pkg/wsgi.py", HELLO.replace("{text}", "module"))
    write(tmp_path, "wsgi/site.wsgi", HELLO.replace("{text}", "file"))
    write(tmp_path, "wsgi/only.py", "from pkg.wsgi import make\napp = make('only')\n")
    write(tmp_path, "paster.py", "def factory(settings, text):\n    import pkg.wsgi as w\n"
          "    def app(environ, start_response):\n        start_response('200 OK', [])\n"
          "        return [text.encode()]\n    return app\n")  # fmt: skip
    write(tmp_path, "development.ini", "[app:main]\npaste.app_factory = paster:factory\ntext = main\n"
          "[app:other]\npaste.app_factory = paster:factory\ntext = other\n")  # fmt: skip
    write(tmp_path, "project/__init__.py", "")
    write(tmp_path, "project/urls.py", "from django.http import HttpResponse\nfrom django.urls import re_path\n"
          "urlpatterns = [re_path('', lambda request: HttpResponse(request.path))]\n")  # fmt: skip
    write(tmp_path, "project/settings.py", "SECRET_KEY = 'x'\nROOT_URLCONF = 'project.urls'\nALLOWED_HOSTS = ['*']\n")
    with backend(tmp_path, spec=wanted) as site:
        assert site.ask("/hello").body == text


def test_the_location_comes_first(tmp_path: Path) -> None:
    """A site's module wins over one of the same name elsewhere, ours included."""
    for name in ("main", "wsgi", "board", "envelope"):
        write(tmp_path, f"{name}.py", f"NAME = 'the site'\n{HELLO}".replace("{text}", name))
    write(tmp_path, "app.py", "import main, board, envelope\nassert main.NAME == board.NAME == envelope.NAME\n"
          "from wsgi import application\n")  # fmt: skip
    with backend(tmp_path) as site:
        assert site.ask().body == b"wsgi"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With its whole path."""
    with backend(tmp_path, spec=spec("wsgi/site.wsgi", kind="file"), wait=False) as site:
        assert site.exit() == 3
        assert f"there is no file {tmp_path}/wsgi/site.wsgi" in site.log


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (spec("app", "aplication"), "app has no 'aplication'; did you mean 'application'?"),
        (spec("ap.py", kind="file"), "ap.py; did you mean 'app.py'?"),
        (
            spec("app", "TEXT", args=[], kwargs={}),
            "'TEXT' is a bytes, so it cannot be called; leave the parentheses out",
        ),
    ],
)
def test_what_is_nearly_right_is_told_as_by_a_worker(tmp_path: Path, wanted: dict[str, Any], said: str) -> None:
    """With what may have been meant."""
    with backend(tmp_path, HELLO, spec=wanted, wait=False) as site:
        assert site.exit() == 3
        assert said in site.log


LOADER = """
def load(rest, site):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [repr((rest, site.name, site.domains, site.location)).encode()]
    return app
"""
SITE = {"name": "site", "domains": ["a.test", "b.test"], "location": "/x"}


def offer_loader(folder: Path, name: str) -> None:
    """A package as pip installs it, which offers a loader."""
    write(folder, "some_loader.py", LOADER)
    write(folder, "some_loader-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-loader\nVersion: 1\n")
    write(folder, "some_loader-1.dist-info/entry_points.txt", f"[multisite.loaders]\n{name} = some_loader:load\n")


@pytest.mark.parametrize(
    ("application", "wanted"),
    [
        ("php", spec("php", kind="plugin")),
        ("php:a/b c", spec("php", "a/b c", kind="plugin")),
        ("php:index", spec("php", "index")),
    ],
)
def test_a_loader_of_another_package(tmp_path: Path, application: str, wanted: dict[str, Any]) -> None:
    """One that the site's interpreter has is asked, and told of the site."""
    offer_loader(tmp_path, "php")
    with backend(tmp_path, spec=wanted, site={**SITE, "application": application}) as site:
        rest = application.partition(":")[2]
        assert site.ask().body.decode() == repr((rest, "site", ("a.test", "b.test"), "/x"))


def test_a_loader_that_is_missing(tmp_path: Path) -> None:
    """It has to be installed where the site runs, and the reason says where that is."""
    missing = {**SITE, "application": "php"}
    with backend(tmp_path / "a", spec=spec("php", kind="plugin"), site=missing, wait=False) as site:
        assert site.exit() == 3
        assert f"there is neither a module nor a loader named 'php' in {sys.prefix}" in site.log
    with backend(tmp_path / "b", spec=spec("php", "x"), site={**SITE, "application": "php:x"}, wait=False) as site:
        assert site.exit() == 3
        assert "there is no module 'php'" in site.log


# --- ASGI or WSGI ---------------------------------------------------------------------------------------------------


async def coroutine(scope: Any, receive: Any, send: Any) -> None: ...


def plain(environ: Any, start_response: Any) -> None: ...


def hidden(scope: Any, receive: Any, send: Any) -> Any: ...


class Asynchronous:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def method(self, environ: Any, start_response: Any) -> None: ...

    def late(self, scope: Any, receive: Any, send: Any, more: Any = None) -> Any: ...


class OldStyle:
    def __init__(self, scope: Any) -> None: ...


class Wsgi:
    def __init__(self, environ: Any, start_response: Any) -> None: ...


def test_asgi_is_recognised() -> None:
    """By what a call makes or takes, through partial and instances."""
    from functools import partial

    assert [is_asgi(app) for app in (coroutine, hidden, Asynchronous(), OldStyle, partial(coroutine))] == [True] * 5
    assert is_asgi(Asynchronous().late)
    others = (plain, Asynchronous().method, Wsgi, partial(plain), len, "text", None)
    assert [is_asgi(app) for app in others] == [False] * len(others)


# --- which gunicorn -------------------------------------------------------------------------------------------------

SHOW = """
def application(environ, start_response):
    import gunicorn
    start_response("200 OK", [])
    return [f"{gunicorn.__version__} {gunicorn.__file__}".encode()]
"""


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """An interpreter with nothing installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    return str(tmp_path / "venv/bin/python")


def imported_by(site: Backend) -> str:
    shown = site.http().body.decode()
    assert site.ask().body.decode() == shown
    return shown


def test_a_site_without_gunicorn_gets_ours(tmp_path: Path, bare: str) -> None:
    """Under that name alone: nothing beside it can be imported."""
    code = SHOW + "\ntry:\n    import click\nexcept ImportError:\n    pass\nelse:\n    raise RuntimeError('leaks')\n"
    with backend(tmp_path / "site", code, python=bare) as site:
        assert imported_by(site).endswith(f" {GUNICORN}/__init__.py")


@pytest.mark.parametrize(("version", "is_own"), [("(23, 0, 0)", True), ("(21, 2, 0)", False), ("what()", False)])
def test_a_gunicorn_of_the_site_wins_if_it_will_do(tmp_path: Path, bare: str, version: str, is_own: bool) -> None:
    """The site's own, where it has what we need; an old one would not answer."""
    site_packages = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    shutil.copytree(GUNICORN, site_packages / "gunicorn", ignore=shutil.ignore_patterns("__pycache__"))
    init = site_packages / "gunicorn/__init__.py"
    text = init.read_text()
    old = next(line for line in text.splitlines() if line.startswith("version_info"))
    what = "what = lambda: (1, 0)\n" if version == "what()" else ""
    init.write_text(text.replace(old, f"{what}version_info = {version}"))
    with backend(tmp_path / "site", SHOW, python=bare) as site:
        assert imported_by(site).endswith(f" {init}" if is_own else f" {GUNICORN}/__init__.py")


def test_a_gunicorn_that_cannot_be_read_costs_odd_http_only(tmp_path: Path, bare: str) -> None:
    """A site's user may not be allowed to read our installation; what is relayed, or plain, needs none of it."""
    code = HELLO.replace("{text}", "served")
    with backend(tmp_path / "site", code, bare, gunicorn=str(tmp_path / "missing"), threads=2) as site:
        for _ in range(3):
            with site.connect() as client:
                client.sendall(b"GET / HTTP/1.0\r\nno field\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert receive_all(client) == b""
        assert site.ask().body == site.http().body == b"served"
        assert "No module named 'gunicorn'" in site.log
        assert site.record().errors == 3


def test_a_configuration_called_gunicorn_is_in_nobodys_way(tmp_path: Path, bare: str) -> None:
    """Many a project has a gunicorn.py beside its app."""
    write(tmp_path / "site", "gunicorn.py", "workers = 3\n")
    with backend(tmp_path / "site", SHOW, python=bare) as site:
        assert imported_by(site).endswith(f" {GUNICORN}/__init__.py")
