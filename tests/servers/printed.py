"""The command lines that README.md and the pages of docs/ print, and a small machine on which they run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .harness import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(?P<marks>(?:^ *<!--[^\n]*-->\n)*)^(?P<indent> *)```(?P<language>console|sh|shell|bash)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(
    r"^```\{code-block\} \w+\n:caption: (?P<path>/\S+|publisher\.conf)[^\n]*\n\n(?P<text>.*?)^```$", re.M | re.S
)
_MARK = re.compile(r"<!-- not run(?: \((?P<program>[^)]*)\))?: (?P<reason>.*?) -->")
_FAILS = re.compile(
    r"^(multisite: |no project)|: error: |, [1-9]\d* failed$|nothing was changed|failed to start|test start failed",
    re.MULTILINE,
)
#: Commands that serve until they are stopped: the next line is run when they listen.
_SERVES = re.compile(
    r"(?:\w+=\S+ )*(?:\S*/)?(?:multisite (?:--home \S+ )?(?:serve|supervise)\b|"
    r"gunicorn |uwsgi |waitress-serve|granian )"
)
#: Commands that print until they are stopped.
_FOLLOWS = re.compile(r"multisite logs -f|multisite top")
#: The inodes of listening sockets, those that were not there `before`, and the end of all processes of the page.
FUNCTIONS = (
    """sockets() { {
    awk '$4 == "0A" {print $10}' /proc/net/tcp /proc/net/tcp6
    awk '$4 == "00010000" {print $7}' /proc/net/unix
} | sort; }""",
    """new_socket() { [ -n "$(comm -13 <(echo "$before") <(sockets))" ]; }""",
    """at() { grep -q ":$(printf %04X $1) [0-9A-F:]* 0A " /proc/net/tcp; }""",
    """stop() { kill -- -1; wait; while [ -n "$(sockets)" ]; do sleep 0.05; done; }""",
)


@dataclass(frozen=True)
class Printed:
    """One command of a page, with the output below it, and why it is not run here, if it is not."""

    page: str
    section: str
    line: int
    text: str
    output: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def may_fail(self) -> bool:
        """The page shows an error below the command."""
        return bool(_FAILS.search(self.output))

    @property
    def header(self) -> list[str]:
        """The columns of the table that the page shows below the command."""
        lines = self.output.splitlines()
        at = next((at for at, line in enumerate(lines) if line and set(line) == {"─", " "}), 0)
        return re.split(r"  +", lines[at - 1].strip()) if at else []


def commands(page: Path) -> list[Printed]:
    """Return all commands of a page in their order."""
    text = page.read_text()
    found = []
    name = str(page.relative_to(REPOSITORY))
    for block in _BLOCK.finditer(text):
        section = (["", *re.findall(r"^## (.*)$", text[: block.start()], re.MULTILINE)])[-1]
        marks = [(mark["program"] or "", mark["reason"]) for mark in _MARK.finditer(block["marks"])]
        line = text.count("\n", 0, block.start("text")) + 1
        for at, command, output in _lines(block["text"], block["language"] == "console"):
            reasons = [reason for program, reason in marks if command.startswith(program)]
            found.append(Printed(name, section, line + at, command, output, reasons[0] if reasons else ""))
    return found


def files(page: Path) -> dict[str, str]:
    """Return the files that a page shows, by their paths; of several texts of one the first."""
    return {block["path"]: block["text"] for block in reversed(list(_FILE.finditer(page.read_text())))}


def _lines(text: str, console: bool) -> list[tuple[int, str, str]]:
    """Return where each command of a block starts, the command with its continuation lines, and the output below."""
    found: list[tuple[int, str, str]] = []
    continued = False
    for at, line in enumerate(textwrap.dedent(text).splitlines()):
        if continued:
            begun, command, output = found.pop()
            found.append((begun, f"{command}\n{line}", output))
        elif line[:2] in ("$ ", "# ") and console:
            found.append((at, line[2:], ""))
        elif not console and line.strip() and not line.startswith("#"):
            found.append((at, line, ""))
        elif console and found:
            begun, command, output = found.pop()
            found.append((begun, command, f"{output}{line}\n"))
        continued = bool(found) and line.endswith("\\") and not found[-1][2]
    return found


class Machine:
    """A machine of its own for each page: network, processes and file system, of which nothing is left.

    What stands in `files` lies over the directories of this machine, and the root of the checkout can be written.
    Addresses, ports and paths are free there, so commands run as they are printed.
    """

    ENTER = (
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    )
    OVERLAID = ("etc", "home", "opt", "srv", "var")

    def __init__(self, files: Path) -> None:
        self.files = files

    @classmethod
    def cannot(cls, scratch: Path) -> str:
        """Tell why there can be no such machine here, or return an empty text."""
        if os.geteuid() != 0:
            return "the printed commands need root"
        (scratch / "empty").mkdir(exist_ok=True)
        overlay = f"mount -t tmpfs tmpfs {scratch} && mkdir {scratch}/u {scratch}/w && {_overlay('/srv', '', scratch)}"
        done = subprocess.run([*cls.ENTER, "sh", "-c", overlay], capture_output=True, text=True, check=False)
        return f"no namespaces or no overlayfs here: {done.stderr.strip()}" if done.returncode else ""

    def run(self, scratch: Path, page: list[Printed], before: Mapping[str, str]) -> list[tuple[int | None, str]]:
        """Run the commands of a page; return the exit status and the output of each.

        The status is None for what was not run, or was still serving when the page ended.

        Args:
            before: shell lines to run before the first command that begins with the key.
        """
        results = scratch / "results"
        results.mkdir()
        script = scratch / "script"
        script.write_text(self._script(scratch, page, before, results))
        environ = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/home/ada",
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            ["timeout", "--kill-after=5", "900", *self.ENTER, "bash", "--noprofile", "--norc", str(script)],
            env=environ,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return [self._result(results, at) for at in range(len(page))]

    @staticmethod
    def _result(results: Path, at: int) -> tuple[int | None, str]:
        status, output = results / f"{at}.status", results / f"{at}.out"
        code = int(status.read_text()) if status.exists() else None
        return code, output.read_text(errors="replace") if output.exists() else ""

    def _script(self, scratch: Path, page: list[Printed], before: Mapping[str, str], results: Path) -> str:
        lines = [
            "set -e",
            f"mkdir -p {scratch}/layers && mount -t tmpfs tmpfs {scratch}/layers",
            "ip link set lo up",
            "mount -t tmpfs -o mode=755 tmpfs /run",
            *(_overlay(f"/{name}", f"{self.files / name}:", scratch / "layers") for name in self.OVERLAID),
            _overlay(str(REPOSITORY), "", scratch / "layers"),
            f"cd {shlex.quote(str(REPOSITORY))}",
            *FUNCTIONS,
            *(_written(path, text) for path, text in files(REPOSITORY / page[0].page).items()),
            "set +e",
        ]
        waiting = dict(before)
        for at, command in enumerate(page):
            for beginning in [one for one in waiting if command.text.startswith(one) and not command.reason]:
                lines.append(f"{{ {waiting.pop(beginning)}\n}} >> {results}/before 2>&1 < /dev/null")
            if not command.reason:
                lines += self._step(command.text, f"{results}/{at}")
        return "\n".join([*lines, "exit 0\n"])

    @staticmethod
    def _step(text: str, result: str) -> list[str]:
        plain = f"{{ {text}\n}} > {result}.out 2>&1 < /dev/null; echo $? > {result}.status"
        if text.startswith("make run"):
            ready = "at 8000"  # Redis listens first
        elif _SERVES.match(text):
            ready = "new_socket"
        elif _FOLLOWS.match(text):
            ready = f"[ -s {result}.out ]"
        else:
            return [plain]
        return [
            "before=$(sockets)",
            f"( {plain} ) & ",
            f"until {ready} || [ -e {result}.status ]; do sleep 0.05; done",
        ]


def _overlay(folder: str, over: str, layers: Path) -> str:
    """Write the command that makes a folder writable for this machine alone, with `over` on top of it."""
    name = layers / folder.strip("/").replace("/", "-")
    return (
        f"mkdir -p {name}-new {name}-work && "
        f"mount -t overlay -o lowerdir={over}{folder},upperdir={name}-new,workdir={name}-work overlay {folder}"
    )


def _written(path: str, text: str) -> str:
    return f"mkdir -p $(dirname {path}); cat > {path} <<'END'\n{text}END"
