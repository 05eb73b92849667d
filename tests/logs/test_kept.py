"""What sites print is kept in the state directory: bounded, a file for each, nothing that steers a terminal."""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.logs import kept, servicelog
from multisite.logs.kept import KeptLogs, SiteStream, Tracebacks, instances
from multisite.logs.keptfiles import file_name

INFO, ERROR = logging.INFO, logging.ERROR


@pytest.fixture
def logs(tmp_path: Path) -> KeptLogs:
    return KeptLogs(str(tmp_path / "state"))


def texts(logs: KeptLogs, site: str = "blog", older: str = "") -> list[str]:
    """Lines without their times."""
    return [line.split(" ", 1)[1] for line in (Path(logs.folder) / (file_name(site) + older)).read_text().splitlines()]


def say(logs: KeptLogs, *lines: str, site: str = "blog", level: int = INFO) -> None:
    logs.write(site, lines, [level] * len(lines))


def test_lines_have_their_time_and_level_and_only_the_service_reads_them(logs: KeptLogs) -> None:
    say(logs, "hello")
    say(logs, "Traceback", level=ERROR)
    path = Path(logs.folder) / "blog.log"
    assert texts(logs) == ["INFO hello", "ERROR Traceback"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO hello\n", path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(os.stat(logs.folder).st_mode) == 0o700


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", ".hidden", "a/../b", "x" * 300, "\0", "ä\n"]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    logs = KeptLogs(str(tmp_path / "state"))
    say(logs, "here", site=name)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert [path.name for path in Path(logs.folder).iterdir()] == [file_name(name)]
    assert texts(logs, name) == ["INFO here"]


@given(st.text(min_size=1), st.text(min_size=1))
def test_each_name_has_a_file_of_its_own(one: str, another: str) -> None:
    assert (file_name(one) == file_name(another)) == (one == another)
    assert "/" not in file_name(one) and not file_name(one).startswith(".") and len(file_name(one)) < 255


def test_a_file_that_has_grown_is_renamed_and_there_are_two_at_most(
    logs: KeptLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LARGEST", 2000)
    for number in range(200):
        say(logs, f"line {number:04} " + "x" * 40)
    names = sorted(path.name for path in Path(logs.folder).iterdir())
    assert {"blog.log.1"} <= set(names) <= {"blog.log", "blog.log.1"}
    assert sum(path.stat().st_size for path in Path(logs.folder).iterdir()) < 2 * 2000 + 200
    latest = texts(logs, older=".1") + (texts(logs) if "blog.log" in names else [])
    assert latest == [f"INFO line {number:04} " + "x" * 40 for number in range(200 - len(latest), 200)]


def test_processes_that_write_at_once_lose_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks at the file that it has written to, so only one renames it."""
    monkeypatch.setattr(kept, "LARGEST", 60_000)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            mine = KeptLogs(str(tmp_path / "state"))
            for line in range(200):
                say(mine, f"{number} {line}")
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    logs = KeptLogs(str(tmp_path / "state"))
    assert len(texts(logs)) == 800


def test_a_flood_is_bounded_and_counted_and_is_its_own_sites_alone(
    logs: KeptLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "PER_SECOND", 10_000)
    now = [1000.0]
    monkeypatch.setattr(kept.time, "time", lambda: now[0])
    say(logs, *["x" * 100_000] * 50, *[""] * 1000, site="flood")
    say(logs, "heard", site="quiet")
    kept_lines = texts(logs, "flood")
    assert 0 < len(kept_lines) < 100 and all(len(line) < 1100 for line in kept_lines)
    assert texts(logs, "quiet") == ["INFO heard"]
    now[0] += 1
    say(logs, "later", site="flood")
    left_out = 1050 - len(kept_lines)
    assert texts(logs, "flood")[-2:] == [f"WARNING multisite: {left_out} lines left out", "INFO later"]


@pytest.mark.parametrize(
    "line", ["\x1b[2J", "\x1b]0;owned\x07", "a\rb", "\x9b31m", "\u202ereversed", "\ud800", "\x08\x08"]
)
def test_what_could_steer_a_terminal_is_escaped(logs: KeptLogs, line: str) -> None:
    say(logs, line)
    assert texts(logs)[0].isprintable()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_root_writes_for_the_owner_of_the_folder_and_through_no_link(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 33, 33)
    logs = KeptLogs(str(state))
    say(logs, "hello")
    folder = state / "logs"
    assert (folder.stat().st_uid, (folder / "blog.log").stat().st_uid) == (33, 33)
    (tmp_path / "victim").write_text("")
    (folder / "evil.log").symlink_to(tmp_path / "victim")
    os.link(tmp_path / "victim", folder / "hard.log")
    say(logs, "owned", site="evil")
    say(logs, "owned", site="hard")
    assert (tmp_path / "victim").read_text() == ""


def test_a_folder_that_cannot_be_made_costs_nothing_but_the_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    logs = KeptLogs(str(tmp_path / "file" / "state"))
    say(logs, "one")
    say(logs, "two")
    assert len([record for record in caplog.records if "cannot be kept" in record.getMessage()]) == 1


TRACEBACK = """before
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    boom()
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
ValueError: what it was
after
"""


def test_the_lines_of_a_traceback_are_errors() -> None:
    tracebacks = Tracebacks()
    levels = {line: tracebacks.level(line) for line in TRACEBACK.splitlines() if line}
    assert [line for line, level in levels.items() if level == INFO] == ["before", "after"]


def test_instances_are_found_by_their_hosting_site(logs: KeptLogs) -> None:
    for name in ("hosting", "hosting..ann.example", "hosting2..bob.example", "other"):
        say(logs, "hello", site=name)
    assert instances(logs.folder, "hosting") == ["hosting..ann.example"]


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SiteStream]:
    monkeypatch.setattr(kept, "_current", KeptLogs(str(tmp_path / "state")))
    yield SiteStream(io.StringIO())


def printed(stream: SiteStream, site: str, *words: str, end: str = "\n") -> None:
    token = servicelog.current_site.set(site)
    try:
        print(*words, file=stream, end=end)  # type: ignore[call-overload]
    finally:
        servicelog.current_site.reset(token)


def test_what_sites_print_in_a_worker_is_theirs_and_still_the_services(stream: SiteStream) -> None:
    assert kept._current
    printed(stream, "blog", "half", end="")
    printed(stream, "shop", "whole", "line")
    printed(stream, "", "the service's own")
    printed(stream, "blog", " and half")
    assert texts(kept._current) == ["INFO half and half"]
    assert texts(kept._current, "shop") == ["INFO whole line"]
    assert stream.beneath.getvalue() == "halfwhole line\nthe service's own\n and half\n"  # type: ignore[attr-defined]
    assert not stream.isatty()


def test_threads_do_not_mix_their_lines(stream: SiteStream) -> None:
    assert kept._current
    together = threading.Barrier(4)

    def work(number: int) -> None:
        together.wait(60)
        for _ in range(100):
            printed(stream, "blog", str(number) * 5, str(number) * 5)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(texts(kept._current)) == sorted(
        f"INFO {str(n) * 5} {str(n) * 5}" for n in range(4) for _ in range(100)
    )


def test_a_line_that_never_ends_is_cut(stream: SiteStream) -> None:
    assert kept._current
    for _ in range(50):
        printed(stream, "blog", "x" * 100, end="")
    assert texts(kept._current)[0].count("x") == kept.LONGEST_LINE


def test_a_process_that_was_forked_while_others_print_prints_too(stream: SiteStream) -> None:
    """The lock that another thread held at that moment is nobody's in the child."""
    assert kept._current
    with kept._current.lock:
        child = os.fork()
        if child == 0:
            printed(stream, "blog", "from the child")
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert texts(kept._current) == ["INFO from the child"]


def test_what_cannot_be_kept_is_printed_all_the_same(stream: SiteStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "file_name", lambda site: 1 / 0)
    printed(stream, "blog", "hello")
    assert stream.beneath.getvalue() == "hello\n"  # type: ignore[attr-defined]
