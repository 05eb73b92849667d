"""The interpreters of this machine that a site may have, and virtualenvs of them without our packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.virtualenvs import kept

OLDEST, NEWEST = 9, 14
_TELL = "import sys; sys.implementation.name == 'cpython' and print('%d.%d' % sys.version_info[:2])"


def candidates(version: str) -> list[str]:
    """Where `pythonX.Y` may be: pyenv's folders, the system's, and the path."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [str(path) for path in root.glob(f"versions/{version}*/bin/python{version}")]
    return [*found, f"/usr/bin/python{version}", shutil.which(f"python{version}") or ""]


@cache
def interpreters() -> dict[str, str]:
    """Version → interpreter, for each version that answers; a shim of pyenv may not."""
    return {version: path for minor in range(OLDEST, NEWEST + 1) for version, path in _first(f"3.{minor}")}


def _first(version: str) -> list[tuple[str, str]]:
    for path in candidates(version):
        if path and os.path.exists(path):
            told = subprocess.run([path, "-c", _TELL], capture_output=True, text=True, check=False)
            if told.stdout.strip() == version:
                return [(version, path)]
    return []


def equipped(version: str) -> str:
    """The interpreter of a virtualenv with FastAPI and nothing of ours; of two versions Flask and Django, too."""
    more = ("flask", "django", "uvloop") if version in (oldest(), newest()) else ()
    return kept(interpreters()[version], "fastapi", *more)


def oldest() -> str:
    return min(interpreters(), key=lambda version: int(version[2:]))


def newest() -> str:
    return max(interpreters(), key=lambda version: int(version[2:]))
