"""A document of JSON beside moya.conf that processes of several users read: it is replaced at once, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile


def replace(path: str, document: object, indent: int | None = None) -> None:
    """Replace a document; nobody ever sees half of it.

    Raises:
        OSError: it cannot be written; the path is in it.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}-")
    except OSError as error:
        error.filename = path  # rather than a name that nobody knows
        raise
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)
            json.dump(document, file, indent=indent)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
