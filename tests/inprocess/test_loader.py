"""Every form of ``application =`` is loaded; whatever goes wrong in there is one error of that site."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import importlib_metadata
import pytest
from webtest import TestApp

from multisite.config.model import Site
from multisite.errors import AppLoadError, NeedsProcess
from multisite.inprocess import loader
from multisite.inprocess.tracebacks import is_for_the_worker
from multisite.runner.load import import_file, is_asgi, unique_name

HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [__name__.encode()]
"""


@pytest.fixture(autouse=True)
def own_modules() -> Iterator[None]:
    """What a test imports does not outlive it."""
    modules, path = set(sys.modules), list(sys.path)
    loader.plugins.cache_clear()
    yield
    loader.plugins.cache_clear()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and not sys.modules[name].__file__.startswith(sys.prefix):
            del sys.modules[name]


@pytest.fixture
def site(tmp_path: Path) -> Any:
    """Make a site of files and an application."""

    def make(application: str, files: dict[str, str] | None = None, name: str = "blog", **more: Any) -> Site:
        for path, text in (files or {}).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        more = {"location": str(tmp_path), **more}
        return Site(file="/etc/moya/sites-enabled/blog.ini", name=name, application=application, **more)

    return make


def body(app: Any) -> str:
    return str(TestApp(app).get("/").text)


def failure(site: Site) -> str:
    with pytest.raises(AppLoadError) as caught:
        loader.load(site)
    assert "\n" not in caught.value.reason
    return caught.value.reason


# -- what can be loaded ----------------------------------------------------------------------------


@pytest.mark.parametrize("application", ["hello_m:application", "hello_m", "hello_m:Holder.app", "hello_m:make('x')"])
def test_a_module_with_a_callable_an_attribute_or_a_factory(site: Any, application: str) -> None:
    source = HELLO + "class Holder: app = staticmethod(application)\ndef make(word, *, n=1): return application\n"
    assert body(loader.load(site(application, {"hello_m.py": source}))) == "hello_m"


def test_a_module_in_a_package(site: Any) -> None:
    files = {"shop_p/__init__.py": "", "shop_p/wsgi.py": HELLO}
    assert body(loader.load(site("shop_p.wsgi:application", files))) == "shop_p.wsgi"


@pytest.mark.parametrize(
    ("application", "path", "name"),
    [
        ("my-app:application", "my-app.py", "my-app"),
        ("my-app", "my-app.py", "my-app"),
        ("my-package:application", "my-package/__init__.py", "my-package"),
        ("my-package.my-web:application", "my-package/my-web.py", "my-package.my-web"),
        ("my-site.wsgi", "my-site/wsgi.py", "my-site.wsgi"),
        ("my-site.wsgi:application", "my-site/wsgi.py", "my-site.wsgi"),
        ("2048:application", "2048.py", "2048"),
    ],
)
def test_a_module_that_no_import_statement_could_name(site: Any, application: str, path: str, name: str) -> None:
    """As gunicorn takes them; Python's import takes any text."""
    package = {f"{path.partition('/')[0]}/__init__.py": ""} if "/" in path else {}
    assert body(loader.load(site(application, {**package, path: HELLO}))) == name


def test_a_factory_gets_its_arguments(site: Any) -> None:
    source = "class App:\n def __init__(self, *a, **k): self.got = a, k\n def __call__(self, e, s): ...\n"
    app: Any = loader.load(site("args_m:App('x', [1], debug=True)", {"args_m.py": source}))
    assert app.got == (("x", [1]), {"debug": True})


@pytest.mark.parametrize("application", ["deploy/site.wsgi", "deploy/site.wsgi:application", "{}/deploy/site.wsgi"])
def test_a_wsgi_file_runs_under_a_name_of_its_own(site: Any, tmp_path: Path, application: str) -> None:
    made = site(application.format(tmp_path), {"deploy/site.wsgi": HELLO})
    assert body(loader.load(made)) == "_multisite_site_blog__site"
    assert sys.modules["_multisite_site_blog__site"].__file__ == str(tmp_path / "deploy/site.wsgi")
    assert not (tmp_path / "deploy/__pycache__").exists()


