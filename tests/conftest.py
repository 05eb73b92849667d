from __future__ import annotations

from collections.abc import Iterator

import pytest

from multisite.logs import current_site
from tests.ways import way

__all__ = ["way"]


@pytest.fixture(autouse=True)
def no_current_site() -> Iterator[None]:
    """A test that served a site leaves its thread as it found it."""
    token = current_site.set("")
    yield
    current_site.reset(token)
