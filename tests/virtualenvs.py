"""Virtualenvs that tests have in common: made once by whoever needs one first, and kept for later runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

# Other users have to read it, which a cache below /root would not allow.
CACHE = Path(os.environ.get("MULTISITE_TEST_CACHE", f"/var/tmp/multisite-tests-{os.geteuid()}"))
KEPT_FOR = 30 * 86400.0  # seconds; what PyPI has is another version by then


def kept(python: str, *packages: str) -> str:
    """The interpreter of a virtualenv of `python` with these packages of PyPI, and nothing of ours, in it.

    Raises:
        subprocess.CalledProcessError: it could not be made; its `stderr` says why.
        PermissionError: the cache belongs to somebody else.
    """
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    if CACHE.stat().st_uid != os.geteuid():
        raise PermissionError(f"{CACHE} belongs to somebody else; set MULTISITE_TEST_CACHE")
    place = CACHE / hashlib.sha256("\n".join([_run([python, "-VV"]), *packages]).encode()).hexdigest()[:16]
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others of this run want the same
        ready = place / "ready"
        if not ready.exists() or time.time() - ready.stat().st_mtime > KEPT_FOR:
            make(place, python, *packages)
            ready.touch()
    return str(place / "bin/python")


def make(place: Path, python: str, *packages: str) -> str:
    """The interpreter of a new virtualenv at `place`, by the pip of these tests: it needs no ensurepip.

    Raises:
        subprocess.CalledProcessError: as `kept`.
    """
    _run([python, "-m", "venv", "--clear", "--without-pip", str(place)])
    inside = str(place / "bin/python")
    if packages:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", inside]
        _run([*pip, "install", "--quiet", *packages])
    return inside


def reason(error: subprocess.CalledProcessError) -> str:
    """The last line of what a failed command said."""
    return str(error.stderr or error.stdout).strip().rpartition("\n")[2]


def _run(argv: list[str]) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=clean, timeout=600).stdout
