"""What an import changes in the process is told and undone."""

from __future__ import annotations

import locale
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.inprocess import isolation
from multisite.inprocess.isolation import STRAGGLER_AFTER, Guard


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[isolation.ProcessState]:
    """Each test must leave the process as it found it: that is what the guard is for."""
    monkeypatch.setenv("GUARD_KEPT", "1")
    before = isolation.ProcessState()
    yield before
    after = isolation.ProcessState()
    isolation.restore_place(before, after)
    isolation.restore_shared(before, after)
    isolation.restore_handlers(before, after)
    assert [each for each in isolation.differences(before, after) if "PYTEST_CURRENT_TEST" not in each] == []


def test_nothing_changed_is_nothing_said(caplog: pytest.LogCaptureFixture) -> None:
    with Guard().watch("blog") as changes:
        pass
    assert (changes, changes.paths, changes.others, caplog.records) == ([], (), (), [])


def test_everything_is_told_and_put_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = isolation.ProcessState()
    with Guard().watch("blog") as changes:
        os.chdir(tmp_path)
        os.umask(0o007)
        os.environ["GUARD_SET"] = "secret"
        del os.environ["GUARD_KEPT"]
        sys.path.insert(0, str(tmp_path))
        warnings.simplefilter("ignore", UserWarning)
        sys.setrecursionlimit(4321)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        locale.setlocale(locale.LC_ALL, "C" if before.locale != "C" else "C.UTF-8")
    assert changes == [
        f"the working directory ({before.cwd} → {tmp_path})",
        f"the umask ({before.umask:04o} → 0007)",
        "os.environ['GUARD_KEPT'] (removed)",
        "os.environ['GUARD_SET'] (set)",
        f"sys.path (+{tmp_path})",
        changes[5],
        "the warnings filters",
        f"the recursion limit ({before.recursion_limit} → 4321)",
        "the handler of SIGUSR1",
    ]
    assert changes[5].startswith("the locale (")
    assert changes.paths == (str(tmp_path),)
    assert list(isolation.differences(before, isolation.ProcessState())) == []
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("multisite.guard", logging.WARNING)
    assert "site blog " in record.getMessage() and "the umask" in record.getMessage()
    assert "secret" not in record.getMessage()


def test_it_is_put_back_too_when_the_import_fails(tmp_path: Path) -> None:
    before = os.getcwd()
    with pytest.raises(SystemExit), Guard().watch("blog") as changes:
        os.chdir(tmp_path)
        raise SystemExit(3)
    assert os.getcwd() == before
    assert len(changes) == 1


def test_the_time_zone_follows_the_environment() -> None:
    names = time.tzname
    with Guard().watch("blog") as changes:
        os.environ["TZ"] = "Asia/Tokyo" if "JST" not in names else "UTC"
        time.tzset()
        assert time.tzname != names
    assert changes == ["os.environ['TZ'] (set)"]
    assert time.tzname == names


def test_a_replaced_environ_or_path_is_the_same_object_again() -> None:
    environ, path = os.environ, sys.path
    with Guard().watch("blog") as changes:
        os.environ = {**environ, "GUARD_SET": "1"}  # type: ignore[assignment]
        sys.path = [*path]
    assert changes == ["os.environ['GUARD_SET'] (set)", "os.environ (replaced)", "sys.path (replaced)"]
    assert os.environ is environ and "GUARD_SET" not in os.environ
    assert sys.path is path


def test_a_reordered_path_and_a_removed_entry_are_told() -> None:
    removed = sys.path[-1]
    with Guard().watch("blog") as changes:
        sys.path.reverse()
    assert changes == ["sys.path (its order)"]
    with Guard().watch("blog") as changes:
        sys.path[:] = [entry for entry in sys.path if entry != removed]
    assert changes == [f"sys.path (-{removed})"]
    assert changes.paths == ()


def test_a_working_directory_that_is_gone_is_told_and_does_no_harm(tmp_path: Path) -> None:
    here, gone = os.getcwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        with Guard().watch("blog") as changes:
            os.chdir(tmp_path)
            gone.rmdir()
        assert changes[0] == f"the working directory ({gone} → {tmp_path})"
        assert changes[1].startswith(f"the working directory {gone} could not be restored (")
    finally:
        os.chdir(here)


class Import(threading.Thread):
    """An import in a thread of its own, which ends when told."""

    def __init__(self, guard: Guard, name: str, variable: str = "") -> None:
        super().__init__(name=name)
        self.guard, self.variable = guard, variable
        self.changed, self.may_end = threading.Event(), threading.Event()
        self.changes: list[str] = []

    def run(self) -> None:
        with self.guard.watch(self.name) as self.changes:
            if self.variable:
                os.environ[self.variable] = "1"
            self.changed.set()
            assert self.may_end.wait(60)

    def begin(self) -> Import:
        self.start()
        assert self.changed.wait(60)
        return self

    def end(self) -> None:
        self.may_end.set()
        self.join(60)
        assert not self.is_alive()


def test_imports_do_not_wait_for_each_other_and_the_last_puts_everything_back() -> None:
    guard = Guard()
    first = Import(guard, "first", "GUARD_FIRST").begin()
    second = Import(guard, "second", "GUARD_SECOND").begin()
    first.end()
    assert {"GUARD_FIRST", "GUARD_SECOND"} <= os.environ.keys()
    second.end()
    assert not {"GUARD_FIRST", "GUARD_SECOND"} & os.environ.keys()
    assert second.changes == ["os.environ['GUARD_SECOND'] (set)"]


def test_each_says_which_sites_were_imported_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard()
    first = Import(guard, "first").begin()
    second = Import(guard, "second", "GUARD_SECOND").begin()
    first.end()
    second.end()
    assert [record.getMessage().partition(" changed")[0] for record in caplog.records] == [
        "MS247 the import of site first (or second, imported meanwhile)",
        "MS247 the import of site second (or first, imported meanwhile)",
    ]


def test_a_straggler_holds_nothing_back_and_is_undone_at_its_end() -> None:
    now = [100.0]
    guard = Guard(clock=lambda: now[0])
    straggler = Import(guard, "straggler", "GUARD_STRAGGLER").begin()
    now[0] += STRAGGLER_AFTER + 1
    with guard.watch("blog"):
        os.environ["GUARD_BLOG"] = "1"
    assert not {"GUARD_STRAGGLER", "GUARD_BLOG"} & os.environ.keys()
    os.environ["GUARD_STRAGGLER"] = "again"
    straggler.end()
    assert "GUARD_STRAGGLER" not in os.environ


def test_a_handler_set_by_the_main_thread_is_put_back_while_another_import_runs() -> None:
    guard = Guard()
    other = Import(guard, "other").begin()
    before = signal.getsignal(signal.SIGUSR2)
    with guard.watch("blog") as changes:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGUSR2) is before
    assert changes == ["the handler of SIGUSR2"]
    other.end()
    assert other.changes == []
