"""What [cluster] costs a request: not one system call."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cluster import programs

from .harness import Client, HomeDir, Server, debian_program, eventually, gunicorn

pytestmark = pytest.mark.servers

ASKED = 40  # requests of a round; a few of them have the looks of each second, too
CONF = """[projects]
read = sites-enabled/*.ini
[defaults]
share = yes
[supervisor]
allow_root = yes
examine = no
hand_over = {hand_over}
{cluster}
"""
CLUSTER = """[cluster]
url = {url}
nodes = 127.0.0.2:8000, 127.0.0.3:8000
node = 127.0.0.2:8000
"""
MARKS = {"in-process": "shutdown", "relayed": "connect", "handed over": "sendmsg"}  # calls that only this way has
Calls = tuple[str, ...]


@contextmanager
def traced(server: Server, file: Path) -> Iterator[None]:
    """Write what the worker and its threads call into a file."""
    strace = debian_program("strace", "strace")
    (worker,) = server.workers()
    argv = [strace, "-f", "-q", "-e", "signal=none", "-o", str(file), "-p", str(worker)]
    tracer = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: f"TracerPid:\t{tracer.pid}\n" in Path(f"/proc/{worker}/status").read_text())
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()


def requests(trace: str) -> Iterator[Calls]:
    """Yield what the thread that accepted a connection called until gunicorn tells its master that it is alive."""
    own, calls = "", list[str]()
    for thread, name, result in re.findall(r"^(\d+) +(\w+)\(.*?(?: = (-?\d+).*)?$", trace, re.MULTILINE):
        if name == "accept4" and result not in ("", "-1"):
            own, calls = thread, []
        elif thread == own and name == "utimensat":
            yield tuple(calls)
            own = ""
        elif thread == own:
            calls.append(name)


def usual(server: Server, host: str) -> Calls:
    """Return what most requests of a round called."""
    file = server.log_path.with_name("trace")
    with traced(server, file):
        for _ in range(ASKED):
            client = Client(server.port)
            client.is_last = True
            assert client.ask(host).text == "site hello"
            client.close()
    found = Counter(requests(file.read_text()))
    assert found.total() > ASKED / 2, file.read_text()
    return found.most_common(1)[0][0]


@pytest.mark.parametrize("way", ["in-process", "relayed", "handed over"])
def test_a_request_costs_no_system_call_more_with_a_registry(way: str, tmp_path: Path) -> None:
    """A round on a busy machine may have mostly requests that also look at the files: then another one tells."""
    with ExitStack() as stack:
        engine = stack.enter_context(programs.running("redis", tmp_path / "engine"))
        servers = []
        for name, cluster in (("without", ""), ("with", CLUSTER.format(url=engine.url))):
            (tmp_path / name).mkdir()
            home = HomeDir(tmp_path / name).create()
            home.conf(CONF.format(hand_over="yes" if way == "handed over" else "no", cluster=cluster))
            home.site("hello", mode="in-process" if way == "in-process" else "spawned")
            servers.append(stack.enter_context(gunicorn(home, "sync", "--workers", "1")))
            assert servers[-1].ask("hello.test").text == "site hello"
        registry = eventually_known(home)
        assert registry["node"] == "127.0.0.2:8000"
        seen: list[list[Calls]] = []

        def is_same() -> bool:
            seen.append([usual(server, "hello.test") for server in servers])
            return seen[-1][0] == seen[-1][1]

        eventually(is_same)
        assert MARKS[way] in seen[-1][0]


def eventually_known(home: HomeDir) -> dict[str, str]:
    """Return the registry as a home with one reports it, as soon as it is connected."""
    found: list[dict[str, str]] = []

    def is_connected() -> bool:
        found.append(json.loads(home.multisite("--json", "status")).get("registry") or {})
        return found[-1].get("state") == "connected"

    eventually(is_connected)
    return found[-1]
