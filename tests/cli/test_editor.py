"""`multisite edit`: on a real terminal, with editors that are scripts."""

from __future__ import annotations

import os
import pathlib
import pty
import sys

import pytest
from click.testing import CliRunner

from multisite.cli import main
from tests.homes import TestHome


@pytest.fixture
def home(tmp_path: pathlib.Path) -> TestHome:
    made = TestHome(tmp_path)
    made.hello("blog")
    return made


class Terminal:
    """`multisite edit blog` on a terminal; the editor appends a line to the file for each one that it finds."""

    def __init__(self, home: TestHome, *lines: str, editor: str = "", variable: str = "EDITOR") -> None:
        script = home.path / "editor"
        queue = home.path / "lines"
        queue.write_text("".join(f"{line}\n" for line in lines))
        take = f'line=$(head -n 1 {queue}); sed -i 1d {queue}; [ -z "$line" ] || printf "%b\\n" "$line" >>"$2"'
        script.write_text(f'#!/bin/sh\n[ "$1" = --wait ] || exit 9\n{editor or take}\n')
        script.chmod(0o755)
        environ = {key: value for key, value in os.environ.items() if key not in ("VISUAL", "EDITOR")}
        environ |= {variable: f"{script} --wait", "TMPDIR": str(home.path / "temp")}
        argv = [sys.executable, "-m", "multisite", "--home", str(home.path), "edit", "blog"]
        self.shown = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, argv, environ)

    def see(self, text: str) -> None:
        """Read until `text` is shown."""
        while text not in self.shown:
            try:
                self.shown += os.read(self._terminal, 4096).decode()
            except OSError:
                raise AssertionError(f"{text!r} was not shown: {self.shown}") from None

    def answer(self, word: str) -> None:
        """Answer the next question."""
        self.see("]: ")
        self.shown = self.shown.partition("]: ")[2]
        os.write(self._terminal, f"{word}\n".encode())

    def end(self) -> int:
        """Read the rest; return the exit status."""
        try:
            while part := os.read(self._terminal, 4096):
                self.shown += part.decode()
        except OSError:  # EIO: nobody has the terminal any more
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def path_of(home: TestHome) -> pathlib.Path:
    return home.path / "sites-available" / "blog.ini"


def left(home: TestHome) -> list[str]:
    return sorted(os.listdir(path_of(home).parent)) + os.listdir(home.path / "temp")


@pytest.mark.parametrize("variable", ["VISUAL", "EDITOR"])
def test_an_edit_takes_the_place_of_the_file_that_the_link_leads_to(home: TestHome, variable: str) -> None:
    """Mode and owner stay, and nothing else is left."""
    path = path_of(home)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 7, 8)
    before = path.stat()
    terminal = Terminal(home, "[env]\\nWORD = one", variable=variable)
    assert terminal.end() == 0
    assert f"{path} changed" in terminal.shown
    after = path.stat()
    assert path.read_text().endswith("\n[env]\nWORD = one\n")
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino  # it was replaced in one step
    assert (home.path / "sites-enabled" / "blog.ini").is_symlink()
    assert left(home) == ["blog.ini"]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("thraeds = 4", "unknown key; did you mean threads?"),
        ("threads = many", "[service] threads = many"),
        ("location = /no/such/place", "there is no such directory"),
        ("application = app:nothing", "nothing"),
        ("domains = shop.test", "shop.ini already has it and keeps it"),
        ("name = shop", "shop.ini already has it and keeps it"),
    ],
)
def test_problems_are_printed_and_can_be_undone(home: TestHome, line: str, part: str) -> None:
    home.hello("shop", name="shop")
    path = path_of(home)
    path.write_text(
        "".join(row for row in path.read_text().splitlines(True) if row.split("=")[0] != line.split("=", maxsplit=1)[0])
    )
    before = path.read_bytes(), path.stat().st_mtime_ns
    terminal = Terminal(home, line)
    terminal.see("]: ")
    assert part in terminal.shown.replace("\r\n", "")
    terminal.answer("u")
    assert terminal.end() == 0
    assert f"{path} is unchanged" in terminal.shown
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert left(home) == ["blog.ini", "shop.ini"]


def test_problems_can_be_mended_or_kept(home: TestHome) -> None:
    terminal = Terminal(home, "thraeds = 4", "[env]\\nWORD = one")
    terminal.answer("e")
    terminal.answer("keep")
    assert terminal.end() == 1
    assert path_of(home).read_text().endswith("thraeds = 4\n[env]\nWORD = one\n")


def test_an_edit_without_a_change_changes_nothing(home: TestHome) -> None:
    before = path_of(home).stat().st_mtime_ns
    terminal = Terminal(home)
    assert terminal.end() == 0
    assert path_of(home).stat().st_mtime_ns == before
    assert left(home) == ["blog.ini"]


@pytest.mark.parametrize(
    ("editor", "part"),
    [
        ("exit 3", "exited with status 3"),
        ("printf '\\377' >>$2; exit 0", "UTF-8"),
        ("echo '[env]' >>$2; echo '# mine' >>{path}", "somebody else has changed"),
    ],
)
def test_what_goes_wrong_leaves_the_file_alone(home: TestHome, editor: str, part: str) -> None:
    path = path_of(home)
    terminal = Terminal(home, editor=editor.format(path=path))
    before = path.read_text()
    if part == "UTF-8":
        terminal.see(part)
        terminal.answer("undo")
    assert terminal.end() == (0 if part == "UTF-8" else 1)
    assert part in terminal.shown or part == "UTF-8"
    assert path.read_text() == before + ("# mine\n" if "mine" in editor else "")
    if "mine" in editor:
        copy = terminal.shown.split("your text is in ")[1].split()[0]
        assert pathlib.Path(copy).read_text().endswith("[env]\n")
    else:
        assert left(home) == ["blog.ini"]


def test_without_a_terminal_it_is_refused(home: TestHome) -> None:
    done = CliRunner().invoke(main, ["--home", str(home.path), "edit", "blog"])
    assert done.exit_code == 2
    assert "multisite set SITE KEY=VALUE" in done.stderr
