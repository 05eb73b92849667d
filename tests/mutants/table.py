"""The bugs that are planted, out of the text files beside this one.

Each is a paragraph of a few lines, the mark of a line being its first character:

    = kind: what goes wrong
    @ the file, below multisite/
    - a line of it as it stands there, indentation included; several lines for several
    + what stands there instead; nothing of the kind where the lines are left out
    ? a test that must notice, as pytest names it below tests/; several for several
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: what a bug does, roughly
KINDS = {
    "loss": "a request, or a part of an answer, is lost or spoilt",
    "leak": "something is held that nobody needs any more",
    "security": "somebody sees or does what is not his",
    "bound": "a limit, a share or a time does not hold, or holds by one more or less",
    "order": "something comes too early, too late, or in a place of another",
    "choice": "another site, process or way is taken than should be",
    "told": "who should be told is not, or is told something else",
}


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    group: str  # the name of its text file
    kind: str
    what: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}: {self.what}"

    def planted(self, source: str) -> str:
        """The source with the bug in it.

        Raises:
            ValueError: its text does not stand there exactly once.
        """
        found = f"\n{source}".count(f"\n{self.text}\n")
        if found != 1:
            raise ValueError(f"{self}: the text stands there {found} times")
        return f"\n{source}".replace(f"\n{self.text}\n", f"\n{self.replacement}\n" if self.replacement else "\n")[1:]


def mutants() -> list[Mutant]:
    """All that there are."""
    return [read(path.stem, part) for path in sorted(HERE.glob("*.txt")) for part in paragraphs(path)]


def paragraphs(path: Path) -> list[str]:
    return [part for part in path.read_text().split("\n\n") if part.strip()]


def read(group: str, paragraph: str) -> Mutant:
    """One paragraph."""
    lines: dict[str, list[str]] = {mark: [] for mark in "=@-+?"}
    for line in paragraph.strip("\n").split("\n"):
        lines[line[0]].append(line[2:])
    kind, _, what = lines["="][0].partition(": ")
    (file,) = lines["@"]
    return Mutant(group, kind, what, file, "\n".join(lines["-"]), "\n".join(lines["+"]), tuple(lines["?"]))
