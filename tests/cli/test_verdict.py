"""The moment of the mistake: `new`, `ensite` and `serve` report what is wrong with a site, and what would help."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from tests.supervisor.harness import as_user

from .test_serve import serving

APP = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
Run = Callable[..., Result]


@pytest.fixture
def home(open_path: pathlib.Path) -> pathlib.Path:
    """A home, and the code of a site that works."""
    for folder in ("home/sites-available", "home/sites-enabled", "code", "code/venv/bin", "code/venv/lib/python3.12"):
        (open_path / folder).mkdir(parents=True)
    (open_path / "code/app.py").write_text(APP)
    (open_path / "code/wrong.py").write_text("def application(:\n")
    (open_path / "code/needy.py").write_text(f"from flask_of_nobody import Flask\n{APP}")
    (open_path / "code/venv/lib/python3.12/site-packages").mkdir()
    (open_path / "code/venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.0\n")
    (open_path / "code/venv/bin/python").write_text("#!/bin/false\n")
    (open_path / "code/venv/bin/python").chmod(0o755)
    places = f"state_dir = {open_path}/state\nruntime_dir = {open_path}/run\n"
    sections = f"[projects]\nread = sites-enabled/*.ini\n[service]\n{places}[supervisor]\nallow_root = yes\n"
    (open_path / "home/moya.conf").write_text(sections)
    return open_path / "home"


@pytest.fixture
def run(home: pathlib.Path) -> Run:
    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["--home", str(home), *words], prog_name="multisite")

    return run


def site(home: pathlib.Path, text: str, name: str = "blog", enable: bool = False) -> None:
    code = home.parent / "code"
    said = {"domains": f"{name}.test", "location": str(code), "application": "app:application"}
    lines = [f"{key} = {value}" for key, value in said.items() if f"{key} = " not in text]
    path = home / f"sites-available/{name}.ini"
    path.write_text("\n".join(["[service]", *lines, text.format(code=code), ""]))
    if enable:
        (home / f"sites-enabled/{name}.ini").symlink_to(f"../sites-available/{name}.ini")


#: what is written in the file → what is reported, and the command that would help
MISTAKES = {
    "folder": ("location = {code}/none", "there is no such directory", "mkdir -p {code}/none"),
    "no folder": ("location = {code}/app.py", "it is not a directory", "multisite set blog location="),
    "user": ("user = nobody-at-all", "there is no user 'nobody-at-all'", "useradd --system nobody-at-all"),
    "group": ("group = nobody-at-all", "there is no group 'nobody-at-all'", "groupadd --system nobody-at-all"),
    "python": ("python = {code}/env", "there is no such file", "python3 -m venv {code}/env"),
    "no python": ("python = {code}", "it is not a virtualenv", "multisite set blog python="),
    "framework": (
        "application = needy:application\npython = {code}/venv",
        "the module 'flask_of_nobody', which {code}/venv/bin/python does not have ({code}/needy.py, line 1)",
        "pip install flask_of_nobody",
    ),
    "syntax": ("application = wrong:application", "{code}/wrong.py, line 1, is not valid Python", "py_compile"),
    "callable": ("application = app:app", "it offers application", "multisite set blog application=app:application"),
    "dot": ("application = app.application", "write MODULE:CALLABLE, with a colon", "application=app:application"),
    "file": ("application = ./blog.wsgi", "there is no file {code}/blog.wsgi", "multisite set blog application="),
    "program": ("command = {code}/none --port %PORT", "there is no such program", "multisite set blog command="),
    "program of PATH": (
        "command = no-such-program-anywhere",
        "there is no such program",
        "multisite set blog command=",
    ),
    "static folder": ("[static]\n/files = {code}/none", "there is no such folder or file", "mkdir -p {code}/none"),
    "log folder": ("[logging]\nerror = {code}/none/e.log", "there is no folder {code}/none", "mkdir -p {code}/none"),
    "key": ("thraeds = 4", "unknown key", "threads"),
}
NEEDS_ROOT = ("user", "group")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_reported_when_the_site_is_enabled_checked_and_served(
    home: pathlib.Path, run: Run, mistake: str
) -> None:
    """With the cause and a command; the link is made, and the exit status is 1."""
    if mistake in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root")
    text, cause, remedy = (part.format(code=home.parent / "code") for part in MISTAKES[mistake])
    site(home, text)
    done = run("ensite", "blog")
    assert done.exit_code == 1
    assert done.stdout == "enabled blog\n"
    assert cause in done.stderr and remedy in done.stderr
    assert "blog is enabled but has problems" in done.stderr
    assert (home / "sites-enabled/blog.ini").is_symlink()
    checked = run("check")
    reported = [line for line in (checked.stdout + checked.stderr).splitlines() if "blog.ini" in line]
    assert [line for line in done.stderr.splitlines() if "blog.ini" in line] == reported
    again = json.loads(run("--json", "ensite", "blog").stdout)["sites"][0]
    assert again["address"] is None and cause in "".join(
        f"{problem['reason']}; {problem['remedy']}" for problem in again["problems"]
    )


def test_a_site_that_is_well_has_its_address_printed(home: pathlib.Path, run: Run) -> None:
    site(home, "domains = blog.test, blog.localhost")
    done = run("ensite", "blog")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "blog: http://blog.test:8000/ as soon as multisite serve" in done.stdout


def test_new_checks_the_site_that_it_writes(home: pathlib.Path, run: Run) -> None:
    code = home.parent / "code"
    words = ("--location", str(code), "--application")
    done = run("new", "good", *words, "app:application", "--enable")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "good: http://good.localhost:8000/ as soon as multisite serve" in done.stdout
    for number, enable in enumerate(((), ("--enable",))):
        done = run("new", f"bad{number}", *words, "app.application", *enable)
        assert done.exit_code == 1
        assert f"multisite set bad{number} application=app:application" in done.stderr
        assert (home / f"sites-available/bad{number}.ini").exists()
        assert (home / f"sites-enabled/bad{number}.ini").exists() is bool(enable)
    document = json.loads(run("--json", "new", "bad", *words, "gone:app").stdout)
    assert document["address"] is None and "there is no module 'gone'" in document["problems"][0]["reason"]


def test_the_command_that_is_printed_mends_the_site(home: pathlib.Path, run: Run) -> None:
    """As it is printed, word by word."""
    for mistake in ("callable", "dot"):
        site(home, MISTAKES[mistake][0])
        told = run("ensite", "blog").stderr
        words = shlex.split(told[told.index("multisite set") :].splitlines()[0])
        assert run(*words[1:]).exit_code == 0
        assert run("ensite", "blog").exit_code == 0


def test_a_warning_that_may_be_meant_is_no_failure(home: pathlib.Path, run: Run) -> None:
    site(home, "domains = ")
    done = run("ensite", "blog")
    assert done.exit_code == 0
    assert "only default_site reaches it" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_the_folder_that_is_closed_to_the_user_is_named_with_its_mode(home: pathlib.Path, run: Run) -> None:
    """And so is it where root serves without a user for the site, before anything listens."""
    hidden = home.parent / "hidden"
    (hidden / "code").mkdir(parents=True)
    (hidden / "code/app.py").write_text(APP)
    hidden.chmod(0o700)
    site(home, f"location = {hidden}/code\nuser = nobody")
    done = run("ensite", "blog")
    assert done.exit_code == 1
    assert (
        f"{hidden} is closed to that user (mode 0700); chmod o+x {hidden}, or multisite set blog user=" in done.stderr
    )
    conf = home / "moya.conf"
    conf.write_text(conf.read_text().replace("allow_root = yes", ""))
    site(home, f"location = {hidden}/code")
    with serving(home) as (_port, said):
        told = next(line for line in said if "cannot reach" in line)
        assert "so it would run as 'nobody'" in told and "chmod o+x" in told and "(mode 0700)" in told
        assert not any("Listening" in line for line in said[: said.index(told)])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_an_ordinary_user_has_the_same_checks(home: pathlib.Path) -> None:
    """Of a home of their own, with a location that is closed to them."""
    hidden = home.parent / "hidden"
    (hidden / "code").mkdir(parents=True)
    hidden.chmod(0o700)
    for path in (home, *home.iterdir()):
        os.chown(path, 65534, 65534)

    def new() -> str:
        words = ["new", "blog", "--location", str(hidden / "code"), "--application", "app:application"]
        done = CliRunner().invoke(main, ["--home", str(home), *words])
        return f"{done.exit_code} {done.stderr}"

    told = as_user(65534, 65534, new)
    assert told.startswith("1 "), told
    assert f"{hidden} is closed to the user 'nobody' (mode 0700)" in told


def test_the_address_has_the_port_of_the_running_server(home: pathlib.Path, run: Run) -> None:
    site(home, "domains = first.localhost", "first", enable=True)
    with serving(home) as (port, _said):
        site(home, "domains = second.localhost", "second")
        assert f"second: http://second.localhost:{port}/\n" in run("ensite", "second").stdout
        site(home, "domains = ", "third")
        assert f"third: http://third.localhost:{port}/\n" in run("ensite", "third").stdout


def test_the_interpreter_of_these_tests_is_a_python_for_sites(home: pathlib.Path, run: Run) -> None:
    """Nothing is reported of what it has: a framework, and the standard library."""
    (home.parent / "code/framed.py").write_text(f"import click, sqlite3, xml.dom\n{APP}")
    site(home, f"application = framed:application\npython = {sys.executable}")
    done = run("ensite", "blog")
    assert (done.exit_code, done.stderr) == (0, "")
