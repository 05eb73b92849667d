"""`moya-srv` answers the way its users know."""

from __future__ import annotations

import os
import pathlib
import stat

import pytest
from click.testing import CliRunner, Result

from multisite.cli.moyasrv import main


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    home = tmp_path / "home"
    (home / "sites-enabled").mkdir(parents=True)
    (home / "moya.conf").write_text(f"[projects]\nread = ./sites-enabled/*.ini\n[service]\ntemp_dir = {tmp_path}/tmp\n")
    for name in ("zoo", "blog"):
        text = f"[service]\nname = {name}\ndomains =\n    {name}.example.com\n    www.{name}.example.com\n"
        (home / f"sites-enabled/{name}.ini").write_text(text + f"location = {tmp_path}\nini = production.ini\n")
    return home


def run(home: pathlib.Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home), *words])


def test_list_is_a_sorted_table_of_name_domains_conf_and_location(home: pathlib.Path) -> None:
    lines = run(home, "list").stdout.splitlines()
    assert lines[0].split() == ["name", "domain(s)", "conf", "location"]
    first = [line.split() for line in lines[2:]]
    domains = ["blog.example.com,", "www.blog.example.com"]
    assert first[0] == ["blog", *domains, f"{home}/sites-enabled/blog.ini", str(home.parent)]
    assert first[1][0] == "zoo"


def test_where_prints_the_location_without_a_newline(home: pathlib.Path) -> None:
    assert run(home, "where", "blog").stdout == str(home.parent)


def test_an_unknown_project_is_named(home: pathlib.Path) -> None:
    for verb in ("where", "restart"):
        result = run(home, verb, "nope")
        assert result.exit_code == 1
        assert result.stderr == "no project 'nope'\n"


def test_restart_touches_the_changes_file_and_makes_its_directory(home: pathlib.Path) -> None:
    folder = home.parent / "tmp/moyasrv"
    assert run(home, "restart", "blog").exit_code == 0
    assert stat.S_IMODE(folder.stat().st_mode) & 0o022 == 0
    os.utime(folder / "blog.changes", (1, 1))
    run(home, "restart", "blog")
    assert (folder / "blog.changes").stat().st_mtime > 1


def test_restart_does_not_write_through_a_link(home: pathlib.Path) -> None:
    folder = home.parent / "tmp/moyasrv"
    folder.mkdir(parents=True)
    (folder / "blog.changes").symlink_to(home.parent / "victim")
    assert run(home, "restart", "blog").exit_code == 1
    assert not (home.parent / "victim").exists()


def test_install_makes_a_home_and_overwrites_only_by_force(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "moya"
    first = CliRunner().invoke(main, ["install", "--home", str(home)])
    assert first.exit_code == 0
    assert f"wrote '{home}/moya.conf'\n" in first.stdout
    assert f"Moya server was installed in {home}\n" in first.stdout
    assert sorted(p.name for p in home.iterdir()) == [
        "bashtools",
        "logging.ini",
        "moya.conf",
        "sites-available",
        "sites-enabled",
    ]
    (home / "moya.conf").write_text("mine")
    again = CliRunner().invoke(main, ["install", "--home", str(home)])
    assert f"not overwriting '{home}/moya.conf' (use --force to overwrite)\n" in again.stdout
    assert (home / "moya.conf").read_text() == "mine"
    CliRunner().invoke(main, ["install", "--home", str(home), "--force"])
    assert (home / "moya.conf").read_text() != "mine"


def test_a_missing_home_is_one_line_and_a_traceback_with_d(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path / "none", "list")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    debug = CliRunner().invoke(main, ["-d", "--home", str(tmp_path / "none"), "list"])
    assert "Traceback" in debug.stderr
