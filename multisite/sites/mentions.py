"""Whether the sources of a site import one of its modules by its plain name, read from their text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

MOST_FILES = 300  # read to find out; in a larger site the name counts as imported
LARGEST = 1 << 20  # bytes read of one file


def is_imported(module: str, location: str, names: Iterable[str]) -> bool:
    """Tell whether `module` may be imported by one of the top-level `names` in `location`, itself included.

    ``import app``, ``from app import db`` and ``import_module("app.models")`` count; so does what
    only looks like one of them.
    """
    says = re.compile(rf"""\b(?:from|import)\s+(?:[\w.]+(?:\s+as\s+\w+)?\s*,\s*)*{re.escape(module)}\b""")
    quotes = re.compile(rf"""["']{re.escape(module)}["'.:]""")
    for count, path in enumerate(_sources(location, names)):
        text = read(path)
        itself = path == os.path.join(location, f"{module}.py")
        if count >= MOST_FILES or says.search(text) or (not itself and quotes.search(text)):
            return True
    return False


def _sources(location: str, names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        if os.path.isfile(path := os.path.join(location, f"{name}.py")):
            yield path
        for folder, _, files in os.walk(os.path.join(location, name)):
            yield from (os.path.join(folder, file) for file in sorted(files) if file.endswith(".py"))


def read(path: str) -> str:
    """Return the text of a source; "" where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return ""
