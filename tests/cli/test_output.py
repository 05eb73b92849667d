"""Tables of the command line: what a narrow terminal, a wide one and a pipe get of them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import traceback
from typing import IO

import pytest
from rich.cells import cell_len

from multisite.cli import main
from multisite.cli.output import LONG, fitting, layout, printable, say_json, say_table, shortened
from tests.homes import TestHome

WIDTHS = {"name": 10, "state": 10, "cpu": 6, "problems": 40}
LEAST = {**WIDTHS, "problems": 12}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_a_wide_terminal_gets_everything() -> None:
    assert layout(WIDTHS, LEAST, 72, ("cpu",), ("problems",)) == WIDTHS


def test_texts_are_shortened_before_a_column_is_hidden() -> None:
    assert layout(WIDTHS, LEAST, 60, ("cpu",), ("problems",)) == {**WIDTHS, "problems": 28}


def test_the_widest_column_gives_way_first() -> None:
    widths, least = {"name": 30, "remarks": 50}, {"name": 10, "remarks": 10}
    assert layout(widths, least, 62, (), ("remarks", "name")) == {"name": 30, "remarks": 30}
    assert layout(widths, least, 42, (), ("remarks", "name")) == {"name": 20, "remarks": 20}


def test_columns_are_hidden_where_shortening_is_not_enough() -> None:
    """The first of those that may be hidden goes first."""
    hidden = ("cpu", "state")
    assert layout(WIDTHS, LEAST, 40, hidden, ("problems",)) == {"name": 10, "state": 10, "problems": 16}
    assert layout(WIDTHS, LEAST, 26, hidden, ("problems",)) == {"name": 10, "problems": 14}


@pytest.mark.parametrize("room", range(1, 100))
def test_no_terminal_is_too_narrow(room: int) -> None:
    found = layout(WIDTHS, LEAST, room, ("cpu",), ("problems",))
    assert "name" in found and sum(found.values()) + 2 * (len(found) - 1) <= room


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("unknown key; did you mean threads?", 34, "unknown key; did you mean threads?"),
        ("unknown key; did you mean threads?", 33, "unknown key; did you mean…"),
        ("unknown key; did you mean threads?", 13, "unknown key;…"),
        ("unknown key; did you mean threads?", 12, "unknown…"),
        ("unknown key", 4, "unk…"),
        ("/etc/moya/sites-enabled/blog.ini", 24, "…/sites-enabled/blog.ini"),
        ("/etc/moya/sites-enabled/blog.ini", 23, "…/blog.ini"),
        ("/etc/moya/sites-enabled/blog.ini", 9, "blog.ini"),
        ("/etc/moya/sites-enabled/blog.ini", 6, "blog.…"),
        ("日本語のサイト", 9, "日本語の…"),
        ("日本語のサイト", 8, "日本語…"),
        ("a", 1, "a"),
        ("ab", 1, "…"),
    ],
)
def test_a_text_is_shortened_between_two_words(text: str, width: int, expected: str) -> None:
    assert shortened(text, width) == expected
    assert cell_len(expected) <= width


DOMAINS = ("a.example", "b.example", "c.example")


@pytest.mark.parametrize(
    ("width", "expected"),
    [(31, "a.example, b.example, c.example"), (30, "a.example, b.example +1"), (22, "a.example +2"), (8, "a.ex… +2")],
)
def test_a_number_stands_for_more_texts(width: int, expected: str) -> None:
    assert fitting(DOMAINS, width) == expected


def test_nothing_steers_the_terminal() -> None:
    assert printable("a\x1b[2J\x9b\r\n\u202eb\u2028\udc80") == "a\\x1b[2J\\x9b\\r\\n\\u202eb\\u2028\\udc80"


def test_a_file_gets_the_whole_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal nothing is shortened, coloured or hidden; numbers stand below each other."""
    monkeypatch.setenv("COLUMNS", "10")
    rows = [("blog", DOMAINS, "running", "7"), ("b\x1b[2J", (), "-", "12")]
    say_table(("name", "domains", "state", "n"), rows, numbers=("n",), drop=("n",), cut=("domains",))
    assert capsys.readouterr().out.splitlines() == [
        "name      domains                          state     n",
        "────────  ───────────────────────────────  ───────  ──",
        "blog      a.example, b.example, c.example  running   7",
        "b\\x1b[2J                                   -        12",
    ]


