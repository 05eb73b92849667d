"""gunicorn with each of its worker classes, started as docs/deploy/gunicorn.md says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .harness import Server, assert_serves, documented, free_port, not_tested, two_sites

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_gunicorn_serves_two_domains(tmp_path: Path, worker_class: str) -> None:
    """The documented configuration answers two domains with every worker class."""
    if worker_class == "gevent":
        try:
            import gevent  # type: ignore[import-untyped]  # noqa: F401
        except ImportError:
            not_tested("gunicorn's gevent worker: pip install gevent")
    home, port = two_sites(tmp_path), free_port()
    settings = tmp_path / "gunicorn.conf.py"
    settings.write_text(
        documented(
            "gunicorn.md",
            "/etc/moya/gunicorn.conf.py",
            {"127.0.0.1:8000": f"127.0.0.1:{port}", "/etc/moya": str(tmp_path)},
        )
    )
    argv = [sys.executable, "-m", "gunicorn", "--config", str(settings)]
    # A gevent worker may stay in a blocking accept when its fellow took the connection; it need not delay the tests.
    argv += ["--worker-class", worker_class, "--no-control-socket", "--graceful-timeout", "2"]
    with Server(argv, port, tmp_path / "log" / "gunicorn.log", home.environ()) as server:
        assert_serves(server, home)
