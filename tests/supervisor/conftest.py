"""What several tests of the supervisor need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import SupervisedHome, supervised
from .preloading import warm_up


@pytest.fixture
def home(tmp_path: Path) -> Iterator[SupervisedHome]:
    """A home and its supervisor."""
    with supervised(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupervisedHome]:
    """A home with a preloader, for tests that ask for sites of their own only."""
    with supervised(tmp_path_factory.mktemp("warm")) as made:
        warm_up(made)
        yield made
