"""Records that others have written, each a line of JSON: nothing in them is sure; what makes no sense is left out."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any

LARGEST = 2**53  # of numbers
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

Record = dict[str, Any]


def content_of(path: str, most: int) -> bytes:
    """Return the first `most` bytes of a file; nothing where there is none, or this user may not read it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, _OPEN)
        with open(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return file.read(most)
    return b""


def parsed(content: bytes, mark: bytes = b"") -> Iterator[Record]:
    """Yield the records of a file, of the lines with `mark` in them."""
    for line in content.split(b"\n"):
        if line and mark in line:
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def is_number(value: object) -> bool:
    """Tell whether it is a number that can be computed with; JSON has others, such as NaN."""
    return type(value) in (int, float) and abs(value) < LARGEST  # type: ignore[arg-type]


def number(record: Record, name: str) -> float:
    """Return a number of a record, 0 where it has none."""
    value: Any = record.get(name)
    return float(value) if is_number(value) else 0.0


def text(record: Record, name: str) -> str:
    """Return a text of a record, "" where it has none."""
    value = record.get(name)
    return value if isinstance(value, str) else ""


def items(record: Record, name: str) -> list[Any]:
    """Return a list of a record, [] where it has none."""
    value = record.get(name)
    return value if isinstance(value, list) else []
