"""`multisite set`, `rename` and `remove`, on real homes."""

from __future__ import annotations

import json
import os
import pathlib
import threading

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from tests.homes import TestHome


@pytest.fixture
def home(tmp_path: pathlib.Path) -> TestHome:
    return TestHome(tmp_path)


def run(home: TestHome, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--home", str(home.path)])


def test_set_changes_the_file_that_the_link_leads_to(home: TestHome) -> None:
    """The next request gets the new value; mode and comments are as before."""
    home.hello("blog")
    path = home.path / "sites-available" / "blog.ini"
    path.write_text(f"# mine\n{path.read_text()}")
    path.chmod(0o640)
    assert home.get("blog.test").text == "blog"
    done = run(home, "set", "blog", "domains=new.test, www.new.test", "env.GREETING=hello, you")
    assert (done.exit_code, done.stdout) == (0, f"blog: domains, GREETING set in {path}\n")
    home.later()
    assert home.get("new.test").status != 404
    assert home.get("blog.test").status == 404
    assert path.read_text().startswith("# mine\n[service]\ndomains = new.test, www.new.test\n")
    assert path.read_text().endswith("[env]\nGREETING = hello, you\n")
    assert path.stat().st_mode & 0o777 == 0o640
    assert (home.path / "sites-enabled" / "blog.ini").is_symlink()
    assert sorted(os.listdir(path.parent)) == ["blog.ini"]


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("thraeds=2", "unknown key; did you mean threads?"),
        ("threads=many", "[service] threads = many: "),
        ("domains=not a domain", "is no domain"),
        ("sevrice.X=1", "did you mean"),
        ("env.9X=1", "9X"),
        ("threads=2\n[env]", "threads"),
    ],
)
def test_set_refuses_what_is_wrong_and_writes_nothing(home: TestHome, word: str, part: str) -> None:
    home.hello("blog")
    path = home.path / "sites-available" / "blog.ini"
    before = path.read_bytes(), path.stat().st_mtime_ns
    done = run(home, "set", "blog", "processes=2", word)
    assert done.exit_code == 1, done.output
    assert part in done.stderr and done.stderr.count("\n") == 1
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_set_mends_a_file_that_has_errors(home: TestHome) -> None:
    home.ini("blog", "[service]\ndomains = blog.test\nthreads = many\nmode = somewhere\n")
    done = run(home, "set", "blog", "threads=2")
    assert done.exit_code == 1 and "mode = somewhere" in done.stderr
    home.code("blog", app="application = None\n")
    assert "threads = 2\n" in (home.path / "sites-available" / "blog.ini").read_text()
    assert run(home, "set", "blog", "no equals").exit_code == 2


def test_a_site_that_is_renamed_stays_enabled(home: TestHome) -> None:
    """There is one link at every moment."""
    home.hello("blog", name="blog")
    links, over, seen = home.path / "sites-enabled", threading.Event(), set[int]()

    def look() -> None:
        while not over.is_set():
            seen.add(sum(name.endswith(".ini") for name in os.listdir(links)))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        for old, new in (("blog", "journal"), ("journal", "blog")) * 10:
            done = run(home, "rename", old, new)
            assert (done.exit_code, done.stderr) == (0, ""), done.output
    finally:
        over.set()
        watching.join()
    assert seen == {1}
    done = run(home, "rename", "blog.ini", "journal", "--json")
    told = json.loads(done.stdout)
    assert (told["name"], told["link"]) == ("journal", str(links / "journal.ini"))
    assert os.readlink(links / "journal.ini") == "../sites-available/journal.ini"
    assert "name = journal\n" in (home.path / "sites-available" / "journal.ini").read_text()
    assert sorted(os.listdir(home.path / "sites-available")) == ["journal.ini"]
    assert home.get("blog.test").text == "blog"


def test_rename_takes_no_name_that_is_used_or_wrong(home: TestHome) -> None:
    home.hello("blog")
    home.hello("shop")
    home.ini("off", enable=False)
    for new, status in (("shop", 1), ("off", 1), ("../x", 2), ("", 2), ("a b", 2)):
        assert run(home, "rename", "blog", new).exit_code == status, new
    assert run(home, "rename", "off", "on").exit_code == 0
    assert sorted(os.listdir(home.path / "sites-available")) == ["blog.ini", "on.ini", "shop.ini"]
    assert sorted(os.listdir(home.path / "sites-enabled")) == ["blog.ini", "shop.ini"]


def test_remove_takes_the_link_and_the_file_and_nothing_else(home: TestHome) -> None:
    home.hello("blog")
    refused = run(home, "remove", "blog")
    assert refused.exit_code == 2 and "--yes" in refused.stderr
    assert home.get("blog.test").text == "blog"
    done = run(home, "remove", "--yes", "blog")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{home.path}/sites/blog is still there" in done.stdout
    home.later()
    assert home.get("blog.test").status == 404
    assert os.listdir(home.path / "sites-available") == os.listdir(home.path / "sites-enabled") == []
    assert (home.path / "sites" / "blog" / "app.py").exists()
    assert run(home, "remove", "--yes", "blog").exit_code == 1


def test_a_host_of_a_hosting_site_is_not_the_site(home: TestHome) -> None:
    """Nobody loses all of them who means one."""
    home.code("one.test", app="application = None\n")
    home.ini("users", domains="*.test", location=str(home.path / "sites" / "%HOST"))
    for words in (["remove", "--yes", "one.test"], ["rename", "one.test", "x"], ["set", "one.test", "threads=2"]):
        assert run(home, *words).exit_code == 1
    assert (home.path / "sites-available" / "users.ini").exists()


def test_a_file_that_is_not_in_sites_available_is_left_alone(home: TestHome) -> None:
    path = home.path / "sites-enabled" / "blog.ini"
    path.write_text("[service]\ndomains = blog.test\n")
    for words in (["remove", "--yes", "blog"], ["rename", "blog", "x"]):
        done = run(home, *words)
        assert done.exit_code == 1 and "by hand" in done.stderr
    assert path.exists()
