"""Sites whose time is over: 410 in every way in which they are reached, and nothing of them runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from .everyway import Way
from .harness import PATIENCE, HomeDir, eventually, gunicorn

pytestmark = pytest.mark.servers


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    home = HomeDir(tmp_path).create()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "logo.svg").write_text("<svg/>")
    return home


def write(home: HomeDir, name: str, mode: str, expires: str, more: str = "") -> None:
    where = home.path / "sites" / name
    if not where.exists():
        home.site(name, mode=mode)
    text = f"[service]\ndomains = {name}.test\nlocation = {where}\nmode = {mode}\napplication = {name}_app\n"
    home.ini(name, f"{text}expires = {expires}\n{more}[static]\n/static = {home.path}/files\n")


def row(home: HomeDir, name: str) -> dict[str, object]:
    (found,) = json.loads(home.multisite("--json", "list", name))["sites"]
    return dict(found)


@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_it_serves_until_its_time_is_over_and_then_nothing_of_it_runs(home: HomeDir, kind: str) -> None:
    for name, mode in (("out", "spawned"), ("in", "in-process")):
        write(home, name, mode, "1d", "warm = always\n" if name == "out" else "")
    with gunicorn(home, kind, "--workers", "1") as server:
        ways = [Way("", f"{name}.test", server.port, says_close=last) for name in ("out", "in") for last in (0, 1)]  # type: ignore[arg-type]
        for way in ways:
            assert (way.ask().status, way.ask("/static/logo.svg").status) == (200, 200)
        assert row(home, "out")["service"] is None
        runtime = home.runtime / "multisite"
        assert (runtime / "domains" / "out.test").exists()
        over = time.time() - 86400 - 5
        for name in ("out", "in"):
            os.utime(home.link(name), (over, over), follow_symlinks=False)
        for way in ways:
            eventually(lambda way=way: way.ask().status == 410, PATIENCE, "its time is over")  # type: ignore[misc]
            assert way.ask("/static/logo.svg").status == way.ask("/", "POST", "Content-Length: 0").status == 410
        eventually(lambda: not home.processes(backends=True), PATIENCE, "its processes end")
        eventually(lambda: not (runtime / "domains" / "out.test").exists(), PATIENCE, "no front end finds it")
        assert not (runtime / "sites" / "out.sock").exists()
        assert (row(home, "out")["service"], row(home, "in")["service"]) == ("expired", "expired")
        assert "the site expired at" in home.multisite("check")
        told = json.loads(home.multisite("--json", "explain", "in.test"))
        assert (told["service"], told["expires"][:2]) == ("expired", "20")
        home.multisite("dissite", "out")
        home.multisite("ensite", "out")  # a duration begins again
        eventually(lambda: ways[0].ask().status == 200, PATIENCE, "it is back")
        assert ways[2].ask().status == 410


def test_a_date_that_is_near_is_warned_of_and_a_wrong_one_is_an_error(home: HomeDir) -> None:
    for name, expires in (("past", "2001-01-01"), ("far", "2999-01-01"), ("long", "7d"), ("wrong", "tomorrow")):
        write(home, name, "spawned", expires)
    write(home, "near", "spawned", time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + 86400)))
    found = json.loads(home.multisite("--json", "check"))["problems"]
    by_site = {os.path.basename(one["file"]): one for one in found if one["key"] == "expires"}
    assert {name: one["severity"] for name, one in by_site.items()} == {
        **dict.fromkeys(("past.ini", "near.ini"), "warning"),
        "wrong.ini": "error",
    }
    assert "2026-12-31" in by_site["wrong.ini"]["reason"]
    assert "multisite set near" in by_site["near.ini"]["remedy"]
