"""A port that cannot be had: who has it, and what helps; and the ports of a home's servers."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from multisite.cli.publishers import listeners
from tests.servers.harness import free_port
from tests.supervisor.harness import as_user

from .test_serve import home, multisite  # noqa: F401

LISTEN = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
    print(one.getsockname()[1], flush=True)
    sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1", "::"])
def taken(request: pytest.FixtureRequest) -> Iterator[tuple[str, int, int]]:
    """An address at which another process listens: host, port and the process."""
    argv = [sys.executable, "-c", LISTEN, request.param, str(free_port())]  # nobody gets the next ones by chance
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        yield request.param, int(process.stdout.readline()), process.pid
        process.stdin.close()


def test_who_has_a_port_is_named_with_the_command(taken: tuple[str, int, int]) -> None:
    host, port, pid = taken
    assert listeners.holder(host, port) == pid
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    told = listeners.refusal(address, "multisite serve")
    assert told.startswith(f"{address} is in use by process {pid} ({sys.executable} -c ")
    free = int(told.partition("; multisite serve --port ")[2].split()[0])
    assert free > port and listeners.refusal(address.removesuffix(str(port)) + str(free), "") == ""


@pytest.mark.servers
def test_serve_ends_before_it_starts_anything(home: pathlib.Path) -> None:  # noqa: F811
    """And by the words of a publisher's file as well."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        (home / "publisher.conf").write_text(f"[publisher]\ntype = waitress\nport = {port}\n")
        for words in (("--port", str(port)), ("--publisher", str(home / "publisher.conf"))):
            argv = multisite(home, "serve", *words)
            done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1, done
            assert f"127.0.0.1:{port} is in use by process {os.getpid()} (" in done.stderr
            assert "multisite serve --port " in done.stderr and "gunicorn" not in done.stderr


@as_root
def test_a_process_of_another_user_is_not_named_but_the_command_that_does(taken: tuple[str, int, int]) -> None:
    host, port, _pid = taken
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    reason = as_user(65534, 65534, lambda: listeners.refusal(address, "multisite serve"))
    assert f"in use by a process that only root can see (sudo ss -ltnp 'sport = :{port}' shows it)" in reason


@as_root
@pytest.mark.parametrize(("port", "higher"), [(80, 8000), (443, 8443)])
def test_a_port_for_root_alone_has_four_remedies(port: int, higher: int) -> None:
    first = pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if int(first.read_text()) <= port:
        pytest.skip("ordinary users may have every port here")
    reason = as_user(65534, 65534, lambda: listeners.refusal(f"127.0.0.1:{port}", "multisite serve"))
    assert reason.startswith("only root may use ports below ") and f"such as {port};" in reason
    for remedy in (
        f"multisite serve --port {higher}",
        f"sudo multisite serve --port {port}",
        f"sysctl net.ipv4.ip_unprivileged_port_start={port}",
        "multisite create-rules --nginx",
    ):
        assert remedy in reason


@pytest.mark.parametrize(
    ("address", "reason"),
    [("192.0.2.1:8000", "no network interface"), ("no.such.host.invalid:8000", "no address is known for that name")],
)
def test_an_address_that_is_not_ours_has_its_reason(address: str, reason: str) -> None:
    assert reason in listeners.refusal(address, "multisite serve")


def test_a_process_holds_the_sockets_that_it_has_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # and does not listen
        mine = {found.port for found in listeners.listeners() if found.inode in listeners.held(os.getpid())}
        assert one.getsockname()[1] in mine and other.getsockname()[1] not in mine
    assert listeners.held(0) == set()
