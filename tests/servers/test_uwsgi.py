"""uWSGI, started with the configuration of docs/deploy/uwsgi.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .harness import Server, assert_serves, documented, find_program, free_port, two_sites
from .system_python import system_virtualenv, uwsgi_of_debian

pytestmark = pytest.mark.servers


def uwsgi_and_virtualenv() -> tuple[str, str, list[str]]:
    """The program, the virtualenv that goes with it, and further options."""
    beside = find_program("uwsgi")
    if beside and Path(beside).parent == Path(sys.executable).parent:  # built by pip for this interpreter
        return beside, sys.prefix, []
    return uwsgi_of_debian(), str(system_virtualenv()), ["--plugin", "python3"]


def test_uwsgi_serves_two_domains(tmp_path: Path) -> None:
    """The documented configuration answers two domains."""
    program, virtualenv, options = uwsgi_and_virtualenv()
    home, port = two_sites(tmp_path), free_port()
    settings = tmp_path / "multisite.ini"
    settings.write_text(
        documented(
            "uwsgi.md",
            "/etc/uwsgi/apps-available/multisite.ini",
            {"127.0.0.1:8000": f"127.0.0.1:{port}", "/opt/multisite": virtualenv, "/etc/moya": str(tmp_path)},
        )
    )
    argv = [program, *options, "--ini", str(settings)]
    with Server(argv, port, tmp_path / "log" / "uwsgi.log", home.environ()) as server:
        assert_serves(server, home)