def test_a_py_file_may_call_its_app_app(site: Any) -> None:
    assert loader.load(site("one.py", {"one.py": HELLO.replace("application(", "app(")}))
    assert loader.load(site("two.py", {"two.py": HELLO + "app = None\n"}))


def test_a_name_that_ends_in_wsgi_is_the_file_if_there_is_one_else_the_module(site: Any) -> None:
    files = {"cafe_p/__init__.py": "", "cafe_p/wsgi.py": HELLO}
    assert body(loader.load(site("cafe_p.wsgi", files))) == "cafe_p.wsgi"
    assert body(loader.load(site("cafe_p.wsgi", {"cafe_p.wsgi": HELLO}))) == "_multisite_site_blog__cafe_5fp"


def test_two_sites_with_an_app_py_do_not_meet(site: Any, tmp_path: Path) -> None:
    apps = [
        loader.load(site("app.py", {f"{name}/app.py": HELLO}, name=name, location=str(tmp_path / name)))
        for name in ("a-b", "a.b")
    ]
    assert [body(app) for app in apps] == ["_multisite_site_a_2db__app", "_multisite_site_a_2eb__app"]


def test_no_two_sites_share_a_module_name() -> None:
    pairs = [("a", "b_c"), ("a_b", "c"), ("a-b", "c"), ("a.b", "c"), ("a", "b.c"), ("a__b", "c"), ("a", "_b__c")]
    names = {unique_name(site, f"/srv/{stem}.py") for site, stem in pairs}
    assert len(names) == len(pairs)
    assert all(name.isidentifier() for name in names)


def test_flask_finds_its_root_and_its_templates(site: Any) -> None:
    source = "from flask import Flask, render_template\napp = Flask(__name__)\n"
    source += "@app.get('/')\ndef index(): return render_template('index.txt', name=app.name)\n"
    made = site("my-flask.wsgi:app", {"my-flask.wsgi": source, "templates/index.txt": "{{ name }}"})
    assert body(loader.load(made)) == "_multisite_site_blog__my_2dflask"


def test_a_werkzeug_request_responder_is_taken_for_what_it_is(site: Any) -> None:
    source = (
        "from werkzeug import Request, Response\n@Request.application\ndef application(request): return Response('x')"
    )
    assert body(loader.load(site("responder.py", {"responder.py": source}))) == "x"


def test_paste_deploy_files_and_their_named_apps(site: Any) -> None:
    ini = "[app:main]\nuse = call:paste_m:make\nword = one\n[app:admin]\nuse = call:paste_m:make\nword = two\n"
    source = "def make(config, word):\n def app(environ, start_response):\n"
    source += "  start_response('200 OK', [('Content-Type', 'text/plain')])\n  return [word.encode()]\n return app\n"
    files = {"development.ini": ini, "paste_m.py": source}
    assert body(loader.load(site("paste:development.ini", files))) == "one"
    assert body(loader.load(site("paste:development.ini#admin", files))) == "two"
    assert "No section 'nope'" in failure(site("paste:development.ini#nope", files))


DJANGO = {
    "shop/__init__.py": "",
    "shop/settings.py": "SECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'shop.urls'\n",
    "shop/urls.py": "from django.http import HttpResponse\nfrom django.urls import path\n"
    "urlpatterns = [path('', lambda request: HttpResponse('shop'))]\n",
    "other/__init__.py": "",
    "other/settings.py": "SECRET_KEY = 'y'\n",
}

DRIVER = """
import json, os, sys
from webtest import TestApp
from multisite.inprocess import loader
from multisite.errors import MultisiteError
from multisite.config.model import Site

answers = []
for application in sys.argv[2:]:
    try:
        app = loader.load(Site(file="x.ini", name="shop", location=sys.argv[1], application=application))
        answers.append(TestApp(app).get("/").text)
    except MultisiteError as error:
        answers.append(f"{type(error).__name__}: {error.reason}")
print(json.dumps([answers, os.environ.get("DJANGO_SETTINGS_MODULE")]))
"""


