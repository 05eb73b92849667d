"""granian's WSGI interface, started as docs/deploy/granian.md says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from .harness import Server, assert_serves, documented, find_program, free_port, not_tested, two_sites

pytestmark = pytest.mark.servers


def test_granian_serves_two_domains(tmp_path: Path) -> None:
    """The documented command line answers two domains."""
    program = find_program("granian") or not_tested("granian: pip install granian")
    home, port = two_sites(tmp_path), free_port()
    command = documented(
        "granian.md",
        "start it",
        {"/opt/multisite/bin/granian": program, "--port 8000": f"--port {port}", "/etc/moya": "-"},
    )
    argv = shlex.split(command)[1:]  # the home comes with the environment
    with Server(argv, port, tmp_path / "log" / "granian.log", home.environ()) as server:
        assert_serves(server, home)
