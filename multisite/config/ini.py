"""The INI dialect (ConfigObj's, made friendlier, and a superset of Moya's), and files that extend one another in it.

`parse` (pure) reads ``key = value`` lines as ConfigObj does without its lists and interpolation, and lets ConfigObj
read values in triple quotes. It adds: ``#`` and ``;`` at the start of a line and ``#`` after
white space are comments, lines indented deeper than their key continue its value, a
blank line ends it, and a bare word is a key with an empty value. A comma, a ``%`` or a
``#`` inside a value is itself. All other text is kept away from ConfigObj's regular
expressions, whose time is quadratic in runs of white space.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from multisite.config.checks import Fault, Texts
from multisite.config.safefiles import Unusable, decode, read_bytes
from multisite.errors import Problem

LONGEST_CHAIN = 16  # files that extend one another
MOST_PROBLEMS = 50  # told for one file
SECRETS = frozenset({("events", "url"), ("service", "status_token")})  # no message repeats their values
LONGEST_NAME = 200  # characters of a section's or key's name
MOST_FAULTS = 20  # told for one file
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_LINE_END = "\x1f"  # stands for a line end inside a quoted value; a control character, so no file can hold it
_QUOTES = ('"""', "'''")
_COMMENT = re.compile(
    r'''(?<![^\s,=])(?:"""(?:(?!""").)*""" | \'\'\'(?:(?!\'\'\').)*\'\'\' | (?:"[^"]*"|'[^']*')(?![^\s,]))
        | (\s\#)''',
    re.VERBOSE,
)
_ENVIRON = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_NAMED = re.compile(r"%\((\w+)\)s")


class BadLine(NamedTuple):
    """A line that cannot be understood."""

    line: int
    section: str
    key: str
    reason: str
    remedy: str


class Document(NamedTuple):
    """The content of a text: section → key → text; keys before any section are in section ""."""

    values: dict[str, dict[str, str]]
    lines: dict[tuple[str, str], int]
    faults: list[BadLine]


def parse(text: str, commented: Container[str] | None = None) -> Document:
    """Read INI text; an invalid line becomes a fault and is skipped.

    Args:
        text: of the whole file.
        commented: the sections in which ``#`` after white space begins a comment; None: in all. The others are a Moya
            project's, and for Moya only a whole line is a comment.
    """
    reader = _Reader(text.removeprefix("\ufeff").replace("\r\n", "\n"), commented)
    reader.run()
    values = {
        section: {key: "\n".join(lines).lstrip("\n") for key, lines in keys.items()}
        for section, keys in reader.values.items()
    }
    _unquote(values, reader)
    if not values[""]:
        del values[""]
    return Document(values, reader.lines, _limited(reader.faults))


def _unquote(values: dict[str, dict[str, str]], reader: _Reader) -> None:
    """Take values out of their triple quotes; text after the quotes is a fault."""
    quoted = [(values[section], section, key) for section in values for key in values[section]]
    quoted = [where for where in quoted if where[0][where[2]].startswith(_QUOTES)]
    if not quoted:
        return
    from configobj import ConfigObj, ConfigObjError  # takes 5 ms, and few files hold such a value

    lines = [f"{number}={keys[key]}".replace("\n", _LINE_END) for number, (keys, _, key) in enumerate(quoted)]
    try:
        config = ConfigObj(lines, _inspec=True, list_values=False, interpolation=False)
    except ConfigObjError as error:
        config = error.config
    for number, (keys, section, key) in enumerate(quoted):
        if str(number) in config:
            keys[key] = config[str(number)].replace(_LINE_END, "\n").lstrip("\n")
            continue
        del keys[key]
        line, reason = reader.lines[section, key], "has text after the closing quotes"
        reader.faults.append(BadLine(line, section, key, reason, "end the line after them"))


def _limited(faults: list[BadLine]) -> list[BadLine]:
    faults.sort(key=lambda fault: fault.line)
    more = len(faults) - MOST_FAULTS
    if more <= 0:
        return faults
    return [*faults[:MOST_FAULTS], BadLine(0, "", "", f"{more} more lines cannot be understood", "")]


