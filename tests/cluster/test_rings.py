"""The hash rings of the front ends; tests/servers/test_nodes.py compares them with the real programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from multisite.cluster import rings
from multisite.cluster.rings import Caddy, Haproxy, Nginx, Ring
from multisite.config.nodes import Machine, parse_machines

HOSTS = [f"site{number}.example.com" for number in range(1500)]
SIX = parse_machines(f"10.0.0.{number}:8000" for number in range(1, 7))
RINGS: dict[str, Callable[[Sequence[Machine]], Ring]] = {
    "nginx": Nginx,
    "haproxy": Haproxy,
    "caddy": Caddy,
    "caddy 2.7": lambda machines: Caddy(machines, (2, 7, 0)),
}


def chosen(ring: Ring) -> dict[str, Machine]:
    return {host: ring.choose(host) for host in HOSTS}


@pytest.mark.parametrize("kind", RINGS)
def test_a_machine_that_leaves_moves_its_own_share_alone(kind: str) -> None:
    before, after = chosen(RINGS[kind](SIX)), chosen(RINGS[kind](SIX[:2] + SIX[3:]))
    moved = [host for host in HOSTS if before[host] != after[host]]
    assert {before[host] for host in moved} == {SIX[2]}
    assert len(moved) <= (1 / 6 + 0.05) * len(HOSTS)
    assert set(before.values()) == set(SIX)


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_twice_the_weight_gets_about_twice_the_hosts(kind: str) -> None:
    heavy = parse_machines(["10.0.0.1:8000", "10.0.0.2:8000=2", "10.0.0.3:8000"])
    count = Counter(str(one) for one in chosen(RINGS[kind](heavy)).values())
    assert 0.4 < count["10.0.0.2:8000"] / len(HOSTS) < 0.6


def test_the_order_of_the_list_does_not_matter() -> None:
    for kind, ring in RINGS.items():
        assert chosen(ring(SIX)) == chosen(ring(SIX[::-1])), kind


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_xxhash_of_newer_caddies(data: bytes, number: int) -> None:
    """Values that its authors publish."""
    assert rings._xxh64(data) == number


def test_ids_of_haproxy_differ_and_stay() -> None:
    many = parse_machines(f"10.0.{number >> 8}.{number & 255}:8000" for number in range(1000))
    numbers = rings.ids(many)
    assert len(set(numbers.values())) == 1000
    assert all(0 < number * rings.LEAVES_KEPT_APART < 2**32 for number in numbers.values())
    fewer = rings.ids(many[:500])
    assert sum(numbers[one] != fewer[one] for one in many[:500]) <= 2


def test_weights_of_haproxy_are_within_its_limit() -> None:
    assert rings.finesse(SIX) == 10
    assert rings.finesse(parse_machines(["a:1=100", "b:1=1"])) == 2
    assert rings.finesse(parse_machines(["a:1=256"])) == 1