def in_a_process(location: Path, *applications: str) -> Any:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(location), *applications],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_django_by_its_settings_and_a_second_project_is_refused(site: Any, tmp_path: Path) -> None:
    site("", DJANGO)
    answers, variable = in_a_process(tmp_path, "django:shop.settings", "django:shop.settings", "django:other.settings")
    assert answers[:2] == ["shop", "shop"]
    assert answers[2].startswith("NeedsProcess: ")
    assert "this interpreter already runs the Django project 'shop.settings'" in answers[2]
    assert variable is None


def test_django_settings_that_are_missing_or_wrong(site: Any, tmp_path: Path) -> None:
    site("", {**DJANGO, "shop/bad.py": "import nothing_like_it\n"})
    answers, _ = in_a_process(tmp_path, "django:shop.setings", "django:shop.bad")
    assert "there is no module 'shop.setings'" in answers[0] and "did you mean 'shop.settings'?" in answers[0]
    assert "it needs the module 'nothing_like_it'" in answers[1] and f"{tmp_path}/shop/bad.py, line 1" in answers[1]


def test_a_loader_of_another_package(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "third_m.py").write_text(
        "def load(rest, site):\n def app(environ, start_response):\n"
        "  start_response('200 OK', [('Content-Type', 'text/plain')])\n  return [(rest + site.name).encode()]\n"
        " return app\n"
    )
    info = tmp_path / "third_m-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third_m\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[multisite.loaders]\nthird = third_m:load\ndjango = third_m:load\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib_metadata.MetadataPathFinder.invalidate_caches()
    assert body(loader.load(site("third:/a b/c"))) == "/a b/cblog"
    assert body(loader.load(site("third"))) == "blog"
    assert body(loader.load(site("third:word"))) == "wordblog"
    assert "did you mean 'third'?" in failure(site("thrid:/x"))
    assert "no settings module" in failure(site("django:"))
    assert body(loader.load(site("third:application", {"third.py": HELLO}))) == "third"


# -- Moya ------------------------------------------------------------------------------------------

MOYA = {
    "moya/__init__.py": "",
    "moya/settings.py": "class SettingsContainer(dict):\n"
    " def set(self, section, key, value): self.setdefault(section, {})[key] = value\n",
    "moya/wsgi.py": "class WSGIApplication:\n"
    " def __init__(self, filesystem_url, settings_path, server='main', logging=None, disable_autoreload=False,"
    " master_settings=None):\n"
    "  self.got = filesystem_url, settings_path, logging, disable_autoreload, master_settings\n"
    " def __call__(self, environ, start_response): ...\n",
}


def test_a_moya_project_is_built_as_moyas_own_service_does(site: Any, tmp_path: Path) -> None:
    """With a package of Moya's signatures (0.6.20): that release itself cannot be installed on a Python of today."""
    overlay = {"debug": {"level": "2"}}
    made = site("", {**MOYA, "local.ini": ""}, ini=("gone.ini", "local.ini"), overlay=overlay)
    app: Any = loader.load(made)
    assert app.got == (str(tmp_path), ["gone.ini", "local.ini"], None, True, overlay)


def test_a_moya_project_without_moya_or_without_settings(site: Any) -> None:
    assert "needs the package moya" in failure(site("", {"production.ini": ""}))
    assert "no local.ini of a Moya project" in failure(site("moya:", ini=("local.ini",)))
    old = {**MOYA, "moya/wsgi.py": "from time import clock\n"}
    reason = failure(site("", {**old, "production.ini": ""}))
    assert "the installed Moya cannot be imported" in reason and "python =" in reason


# -- ASGI ------------------------------------------------------------------------------------------

