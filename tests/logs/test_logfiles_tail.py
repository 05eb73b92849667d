"""Reading a log back: its last lines, what follows, and whatever stands in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from multisite.logs.logfiles import LINES, Tail, last_lines, open_log


class Idle(Exception):
    """There is nothing more to read just now."""


def idle(_seconds: float) -> None:
    raise Idle


def new(tail: Tail) -> list[str]:
    """All lines that have come; a generator that was left is begun anew."""
    found: list[str] = []
    try:
        for lines in tail.more():
            found += lines
    except Idle:
        pass
    return found


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def renamed(path: Path) -> None:
    path.rename(f"{path}.1")
    append(path, "third\n")


def emptied(path: Path) -> None:
    path.write_text("")
    append(path, "third\n")


def removed(path: Path) -> None:
    path.unlink()
    append(path, "third\n")


@pytest.mark.parametrize("rotate", [renamed, emptied, removed])
def test_new_lines_come_across_a_rotation(tmp_path: Path, rotate: Callable[[Path], None]) -> None:
    """A line that is not ended yet waits; whichever file has the name next is read from its beginning."""
    log = tmp_path / "blog.log"
    log.write_text("before\n")
    with Tail(str(log), sleep=idle) as tail:
        assert tail.begin() == ["before"]
        append(log, "first\nsec")
        assert new(tail) == ["first"]
        append(log, "ond\n")
        assert new(tail) == ["second"]
        rotate(log)
        assert new(tail) == ["third"]
        append(log, "fourth\n")
        assert new(tail) == ["fourth"]


def test_what_was_appended_just_before_the_rename_is_not_lost(tmp_path: Path) -> None:
    """The old file is read to its end, a line that nobody ended included."""
    log = tmp_path / "blog.log"
    log.write_text("")
    with Tail(str(log), sleep=idle) as tail:
        assert tail.begin() == []
        append(log, "last\nunended")
        renamed(log)
        assert new(tail) == ["last", "unended", "third"]


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """Who follows may come first; who asks for the last lines is told."""
    log = tmp_path / "blog.log"
    with pytest.raises(FileNotFoundError):
        last_lines(str(log))
    with Tail(str(log), waits=True, sleep=idle) as tail:
        assert tail.begin() == []
        assert new(tail) == []
        append(log, "first\n")
        assert new(tail) == ["first"]


def test_the_last_lines_of_a_large_file_are_whole(tmp_path: Path) -> None:
    """No more than the end is read, and the line that the look falls into is left out."""
    log = tmp_path / "blog.log"
    log.write_text("".join(f"{number:07d}{'x' * 4000}\n" for number in range(1000)))
    found = last_lines(str(log))
    assert [line[:7] for line in found] == [f"{number:07d}" for number in range(1000 - len(found), 1000)]
    assert {len(line) for line in found} == {4007}
    log.write_text("".join(f"{number}\n" for number in range(1000)))
    assert last_lines(str(log)) == [str(number) for number in range(1000 - LINES, 1000)]


def test_root_reads_through_no_link_that_a_user_made(tmp_path: Path) -> None:
    """Neither a link nor a FIFO in a log's place is read."""
    (tmp_path / "secret").write_text("root's\n")
    link = tmp_path / "blog.log"
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        open_log(str(link), root=True)
    os.close(open_log(str(link), root=False))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for root in (True, False):
        with pytest.raises(OSError, match="not a plain file"):
            open_log(str(fifo), root=root)
