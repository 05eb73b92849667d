"""What a site imports is looked up in the files of its interpreter; only what is certain is reported."""

from __future__ import annotations

import pathlib
import sys

import pytest

from multisite.config.site import Site
from multisite.status.project.faults import application_fault

APP = "def app(environ, start_response): ...\n"


@pytest.fixture
def venv(tmp_path: pathlib.Path) -> pathlib.Path:
    """A virtualenv as far as its files tell; nothing in it can be run."""
    packages = tmp_path / "venv/lib/python3.12/site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "venv/bin").mkdir()
    (tmp_path / "venv/bin/python").write_text("#!/bin/false\n")
    (tmp_path / "venv/bin/python").chmod(0o755)
    (tmp_path / "venv/pyvenv.cfg").write_text("home = /nowhere/bin\nversion = 3.12.1\n")
    return packages


def fault(tmp_path: pathlib.Path, code: str, application: str = "blog:app", **more: object) -> str:
    (tmp_path / "blog.py").write_text(f"{code}\n{APP}")
    more = {"python": str(tmp_path / "venv"), **more}
    site = Site("x.ini", name="x", location=str(tmp_path), application=application, **more)  # type: ignore[arg-type]
    return str(application_fault(site) or "")


@pytest.mark.parametrize(
    ("code", "module", "line"),
    [
        ("import flask", "flask", 1),
        ("import json, flask.views", "flask", 1),
        ("\nfrom flask import Flask", "flask", 2),
        ("from inner import thing", "far", 3),
        ("from pkg import sub", "deep", 1),
        ("import pkg.sub", "deep", 1),
        ("from pkg.side import x", "deep", 1),
    ],
)
def test_what_its_interpreter_lacks_is_named(
    tmp_path: pathlib.Path, venv: pathlib.Path, code: str, module: str, line: int
) -> None:
    """Also where a module of the site's own imports it; the line and the interpreter are those."""
    (tmp_path / "inner.py").write_text("import os\n\nimport far\n")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").touch()
    (tmp_path / "pkg/sub.py").write_text("import deep")
    (tmp_path / "pkg/side.py").write_text("from . import sub")
    told = fault(tmp_path, code)
    assert f"it needs the module '{module}', which {tmp_path}/venv/bin/python does not have" in told
    assert f", line {line})" in told
    assert f"pip install {module.partition('.')[0]}" in told and "multisite set x python=" in told


@pytest.mark.parametrize(
    "code",
    [
        "import json, wsgiref.simple_server",
        "import there, compiled, egg",
        "try:\n    import flask\nexcept ImportError:\n    flask = None",
        "if 0:\n    import flask",
        "def f():\n    import flask",
        "import sys\nsys.path.insert(0, 'lib')\nimport flask",
        "from sys import path\npath.append('lib')\nimport flask",
        "import site\nsite.addsitedir('lib')\nimport flask",
        "exec(open('activate_this.py').read())\nimport flask",
        "import inner",
        "from pkg import anything",
        "from . import flask",
        "import edited",
    ],
)
def test_what_is_there_or_may_be_is_no_problem(tmp_path: pathlib.Path, venv: pathlib.Path, code: str) -> None:
    (tmp_path / "inner.py").write_text("import there")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "eggs/egg").mkdir(parents=True)
    (venv / "there").mkdir()
    (venv / "compiled.cpython-312-x86_64-linux-gnu.so").touch()
    (venv / "eggs.pth").write_text(f"# a comment\n{tmp_path}/eggs\n")
    (venv / "__editable__.pth").write_text("import __editable___edited_finder; __editable___edited_finder.install()\n")
    (venv / "__editable___edited_finder.py").write_text("MAPPING = {'edited': '/elsewhere/edited'}\n")
    assert fault(tmp_path, code) == ""


def test_an_interpreter_whose_packages_are_not_known_may_have_anything(
    tmp_path: pathlib.Path, venv: pathlib.Path
) -> None:
    (venv / "more.pth").write_text("import site; site.addsitedir('/srv/lib')\n")
    assert fault(tmp_path, "import flask") == ""
    assert fault(tmp_path, "import flask", python="/bin/false") == ""


def test_packages_of_the_system_count_where_the_virtualenv_has_them(tmp_path: pathlib.Path, venv: pathlib.Path) -> None:
    (tmp_path / "usr/lib/python3/dist-packages/flask").mkdir(parents=True)
    pyvenv = tmp_path / "venv/pyvenv.cfg"
    pyvenv.write_text(f"home = {tmp_path}/usr/bin\nversion = 3.12.1\n")
    assert "does not have" in fault(tmp_path, "import flask")
    pyvenv.write_text(f"{pyvenv.read_text()}include-system-site-packages = true\n")
    assert fault(tmp_path, "import flask") == ""


def test_what_runs_the_site_has_to_be_there_too(tmp_path: pathlib.Path, venv: pathlib.Path) -> None:
    """Django, PasteDeploy, and a server of the site's own."""
    (tmp_path / "development.ini").write_text("[app:main]\n")
    for name, application, more in (
        ("django", "django:blog", {}),
        ("paste", "paste:development.ini", {}),
        ("gunicorn", "blog:app", {"server": "gunicorn"}),
    ):
        assert f"it needs the module '{name}'" in fault(tmp_path, "", application, **more)
        (venv / name).mkdir()
        assert fault(tmp_path, "", application, **more) == ""


def test_a_module_of_the_interpreter_is_an_application_as_well(tmp_path: pathlib.Path, venv: pathlib.Path) -> None:
    assert "there is no module 'wiki'" in fault(tmp_path, "", "wiki.main:app")
    (venv / "wiki").mkdir()
    (venv / "wiki/__init__.py").touch()
    assert "there is no module 'wiki.main'" in fault(tmp_path, "", "wiki.main:app")
    (venv / "wiki/main.py").write_text(APP)
    assert fault(tmp_path, "", "wiki.main:app") == ""


def test_what_a_module_offers_instead_is_told_with_the_command(tmp_path: pathlib.Path) -> None:
    told = fault(tmp_path, "LIMIT = 1\ndef create_app(): ...\n", "blog:application", python="")
    assert "there is no application" in told
    assert "it offers create_app, app: multisite set x application=blog:app" in told
    (tmp_path / "only.py").write_text("def make_app(): ...\n")
    assert fault(tmp_path, "", "only:app", python="").endswith("multisite set x 'application=only:make_app()'")


def test_source_of_a_newer_python_is_not_judged(tmp_path: pathlib.Path, venv: pathlib.Path) -> None:
    code, ours = "x = = 1", ".".join(map(str, sys.version_info[:2]))
    (tmp_path / "venv/pyvenv.cfg").write_text(f"home = /nowhere/bin\nversion = {ours}.0\n")
    assert "is not valid Python" in fault(tmp_path, code) and "py_compile" in fault(tmp_path, code)
    (tmp_path / "venv/pyvenv.cfg").write_text("home = /nowhere/bin\nversion = 3.99.0\n")
    assert fault(tmp_path, code) == ""
