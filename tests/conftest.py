from __future__ import annotations

import compileall
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import multisite
from multisite.logs.servicelog import current_site
from tests.ways import loop, way

__all__ = ["loop", "way"]

# How long an example takes says how busy the machine is, and nothing about what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# One process of these tests has hundreds of homes and loops, of which a worker has one each.
DESCRIPTORS = 16384
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= _soft < DESCRIPTORS:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS if _hard < 0 else min(DESCRIPTORS, _hard), _hard))

# Hundreds of processes import the package, some as users who may not write here, some of them on machines that say not
# to write byte code at all. A planted bug (tests/mutants) is younger than byte code can tell.
if "MULTISITE_UNDER_TEST" not in os.environ:
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compileall.compile_dir(Path(multisite.__file__).parent, quiet=2)


@pytest.fixture(autouse=True)
def no_current_site() -> Iterator[None]:
    """A test that served a site leaves its thread as it found it."""
    token = current_site.set("")
    yield
    current_site.reset(token)


@pytest.fixture(scope="module")
def own_django() -> Iterator[None]:
    """No project has been configured yet: an interpreter has one, and the tests of several modules share one."""
    others = {name: module for name, module in sys.modules.items() if _is_djangos(name)}
    for name in others:
        del sys.modules[name]
    yield
    for name in list(filter(_is_djangos, sys.modules)):
        del sys.modules[name]
    sys.modules.update(others)


def _is_djangos(name: str) -> bool:
    return name.partition(".")[0] == "django"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if "root" in str(report.longrepr)]
    if skipped and os.geteuid() != 0:
        told = f"NOT TESTED: {len(skipped)} tests that need root; run them as root as well"
        terminalreporter.write_line(told, yellow=True, bold=True)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that everybody can reach, as pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="multisite-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