WAITS = """
import sys
from multisite.cli.output import say, waiting
with waiting("waiting for \\x1b[31mblog") as show:
    with waiting("within"):
        print("begun", flush=True)
        sys.stdin.readline()
    show("waiting for shop")
    sys.stdin.readline()
say("done")
"""


def typed(terminal: int, seen: bytes, word: bytes) -> bytes:
    """Return what a terminal shows until `word` is there."""
    while word not in seen:
        seen += os.read(terminal, 4096)
    return seen


def started(stderr: int | IO[bytes], env: dict[str, str]) -> subprocess.Popen[bytes]:
    environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | env
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", WAITS], stdin=pipe, stdout=pipe, stderr=stderr, env=environ)


def test_what_is_awaited_shows_on_a_terminal_and_goes_away() -> None:
    """A pipe gets nothing of it, and what it names cannot steer the terminal."""
    master, slave = pty.openpty()
    with started(slave, {"TERM": "xterm"}) as program:
        os.close(slave)
        assert program.stdin and program.stdout
        seen = typed(master, b"", b"blog")
        assert b"waiting for \\x1b[31mblog" in seen and b"within" not in seen
        program.stdin.write(b"\n")
        program.stdin.flush()
        seen = typed(master, seen, b"waiting for shop")
        program.stdin.write(b"\n")
        program.stdin.flush()
        assert program.stdout.read() == b"begun\ndone\n"
    try:
        while seen := os.read(master, 4096):
            last = seen
    except OSError:  # EIO: nobody has the terminal any more
        pass
    os.close(master)
    assert b"\x1b[?25h" in last  # the cursor is shown again


@pytest.mark.parametrize("kind", ["pipe", "dumb"])
def test_nothing_is_shown_where_no_line_can_go_away(kind: str) -> None:
    master, slave = pty.openpty()
    dumb = kind == "dumb"
    with started(slave if dumb else subprocess.PIPE, {"TERM": "dumb" if dumb else "xterm"}) as program:
        os.close(slave)
        assert program.stdin and program.stdout
        assert program.stdout.readline() == b"begun\n"
        with pytest.raises(subprocess.TimeoutExpired):  # longer than it would take to be shown
            program.wait(1.0)
        program.stdin.write(b"\n\n")
        program.stdin.flush()
        assert program.stdout.read() == b"done\n"
        if program.stderr:
            assert program.stderr.read() == b""
    if dumb:
        with pytest.raises(OSError, match="Input/output"):
            os.read(master, 1)
    os.close(master)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> TestHome:
    """A home of sites with long, wide, broken and hostile texts."""
    home = TestHome(tmp_path_factory.mktemp("tables"))
    home.hello("blog", domains="blog.test, www.blog.test, other.blog.test, fourth.blog.test")
    home.hello("long-" * 8 + "name", domains=f"{'long-' * 8}name.test")
    home.hello("wide", domains="日本語の長い長い長いドメイン名.test")
    home.ini("bad", thraeds="4", domains="bad.test", location=home.path)
    home.ini("lost", domains="lost.test", location="/no/such/日本語/directory/of/anybody", application="app:app")
    home.ini("日本語の長い長い長い長い長い長い名前のサイト", domains="site.test")
    home.ini("off", domains="off.test", enable=False)
    nodes = "127.0.0.1:9001|127.0.0.1:9002|unix:/run/nodes/of/a/customer/with/a/long/name/uwsgi.sock"
    (home.path / "map.txt").write_text(f"{'long-' * 8}key.test {nodes}\nb.test 127.0.0.1:9003\n")
    with (home.path / "moya.conf").open("a") as conf:
        conf.write("[router]\nmap = map.txt\n")
    return home


