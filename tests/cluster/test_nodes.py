"""Which machine of the cluster this machine is."""

from __future__ import annotations

from pathlib import Path

import pytest

from multisite.cluster import nodes
from multisite.config import read

LISTED = "10.0.0.1:8000, 10.0.0.2:8000=2, [fd00::3]:8000"


def home_with(root: Path, *lines: str) -> nodes.Home:
    (root / "moya.conf").write_text("\n".join(["[cluster]", *lines]) + "\n")
    return read.read_home(str(root))


def test_it_is_the_one_whose_address_is_here(tmp_path: Path) -> None:
    home = home_with(tmp_path, f"nodes = {LISTED}")
    assert [str(one) for one in nodes.machines(home)] == ["10.0.0.1:8000", "10.0.0.2:8000", "[fd00::3]:8000"]
    assert nodes.own(home, lambda host: host == "10.0.0.2").weight == 2
    assert str(nodes.own(home, lambda host: host == "fd00::3")) == "[fd00::3]:8000"


def test_moya_conf_may_say_it(tmp_path: Path) -> None:
    home = home_with(tmp_path, f"nodes = {LISTED}", "node = 10.0.0.1:8000")
    assert str(nodes.own(home, lambda _: True)) == "10.0.0.1:8000"
    assert nodes.problems(home) == []


@pytest.mark.parametrize(
    ("lines", "here", "reason", "remedy"),
    [
        ([f"nodes = {LISTED}"], "", "none of nodes has an address of this machine", "write node = ADDRESS:PORT"),
        (
            ["nodes = 10.0.0.1:8000, 10.0.0.1:8001"],
            "10.0.0.1",
            "10.0.0.1:8000, 10.0.0.1:8001 have addresses of this machine",
            "write node = 10.0.0.1:8000",
        ),
        ([f"nodes = {LISTED}", "node = 10.0.0.9:8000"], "", "10.0.0.9:8000 is not among nodes", "write one of 10.0"),
    ],
)
def test_what_is_unclear_has_a_remedy(tmp_path: Path, lines: list[str], here: str, reason: str, remedy: str) -> None:
    with pytest.raises(nodes.UnknownNode, match=reason) as raised:
        nodes.own(home_with(tmp_path, *lines), lambda host: host == here)
    assert remedy in raised.value.remedy


def test_a_loopback_address_is_here_and_one_that_nobody_has_is_not() -> None:
    assert nodes.is_here("127.0.0.1") and nodes.is_here("localhost")
    assert not nodes.is_here("240.0.0.1") and not nodes.is_here("name.invalid")


def test_check_names_file_and_key(tmp_path: Path) -> None:
    [problem] = nodes.problems(home_with(tmp_path, "nodes = 240.0.0.1:8000, 240.0.0.2:8000"))
    assert "[cluster] nodes = 240.0.0.1:8000, 240.0.0.2:8000: none of nodes has an address" in str(problem)
    assert nodes.problems(home_with(tmp_path)) == []
