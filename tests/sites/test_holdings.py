"""A domain or a name that two files claim: who has it is decided once, the same for everybody, over restarts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.service import Service
from multisite.sites.statefile import StateFile
from tests.homes import TestHome


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    return TestHome(tmp_path)


def run(home: TestHome, *words: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.path), *words], prog_name="multisite")


def restart(home: TestHome) -> None:
    """Have another process in the worker's place, which knows nothing but what is on disk."""
    home.service = Service(str(home.path))
    home.service._elsewhere = None
    home.service._clock = home.service._live._clock = lambda: home.now


def explained(home: TestHome, address: str) -> str:
    """Return the site that ``explain`` names."""
    return str(json.loads(run(home, "--json", "explain", address).stdout)["name"])


def losers(home: TestHome) -> tuple[set[str], set[str]]:
    """Return the sites whose file has a problem with its domains, as ``check`` and ``list`` name them."""
    check = json.loads(run(home, "--json", "check").stdout)["problems"]
    rows: list[dict[str, Any]] = json.loads(run(home, "--json", "list").stdout)["sites"]
    listed = {row["name"] for row in rows if any(problem["key"] == "domains" for problem in row["problems"])}
    return {Path(one["file"]).stem for one in check if one["key"] == "domains"}, listed


CLAIMS = {
    "a domain": ("d.test", "d.test", {}),
    "a mount": ("d.test", "d.test/api/x", {"mount": "/api"}),
    "a pattern": ("*.d.test", "x.d.test", {}),
    "a captured label": ("{user}.d.test", "x.d.test", {}),
}


@pytest.mark.parametrize(("domain", "address", "more"), CLAIMS.values(), ids=CLAIMS)
@pytest.mark.parametrize("way", ["a new site", "an edit"])
def test_whoever_has_a_claim_keeps_it_and_all_agree(
    home: TestHome, domain: str, address: str, more: dict[str, str], way: str
) -> None:
    """Workers, their successors, check, list and explain; then the other one has it, once the first gives it up."""
    host, slash, path = address.partition("/")

    def served() -> str:
        return home.get(host, slash + path or "/").text

    home.hello("zeta", domains=domain, **more)
    if way == "an edit":
        home.hello("alpha", domains="other.test", **more)
    assert served() == "zeta"
    home.hello("alpha", domains=domain, **more)  # earlier in the order of names
    for _ in range(2):
        home.later()
        assert served() == "zeta"
        assert explained(home, address) == "zeta"
        assert losers(home) == ({"alpha"}, {"alpha"})
        restart(home)
    home.hello("zeta", domains="other2.test", **more)
    home.later()
    assert served() == explained(home, address) == "alpha"
    home.hello("zeta", domains=domain, **more)
    for _ in range(2):
        home.later()
        assert served() == explained(home, address) == "alpha"
        assert losers(home) == ({"zeta"}, {"zeta"})
        restart(home)


def test_whoever_has_a_name_keeps_it_over_a_restart(home: TestHome) -> None:
    home.hello("zeta", name="same")
    assert home.get("zeta.test").text == "zeta"
    home.hello("alpha", name="same")
    for _ in range(2):
        home.later()
        assert home.get("zeta.test").text == "zeta"
        assert home.get("alpha.test").status == 500
        assert explained(home, "zeta.test") == "same"
        restart(home)


@pytest.mark.parametrize("served", [True, False], ids=["by a server", "by nobody"])
def test_ensite_refuses_the_second_site_of_a_domain(home: TestHome, served: bool) -> None:
    home.hello("zeta", domains="d.test, z.test")
    home.code("alpha", app=(home.path / "sites/zeta/app.py").read_text().replace("zeta", "alpha"))
    home.ini("alpha", domains="a.test, d.test", enable=False)
    if served:
        assert home.get("d.test").text == "zeta"
    refused = run(home, "ensite", "alpha")
    assert refused.exit_code == 1
    assert f"{home.path}/sites-enabled/zeta.ini already has the domain d.test" in refused.stderr
    assert "--force" in refused.stderr
    assert not os.path.lexists(home.path / "sites-enabled/alpha.ini")
    assert run(home, "ensite", "zeta").exit_code == 0  # itself
    forced = run(home, "ensite", "--force", "alpha")
    assert forced.exit_code == 0
    assert "claims this domain, too," in forced.stderr
    again = run(home, "ensite", "alpha")  # it is, and that is still a problem
    assert (again.exit_code, "keeps it" in again.stderr) == (1, True)
    for _ in range(2):
        home.later()
        assert home.get("d.test").text == explained(home, "d.test") == "zeta"
        assert home.get("a.test").text == "alpha"
        assert losers(home) == ({"alpha"}, {"alpha"})
        restart(home)


def test_ensite_of_two_at_once_enables_the_first_and_refuses_the_second(home: TestHome) -> None:
    for name in ("zeta", "alpha"):
        home.code(name, app="def application(*_): ...")
        home.ini(name, domains="d.test", enable=False)
    result = run(home, "ensite", "zeta", "alpha")
    assert result.exit_code == 1
    assert os.listdir(home.path / "sites-enabled") == ["zeta.ini"]
    assert run(home, "ensite", "--force", "alpha").exit_code == 0
    assert explained(home, "d.test") == "zeta"


def test_another_mount_or_a_pattern_beside_a_domain_is_no_second_claim(home: TestHome) -> None:
    home.hello("zeta", domains="d.test")
    for name, more in {"api": {"mount": "/api", "domains": "d.test"}, "any": {"domains": "*.test"}}.items():
        home.ini(name, enable=False, location=str(home.path / "sites/zeta"), **more)
        assert run(home, "ensite", name).exit_code == 0, name


def test_new_does_not_enable_a_second_site_of_a_domain(home: TestHome) -> None:
    home.hello("zeta", domains="d.test")
    result = run(home, "new", "alpha", "--enable", "--domain", "d.test", "--location", str(home.path / "sites/zeta"))
    assert result.exit_code == 1
    assert "zeta.ini already has the domain d.test" in result.stderr
    assert (home.path / "sites-available/alpha.ini").exists()
    assert os.listdir(home.path / "sites-enabled") == ["zeta.ini"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"names": 4}', '{"domains": [["a"]]}', '{"names": [["x", "/y"]]}'])
def test_a_note_that_cannot_be_read_decides_nothing(home: TestHome, text: str) -> None:
    home.hello("zeta", domains="d.test")
    home.hello("alpha", domains="d.test")
    Path(StateFile(home.service._live.open().home, "holdings").path).write_text(text)
    restart(home)
    assert home.get("d.test").text == explained(home, "d.test") == "alpha"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone writes for others")
def test_what_root_notes_is_the_directorys_owners(home: TestHome) -> None:
    home.hello("zeta", domains="d.test")
    state = home.path / "state"
    state.mkdir(exist_ok=True)
    os.chown(state, 65534, 65534)
    home.hello("alpha")
    home.disable("alpha")
    assert run(home, "ensite", "alpha").exit_code == 0
    assert {path.stat().st_uid for path in state.glob("holdings-*")} == {65534}
