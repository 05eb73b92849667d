"""`multisite run` and `shell`: as a process of the site runs, which is what the supervisor makes."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.harness import SERVER, SupervisedHome, supervised, wait_until

WITHIN = 60.0  # seconds
PYTHON = "/usr/bin/python3"
PROBE = """
import json, os, resource, sys
found = {
    "user": [os.getuid(), os.getgid(), sorted(os.getgroups())], "cwd": os.getcwd(), "umask": os.umask(0o77),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "nice": os.nice(0), "env": dict(os.environ), "python": sys.executable,
    "privileges": [line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")],
}
json.dump(found, open(sys.argv[1], "w"))
"""
#: what tells a server where it listens, and a terminal's user what that can do
OF_A_SERVER = ("LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "MULTISITE_BACKEND", "TERM", "COLORTERM")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")


@pytest.fixture(scope="module")
def home() -> Iterator[SupervisedHome]:
    """A site with a virtualenv and everything else that a process can be given, where every user can reach it."""
    path = Path(tempfile.mkdtemp(prefix="multisite-enter-"))
    path.chmod(0o755)
    with supervised(path) as home:
        more = "[env]\nGREETING = hello world\n"
        keys = {
            "umask": "027",
            "nofile": "123",
            "nice": "3",
            "python": ".venv",
            "command": ".venv/bin/python srv.py site.json",
        }
        if os.geteuid() == 0:
            keys |= {"user": "www-data", "group": "daemon"}
        location = home.site("blog", PROBE + SERVER, more, **keys)
        (location / ".venv" / "bin").mkdir(parents=True)
        (location / ".venv" / "bin" / "python").symlink_to(PYTHON)
        (location / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
        (location / "probe.py").write_text(PROBE)
        if os.geteuid() == 0:
            os.chown(location, 33, 33)
        yield home
    shutil.rmtree(path)


def words(home: SupervisedHome, *more: str) -> list[str]:
    return [sys.executable, "-m", "multisite", "--home", str(home.path), *more]


def run(home: SupervisedHome, *more: str, **named: Any) -> subprocess.CompletedProcess[str]:
    command = words(home, "run", "blog", "--", *more)
    named = {"stdin": subprocess.DEVNULL, **named}
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False, **named)


def test_it_has_what_a_process_of_the_site_has(home: SupervisedHome) -> None:
    location = home.path / "sites" / "blog"
    home.get("blog")
    done = run(home, "python", "probe.py", "run.json", env={**os.environ, "PRIVATE_OF_ROOT": "x", "GREETING": "no"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    ours, theirs = (json.loads((location / name).read_text()) for name in ("run.json", "site.json"))
    for told in (ours, theirs):
        for name in OF_A_SERVER:
            told["env"].pop(name, None)
    assert ours == theirs
    assert ours["env"]["PATH"].startswith(f"{location}/.venv/bin:")
    assert (ours["cwd"], ours["umask"], ours["nofile"]) == (str(location), 0o27, [123, 123])
    if os.geteuid() == 0:
        assert ours["user"][:2] == [33, 1]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (["sh", "-c", "exit 7"], {7}),
        (["true", "--json", "--home"], {0}),
        (["sh", "-c", "kill -TERM $$"], {143, -15}),
        (["no-such-command"], {127}),
        (["/"], {126}),
    ],
    ids=str,
)
def test_the_exit_status_is_that_of_the_command(home: SupervisedHome, more: list[str], status: set[int]) -> None:
    done = run(home, *more)
    assert done.returncode in status
    assert done.stderr.count("\n") == (1 if status & {126, 127} else 0)


def test_options_of_a_command_without_the_separator_say_where_that_belongs(home: SupervisedHome) -> None:
    done = subprocess.run(words(home, "run", "blog", "ls", "-l", "a b"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such option: -l; put -- before the command: " in done.stderr
    assert "run blog -- ls -l 'a b'" in done.stderr


def test_input_and_both_outputs_are_those_of_the_command(home: SupervisedHome) -> None:
    done = run(home, "sh", "-c", "cat; echo error >&2", stdin=None, input="line\n")
    assert (done.stdout, done.stderr) == ("line\n", "error\n")


def test_a_signal_that_ends_a_command_reaches_it(home: SupervisedHome) -> None:
    location = home.path / "sites" / "blog"
    script = "trap 'exit 9' TERM; touch ready; while :; do sleep 0.05; done"
    with subprocess.Popen(words(home, "run", "blog", "--", "sh", "-c", script), stdin=subprocess.DEVNULL) as process:
        wait_until((location / "ready").exists, WITHIN)
        process.terminate()
        assert process.wait(WITHIN) == 9


class Terminal:
    """A terminal at which somebody types a command."""

    def __init__(self, command: list[str], **named: Any) -> None:
        self.master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        take = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        started = [sys.executable, "-c", take, *command]
        streams = {"stdin": slave, "stdout": slave, "stderr": slave, **named}
        self.process = subprocess.Popen(started, start_new_session=True, **streams)
        os.close(slave)

    def end(self) -> tuple[int, str]:
        """Read until it has ended; returns the exit status and all that was shown."""
        shown = b""
        while True:
            try:
                more = os.read(self.master, 65536)
            except OSError:  # EIO: nobody has the terminal any more
                break
            shown += more
        status = self.process.wait(WITHIN)
        os.close(self.master)
        return status, shown.decode()


def test_a_shell_answers_and_its_exit_status_is_ours(home: SupervisedHome) -> None:
    terminal = Terminal(words(home, "shell", "blog"))
    os.write(terminal.master, b"echo $((40 + 2)) $GREETING\npwd\nexit 5\n")
    status, shown = terminal.end()
    assert status == 5
    assert "42 hello world" in shown and str(home.path / "sites" / "blog") in shown


@as_root
def test_another_user_has_another_terminal(home: SupervisedHome) -> None:
    """So that it cannot type into root's shell; it is theirs, and a pipe stays a pipe."""
    terminal = Terminal(words(home, "run", "blog", "--", "sh", "-c", "tty; stat -Lc %U /dev/stdin"))
    status, shown = terminal.end()
    name, owner = shown.split()
    assert (status, owner) == (0, "www-data")
    assert name.startswith("/dev/pts/") and name != terminal.name
    read, write = os.pipe()
    terminal = Terminal(words(home, "run", "blog", "--", "sh", "-c", "echo one; echo two"), stdout=write)
    os.close(write)
    with open(read, "rb") as piped:
        assert piped.read() == b"one\ntwo\n"
    assert terminal.end()[0] == 0


@as_root
def test_nothing_that_roots_shell_has_open_is_given_away(home: SupervisedHome) -> None:
    read, write = os.pipe()
    done = run(home, "sh", "-c", "ls /proc/self/fd", pass_fds=(read, write))
    assert not {str(read), str(write)} & (set(done.stdout.split()) - {"3"})
    os.close(read)
    os.close(write)


def test_what_cannot_be_run_says_why(home: SupervisedHome) -> None:
    home.site("gone", location="/no/such/folder")
    command = words(home, "run", "gone", "true")
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 1
    assert "there is no such directory" in done.stderr
    (home.path / "sites-enabled" / "gone.ini").unlink()
    command = words(home, "run", "blgo", "true")
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert "did you mean blog?" in done.stderr


def test_the_supervisor_does_not_take_it_for_a_leftover(home: SupervisedHome) -> None:
    done = run(home, "sh", "-c", 'echo "${MULTISITE_BACKEND-none}"')
    assert done.stdout == "none\n"
