"""What every test with real servers has to keep: nothing of it goes on running."""

from __future__ import annotations

from tests.servers.conftest import nothing_left_running

__all__ = ["nothing_left_running"]
