"""The units of docs/deploy/systemd.md: systemd takes them, and the supervisor and its sites live in their sandbox."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.harness import SERVER, SupervisedHome, is_running, supervised, wait_until

from .harness import REPOSITORY, Server, debian_program, free_port, two_sites

pytestmark = pytest.mark.servers

UNITS = REPOSITORY / "docs" / "deploy" / "systemd"
SUPERVISOR = UNITS / "multisite-supervisor.service"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as that unit does")


def settings(unit: Path, key: str) -> list[str]:
    """All words of a setting, which may stand in several lines."""
    return " ".join(re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)).split()


def seconds(unit: Path, key: str) -> float:
    return float(settings(unit, key)[0])


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """With programs that are there, `systemd-analyze verify` has nothing to say."""
    analyze = debian_program("systemd-analyze", "systemd")
    for path in (*UNITS.glob("*.*e*"), *UNITS.glob("*.socket")):
        if path.is_file():
            text = path.read_text()
            (tmp_path / path.name).write_text(re.sub(r"/opt/multisite/bin/\w+", shutil.which("true") or "", text))
    shutil.copytree(UNITS / "multisite.service.d", tmp_path / "multisite.service.d")
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert names == ["multisite-supervisor.service", "multisite.service", "multisite.socket"]
    argv = [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in names)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "multisite" in line]


def test_the_page_includes_every_file_and_the_times_fit() -> None:
    page = (UNITS.parent / "systemd.md").read_text()
    for path in UNITS.rglob("*.*"):
        if path.is_file():
            assert f"{{literalinclude}} systemd/{path.relative_to(UNITS)}" in page
    for unit in (SUPERVISOR, UNITS / "multisite.service"):
        assert seconds(unit, "TimeoutStopSec") > 30 + 10  # drain_timeout and stop_timeout


@pytest.fixture
def sandboxed(public_path: Path) -> Iterator[tuple[SupervisedHome, subprocess.Popen[bytes]]]:
    """`multisite supervise` with the capabilities and the /proc that the unit leaves it."""
    unshare, setpriv = (debian_program(name, "util-linux") for name in ("unshare", "setpriv"))
    words = settings(SUPERVISOR, "CapabilityBoundingSet")
    bounds = ",".join(["-all", *(f"+{word.removeprefix('CAP_').lower()}" for word in words)])
    address = str(public_path / "notify")
    mount = "mount -t proc -o hidepid=2,subset=pid proc /proc"
    with supervised(public_path, "socket_group = www-data") as home, socket.socket(socket.AF_UNIX, 2) as notify:
        notify.bind(address)
        notify.settimeout(30)
        argv = [sys.executable, "-m", "multisite", "--home", str(home.path), "supervise"]
        inner = [setpriv, "--no-new-privs", "--inh-caps=-all", f"--bounding-set={bounds}", "--", *argv]
        env = {**os.environ, "NOTIFY_SOCKET": address, "PYTHONPATH": str(REPOSITORY)}
        argv = [unshare, "--mount", "--propagation", "private", "sh", "-c", f'{mount} && exec "$@"', "sh", *inner]
        with subprocess.Popen(argv, env=env) as process:
            try:
                assert notify.recv(100) == b"READY=1"
                yield home, process
            finally:
                process.terminate()


@as_root
def test_sites_of_other_users_live_in_the_sandbox(sandboxed: tuple[SupervisedHome, subprocess.Popen[bytes]]) -> None:
    """Started, weighed, logged, restarted and ended, helpers included, by a supervisor with the unit's capabilities."""
    home, process = sandboxed
    logs = home.path / "logs"
    logs.mkdir()
    os.chown(logs, 33, 33)
    helper = "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    signal.pause()\n"
    keys = {"user": "www-data", "nice": "-1", "nofile": "4096", "memory_limit": "1G"}
    more = f"[logging]\nerror = {logs}/error.log\n"
    home.site("blog", helper + SERVER, more=more, command="/usr/bin/python3 srv.py", **keys)
    pid = int(home.get("blog").split()[0])
    home.wait_for("blog", "running")
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"Uid:\t33\t33\t33", status)
    assert re.search(r"CapEff:\t0+\n", status)
    assert home.state("blog")["memory"] > 1 << 20
    wait_until((logs / "error.log").exists)
    assert stat.S_IMODE(os.stat(home.rundir.socket("blog")).st_mode) == 0o660
    home.client.ask({"do": "upgrade"}, within=90)
    assert home.get("blog").split()[0] == str(pid)
    home.client.ask({"do": "restart", "site": "blog"})
    wait_until(lambda: int(home.get("blog").split()[0]) != pid)
    wait_until(lambda: not is_running(pid))
    process.terminate()
    assert process.wait(60) == 0
    assert not home.left()


def test_gunicorn_takes_its_socket_from_systemd(tmp_path: Path) -> None:
    """As multisite.socket hands it over: the first client waits in it until gunicorn serves."""
    activate, port = debian_program("systemd-socket-activate", "systemd"), free_port()
    home = two_sites(tmp_path)
    words = " ".join(settings(UNITS / "multisite.service", "ExecStart"))
    assert words.startswith("/opt/multisite/bin/gunicorn ")
    argv = [activate, "-l", f"127.0.0.1:{port}", *(f"--setenv={name}" for name in home.environ())]
    argv += [sys.executable, "-m", "gunicorn", "--no-control-socket", *words.split()[1:]]
    with Server(argv, port, tmp_path / "log" / "gunicorn.log", home.environ()):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/", headers={"Host": "a.test"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        connection.close()
