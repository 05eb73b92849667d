"""A virtualenv of Debian's own Python, for the servers that are built for that one only."""

from __future__ import annotations

import configparser
import hashlib
import os
import subprocess
from pathlib import Path

from .harness import REPOSITORY, debian_install, debian_program, not_tested

SYSTEM_PYTHON = "/usr/bin/python3"
# Other users have to read it, which a cache below /root would not allow.
CACHE = Path(os.environ.get("MULTISITE_TEST_CACHE", f"/var/tmp/multisite-tests-{os.geteuid()}"))


def system_virtualenv() -> Path:
    """A virtualenv of /usr/bin/python3 with what multisite needs (not multisite itself); made once and kept."""
    if not Path(SYSTEM_PYTHON).exists():
        not_tested(f"servers for the system's Python: no {SYSTEM_PYTHON}")
    wanted = requirements()
    version = _run([SYSTEM_PYTHON, "--version"]).strip()
    place = CACHE / hashlib.sha256("\n".join([version, *wanted]).encode()).hexdigest()[:16]
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    if CACHE.stat().st_uid != os.geteuid():
        raise PermissionError(f"{CACHE} belongs to somebody else; set MULTISITE_TEST_CACHE")
    if not (place / "ready").exists():
        try:
            if not _has_ensurepip():
                debian_install("python3-venv")
            _run([SYSTEM_PYTHON, "-m", "venv", "--clear", str(place)])
            _run([str(place / "bin" / "pip"), "install", "--quiet", *wanted])
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or error.stdout).strip().rpartition("\n")[2]
            not_tested(f"servers for the system's Python: no virtualenv could be made ({reason})")
        (place / "ready").touch()
    return place


def requirements() -> list[str]:
    """What setup.cfg says the package needs."""
    setup = configparser.RawConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    return setup["options"]["install_requires"].split("\n")[1:]


def uwsgi_of_debian() -> str:
    """Debian's uWSGI, which takes Python as a plugin."""
    return debian_program("uwsgi", "uwsgi-core", "uwsgi-plugin-python3")


def _has_ensurepip() -> bool:
    return subprocess.run([SYSTEM_PYTHON, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0


def _run(argv: list[str]) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=clean, timeout=300).stdout
