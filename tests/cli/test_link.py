"""`multisite link`: a folder becomes a site, on real homes."""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.cli.site.link import habit
from tests.homes import HELLO, TestHome

FLASKY = "from flask import Flask\napp = Flask(__name__)\n"
CALLABLE = HELLO.format(text="here")


@pytest.fixture
def home(tmp_path: pathlib.Path) -> TestHome:
    return TestHome(tmp_path / "home")


def project(home: TestHome, name: str = "My_Wiki", text: str = CALLABLE) -> pathlib.Path:
    folder = home.path.parent / "src" / name
    folder.mkdir(parents=True)
    (folder / "app.py").write_text(text)
    return folder


def run(home: TestHome, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--home", str(home.path)])


def test_a_folder_becomes_a_site_at_once(home: TestHome) -> None:
    """A second time changes nothing and says the same address."""
    folder = project(home)
    done = run(home, "link", str(folder))
    assert done.exit_code == 0, done.output
    address = "http://my-wiki.localhost:8000/ as soon as multisite serve, or another server of these sites, is running"
    assert done.stdout.splitlines()[-1] == address
    assert "Chosen: application = app:application" in done.stdout
    home.later()
    assert home.get("my-wiki.localhost").text == "here"
    path = home.path / "sites-available" / "my-wiki.ini"
    before = path.stat().st_mtime_ns
    again = run(home, "link", str(folder))
    assert (again.exit_code, again.stdout.splitlines()) == (0, ["my-wiki: already linked", address])
    run(home, "dissite", "my-wiki")
    again = run(home, "link", str(folder), "--json")
    told = json.loads(again.stdout)
    assert (told["name"], told["file"], told["domains"]) == ("my-wiki", str(path), ["my-wiki.localhost"])
    assert (home.path / "sites-enabled" / "my-wiki.ini").is_symlink()
    assert path.stat().st_mtime_ns == before


def test_the_current_folder_is_the_default(home: TestHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project(home, "shop"))
    done = run(home, "link")
    assert done.exit_code == 0, done.output
    assert (home.path / "sites-enabled" / "shop.ini").exists()
    renamed = run(home, "link", "--name", "store")
    assert renamed.exit_code == 1 and "multisite rename shop store" in renamed.stderr


def test_a_django_project_in_a_folder_below_is_known_again(home: TestHome) -> None:
    folder = project(home, "django", "")
    (folder / "app.py").unlink()
    inner = folder / "src" / "site1"
    inner.mkdir(parents=True)
    (inner / "wsgi.py").write_text(CALLABLE)
    assert run(home, "link", str(folder)).exit_code == 0
    assert run(home, "link", str(folder)).stdout.startswith("django: already linked")


def test_nothing_recognisable_is_an_error_that_says_what_to_do(home: TestHome) -> None:
    empty = home.path.parent / "empty"
    empty.mkdir()
    done = run(home, "link", str(empty))
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert str(empty) in done.stderr and "--application" in done.stderr
    assert not os.listdir(home.path / "sites-available")
    done = run(home, "link", str(home.path / "nowhere"))
    assert done.exit_code == 1 and "nowhere: there is no such directory" in done.stderr
    odd = project(home, "___")
    done = run(home, "link", str(odd))
    assert done.exit_code == 1 and "--name" in done.stderr


def test_a_name_that_is_taken_is_refused(home: TestHome) -> None:
    home.hello("shop")
    done = run(home, "link", str(project(home, "shop")))
    assert done.exit_code == 1 and "there already is a site shop" in done.stderr
    done = run(home, "link", "--name", "store", str(home.path.parent / "src" / "shop"))
    assert done.exit_code == 0, done.output
    assert "store.test" in done.stdout  # as the other site has it


@pytest.mark.parametrize(
    ("sites", "domain"),
    [
        ([], "localhost"),
        (
            [("blog", ("blog.apps.example.com", "blog.example.com")), ("my_shop", ("my-shop.apps.example.com",))],
            "apps.example.com",
        ),
        ([("blog", ("blog.apps.example.com",)), ("shop", ("shop.example.com",))], "localhost"),
        ([("blog", ("www.example.com",))], "localhost"),
        ([("blog", ("blog.*",))], "localhost"),
        ([("blog", ())], "localhost"),
    ],
)
def test_the_domain_is_where_the_others_have_theirs(sites: list[tuple[str, tuple[str, ...]]], domain: str) -> None:
    assert habit(sites) == domain
