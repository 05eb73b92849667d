"""`multisite logs`: which lines, of which sites, since when, and how they look."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.cli.site import loglines
from multisite.cli.site.since import point_in_time
from multisite.logs.kept import stamp

NOW = datetime(2026, 11, 29, 12, 0, 0).timestamp()
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three sites: two whose lines are kept, and one with logs of its own."""
    (tmp_path / "sites-enabled").mkdir()
    (tmp_path / "moya.conf").write_text("[service]\nruntime_dir = run\nstate_dir = state\n")
    for name in ("blog", "shop", "wiki"):
        more = f"[logging]\nerror = {tmp_path}/wiki.log\naccess = {tmp_path}/wiki.access\n" if name == "wiki" else ""
        keys = f"domains = {name}.test\nlocation = {tmp_path}\ncommand = /bin/true\n"
        (tmp_path / "sites-enabled" / f"{name}.ini").write_text(f"[service]\n{keys}{more}")
    (tmp_path / "state" / "logs").mkdir(parents=True)
    return tmp_path


def keep(home: Path, name: str, *lines: tuple[float, str, str], older: str = "") -> None:
    text = "".join(f"{stamp(time.time() - ago)} {level} {line}\n" for ago, level, line in lines)
    (home / "state" / "logs" / f"{name}.log{older}").write_text(text)


def run(home: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home), "logs", *words])


def shown(home: Path, *words: str) -> list[str]:
    """Lines without their times, which all of them have."""
    result = run(home, *words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines), lines
    return [line[20:] for line in lines]


@pytest.fixture
def filled(home: Path) -> Path:
    keep(home, "blog", (7200, "INFO", "oldest"), older=".1")
    keep(home, "blog", (300, "INFO", "first"), (100, "ERROR", "Traceback (most recent call last):"))
    keep(home, "shop", (200, "WARNING", "second"), (50, "INFO", "last"))
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - 150))
    (home / "wiki.log").write_text(f"{local},500 ERROR it failed\n  more of it\n")
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(time.time() - 120))
    (home / "wiki.access").write_text(f'203.0.113.9 - - [{when}] "GET / HTTP/1.1" 200 5\n')
    return home


def test_the_lines_of_all_sites_are_merged_by_time(filled: Path) -> None:
    assert shown(filled) == [
        "blog | oldest",
        "blog | first",
        "shop | WARNING second",
        "wiki | ERROR it failed",
        "wiki |   more of it",
        "blog | ERROR Traceback (most recent call last):",
        "shop | last",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("blog",), ["oldest", "first", "ERROR Traceback (most recent call last):"]),
        (("blog", "-n", "1"), ["ERROR Traceback (most recent call last):"]),
        (("-n", "2"), ["blog | ERROR Traceback (most recent call last):", "shop | last"]),
        (("-n", "0"), []),
        (("--since", "1h", "blog"), ["first", "ERROR Traceback (most recent call last):"]),
        (("--since", "170s"), ["wiki | ERROR it failed", "wiki |   more of it", "blog | ERROR T", "shop | last"]),
        (("shop", "blog", "--since", "2m"), ["blog | ERROR Traceback", "shop | last"]),
        (("s*",), ["WARNING second", "last"]),
    ],
)
def test_how_many_and_since_when(filled: Path, words: tuple[str, ...], expected: list[str]) -> None:
    found = shown(filled, *words)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True)), found


def test_the_access_logs_are_those_of_sites_that_have_one(filled: Path) -> None:
    assert shown(filled, "--access")[0].startswith("wiki | 203.0.113.9 - - [")
    refused = run(filled, "--access", "blog")
    assert refused.exit_code == 1
    assert "multisite set blog 'logging.access=" in refused.output


def test_json_has_the_fields_of_each_line(filled: Path) -> None:
    told = json.loads(run(filled, "--json", "-n", "3").stdout)["lines"]
    assert [(line["name"], line["level"], line["line"][:9]) for line in told] == [
        ("wiki", "INFO", "  more of"),
        ("blog", "ERROR", "Traceback"),
        ("shop", "INFO", "last"),
    ]
    assert all(abs(time.time() - line["time"]) < 1000 for line in told)


def test_nothing_and_nobody_are_reported(home: Path) -> None:
    assert "no lines logged" in run(home, "blog").stderr
    assert "did you mean blog" in run(home, "blgo").output
    misused = run(home, "--since", "soonish")
    assert misused.exit_code == 2 and "10m" in misused.output and "14:30" in misused.output


def test_many_lines_are_read_from_a_long_log(home: Path) -> None:
    (home / "wiki.log").write_text("".join(f"{number:06} {'x' * 100}\n" for number in range(20_000)))
    assert len(shown(home, "wiki")) == 40
    found = shown(home, "wiki", "-n", "10000")
    assert (len(found), found[0][:6], found[-1][:6]) == (10_000, "010000", "019999")


