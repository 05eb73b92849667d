"""What the ids of warnings and errors mean, for ``multisite explain MS114`` and the documentation.

The ids are written where the messages are: ``_log.error("MS479 …")``, ``Problem("MS114", …)``, ``id = "MS310"`` in an
error. Their texts are in messages.ini beside this file, which no worker reads.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = Path(__file__).with_name("messages.ini")
ID = re.compile(r"MS\d{3}")
#: the first digit of an id, and what its messages are about
ABOUT = {
    "1": "Configuration",
    "2": "Sites",
    "3": "Requests",
    "4": "Relaying",
    "5": "Supervisor",
    "6": "Processes of sites",
    "7": "Router and cluster",
    "8": "Status, checks and logs",
    "9": "Commands",
}
_NOTICE = """\
Each warning and each error has an id: in the log, in the output of ``multisite check``, and in that of other commands.
An id keeps its meaning in later versions, so you can search for it, and a program can react to it.
``multisite explain MS114`` prints the same as this page. Visitors never see an id: their pages show the incident."""


@dataclass(frozen=True)
class Message:
    """What one id means: a title, and sentences about the cause, the outcome and what to do."""

    id: str
    title: str
    cause: str
    outcome: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        """Return all parts for ``--json``."""
        return asdict(self)


def messages() -> dict[str, Message]:
    """Read all messages, in the order of their ids."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.read_string(FILE.read_text(encoding="utf-8"))
    return {id: Message(id, **parser[id]) for id in parser.sections()}


def reference_rst() -> str:
    """Return the reference page of all messages as reStructuredText."""
    lines = [".. This page is made from messages.ini.", "", *_title("Messages", "="), _NOTICE, ""]
    digit = ""
    for id, message in messages().items():
        if id[2] != digit:
            digit = id[2]
            lines += _title(ABOUT[digit], "-")
        lines += [f".. _{id}:", "", *_title(f"{id}: {_marked(message.title)}", "~")]
        parts = {"Cause": message.cause, "Outcome": message.outcome, "What to do": message.remedy}
        for name, text in parts.items():
            lines += [name, f"   {_marked(text)}", ""]
    return "\n".join(lines)


def _title(text: str, underline: str) -> list[str]:
    return [text, underline * len(text), ""]


def _marked(text: str) -> str:
    """Return a text with its literals as in reStructuredText."""
    return text.replace("`", "``")
