"""`multisite hosts` agrees with `explain` about each host."""

from __future__ import annotations

import json
import pathlib

from click.testing import CliRunner

from multisite.cli import main
from tests.homes import MOYA_CONF, TestHome


def run(home: TestHome, *words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--home", str(home.path)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_each_host_leads_to_its_site_and_file(tmp_path: pathlib.Path) -> None:
    home = TestHome(tmp_path, MOYA_CONF.replace("[service]", "[service]\ndefault_site = any"))
    home.hello("blog", domains="blog.test, www.blog.test, *.blog.test")
    home.hello("api", domains="blog.test", mount="/api")
    home.hello("wide", domains="{user}.test")
    home.hello("second", domains="blog.test")  # whose domain is another's already
    home.hello("any", domains="any.test")
    home.ini("off", domains="off.test", enable=False)
    rows = json.loads(run(home, "hosts", "--json"))["hosts"]
    found = [(row["host"], row["mount"], row["name"], row["rule"]) for row in rows]
    assert found == [
        ("any.test", "/", "any", "exact domain"),
        ("blog.test", "/api", "api", "exact domain"),
        ("blog.test", "/", "blog", "exact domain"),
        ("www.blog.test", "/", "blog", "exact domain"),
        ("{user}.test", "/", "wide", "pattern"),
        ("*.blog.test", "/", "blog", "pattern"),
        ("", "/", "any", "default site"),
    ]
    for row in rows:
        host = row["host"].replace("{user}", "ada").replace("*", "deep") or "unknown.example"
        told = json.loads(run(home, "explain", host + row["mount"], "--json"))
        assert (told["name"], told["rule"], told["mount"]) == (row["name"], row["rule"], row["mount"])
        assert row["file"] == str(home.path / "sites-enabled" / f"{row['name']}.ini")
    table = run(home, "hosts")
    assert "any other host" in table and "blog.test/api" in table and "off.test" not in table


def test_without_sites_there_are_no_hosts(tmp_path: pathlib.Path) -> None:
    home = TestHome(tmp_path)
    assert json.loads(run(home, "--json", "hosts")) == {"hosts": []}
    assert run(home, "hosts") == ""
