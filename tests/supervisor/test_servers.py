"""Other servers than our own runner, each really started where it is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from .harness import WITHIN, SupervisedHome, wait_until

pytestmark = pytest.mark.servers

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("hello from " + environ["SCRIPT_NAME"] + environ["PATH_INFO"]).encode()]
"""


def test_the_sites_own_gunicorn(home: SupervisedHome) -> None:
    home.app("a", APP, server="gunicorn", python=sys.executable, processes="2")
    assert home.get("a", "/x") == "hello from /x"
    state = home.state("a")
    assert (state["state"], len(state["pids"])) == ("running", 1)
    home.client.ask({"do": "stop", "site": "a"})
    home.wait_for("a", "stopped", 60)  # gunicorn waits in vain for a worker that was just born when it was told to end
    wait_until(lambda: not home.left())
    assert os.path.exists(home.rundir.socket("a"))
    assert home.get("a", "/y") == "hello from /y"


def uwsgi_packet(**variables: str) -> bytes:
    pairs = [part for pair in variables.items() for part in pair]
    block = b"".join(len(part).to_bytes(2, "little") + part.encode() for part in pairs)
    return b"\0" + len(block).to_bytes(2, "little") + b"\0" + block


def test_uwsgi_takes_the_socket_on_descriptor_0(home: SupervisedHome) -> None:
    if not shutil.which("uwsgi"):
        pytest.skip("uwsgi is not installed")
    home.app("a", APP, server="uwsgi", protocol="uwsgi", idle_timeout="3")
    path = home.ensure("a")
    assert (Path(home.rundir.path) / "domains" / "a.test" / "uwsgi.sock").is_symlink()
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(WITHIN)
        connected.connect(path)
        connected.sendall(uwsgi_packet(REQUEST_METHOD="GET", PATH_INFO="/x", SCRIPT_NAME="", SERVER_NAME="a"))
        answer = b"".join(iter(lambda: connected.recv(65536), b""))
    assert answer.endswith(b"hello from /x")
    home.wait_for("a", "running")
    home.wait_for("a", "stopped")
    wait_until(lambda: not home.left())


def test_uwsgi_speaks_http_too(home: SupervisedHome) -> None:
    if not shutil.which("uwsgi"):
        pytest.skip("uwsgi is not installed")
    home.app("a", APP, server="uwsgi", processes="2")
    assert home.get("a", "/x") == "hello from /x"


def test_granian_behind_the_relay(home: SupervisedHome) -> None:
    if not importlib.util.find_spec("granian"):
        pytest.skip("granian is not installed")
    home.app("a", APP, server="granian")
    assert home.get("a", "/x") == "hello from /x"


def test_a_server_that_is_not_installed_is_named(home: SupervisedHome, tmp_path: Path) -> None:
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(sys.executable)
    home.app("a", APP, server="granian", python=str(venv.parent), more="[env]\nPATH = /nowhere\n")
    with pytest.raises(Exception, match="granian"):
        home.ensure("a")
