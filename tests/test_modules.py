"""Every module can be imported, on each interpreter that has these tests, by a process that has loaded none before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import multisite

PACKAGE = Path(multisite.__file__).parent
PROGRAM = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
PROGRAMS = ("__main__",)


def names() -> list[str]:
    """All modules but those that are started by their path, or by ``python -m``."""
    found = sorted(path for path in PACKAGE.rglob("*.py") if path.stem not in PROGRAMS)
    dotted = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in found]
    return [name.removesuffix(".__init__") for name in dotted]


def test_every_module_can_be_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names()],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
        env={**os.environ, "PYTHONWARNINGS": "error::SyntaxWarning"},
    )
    assert (done.returncode, done.stderr) == (0, "")
