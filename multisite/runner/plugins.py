"""Loaders of other packages, as the site's own interpreter has them: entry points of the group ``multisite.loaders``.

A loader is called with what follows the first colon and with the site. Our package is not here, so the site is an
object with the attributes of `multisite.model.Site` and none of its methods.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GROUP = "multisite.loaders"


def find(name: str) -> Any:
    """The entry point `name`, None where no package of this interpreter offers one."""
    from importlib import metadata

    found: Any
    if sys.version_info >= (3, 10):
        found = metadata.entry_points(group=GROUP)
    else:
        found = metadata.entry_points().get(GROUP, ())
    return next((point for point in found if point.name == name), None)


def load(point: Any, site: dict[str, Any]) -> Any:
    """The app that the loader makes."""
    rest = site["application"].partition(":")[2].strip()
    attributes = {key: tuple(value) if isinstance(value, list) else value for key, value in site.items()}
    return point.load()(rest, SimpleNamespace(**attributes))
