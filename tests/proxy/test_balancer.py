"""How requests are distributed among upstreams."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.config.endpoint import Endpoint
from multisite.errors import BackendUnavailable, ConnectFailed, ConnectTimeout
from multisite.proxy.balancer import MOST_TRIES, STAND_IN, Balancer, Upstream, schedule
from multisite.proxy.body import Upload
from multisite.proxy.destination import Proxy

NO_BODY = Upload(b"", None)


class Named(Proxy):
    """Answers with its name, or fails as it is told to; counts how often it was asked."""

    def __init__(self, name: str) -> None:
        super().__init__(Endpoint("http", path=f"/{name}"))
        self.name = name
        self.fails: type[ConnectFailed | BackendUnavailable] | None = None
        self.asked = 0

    def begin(self, environ: Any, upload: Any, hurry: bool) -> Any:
        self.asked += 1
        if self.fails:
            raise self.fails(self.name)
        return Answered(self.name)


class Answered:
    """Stands for an exchange."""

    held: object = None

    def __init__(self, name: str) -> None:
        self.name = name


class Nodes:
    """A balancer over `Named`, with a clock of its own."""

    def __init__(self, *weights: int, levels: tuple[int, ...] = (), algorithm: str = "wrr") -> None:
        self.now = 0.0
        self.proxies = [Named("abcdefgh"[number]) for number in range(len(weights))]
        levels = levels or (0,) * len(weights)
        several = zip(self.proxies, weights, levels, strict=True)
        self.balancer = Balancer(
            [Upstream(proxy, weight, level) for proxy, weight, level in several],
            lambda: self.now,
            algorithm=algorithm,
            grace=30,
        )

    def ask(self, **environ: Any) -> Answered:
        found: Any = self.balancer.begin(environ, NO_BODY, False)
        assert isinstance(found, Answered)
        return found

    def names(self, number: int, **environ: Any) -> str:
        return "".join(self.ask(**environ).name for _ in range(number))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_a_schedule_gives_each_its_share(weights: list[int]) -> None:
    counts = Counter(schedule(weights))
    total = sum(counts.values())
    for number, weight in enumerate(weights):
        assert abs(counts[number] / total - weight / sum(weights)) < 0.02 or counts[number] == 1


def test_turns_are_spread() -> None:
    assert Nodes(1, 1, 1).names(6) == "abcabc"
    assert Nodes(5, 1, 1).names(7) == "aabacaa"
    assert Counter(Nodes(65535, 1).names(256))["b"] == 1


def test_a_node_that_cannot_be_reached_is_left_out_and_its_first_answer_revives_it() -> None:
    nodes = Nodes(1, 1, 1)
    nodes.proxies[1].fails = ConnectFailed
    assert Counter(nodes.names(60)) == {"a": 30, "c": 30}
    assert nodes.proxies[1].asked == 1
    nodes.proxies[1].fails = None
    nodes.now = 29
    assert "b" not in nodes.names(6)
    nodes.now = 31
    assert Counter(nodes.names(6)) == {"a": 2, "b": 2, "c": 2}


def test_a_node_that_is_busy_is_passed_over_and_asked_the_next_time() -> None:
    """Nor is it any fault of a node that this process has no descriptor left."""
    nodes = Nodes(1, 1)
    nodes.proxies[1].fails = BackendUnavailable
    assert nodes.names(6) == "aaaaaa"
    assert nodes.proxies[1].asked == 3
    nodes.proxies[1].fails = None
    assert nodes.names(6) == "ababab"
    for proxy in nodes.proxies:
        proxy.fails = BackendUnavailable
    with pytest.raises(BackendUnavailable):
        nodes.ask()


def test_a_request_is_offered_to_a_few() -> None:
    nodes = Nodes(*[1] * 8)
    for proxy in nodes.proxies:
        proxy.fails = ConnectTimeout
    with pytest.raises(ConnectTimeout):
        nodes.ask()
    assert sum(proxy.asked for proxy in nodes.proxies) == MOST_TRIES


def test_when_all_are_gone_those_that_refuse_are_asked_and_those_that_are_silent_are_not() -> None:
    nodes = Nodes(1, 1)
    nodes.proxies[0].fails, nodes.proxies[1].fails = ConnectFailed, ConnectTimeout
    for _ in range(3):
        with pytest.raises(ConnectFailed):
            nodes.ask()
    assert nodes.proxies[0].asked == 3
    assert nodes.proxies[1].asked == 1
    nodes.proxies[0].fails = None
    assert nodes.names(2) == "aa"


def test_levels_stand_in_one_after_another() -> None:
    nodes = Nodes(1, 1, 1, 1, levels=(0, 0, 1, STAND_IN))
    assert nodes.names(4) == "abab"
    for proxy in nodes.proxies[:2]:
        proxy.fails = ConnectFailed
    assert nodes.names(4) == "cccc"
    nodes.proxies[2].fails = ConnectFailed
    assert nodes.names(2) == "dd"
    nodes.proxies[0].fails = None
    nodes.now = 31
    assert nodes.names(3) == "aaa"


def test_the_least_loaded_is_asked() -> None:
    nodes = Nodes(1, 1, algorithm="lrc")
    held = [nodes.ask() for _ in range(4)]
    assert sorted(one.name for one in held) == ["a", "a", "b", "b"]
    rest = [one for one in held if one.name == "a"]
    del held
    assert nodes.names(2) == "bb"  # each ends at once
    assert len(rest) == 2


def test_the_least_loaded_by_weight_is_asked() -> None:
    nodes = Nodes(3, 1, algorithm="wlrc")
    held = [nodes.ask() for _ in range(8)]
    assert Counter(one.name for one in held) == {"a": 6, "b": 2}


def test_a_client_stays_with_its_node() -> None:
    nodes = Nodes(1, 1, 1, algorithm="iphash")
    by_client = {address: set(nodes.names(5, REMOTE_ADDR=address)) for address in ("10.0.0.1", "10.0.0.2", "::1", "")}
    assert all(len(names) == 1 for names in by_client.values())
    assert nodes.names(1, REMOTE_ADDR="10.0.0.1") == "abc"[int.from_bytes(bytes([10, 0, 0, 1]), "little") % 3]


def test_a_request_keeps_its_turn() -> None:
    nodes = Nodes(1, 1)
    environ: dict[str, Any] = {}
    first = nodes.balancer.begin(environ, NO_BODY, False)
    again = nodes.balancer.begin(environ, NO_BODY, False)
    assert first.name == again.name  # type: ignore[attr-defined]
