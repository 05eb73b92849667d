"""`multisite new --from`: what is seen in the files of projects, without running any of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from multisite.cli import main
from multisite.cli.project.guess import guess
from multisite.config.model import SupervisorOptions
from multisite.config.read import make_site, read_home, read_site
from multisite.status.project.scan import LARGEST, MOST_FILES, survey
from multisite.status.project.sources import NoGuess
from multisite.supervisor.process import launch
from multisite.supervisor.process.spec import Surroundings
from tests.projects import DJANGO, DJANGOS, FLASK, MOYA, PLAIN, SEEN, SERVED, STATIC, write


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for folder in ("sites-available", "sites-enabled"):
        (home / folder).mkdir(parents=True)
    (home / "moya.conf").write_text("[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\n")
    return home


def new(home: Path, name: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home), "new", name, *words])


@pytest.mark.parametrize("kind", SERVED)
def test_each_kind_of_project_is_told_from_its_files(tmp_path: Path, kind: str) -> None:
    files, expected, _ = SERVED[kind]
    folder = write(tmp_path / kind, files)
    best, _others = guess(survey(str(folder)))
    wanted = {"location": str(folder / expected.get("location", "")), **expected}
    wanted["location"] = str(folder / expected.get("location", ""))
    assert best.settings == wanted


def test_a_moya_project_is_named_by_its_settings(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "forum", MOYA)
    assert new(home, "forum", "--from", str(folder)).exit_code == 0
    values = read_site(str(home / "sites-available/forum.ini"), str(home)).values["service"]
    assert values["ini"] == ("settings.ini",)
    assert "application" not in values


def test_no_code_of_the_project_runs(tmp_path: Path) -> None:
    """Even of a file that would end the process on import."""
    folder = write(
        tmp_path, {"app.py": "import os\nopen('ran', 'w')\nos._exit(9)\n" + FLASK["app.py"], "setup.py": "1/0"}
    )
    assert guess(survey(str(folder)))[0].settings["application"] == "app:app"
    assert not (folder / "ran").exists() and not Path("ran").exists()


@pytest.mark.parametrize("place", [".venv", "venv", "../venv"])
def test_the_virtualenv_in_the_folder_or_beside_it_is_taken(tmp_path: Path, home: Path, place: str) -> None:
    folder = write(tmp_path / "code" / "blog", FLASK)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / place)], check=True)
    done = new(home, "blog", "--from", str(folder))
    assert done.exit_code == 1 and "pip install flask" in done.stderr  # it is empty
    site = read_site(str(home / "sites-available/blog.ini"), str(home))
    assert not site.problems
    assert os.path.samefile(os.path.join(folder, site.values["service"]["python"]), folder / place)


def test_what_was_found_is_said_in_comments_of_the_file(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "blog", FLASK)
    result = new(home, "blog", "--from", str(folder), "--enable")
    text = (home / "sites-available/blog.ini").read_text()
    for told in (result.output, text.replace("\n# ", " ")):
        assert "app.py:2 has app = Flask(…)" in told
        assert "it has no virtualenv" in told
    assert (home / "sites-enabled/blog.ini").is_symlink()
    as_json = CliRunner().invoke(main, ["--home", str(home), "--json", "new", "two", "--from", str(folder)])
    assert "app.py:2" in json.loads(as_json.stdout)["found"][1]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no Python file"),
        ({"a.py": "x = 1"}, "nothing in 1 Python files looks like"),
        ({"a.py": "def ("}, "a.py is not valid Python here"),
        ({"a.py": PLAIN, "b.py": PLAIN}, "several things fit: application = a:application (a.py:1 has"),
        (
            {
                "one/manage.py": "s('DJANGO_SETTINGS_MODULE', 'x.s')",
                "two/manage.py": "s('DJANGO_SETTINGS_MODULE', 'y.s')",
            },
            "several",
        ),
    ],
)
def test_where_nothing_or_several_things_fit_the_remedy_is_said(
    tmp_path: Path, home: Path, files: dict[str, str], reason: str
) -> None:
    (tmp_path / "code").mkdir()
    result = new(home, "x", "--from", str(write(tmp_path / "code", files)))
    assert result.exit_code == 1
    assert reason in result.stderr
    assert "--application" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (home / "sites-available/x.ini").exists()


def test_one_file_can_be_named_and_the_application_said(tmp_path: Path, home: Path) -> None:
    folder = write(tmp_path / "code", {"a.py": PLAIN, "b.py": PLAIN})
    assert new(home, "one", "--from", str(folder / "b.py")).exit_code == 0
    assert new(home, "two", "--from", str(folder), "--application", "a:application").exit_code == 0
    for name, application in (("one", "b:application"), ("two", "a:application")):
        values = read_site(str(home / f"sites-available/{name}.ini"), str(home)).values["service"]
        assert (values["application"], values["location"]) == (application, str(folder))


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, home: Path) -> None:
    result = new(home, "x", "--from", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert result.stderr == f"multisite: {tmp_path}/none: no such file or directory\n"


def test_location_and_from_exclude_each_other(tmp_path: Path, home: Path) -> None:
    assert new(home, "x", "--from", str(tmp_path), "--location", "/srv").exit_code == 2


def test_a_class_of_that_name_from_elsewhere_is_not_taken_for_a_framework(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "from mine import Flask\napp = Flask()\n"})
    with pytest.raises(NoGuess):
        guess(survey(str(tmp_path)))


def test_a_factory_that_needs_arguments_is_none(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "import flask\ndef create_app(config):\n    return flask.Flask('x')\n"})
    with pytest.raises(NoGuess):
        guess(survey(str(tmp_path)))


def test_only_so_much_of_a_large_tree_is_read(tmp_path: Path) -> None:
    write(tmp_path, {f"f{number}.py": "" for number in range(MOST_FILES + 20)} | {"a.py": "#" * (LARGEST + 1)})
    os.mkfifo(tmp_path / "b.py")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "bin.py").write_bytes(b"\x00\xff\xfe")
    assert len(survey(str(tmp_path)).sources) <= MOST_FILES


@given(st.text(max_size=200))
def test_any_text_is_a_project_or_none(text: str) -> None:
    import ast

    from multisite.status.project.sources import Project

    project = Project("/srv/x")
    try:
        project.sources["a.py"] = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    with contextlib.suppress(NoGuess):
        guess(project)


@pytest.mark.parametrize("kind", SEEN)
def test_kinds_whose_servers_are_not_installed_here(tmp_path: Path, kind: str) -> None:
    files, expected = SEEN[kind]
    folder = write(tmp_path / kind, files)
    best, _others = guess(survey(str(folder)))
    assert best.settings == {"location": str(folder), **expected}


@pytest.mark.parametrize("kind", DJANGOS)
def test_django_is_served_by_what_its_settings_or_its_asgi_module_say(tmp_path: Path, home: Path, kind: str) -> None:
    """What was seen, what was chosen and why is said, in the file as well."""
    files, expected, told = DJANGOS[kind]
    folder = write(tmp_path / "shop", {**DJANGO, **files})
    result = new(home, "shop", "--from", str(folder))
    values = read_site(str(home / "sites-available/shop.ini"), str(home)).values["service"]
    assert values["application"] == expected
    assert f"Chosen: application = {expected}." in result.output
    text = (home / "sites-available/shop.ini").read_text().replace("\n# ", " ")
    assert told in result.output and told in text


@pytest.mark.parametrize("kind", STATIC)
def test_static_files_of_django_are_proposed(tmp_path: Path, home: Path, kind: str) -> None:
    """Put into force where the folders are there, else as a comment."""
    text, expected = STATIC[kind]
    folder = write(tmp_path / "shop", {**DJANGO, "shop/settings.py": text})
    result = new(home, "one", "--from", str(folder))
    written = read_site(str(home / "sites-available/one.ini"), str(home))
    assert "static" not in written.values
    assert ("Proposed for [static]: " in result.output) is bool(expected)
    for prefix, path in expected.items():
        assert f"# {prefix} = {path}" in (home / "sites-available/one.ini").read_text()
        (folder / path).mkdir(parents=True)
    new(home, "two", "--from", str(folder))
    written = read_site(str(home / "sites-available/two.ini"), str(home))
    assert written.values.get("static", {}) == {prefix: (path,) for prefix, path in expected.items()}
    assert not written.errors


@pytest.mark.parametrize(
    ("files", "framework", "script"),
    [
        ({"main.py": "from nicegui import ui\nui.label('x')\nui.run(port=9999)\n"}, "NiceGUI", "main.py"),
        ({"a.py": "import nicegui\nnicegui.ui.run()\n"}, "NiceGUI", "a.py"),
        ({"s.py": "import cherrypy\nif __name__ == '__main__':\n    cherrypy.quickstart(None)\n"}, "CherryPy", "s.py"),
    ],
)
def test_scripts_that_are_told_no_port_are_started_on_one(
    tmp_path: Path, home: Path, files: dict[str, str], framework: str, script: str
) -> None:
    """By a line of Python that is one argument, whose quotes and braces survive the file."""
    folder = write(tmp_path / "code", files)
    result = new(home, "gui", "--from", str(folder))
    written = read_site(str(home / "sites-available/gui.ini"), str(home))
    assert not written.problems
    program, option, code, port = written.values["service"]["command"]
    assert (program, option, port) == ("python3", "-c", "%PORT")
    assert f"runpy.run_path('{script}', run_name='__main__')" in code
    compile(code, "command", "exec")
    assert f"{framework}: {script}:" in result.output and "the python3 of PATH runs it" in result.output


def test_a_virtualenv_runs_a_command_too(tmp_path: Path, home: Path) -> None:
    """Its programs come first in PATH."""
    folder = write(tmp_path / "code", SEEN["streamlit"][0])
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    new(home, "page", "--from", str(folder))
    site = make_site(read_site(str(home / "sites-available/page.ini"), str(home)), read_home(str(home)))
    around = Surroundings(os.environ, "", "/")
    how = launch.plan(site, replace(read_home(str(home)), supervisor=SupervisorOptions(allow_root=True)), around)
    assert how.env["PATH"].split(os.pathsep)[0] == str(folder / ".venv" / "bin")
    assert how.argv[how.argv.index("--") + 1] == "python3"