def on_terminal(home: TestHome, columns: int, *words: str, **environ: str) -> tuple[int, str]:
    """Run a command on a terminal of so many columns; returns its exit status and what it printed.

    It runs in a fork of this process: an interpreter of its own would import everything once more.
    """
    encoding = environ.get("PYTHONIOENCODING", "utf-8")
    pid, controller = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        for name in ("COLUMNS", "NO_COLOR"):
            os.environ.pop(name, None)
        os.environ.update({"TERM": "xterm-256color", **environ})
        sys.stdin = os.fdopen(0)  # as an interpreter has them
        sys.stdout = os.fdopen(1, "w", encoding=encoding)
        sys.stderr = os.fdopen(2, "w", encoding=encoding, errors="backslashreplace")
        try:
            main(["--home", str(home.path), *words], prog_name="multisite")
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
            status = 1
        finally:
            sys.stdout.flush()
            os._exit(status)
    text = b""
    while True:
        try:
            more = os.read(controller, 65536)
        except OSError:  # which Linux raises at its end
            break
        if not more:
            break
        text += more
    os.close(controller)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, text.decode(encoding).replace("\r\n", "\n")


OF_ALL = (("list",), ("status",), ("hosts",), ("stats",), ("router",))
TABLES = (*OF_ALL, ("show", "blog"), ("check", "--boot", "bad", "lost"))


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("words", TABLES, ids=" ".join)
def test_a_terminal_gets_one_line_for_each_row(home: TestHome, words: tuple[str, ...], columns: int) -> None:
    _, text = on_terminal(home, columns, *words)
    lines = COLOUR.sub("", text.rpartition("\x1b[2K")[2]).splitlines()
    rule = next(at for at, line in enumerate(lines) if set(line) == {"─", " "})
    assert all(
        cell_len(line) <= columns
        for line in lines[rule - 1 :]
        if not line.startswith(("error:", "warning:", "    ", str(home.path)))
    )
    rows = {"list": 7, "status": 6, "hosts": 9, "stats": 6, "router": 4, "check": 2}.get(words[0])
    end = next((at for at, line in enumerate(lines) if line.endswith("use --wide")), None)
    if rows and end:
        assert end - rule - 1 == rows
    if columns == 80 and words == ("list",):
        assert any(re.search(r"^blog +blog\.test.* \+[123] ", line) for line in lines)
        assert re.fullmatch(r"\d columns hidden \(runs, enabled.*\); use --wide", lines[end or 0])
    if columns == 200 and words == ("list",):
        assert "columns hidden" not in text and "fourth.blog.test" in text


@pytest.mark.parametrize("words", TABLES[:6], ids=" ".join)
def test_wide_shows_what_a_pipe_gets(home: TestHome, words: tuple[str, ...]) -> None:
    _, text = on_terminal(home, 60, *words, "--wide")
    argv = [sys.executable, "-m", "multisite", "--home", str(home.path), *words]
    piped = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, "COLUMNS": "20"})
    assert "\x1b" not in piped.stdout
    table = [line for line in piped.stdout.splitlines() if "  " in line and not line.startswith("    ")]
    shown = {line.rstrip() for line in COLOUR.sub("", text).splitlines()}
    assert table and set(table) <= shown


def test_colour_is_for_terminals_that_take_it(home: TestHome) -> None:
    assert "\x1b[31merror\x1b[0m: " in on_terminal(home, 80, "check")[1]
    assert "\x1b[31mmultisite\x1b[0m: " in on_terminal(home, 80, "explain", "nobody.test")[1]
    assert "\x1b[31mError\x1b[0m: no such option" in on_terminal(home, 80, "list", "--wde")[1]
    assert "\x1b[31mbroken" in on_terminal(home, 80, "list")[1]
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        for words in (("check",), ("explain", "nobody.test"), ("list",), ("status",), ("list", "--wde")):
            assert "\x1b[" not in on_terminal(home, 80, *words, **environ)[1]


def test_what_a_terminal_cannot_write_is_escaped(home: TestHome) -> None:
    """An old one knows Latin letters alone."""
    for words in (("list",), ("status",), ("check",), ("show", "lost")):
        status, text = on_terminal(home, 60, *words, PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
        assert status in (0, 1, 3) and "incident" not in text and text.isascii(), text


def test_a_long_list_of_a_document_has_a_line_for_each_element(capsys: pytest.CaptureFixture[str]) -> None:
    for count in (LONG, LONG + 1):
        document = {"one": {"two": [1, {"é": None}]}, "sites": [{"name": f"s{number}"} for number in range(count)]}
        say_json(document)
        text = capsys.readouterr().out
        assert json.loads(text) == document and text.isascii()
        assert (text.count("\n") < 2 * count) is (count > LONG)
