"""Whose a port is, before anything is passed on to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from multisite.runner import socketproxy

from .harness import SupervisedHome, wait_until

NOBODY = 65534


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextmanager
def somebody_else(port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    """Another user listens on a port."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.create_server((host, port)) as server:
                os.write(writer, str(server.getsockname()[1]).encode())
                while True:
                    server.accept()[0].close()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as told:
        found = int(told.read(5) or 0)
        try:
            yield found
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "", "::1", "::"])
def test_who_listens_is_the_kernels_word(host: str) -> None:
    """On the address itself, or on all; in either protocol."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not has_ipv6():
        pytest.skip("no IPv6")
    with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server:
        port = server.getsockname()[1]
        mine = {(os.getuid(), os.fstat(server.fileno()).st_ino)}
        asked = [(socket.AF_INET6, ("::1", port)), (socket.AF_INET, ("127.0.0.1", port))]
        expected = {"127.0.0.1": [set(), mine], "": [set(), mine], "::1": [mine, set()], "::": [mine, mine]}[host]
        assert [socketproxy.listeners(*each) for each in asked] == expected
        for each, found in zip(asked, expected, strict=True):
            if found:
                socketproxy.Far([each]).connect().close()
            else:
                with pytest.raises(OSError, match="nobody listens"):
                    socketproxy.Far([each]).connect()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is to listen")
def test_another_user_gets_nothing(tmp_path: Path) -> None:
    """Neither at first, nor in the place of one who was right; the next address may be the right one."""
    with somebody_else() as port:
        there = (socket.AF_INET, ("127.0.0.1", port))
        with pytest.raises(socketproxy.Stranger, match=f"another user listens on port {port}"):
            socketproxy.Far([there]).connect()
        with socket.create_server(("127.0.0.1", 0)) as server:
            mine = (socket.AF_INET, server.getsockname())
            far = socketproxy.Far([there, mine])
            far.connect().close()
            assert far.addresses == [mine]
    with somebody_else(mine[1][1]), pytest.raises(socketproxy.Stranger):
        far.connect()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is to listen")
def test_a_command_whose_port_another_user_has_is_not_ready(home: SupervisedHome) -> None:
    """The visitor's request goes nowhere, and the failure says why."""
    home.site("late", "import sys, time\nopen('port', 'w').write(sys.argv[1])\ntime.sleep(600)\n",
              command="python3 srv.py %PORT", start_timeout="4")  # fmt: skip
    path = home.ensure("late")
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(path)
        visitor.sendall(b"GET / HTTP/1.0\r\nCookie: secret\r\n\r\n")
        port = home.path / "sites" / "late" / "port"
        wait_until(lambda: port.exists() and port.read_text())
        with somebody_else(int(port.read_text())):
            told = wait_until(lambda: (failure := home.state("late")["failure"]) and failure["failure"])
    assert "another user listens on port" in told
