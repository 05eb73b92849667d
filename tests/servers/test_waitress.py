"""waitress, started as docs/deploy/waitress.md says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from .harness import Server, assert_serves, documented, find_program, free_port, not_tested, two_sites

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("caption", ["start it", "start it behind nginx"])
def test_waitress_serves_two_domains(tmp_path: Path, caption: str) -> None:
    """The documented command lines answer two domains."""
    program = find_program("waitress-serve") or not_tested("waitress: pip install waitress")
    home, port = two_sites(tmp_path), free_port()
    command = documented(
        "waitress.md",
        caption,
        {"/opt/multisite/bin/waitress-serve": program, "127.0.0.1:8000": f"127.0.0.1:{port}", "/etc/moya": "-"},
    )
    argv = shlex.split(command)[1:]  # the home comes with the environment
    with Server(argv, port, tmp_path / "log" / "waitress.log", home.environ()) as server:
        assert_serves(server, home)
