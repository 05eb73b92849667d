"""`multisite show`: each value is the one that holds, and its origin is the line that sets it."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.config.options import OPTIONS, SITE_FILE
from multisite.status.settings import MASK, mask
from tests.homes import TestHome

MOYA_CONF = """[projects]
read = sites-enabled/*.ini
[service]
state_dir = state
runtime_dir = run
[defaults]
share = yes
threads = 3
[supervisor]
idle_timeout = 15m
stop_timeout =
[env]
LANG = C.UTF-8
API_TOKEN = of-the-home
"""
SITE = """[service]
domains = blog.test, www.blog.test
location = {home}/sites/blog
extends = base.ini
threads = 5
umask = 027
drain_timeout = 1m

[env]
SECRET_KEY = hunter2
DATABASE_URL = postgres://blog:hunter2@db/blog
DEBUG = 1
[static]
/static = files, more
[logging]
access = access.log
"""
BASE = """[service]
application = app:application
threads = 4
command = server --db-password hunter2 '--key=a hunter2' sh -c 'TOKEN=hunter2 run' --port 1
"""


@pytest.fixture
def home(tmp_path: pathlib.Path) -> TestHome:
    home = TestHome(tmp_path, MOYA_CONF)
    home.code("blog", app="application = None\n")
    (tmp_path / "sites-available" / "base.ini").write_text(BASE)
    home.ini("blog", SITE.format(home=tmp_path))
    return home


def run(home: TestHome, *words: str) -> Result:
    done = CliRunner().invoke(main, [*words, "--home", str(home.path)])
    assert done.exit_code == 0, done.output
    return done


def shown(home: TestHome, name: str = "blog") -> dict[tuple[str, str], dict[str, Any]]:
    rows = json.loads(run(home, "show", name, "--json").stdout)["settings"]
    return {(row["section"], row["key"]): row for row in rows}


def test_each_value_has_its_origin(home: TestHome) -> None:
    rows, path = shown(home), str(home.path)

    def told(key: str, section: str = "service") -> tuple[str, str, str]:
        row = rows[section, key]
        place = f"{row['file'].removeprefix(path + '/')}:{row['line']}" if row["file"] else ""
        return row["value"], row["origin"], place + (f" {row['of']}" if row["of"] else "")

    assert told("domains") == ("blog.test, www.blog.test", "file", "sites-enabled/blog.ini:2")
    assert told("threads") == ("5", "file", "sites-enabled/blog.ini:5")
    assert told("application") == ("app:application", "file", "sites-available/base.ini:2")
    assert told("umask") == ("0027", "file", "sites-enabled/blog.ini:6")
    assert told("drain_timeout") == ("60s", "file", "sites-enabled/blog.ini:7")
    assert told("share") == ("yes", "moya.conf", "moya.conf:7 defaults")
    assert told("idle_timeout") == ("900s", "moya.conf", "moya.conf:10 supervisor")
    assert told("stop_timeout") == ("10s", "default", "")
    assert told("name") == ("blog", "default", "")
    assert told("LANG", "env") == ("C.UTF-8", "moya.conf", "moya.conf:13 env")
    assert told("DEBUG", "env") == ("1", "file", "sites-enabled/blog.ini:12")
    assert told("/static", "static") == (
        f"{path}/sites/blog/files, {path}/sites/blog/more",
        "file",
        told("/static", "static")[2],
    )
    assert told("access", "logging")[0] == f"{path}/sites/blog/access.log"


def test_every_option_is_shown(home: TestHome) -> None:
    rows = shown(home)
    wanted = {(option.section, option.key) for option in OPTIONS if option.file == SITE_FILE and not option.any_key}
    assert wanted <= rows.keys()
    table = run(home, "show", "blog").stdout
    assert "moya.conf:10 [supervisor]" in table and "sites-enabled/blog.ini:5" in table
    assert "default: the owner of location" in table


def test_no_secret_is_shown_in_either_form(home: TestHome) -> None:
    for words in (["show", "blog"], ["show", "blog", "--json"]):
        text = run(home, *words).stdout
        assert "hunter2" not in text and "of-the-home" not in text
    rows = shown(home)
    command = f"server --db-password {MASK} '--key={MASK}' sh -c 'TOKEN={MASK} run' --port 1"
    assert rows["service", "command"]["value"] == command
    assert rows["env", "SECRET_KEY"]["masked"] and not rows["env", "DEBUG"]["masked"]


@pytest.mark.parametrize(
    ("key", "value", "hidden"),
    [
        ("PGPASSWORD", "x", MASK),
        ("AWS_SECRET_ACCESS_KEY", "x", MASK),
        ("Sentry_Dsn", "https://x@y/1", MASK),
        ("REDIS", "redis://:hunter2@h:1/0", f"redis://:{MASK}@h:1/0"),
        ("HOOK", "https://h/?token=hunter2&a=b", f"https://h/?token={MASK}&a=b"),
        ("OPAQUE", "gAAAAABk0f9dK2m1Zx7Qw8Er", MASK),
        ("PEM", "-----BEGIN PRIVATE KEY-----\nMIIE", MASK),
        ("LANG", "de_DE.UTF-8", "de_DE.UTF-8"),
        ("DJANGO_SETTINGS_MODULE", "blog.settings.production", "blog.settings.production"),
        ("MEDIA", "/srv/blog/media2/of/the/blog/itself", "/srv/blog/media2/of/the/blog/itself"),
    ],
)
def test_what_may_be_a_secret_is_masked(key: str, value: str, hidden: str) -> None:
    assert mask("env", key, value) == hidden


def test_a_site_that_is_not_enabled_or_has_errors_is_shown(home: TestHome) -> None:
    home.ini("off", "[service]\ndomains = off.test\nthraeds = 2\n", enable=False)
    assert shown(home, "off")["service", "domains"]["value"] == "off.test"
    assert "did you mean threads" in run(home, "show", "off").stderr