class _Reader:
    """One pass over the physical lines."""

    def __init__(self, text: str, commented: Container[str] | None) -> None:
        self.commented = commented
        self.physical = text.split("\n")
        self.dirty = _CONTROL.search(text) is not None
        self.values: dict[str, dict[str, list[str]]] = {"": {}}  # section → key → the lines of its value
        self.lines: dict[tuple[str, str], int] = {}
        self.faults: list[BadLine] = []
        self.section = ""
        self.skipping = False  # within a section whose header is wrong
        self.indent: int | None = None  # of the key whose value may continue
        self.open: list[str] | None = None  # the lines of that value; None: continued lines belong to nothing
        self.number = 0  # of the line that is being read, from 1

    def run(self) -> None:
        while self.number < len(self.physical):
            raw = self.physical[self.number]
            self.number += 1
            line = raw.strip()
            if not line:
                self.indent = None
            elif line[0] not in "#;":
                self.read(raw, line)

    def read(self, raw: str, line: str) -> None:
        if self.dirty and (control := _CONTROL.search(raw)):
            self.fault("", f"the line holds the control character {control[0]!r}", "remove it")
            self.open = None
            return
        indent = _indent(raw) if raw[0] in " \t" else 0
        continues = self.indent is not None and indent > self.indent
        opens = not continues and _opens_block(line.partition("=")[2].lstrip())
        if "#" in line and not opens and self.may_comment(line):
            line = _cut_comment(line)
        if continues:
            if self.open is not None:
                self.open.append(line)
            return
        self.indent = indent
        self.open = None
        if line[0] == "[":
            self.header(line)
        elif not self.skipping:
            self.setting(line)

    def may_comment(self, line: str) -> bool:
        return self.commented is None or not self.section or self.section in self.commented or line[0] == "["

    def header(self, line: str) -> None:
        self.indent = None
        name = line[1:-1].strip()
        self.skipping = True
        if line[:2] == "[[":
            return self.fault("", f"the section {line[:80]} is nested", "sections have one pair of brackets")
        if line[-1] != "]":
            self.fault("", f"{line[:80]} is not a section", "write [name] alone on its line")
            name = line[1:].strip()  # its keys are read if it is one of ours: a broken site keeps its domains
            if not self.commented or name not in self.commented or name in self.values:
                return None
        elif not name or len(name) > LONGEST_NAME or any(char in name for char in "[]\"'"):
            return self.fault("", f"{line[:80]} is not a section", "write [name] alone on its line")
        if name in self.values:
            reason = f"the section appears twice, first in line {self.lines[name, '']}"
            return self.fault("", reason, "put all its keys under one header", name)
        self.skipping = False
        self.section = name
        self.lines[name, ""] = self.number
        self.values[name] = {}
        return None

    def setting(self, line: str) -> None:
        key, equals, value = line.partition("=")
        key = key.rstrip()
        if not equals and (":" in key or len(key.split()) > 1):
            return self.fault("", f"the line {line[:80]!r} is not KEY = VALUE", "put = between the key and its value")
        if len(key) > 1 and key[0] in "\"'" and key[-1] == key[0]:
            key = key[1:-1].strip()
        if not key or key[0] in "\"'[" or len(key) > LONGEST_NAME:
            return self.fault("", f"the line {line[:80]!r} has no key", "write KEY = VALUE")
        value = value.lstrip()
        lines, end = [value], self.number
        if _opens_block(value):
            end = next((n for n in range(end, len(self.physical)) if value[:3] in self.physical[n]), -1) + 1
            if not end:
                return self.fault(key, "opens a quote and does not close it", f"end the value with {value[:3]}")
            lines += (_CONTROL.sub("\ufffd", line) for line in self.physical[self.number : end])
        first = self.lines.setdefault((self.section, key), self.number)
        if self.values[self.section].setdefault(key, lines) is not lines:
            self.fault(key, f"is set twice, first in line {first}", "remove one of the two")
        if not value.startswith(_QUOTES):
            self.open = lines
        self.number = end
        return None

    def fault(self, key: str, reason: str, remedy: str, section: str | None = None) -> None:
        self.faults.append(BadLine(self.number, self.section if section is None else section, key, reason, remedy))


def _opens_block(value: str) -> bool:
    return value.startswith(_QUOTES) and value.find(value[:3], 3) < 0


def _indent(raw: str) -> int:
    wide = raw.expandtabs()
    return len(wide) - len(wide.lstrip())


def _cut_comment(line: str) -> str:
    for match in _COMMENT.finditer(line):
        if match[1]:
            return line[: match.start()].rstrip()
    return line


def expand_environ(value: str, environ: Mapping[str, str], used: dict[str, str | None]) -> str:
    """Replace ``$NAME`` by the variable's value, noting each look-up; an unset one stays (as in Moya)."""

    def replacement(match: re.Match[str]) -> str:
        found = used[match[1]] = environ.get(match[1])
        return match[0] if found is None else found

    return _ENVIRON.sub(replacement, value)


def expand_names(value: str, names: Mapping[str, str]) -> str:
    """Replace ``%(name)s`` by *names*; any other ``%`` stays."""
    return _NAMED.sub(lambda match: names.get(match[1], match[0]), value) if "%(" in value else value


def has_control(value: str) -> bool:
    """Tell whether a value holds a control character other than tab and line end."""
    return _CONTROL.search(value) is not None