ASGI = """
async def function(scope, receive, send): ...
def wrapped(scope, receive, send): return function(scope, receive, send)
def double(scope):
    async def instance(receive, send): ...
    return instance
class Double:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...
class Endpoint:
    def __init__(self, scope, receive, send): ...
    def __await__(self): ...
class Object:
    async def __call__(self, scope, receive, send): ...
    async def method(self, scope, receive, send): ...
instance = Object()
method = instance.method
def make(): return function
"""


@pytest.mark.parametrize(
    "name", ["function", "wrapped", "double", "Double", "Endpoint", "instance", "method", "instance.method", "make()"]
)
def test_every_kind_of_asgi_app_is_recognised(site: Any, name: str) -> None:
    with pytest.raises(NeedsProcess, match="is an ASGI application; it runs in its own process"):
        loader.load(site(f"asgi_m.py:{name}", {"asgi_m.py": ASGI}))


def test_real_asgi_apps_are_recognised() -> None:
    from django.core.handlers.asgi import ASGIHandler

    fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed: its app is not tried")
    starlette = pytest.importorskip("starlette.applications", reason="Starlette is not installed: its app is not tried")
    assert is_asgi(fastapi.FastAPI())
    assert is_asgi(starlette.Starlette())
    assert is_asgi(functools.partial(fastapi.FastAPI()))
    assert is_asgi(ASGIHandler.__new__(ASGIHandler))


def test_a_wsgi_callable_is_never_taken_for_asgi() -> None:
    from django.core.handlers.wsgi import WSGIHandler
    from flask import Flask
    from werkzeug import Request, Response
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    class Answer:
        def __init__(self, environ: Any, start_response: Any) -> None: ...
        def __call__(self, environ: Any, start_response: Any) -> Any: ...

    def generator(environ: Any, start_response: Any, extra: int = 1) -> Any:
        yield b""

    flask = Flask("x")
    everything = [flask, flask.wsgi_app, Answer, Answer(1, 2), generator, functools.partial(generator, extra=2)]
    everything += [WSGIHandler.__new__(WSGIHandler), DispatcherMiddleware(flask), lambda *a: [], Response("x"), dict]
    everything += [Request.application(lambda scope: Response("x")), print, SimpleNamespace(), None]
    assert [app for app in everything if is_asgi(app)] == []


