"""`multisite metrics` prints what Prometheus' client can read, and puts it where a collector looks for it."""

from __future__ import annotations

import json
import pathlib

from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from multisite.cli import main
from tests.homes import TestHome


def run(home: TestHome, *words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--home", str(home.path)])
    assert done.exit_code == 0, done.output
    return done.stdout


def states(text: str) -> dict[str, str]:
    """The state of each site."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {one.labels["site"]: one.labels["state"] for one in families["multisite_site_state"].samples}


def test_metrics_of_a_home_are_printed_or_written(tmp_path: pathlib.Path) -> None:
    home = TestHome(tmp_path)
    home.hello("blog")
    home.hello("shop")
    home.ini("wrong", threads="some")
    home.ini("off", enable=False)
    text = run(home, "metrics")
    assert states(text) == {"blog": "in-process", "shop": "in-process", "wrong": "broken"}
    file = tmp_path / "collector" / "multisite.prom"
    file.parent.mkdir()
    file.write_text("what was there before")
    assert run(home, "metrics", "--output", str(file)) == ""
    assert states(file.read_text()) == states(text)
    assert [one.name for one in file.parent.iterdir()] == ["multisite.prom"]
    assert states(json.loads(run(home, "metrics", "--json"))["metrics"]) == states(text)
    assert json.loads(run(home, "metrics", "--json", "--output", str(file))) == {"file": str(file)}


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: pathlib.Path) -> None:
    home = TestHome(tmp_path)
    (tmp_path / "taken").write_text("")
    done = CliRunner().invoke(main, ["metrics", "--output", f"{tmp_path}/taken/x.prom", "--home", str(tmp_path)])
    assert done.exit_code == 1
    assert f"{tmp_path}/taken" in done.stderr and len(done.stderr.splitlines()) == 1, home