@dataclass
class Chain:
    """A file and those it extends: the texts, and where each came from."""

    path: str
    environ: Mapping[str, str]
    commented: Container[str] | None = None  # sections in which a comment may end a line (`parse`)
    texts: Texts = field(default_factory=dict)
    origins: list[tuple[str, dict[tuple[str, str], int]]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    env_used: dict[str, str | None] = field(default_factory=dict)
    draft: str | None = None  # text that the first file is to have; None: what it has
    misread: bool = False  # not text at all, so further problems would only be noise

    @property
    def unusable(self) -> bool:
        """Tell whether the first file itself is no text."""
        return self.misread and len(self.sources) == 1

    def read(self) -> None:
        """Follow ``extends`` from the file itself; the value of the nearer file wins."""
        path: str | None = self.path
        link = self.path
        while path is not None:
            real = _real(path)
            if real in self.sources or len(self.sources) == LONGEST_CHAIN:
                reason = "the files extend one another in a circle"
                self._add(link, Fault("MS116", "", "extends", reason, "remove one extends"))
                return
            self.sources.append(real)
            texts = self.load(path, link)
            link, path = path, self.base(texts, real)
            for section, keys in texts.items():
                mine = self.texts.setdefault(section, keys)
                if mine is not keys:
                    self.texts[section] = {**keys, **mine}

    def load(self, path: str, link: str) -> Texts:
        """Read one file of the chain, noting its problems; `link` is the file that extends it, or itself."""
        try:
            is_draft = path == self.path and self.draft is not None
            text, undecodable = (self.draft or "", None) if is_draft else decode(read_bytes(path))
        except Unusable as error:
            self.misread = True
            if path == link:
                self.problems.append(Problem("MS111", path, error.reason, remedy=error.remedy))
            else:
                self._add(link, Fault("MS111", "", "extends", f"{path} {error.reason}", error.remedy))
            return {}
        document = parse(text, self.commented)
        self.origins.append((path, document.lines))
        if undecodable:
            self.misread = True
            self.problems.append(Problem("MS111", path, undecodable.reason, remedy=undecodable.remedy))
        else:
            self.problems += (
                Problem("MS112", path, fault.reason, fault.section, fault.key, remedy=fault.remedy, line=fault.line)
                for fault in document.faults
            )
        for section, keys in document.values.items():
            for key, value in keys.items():
                if "$" in value:
                    keys[key] = self.expanded(path, section, key, value)
        return document.values

    def expanded(self, path: str, section: str, key: str, value: str) -> str:
        """Replace the environment's names, and refuse characters that a terminal or a log cannot handle."""
        expanded = expand_environ(value, self.environ, self.env_used)
        if has_control(expanded):
            reason = "the environment puts a control character into it"
            self.problems.append(Problem("MS117", path, reason, section, key, value, "correct the variable"))
            return ""
        return expanded

    def expand_names(self, sections: Iterable[str], names: Mapping[str, str]) -> None:
        """Replace ``%(name)s`` in some sections."""
        for keys in filter(None, map(self.texts.get, sections)):
            for key, value in keys.items():
                if "%(" in value:
                    keys[key] = expand_names(value, names)

    def base(self, texts: Texts, real: str) -> str | None:
        """Take ``extends`` out of the texts; None: there is none."""
        top = texts.get("", {})
        base = top.pop("extends", "")
        if not top:
            texts.pop("", None)
        base = base or texts.get("service", {}).pop("extends", "")
        return os.path.join(os.path.dirname(real), base.strip("\"'")) if base else None

    def _add(self, path: str, fault: Fault, value: str = "", line: int = 0) -> None:
        id, section, key, reason, remedy, severity = fault
        self.problems.append(Problem(id, path, reason, section, key, value, remedy, severity, line))

    def place(self, section: str, key: str) -> tuple[str, int]:
        """Return the file of the chain that sets a key, and the line from 1; the first file and 0 where none does."""
        where = (section, key)
        return next(((path, lines[where]) for path, lines in self.origins if where in lines), (self.path, 0))

    def report(self, faults: list[Fault]) -> tuple[Problem, ...]:
        """Give all problems, each with the file and line that holds it."""
        for fault in () if self.misread else faults:
            path, line = self.place(fault.section, fault.key)
            value = self.texts.get(fault.section, {}).get(fault.key, "")
            self._add(path, fault, "" if (fault.section, fault.key) in SECRETS else value, line)
        self.problems.sort(key=lambda problem: (problem.file != self.path, problem.line))
        more = len(self.problems) - MOST_PROBLEMS
        if more > 0:
            self.problems[MOST_PROBLEMS:] = [Problem("MS118", self.path, f"has {more} more problems")]
        return tuple(self.problems)


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return os.path.abspath(path.replace("\0", "?"))
