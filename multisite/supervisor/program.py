"""The supervisor's own program: how it is run anew, with the package as it is on disk now."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from multisite.supervisor.launch import own_interpreter

_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def command(home: str, **words: str) -> list[str]:
    """Return the command line; `words` are further options of ``python -m multisite.supervisor``.

    It is to be run in "/": Python looks for modules in the working directory.
    """
    options = [part for name, value in words.items() for part in (f"--{name.replace('_', '-')}", value)]
    return [own_interpreter(), "-m", "multisite.supervisor", "--home", home, *options]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` so that the package, and what it needs, is found where we found it."""
    path = os.pathsep.join(dict.fromkeys([_PACKAGE_PARENT, *filter(os.path.isabs, sys.path)]))
    return {**environ, "PYTHONPATH": path}
