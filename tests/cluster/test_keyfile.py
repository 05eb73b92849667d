"""The key that nodes share: only one that nobody else can read is used."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from multisite.cluster.keyfile import problems, read_key
from multisite.config.model import Home
from multisite.config.read import read_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "moya.conf").write_text("[cluster]\nkey_file = cluster.key\n")
    key = tmp_path / "cluster.key"
    key.write_text("0123456789abcdef" * 4 + "\n")
    key.chmod(0o600)
    return read_home(str(tmp_path))


def test_a_key_is_read_without_its_line_end(home: Home) -> None:
    """Its path starts at the configuration directory."""
    assert read_key(home) == b"0123456789abcdef" * 4
    assert problems(home) == []


def test_a_home_without_a_key_has_no_problem(home: Home) -> None:
    assert problems(replace(home, cluster=replace(home.cluster, key_file=""))) == []


def test_a_key_that_others_can_read_is_refused(home: Home) -> None:
    os.chmod(home.resolve(home.cluster.key_file), 0o644)
    (problem,) = problems(home)
    assert "open to every account (mode 0644)" in problem.reason
    assert problem.remedy == f"chmod 600 {home.path}/cluster.key"


def test_a_key_that_is_short_or_missing_is_refused(home: Home) -> None:
    key = Path(home.resolve(home.cluster.key_file))
    key.write_text("short")
    assert "fewer than 32 bytes" in problems(home)[0].reason
    key.unlink()
    assert "no such file" in problems(home)[0].reason
