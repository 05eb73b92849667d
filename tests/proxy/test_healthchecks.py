"""Checks of endpoints: at all addresses of a name, and for as long as somebody sends requests there."""

from __future__ import annotations

import gc
import math
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.config.endpoint import Endpoint
from multisite.config.read import read_home
from multisite.proxy import healthchecks
from multisite.proxy.balancer import Upstream
from multisite.proxy.destination import Proxy
from tests.servers.harness import eventually
from tests.servers.test_healthchecks import Doctor


@pytest.fixture
def doctor() -> Iterator[Doctor]:
    with Doctor("one") as made:
        yield made


def watched(home: Path, endpoint: str, domains: tuple[str, ...] = ()) -> Upstream:
    (home / "moya.conf").write_text("[router]\ncheck_path = /health?deep=yes\ncheck_every = 100ms\n")
    upstream = Upstream(Proxy(Endpoint.parse(endpoint)))
    healthchecks.watch(upstream, read_home(str(home)), domains)
    return upstream


@pytest.mark.parametrize("is_first", [False, True])
def test_a_name_with_several_addresses_is_well_at_any_of_them(
    tmp_path: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    """As for requests: where localhost is ::1 first, a server may listen at 127.0.0.1 alone."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()
    port = int(doctor.address.rpartition(":")[2])
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in (nobody, ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: found[:: -1 if is_first else 1])
    upstream = watched(tmp_path, f"http://several.example:{port}")
    doctor.is_asked()
    assert upstream.health.dead_until == 0.0
    assert doctor.hosts == {f"several.example:{port}"}


@pytest.mark.parametrize(("domains", "host"), [(("a.test", "b.test"), "a.test"), (("*.a.test", "b.test"), "")])
def test_it_is_asked_as_the_first_domain_or_as_itself(
    tmp_path: Path, doctor: Doctor, domains: tuple[str, ...], host: str
) -> None:
    upstream = watched(tmp_path, doctor.address, domains)
    doctor.is_asked()
    assert upstream.health.dead_until == 0.0
    assert doctor.hosts == {host or doctor.address.removeprefix("http://")}


def test_nobody_who_speaks_uwsgi_is_asked(tmp_path: Path, doctor: Doctor) -> None:
    upstream = watched(tmp_path, doctor.address.replace("http", "uwsgi"))
    other = watched(tmp_path, doctor.address)
    doctor.is_asked()
    assert upstream.health.dead_until == other.health.dead_until == 0.0
    assert doctor.seen["request"] == 0


def test_an_upstream_that_is_gone_is_asked_no_more(tmp_path: Path, doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    upstream, other = watched(tmp_path, doctor.address), watched(tmp_path, f"http://127.0.0.1:{nobody}")
    eventually(lambda: other.health.dead_until == math.inf)
    doctor.is_asked()
    del upstream
    gc.collect()
    eventually(lambda: all(one.upstream() for one in healthchecks._checks()._patients))
    seen = doctor.seen["check"]
    other.revived()
    eventually(lambda: other.health.dead_until == math.inf, what="others are asked still")
    assert doctor.seen["check"] == seen
