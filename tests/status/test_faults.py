"""What a site promises to serve is looked up in the text, never by running it."""

from __future__ import annotations

import pathlib

import pytest
from importlib_metadata import EntryPoint, EntryPoints

from multisite.config.site import Site
from multisite.inprocess import loader
from multisite.runner import load
from multisite.status.project.faults import application_fault, find_module, site_problems


def fault(tmp_path: pathlib.Path, application: str, code: str, name: str = "blog.py", **more: object) -> str:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    site = Site("x.ini", name="x", location=str(tmp_path), application=application, **more)  # type: ignore[arg-type]
    return str(application_fault(site) or "")


@pytest.mark.parametrize(
    "code",
    [
        "def app(e, s): ...",
        "class app: ...",
        "app = make()",
        "from flask import Flask as app",
        "import json as app",
        "try:\n    import x\nexcept ImportError:\n    app = y\n",
        "if 1:\n    app = y",
        "with open('x') as app: ...",
        "a, app = make()",
        "for app in x: ...",
        "app: object = make()",
        "from os.path import *",
        "globals()['app'] = 1",
        "def __getattr__(name): ...",
        "app = None\napp = make()",
        "def f():\n    global app\n    app = 1",
        "import sys\nsetattr(sys.modules[__name__], 'app', 1)",
    ],
)
def test_a_module_that_may_offer_the_name_is_no_problem(tmp_path: pathlib.Path, code: str) -> None:
    assert fault(tmp_path, "blog:app", code) == ""


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("", "there is no app"),
        ("def other(): ...", "there is no app"),
        ("def f():\n    app = 1", "there is no app"),
        ("app = 42", "app is not callable"),
        ("app = 'text'", "app is not callable"),
        ("app = {}\n", "app is not callable"),
        ("def app(:", "line 1"),
        ("app = 1\x00", "is not valid Python"),
    ],
)
def test_a_module_that_cannot_offer_a_callable_is_one(tmp_path: pathlib.Path, code: str, word: str) -> None:
    assert word in fault(tmp_path, "blog:app", code)


def test_nothing_is_run(tmp_path: pathlib.Path) -> None:
    """The package and the module are found and read, but not imported."""
    marker = tmp_path / "was-run"
    bomb = f"open({str(marker)!r}, 'w')\n"
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text(bomb)
    assert fault(tmp_path, "pkg.mod:app", bomb + "app = print\n", "pkg/mod.py") == ""
    assert not marker.exists()


@pytest.mark.parametrize(
    ("application", "word"),
    [
        ("nope:app", "there is no module 'nope'"),
        ("pkg.nope:app", "there is no module 'pkg.nope'"),
        ("django:nope.settings", "there is no module 'nope'"),
        ("paste:nope.ini", "there is no file"),
        ("web/nope.wsgi", "there is no file"),
        ("asgi:blog:nope", "there is no nope"),
        ("nope:/srv/pages", "neither a module nor a loader"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: pathlib.Path, application: str, word: str) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("")
    assert word in fault(tmp_path, application, "app = print")


@pytest.mark.parametrize(
    ("application", "name"),
    [
        ("blog:create_app('x')", "blog.py"),
        ("blog.wsgi", "blog.wsgi"),
        ("web/site.wsgi", "web/site.wsgi"),
        ("blog:obj.app", "blog.py"),
        ("django:blog", "blog.py"),
        ("paste:dev.ini#main", "dev.ini"),
    ],
)
def test_each_form_finds_what_is_there(tmp_path: pathlib.Path, application: str, name: str) -> None:
    code = "def create_app(x): ...\ndef application(e, s): ...\nobj = create_app(1)\n"
    assert fault(tmp_path, application, code, name) == ""


@pytest.mark.parametrize("application", ["wiki", "wiki:main", "wiki:/srv/pages"])
def test_a_loader_of_another_package_is_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, application: str
) -> None:
    entry = EntryPoint("wiki", "wikiserver:load", load.GROUP)
    monkeypatch.setattr(loader, "plugins", lambda: EntryPoints([entry]))
    assert fault(tmp_path, application, "") == ""


def test_an_interpreter_of_its_own_may_have_what_we_have_not(tmp_path: pathlib.Path) -> None:
    assert fault(tmp_path, "elsewhere:app", "", python="/venv") == ""


def test_a_command_needs_no_application(tmp_path: pathlib.Path) -> None:
    """It runs whatever else the file says; a site that is only asleep is not broken."""
    assert fault(tmp_path, "blog:application", "print('no application')", command=("python", "blog.py")) == ""


def test_a_module_on_pythonpath_is_found(tmp_path: pathlib.Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/far.py").write_text("app = print")
    assert fault(tmp_path, "far:app", "", env={"PYTHONPATH": str(tmp_path / "lib")}) == ""


def test_a_module_is_no_package(tmp_path: pathlib.Path) -> None:
    (tmp_path / "blog.py").write_text("")
    assert find_module("blog.inner", [str(tmp_path)]) is None


def test_a_location_that_is_gone_is_said_alone(tmp_path: pathlib.Path) -> None:
    problems = site_problems(Site("x.ini", location=str(tmp_path / "gone"), application="a:b"))
    assert [problem.key for problem in problems] == ["location"]
