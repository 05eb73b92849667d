"""Which machines run a site whose file lists some, and what is wrong with such a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from multisite.cluster import pins
from multisite.config.model import Home, Site
from multisite.config.nodes import parse_machines
from multisite.config.read import read_home

LISTED = parse_machines(["10.0.0.1:8000", "10.0.0.2:8000=2", "10.0.0.3:8000"])
ONE, TWO, THREE = map(str, LISTED)


def home_with(root: Path, *lines: str) -> Home:
    (root / "moya.conf").write_text("\n".join(["[cluster]", *lines]) + "\n")
    return read_home(str(root))


def site(*nodes: str) -> Site:
    return Site("/x/blog.ini", "blog", nodes=nodes)


@pytest.mark.parametrize(
    ("sites", "found"),
    [
        ([()], ()),
        ([(THREE, TWO)], (TWO, THREE)),
        ([(), (TWO,)], (TWO,)),
        ([(ONE, TWO), (TWO, THREE)], (TWO,)),
        ([(ONE,), (TWO,)], ()),
        ([("10.0.0.9:1",)], ()),
        ([("10.0.0.2:8000=2",)], ()),
        ([(ONE, TWO, THREE)], ()),
    ],
)
def test_the_machines_of_a_host_run_all_of_its_sites(sites: list[tuple[str, ...]], found: tuple[str, ...]) -> None:
    """They keep the weights that moya.conf gives them."""
    machines = pins.common(iter(sites), LISTED)
    assert tuple(map(str, machines)) == found
    assert set(machines) <= set(LISTED)


def test_a_site_is_elsewhere_if_this_machine_is_not_among_its_nodes(tmp_path: Path) -> None:
    home = home_with(tmp_path, f"nodes = {ONE}, {TWO}", f"node = {TWO}")
    assert pins.other_than(site(ONE), home) == TWO
    assert not pins.other_than(site(ONE, TWO), home)
    assert pins.problems(site(ONE), home) == [] == pins.problems(site(), home)


def test_a_machine_that_does_not_know_which_node_it_is_runs_the_site_and_warns(tmp_path: Path) -> None:
    home = home_with(tmp_path, "nodes = 240.0.0.1:8000, 240.0.0.2:8000")
    assert not pins.other_than(site("240.0.0.1:8000"), home)
    [problem] = pins.problems(site("240.0.0.1:8000"), home)
    assert not problem.is_error and "so this machine runs the site" in str(problem)


def test_a_node_that_moya_conf_does_not_list_has_a_remedy(tmp_path: Path) -> None:
    home = home_with(tmp_path, f"nodes = {ONE}, {TWO}", f"node = {TWO}")
    [problem] = pins.problems(site(TWO, THREE), home)
    assert f"[service] nodes = {THREE}: it is not among [cluster] nodes; write some of {ONE}, {TWO}" in str(problem)
    first, _ = pins.problems(site(ONE), home_with(tmp_path))
    assert "list all machines in [cluster] nodes" in str(first)
