"""A configuration file and those it extends, read into one set of texts."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from multisite.config import ini
from multisite.config.checks import Fault, Texts
from multisite.config.textfile import Unusable, decode, read_bytes
from multisite.errors import Problem

LONGEST_CHAIN = 16  # files that extend one another
MOST_PROBLEMS = 50  # told for one file


@dataclass
class Chain:
    """A file and those it extends: the texts, and where each came from."""

    path: str
    environ: Mapping[str, str]
    commented: Container[str] | None = None  # sections in which a comment may end a line (`dialect.parse`)
    texts: Texts = field(default_factory=dict)
    origins: list[tuple[str, dict[tuple[str, str], int]]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    env_used: dict[str, str | None] = field(default_factory=dict)
    misread: bool = False  # not text at all, so further problems would only be noise

    @property
    def unusable(self) -> bool:
        """Tell whether the first file itself is no text."""
        return self.misread and len(self.sources) == 1

    def read(self) -> None:
        """Follow ``extends`` from the file itself; what a nearer file says wins."""
        path: str | None = self.path
        link = self.path
        while path is not None:
            real = _real(path)
            if real in self.sources or len(self.sources) == LONGEST_CHAIN:
                self._add(link, Fault("", "extends", "the files extend one another in a circle", "remove one extends"))
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
            text, undecodable = decode(read_bytes(path))
        except Unusable as error:
            self.misread = True
            if path == link:
                self.problems.append(Problem(path, error.reason, remedy=error.remedy))
            else:
                self._add(link, Fault("", "extends", f"{path} {error.reason}", error.remedy))
            return {}
        document = ini.parse(text, self.commented)
        self.origins.append((path, document.lines))
        if undecodable:
            self.misread = True
            self.problems.append(Problem(path, undecodable.reason, remedy=undecodable.remedy))
        else:
            self.problems += (
                Problem(path, fault.reason, fault.section, fault.key, remedy=fault.remedy, line=fault.line)
                for fault in document.faults
            )
        for section, keys in document.values.items():
            for key, value in keys.items():
                if "$" in value:
                    keys[key] = self.expanded(path, section, key, value)
        return document.values

    def expanded(self, path: str, section: str, key: str, value: str) -> str:
        """Replace the environment's names, and refuse what a terminal or a log could choke on."""
        expanded = ini.expand_environ(value, self.environ, self.env_used)
        if ini.has_control(expanded):
            reason = "the environment puts a control character into it"
            self.problems.append(Problem(path, reason, section, key, value, "correct the variable"))
            return ""
        return expanded

    def expand_names(self, sections: Iterable[str], names: Mapping[str, str]) -> None:
        """Replace ``%(name)s`` in some sections."""
        for keys in filter(None, map(self.texts.get, sections)):
            for key, value in keys.items():
                if "%(" in value:
                    keys[key] = ini.expand_names(value, names)

    def base(self, texts: Texts, real: str) -> str | None:
        """Take ``extends`` out of the texts; None: there is none."""
        top = texts.get("", {})
        base = top.pop("extends", "")
        if not top:
            texts.pop("", None)
        base = base or texts.get("service", {}).pop("extends", "")
        return os.path.join(os.path.dirname(real), base.strip("\"'")) if base else None

    def _add(self, path: str, fault: Fault, value: str = "", line: int = 0) -> None:
        section, key, reason, remedy, severity = fault
        self.problems.append(Problem(path, reason, section, key, value, remedy, severity, line))

    def report(self, faults: list[Fault]) -> tuple[Problem, ...]:
        """Give all problems, each with the file and line that holds it."""
        for fault in () if self.misread else faults:
            where = (fault.section, fault.key)
            path, line = next(((path, lines[where]) for path, lines in self.origins if where in lines), (self.path, 0))
            self._add(path, fault, self.texts.get(fault.section, {}).get(fault.key, ""), line)
        self.problems.sort(key=lambda problem: (problem.file != self.path, problem.line))
        more = len(self.problems) - MOST_PROBLEMS
        if more > 0:
            self.problems[MOST_PROBLEMS:] = [Problem(self.path, f"has {more} more problems")]
        return tuple(self.problems)


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return os.path.abspath(path.replace("\0", "?"))
