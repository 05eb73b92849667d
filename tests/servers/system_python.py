"""A virtualenv of Debian's own Python, for the servers that are built for that one only."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

from tests import virtualenvs

from .harness import REPOSITORY, debian_program, not_tested

SYSTEM_PYTHON = "/usr/bin/python3"


def system_virtualenv() -> Path:
    """A virtualenv of /usr/bin/python3 with what multisite needs, but not multisite itself."""
    if not Path(SYSTEM_PYTHON).exists():
        not_tested(f"servers for the system's Python: no {SYSTEM_PYTHON}")
    try:
        return Path(virtualenvs.kept(SYSTEM_PYTHON, *requirements())).parent.parent
    except subprocess.CalledProcessError as error:
        not_tested(f"servers for the system's Python: no virtualenv could be made ({virtualenvs.reason(error)})")


def requirements() -> list[str]:
    """What setup.cfg says the package needs."""
    setup = configparser.RawConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    return setup["options"]["install_requires"].split("\n")[1:]


def uwsgi_of_debian() -> str:
    """Debian's uWSGI, which takes Python as a plugin."""
    return debian_program("uwsgi", "uwsgi-core", "uwsgi-plugin-python3")
