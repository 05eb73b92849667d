"""The interpreters of this machine that a site may have, and virtualenvs of them without our packages."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

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


def virtualenv(folder: Path, python: str, *packages: str) -> str:
    """The interpreter of a new virtualenv with these packages of PyPI in it."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True, capture_output=True)
    inside = str(folder / "bin/python")
    if packages:
        command = [sys.executable, "-m", "pip", "--python", inside, "install", "-q", "--no-compile", *packages]
        environ = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return inside


@cache
def equipped(version: str) -> str:
    """The interpreter of a virtualenv with Flask, Django and FastAPI and nothing of ours, made once in a run."""
    folder = Path(tempfile.mkdtemp(prefix="multisite-venv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    return virtualenv(folder, interpreters()[version], "flask", "django", "fastapi", "uvloop")
