"""Logs of running servers in the report of a failed test, and what could not be tested at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from .harness import HOMES, MEASURED, NOT_TESTED, PATIENCE, RUNNING, eventually, remove


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A temporary directory that other users may read (pytest's own are private): Apache's workers change user."""
    yield from _public()


@pytest.fixture(scope="module")
def shared_public_path() -> Iterator[Path]:
    """One for all tests of a file."""
    yield from _public()


def _public() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="multisite-test-"))
    path.chmod(0o755)
    yield path
    remove(path)


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """After the end of a server nothing of its home runs, whatever happened to it. What does is named, not killed."""
    before = len(HOMES)
    yield
    for home in HOMES[before:]:
        try:
            eventually(lambda home=home: not home.processes(), PATIENCE)  # type: ignore[misc]
        except AssertionError:
            raise AssertionError(f"{home.path}: these processes are left: {home.processes()}") from None


def pytest_sessionfinish() -> None:
    for home in HOMES:
        shutil.rmtree(home.runtime, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        report.sections += [(f"log of {' '.join(server.argv)}", server.log()[-8000:]) for server in RUNNING]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for figure in MEASURED:
        terminalreporter.write_line(f"MEASURED: {figure}")
    for reason in sorted(set(NOT_TESTED)):
        terminalreporter.write_line(f"NOT TESTED: {reason}", yellow=True, bold=True)