def test_a_declared_asgi_app_is_not_imported(site: Any) -> None:
    with pytest.raises(NeedsProcess, match="asgi:gone:app is an ASGI application"):
        loader.load(site("asgi:gone:app"))


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "source", "expected"),
    [
        ("bad_m:aplication", HELLO, "bad_m has no 'aplication'; did you mean 'application'?"),
        ("bad_m:app", "def create(): ...\nfrom os import getcwd", "bad_m has no 'app'; there is 'create'"),
        ("bad_m.py", "x = 1", "bad_m.py has no 'application' or 'app'"),
        ("bad_m:application.x", HELLO, "a function has no 'x'"),
        ("bad_m:app", "app = None", "it is None, which cannot be called"),
        ("bad_m:app", "import os as app", "it is the module 'os', which cannot be called"),
        ("bad_m:app()", "app = 'x'", "'app' is a str, so it cannot be called; leave the parentheses out"),
        ("bad_m:make", "def make(): ...", "make cannot be called with (environ, start_response)"),
        ("bad_m:make", "def make(): ...", "write it with parentheses: bad_m:make()"),
        ("bad_m:make(1)", "def make(): ...", "TypeError: make() takes 0 positional arguments but 1 was given"),
        ("bad_m:app", "import sys\nsys.exit(3)", "the site called sys.exit(3) ({}, line 2)"),
        ("bad_m:app", "raise SystemExit", "the site called sys.exit(None) ({}, line 1)"),
        ("bad_m:make()", "def make(): exit('no')", "the site called sys.exit('no')"),
        ("bad_m:app", "x =\n", "SyntaxError: invalid syntax ({}, line 1)"),
        ("bad_m:app", "if 1:\nx", "IndentationError: expected an indented block"),
        ("bad_m:app", "exec('1 1')", "SyntaxError: invalid syntax"),
        ("bad_m:app", "\n1/0", "ZeroDivisionError: division by zero ({}, line 2)"),
        ("bad_m:app", "import json\njson.loads('{')", "({}, line 2)"),
        (
            "bad_m:app",
            "import nothing_like_it",
            "bin/python3 does not have ({}, line 1); ",
        ),
        ("bad_m:app", "from os import nothing", "ImportError: cannot import name 'nothing' from 'os'"),
        ("bad_m:app", "class Stop(BaseException): ...\nraise Stop('x')", "Stop: x ({}, line 2)"),
        ("bad_m:app", "class E(Exception):\n def __str__(self): 1/0\nraise E", "E: <exception str() failed>"),
        ("bad_m:app", "raise ValueError('a\\nb')", "ValueError: a b"),
        ("bad_m:app", "def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        (
            "bad_m:h.app",
            "class H:\n @property\n def app(self): return self.gone\nh = H()",
            "AttributeError: 'H' object has",
        ),
        ("bad:app", HELLO, "there is no module 'bad' in"),
        ("bad_n:app", HELLO, "did you mean 'bad_m'?"),
        ("gone_p.wsgi:app", HELLO, "there is no module 'gone_p' in"),
        ("./bad_n.py", HELLO, "bad_n.py; did you mean 'bad_m.py'?"),
        ("sub/bad.py", HELLO, "sub/bad.py; a relative path starts at the site's location"),
        ("/dev/null", "", "/dev/null is no regular file"),
        ("bad_m:app(", HELLO, "is neither a name nor a call of a factory"),
        ("", HELLO, "there is no application, and no production.ini of a Moya project"),
        ("no-such-loader:x", "", "there is neither a module nor a loader named 'no-such-loader'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    site: Any, tmp_path: Path, application: str, source: str, expected: str
) -> None:
    reason = failure(site(application, {"bad_m.py": source}))
    assert reason.startswith("/etc/moya/sites-enabled/blog.ini: [service] application")
    assert expected.format(tmp_path / "bad_m.py") in reason


def test_the_original_is_the_cause_and_its_traceback_shows_the_source_of_a_wsgi_file(site: Any) -> None:
    with pytest.raises(AppLoadError) as caught:
        loader.load(site("x.wsgi", {"x.wsgi": "def f():\n    return 1 / 0  # here\nf()\n"}))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "# here" in "".join(traceback.format_exception(caught.value.__cause__))


def test_a_location_that_is_gone_is_named(site: Any, tmp_path: Path) -> None:
    reason = failure(site("app", location=str(tmp_path / "gone")))
    assert reason.endswith(
        f"[service] location = {tmp_path}/gone: there is no such directory; restore it or correct the path"
    )


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "GeneratorExit"])
def test_what_ends_the_worker_passes(site: Any, error: str) -> None:
    with pytest.raises((KeyboardInterrupt, GeneratorExit)):
        loader.load(site("stop.py", {"stop.py": f"raise {error}"}))


def test_an_exit_of_gunicorns_signal_handler_passes(tmp_path: Path) -> None:
    file = tmp_path / "base.py"
    file.write_text("raise SystemExit(1)")
    for name, passes in [("gunicorn.workers.base", True), ("gunicorn.app.base", False), ("blog", False)]:
        with pytest.raises(SystemExit) as caught:
            exec(compile(file.read_text(), str(file), "exec"), {"__name__": name})
        assert is_for_the_worker(caught.value) is passes


def test_a_failed_import_leaves_the_module_of_before(tmp_path: Path) -> None:
    file = tmp_path / "x.wsgi"
    file.write_text("n = 1")
    good = import_file(str(file), "_multisite_test_x")
    file.write_text("n = 1 / 0")
    with pytest.raises(ZeroDivisionError):
        import_file(str(file), "_multisite_test_x")
    assert sys.modules["_multisite_test_x"] is good
    with pytest.raises(ZeroDivisionError):
        import_file(str(file), "_multisite_test_y")
    assert "_multisite_test_y" not in sys.modules
