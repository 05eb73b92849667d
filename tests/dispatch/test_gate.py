"""The gate before a site: once it has to be shut, no request goes past it, however many come at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.sites import outages
from multisite.sites.live import LiveHome
from multisite.sites.outages import Outage
from tests.homes import TestHome
from tests.servers.harness import PATIENCE


@pytest.fixture
def home(tmp_path: Path) -> Iterator[TestHome]:
    home = TestHome(tmp_path)
    home.hello("a")
    yield home
    for site in list(home.service._sites.values()):
        site.close()


class Held:
    """A function that waits, at its first call, until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.reached, self.may_go_on = threading.Event(), threading.Event()
        original = getattr(owner, name)

        def held(*arguments: object) -> object:
            if not self.reached.is_set():
                self.reached.set()
                assert self.may_go_on.wait(PATIENCE)
            return original(*arguments)

        monkeypatch.setattr(owner, name, held)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(outages, "read"), (LiveHome, "refresh")],
    ids=["while it reads of the outage", "while it looks at the files"],
)
@pytest.mark.parametrize("more", [1, 4])
def test_a_request_beside_the_one_that_looks_does_not_go_past(
    home: TestHome, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, more: int
) -> None:
    assert home.get("a.test").status == 200
    outages.Outages(home.service._live.home).begin("a", Outage("maintenance", time.time()))
    home.later()
    held, found = Held(monkeypatch, owner, name), []
    threads = [threading.Thread(target=lambda: found.append(home.get("a.test").status)) for _ in range(1 + more)]
    threads[0].start()
    assert held.reached.wait(PATIENCE)
    for thread in threads[1:]:
        thread.start()
    if owner is LiveHome:  # the gate is shut already
        threads[1].join(PATIENCE)
        assert found == [503] * len(found) != []
    held.may_go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == [503] * len(threads)
