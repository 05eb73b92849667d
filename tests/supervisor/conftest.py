"""What several tests of the supervisor need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import SupervisedHome, supervised


@pytest.fixture
def home(tmp_path: Path) -> Iterator[SupervisedHome]:
    """A home and its supervisor."""
    with supervised(tmp_path) as made:
        yield made


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that everybody can reach, as pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="multisite-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
