"""The module name of a file that is loaded by its path: the same in a process of the site's own and in the workers."""

from __future__ import annotations

import os
import re


def unique_name(site_name: str, path: str) -> str:
    """The module name of a site's file: one identifier, and no two sites share one.

    Anything but ASCII letters and digits is written as ``_`` and two hexadecimal digits per byte,
    so the ``__`` in the middle can come from neither side.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    return f"_multisite_site_{_identifier(site_name)}__{_identifier(stem)}"


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", lambda match: "".join(f"_{byte:02x}" for byte in os.fsencode(match[0])), text)