def test_hostile_lines_do_nothing_in_a_terminal(home: Path) -> None:
    (home / "wiki.log").write_text(f"{HOSTILE}\n")
    keep(home, "blog", (1, "INFO", HOSTILE), (1, HOSTILE, "level"))
    printed = run(home).stdout
    assert "\x1b" not in printed and "\x07" not in printed


def on_a_terminal(home: Path, **environ: str) -> str:
    """Return what the command prints on a terminal."""
    leader, follower = pty.openpty()
    argv = [sys.executable, "-m", "multisite", "--home", str(home), "logs"]
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"} | environ
    with subprocess.Popen(argv, stdout=follower, env=env):
        os.close(follower)
        return b"".join(_read(leader)).decode()


def _read(leader: int) -> Iterator[bytes]:
    try:
        while data := os.read(leader, 65536):
            yield data
    except OSError:  # EIO: nobody has it open any more
        os.close(leader)


def test_names_and_errors_are_coloured_on_a_terminal_alone(filled: Path) -> None:
    coloured = on_a_terminal(filled)
    names = dict(re.findall(r"\x1b\[(\d+)m(blog|shop|wiki) \| ", coloured))
    assert len(names) > 1
    assert "\x1b[31mERROR Traceback" in coloured and "\x1b[33mWARNING second" in coloured
    assert "\x1b[" not in on_a_terminal(filled, NO_COLOR="1")
    assert "\x1b[" not in run(filled).stdout


def test_all_sites_are_followed_one_that_starts_to_print_included(filled: Path) -> None:
    (filled / "state" / "logs" / "shop.log").unlink()
    argv = [sys.executable, "-m", "multisite", "--home", str(filled), "--json", "logs", "-f", "-n", "1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout
            assert json.loads(following.stdout.readline())["name"] == "blog"
            keep(filled, "shop", (0, "INFO", "hello"))
            assert json.loads(following.stdout.readline())["line"] == "hello"
            with (filled / "wiki.log").open("a") as log:
                log.write("new\n")
            told = json.loads(following.stdout.readline())
            assert (told["name"], told["line"]) == ("wiki", "new") and abs(told["time"] - time.time()) < 60
        finally:
            following.terminate()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", datetime(2026, 11, 29, 11, 58, 30)),
        ("10m", datetime(2026, 11, 29, 11, 50)),
        ("-10m", datetime(2026, 11, 29, 11, 50)),
        ("1h30m", datetime(2026, 11, 29, 10, 30)),
        ("2 h ago", datetime(2026, 11, 29, 10, 0)),
        ("1d", datetime(2026, 11, 28, 12, 0)),
        ("11:30", datetime(2026, 11, 29, 11, 30)),
        ("14:30", datetime(2026, 11, 28, 14, 30)),
        ("today", datetime(2026, 11, 29)),
        ("yesterday", datetime(2026, 11, 28)),
        ("yesterday 08:15", datetime(2026, 11, 28, 8, 15)),
        ("2026-11-27", datetime(2026, 11, 27)),
        ("2026-11-27 14:30", datetime(2026, 11, 27, 14, 30)),
        ("2026-11-27T14:30:05", datetime(2026, 11, 27, 14, 30, 5)),
        ("now", datetime(2026, 11, 29, 12, 0)),
    ],
)
def test_points_in_time(text: str, meant: datetime) -> None:
    assert point_in_time(text, NOW) == meant.timestamp()


def test_a_zone_is_taken_from_the_time() -> None:
    assert point_in_time("2026-11-29T00:00:00Z", NOW) == 1795910400.0
    assert point_in_time("2026-11-29T01:00:00+01:00", NOW) == 1795910400.0


@pytest.mark.parametrize("text", ["", "soon", "25:00", "10", "10x", "2026-13-01", "-"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        point_in_time(text, NOW)


@pytest.mark.parametrize(
    ("text", "at", "level", "rest"),
    [
        ("2026-11-29T00:00:00Z ERROR x", 1795910400.0, "ERROR", "ERROR x"),
        ("[2026-11-29 00:00:00 +0000] [4711] [INFO] Booting", 1795910400.0, "INFO", "[4711] [INFO] Booting"),
        ("2026-11-29 01:00:00.250+01:00 WARN y", 1795910400.25, "WARNING", "WARN y"),
        ("no time", 0.0, "INFO", "no time"),
        ("2026-99-99 99:99:99 odd", 0.0, "INFO", "2026-99-99 99:99:99 odd"),
        ("", 0.0, "INFO", ""),
    ],
)
def test_times_and_levels_of_other_peoples_lines(text: str, at: float, level: str, rest: str) -> None:
    line = loglines.error("blog", text)
    assert (line.at, line.level, line.text) == (at, level, rest)
