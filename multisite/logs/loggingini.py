"""Reads a logging.ini in either of two dialects into the same sections.

Moya's: ``[logger:NAME]``, ``[handler:NAME]``, ``[formatter:NAME]``, a leading ``extends = FILE``, and ``$NAME`` from
the environment. The standard library's `logging.config.fileConfig`: ``[loggers]``, ``[handlers]`` and ``[formatters]``
list the keys of ``[logger_KEY]`` and so on, and ``%(here)s`` in args is the file's directory.
Nothing is evaluated here; `multisite.logs.loggingplan` interprets the sections.
"""

from __future__ import annotations

import configparser
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from multisite.errors import Problem

KINDS = ("logger", "handler", "formatter")

#: a file larger than this many bytes is not a configuration
LARGEST_FILE = 1 << 20

#: what Python 3.13 raises where earlier ones stumbled over an AttributeError
_INDENTED: type[Exception] = getattr(configparser, "MultilineContinuationError", AttributeError)

#: Moya allows keys above the first section; here they get a section of this name
TOP = "(top)"


@dataclass(frozen=True)
class Section:
    """One section of a logging.ini: its place and its content."""

    file: str
    name: str
    values: dict[str, str]

    def problem(self, id: str, reason: str, key: str = "", remedy: str = "", severity: str = "error") -> Problem:
        """A problem of one key of this section, or of the section."""
        value = self.values.get(key, "")
        return Problem(id, self.file, reason, self.name, key, value, remedy, severity)


@dataclass
class Sections:
    """The sections of a logging.ini and those it extends, by kind and then by name."""

    file: str
    logger: dict[str, Section] = field(default_factory=dict)
    handler: dict[str, Section] = field(default_factory=dict)
    formatter: dict[str, Section] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def of(self, kind: str) -> dict[str, Section]:
        """The sections of one of `KINDS`."""
        found: dict[str, Section] = getattr(self, kind)
        return found

    def add(self, kind: str, name: str, section: Section) -> None:
        """Add a section; a value of an extending file beats that of the extended one."""
        below = self.of(kind).get(name)
        values = (below.values if below else {}) | section.values
        self.of(kind)[name] = Section(section.file, section.name, values)


def read(path: str, environ: Mapping[str, str] = os.environ) -> Sections:
    """Read a logging.ini and all files that it extends. Never raises: errors are in `problems` of the result."""
    sections = Sections(path)
    for file, parser in reversed(_chain(path, sections.problems)):
        if parser.has_section("loggers"):
            _take_library_dialect(file, parser, sections)
        else:
            _take_moya_dialect(file, parser, sections, environ)
    return sections


def _chain(path: str, problems: list[Problem]) -> list[tuple[str, configparser.ConfigParser]]:
    """The file and those it extends, the extending one first."""
    chain: list[tuple[str, configparser.ConfigParser]] = []
    seen: set[str] = set()
    while path:
        if os.path.abspath(path) in seen:
            remedy = "remove one extends from the circle"
            problems.append(Problem("MS832", chain[-1][0], "extends itself", "", "extends", path, remedy))
            break
        seen.add(os.path.abspath(path))
        try:
            parser = _parse(path)
        except (OSError, ValueError, AttributeError, configparser.Error) as fault:
            problems.append(_unreadable(path, fault))
            break
        chain.append((path, parser))
        extended = parser.get(TOP, "extends", raw=True, fallback="") or ""
        path = extended and os.path.normpath(os.path.join(os.path.dirname(path), extended))
    return chain


def _parse(path: str) -> configparser.ConfigParser:
    """Parse one file; raises OSError, ValueError (not UTF-8, no regular file, too large) or configparser.Error.

    Python before 3.13 raises AttributeError for an indented line below a key without a value.
    """
    here = os.path.dirname(os.path.abspath(path))
    defaults = {"here": here.replace("%", "%%"), "__file__": os.path.abspath(path).replace("%", "%%")}
    parser = configparser.ConfigParser(defaults, allow_no_value=True)
    parser.read_string(f"[{TOP}]\n{_text(path)}", path)
    return parser


def _text(path: str) -> str:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("is not a regular file")
    with open(path, "rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError("is larger than 1 MiB")
    return content.decode("utf-8-sig")


def _unreadable(path: str, fault: Exception) -> Problem:
    match fault:
        case OSError():
            return Problem(
                "MS831", path, f"cannot be read: {fault.strerror}", remedy="correct its name or its permissions"
            )
        case UnicodeDecodeError():
            return Problem("MS831", path, f"is not UTF-8 (byte {fault.start})", remedy="save it in UTF-8")
        # what Python 3.13 raises where earlier ones stumbled over an AttributeError
        case _ if isinstance(
            fault, (AttributeError, getattr(configparser, "MultilineContinuationError", AttributeError))
        ):
            reason = "has an indented line below a key without a value"
            return Problem("MS832", path, reason, remedy="write key = value, or remove the indentation")
        case configparser.ParsingError():
            line = next((number for number, _ in fault.errors), 1) - 1
            return Problem("MS832", path, "is neither a section nor key = value", remedy="correct the line", line=line)
        case configparser.DuplicateSectionError() | configparser.DuplicateOptionError():
            key = getattr(fault, "option", "")
            line = (fault.lineno or 1) - 1
            return Problem("MS832", path, "appears twice", fault.section, key, remedy="remove one", line=line)
        case _:
            return Problem("MS831", path, str(fault), remedy="write a logging configuration there")


def _take_moya_dialect(
    file: str, parser: configparser.ConfigParser, sections: Sections, environ: Mapping[str, str]
) -> None:
    for title in parser.sections():
        kind, _, name = title.partition(":")
        section = _section(file, parser, title)
        values = {key: _with_environment(value, environ) for key, value in section.values.items()}
        if kind in KINDS and name:
            sections.add(kind, name, Section(file, title, values))
        elif title != TOP:
            remedy = "sections are [logger:NAME], [handler:NAME] and [formatter:NAME]"
            sections.problems.append(
                section.problem("MS832", "is not a section of a logging configuration", remedy=remedy)
            )


def _take_library_dialect(file: str, parser: configparser.ConfigParser, sections: Sections) -> None:
    for kind in KINDS:
        names = parser.get(f"{kind}s", "keys", raw=True, fallback="") or ""
        for name in split_names(names):
            title = f"{kind}_{name}"
            if parser.has_section(title):
                sections.add(kind, name, _library_section(file, parser, title, sections.problems))
            else:
                remedy = f"add the section [{title}] or remove the name"
                problem = Problem("MS833", file, "has no section", f"{kind}s", "keys", name, remedy)
                sections.problems.append(problem)


def _library_section(file: str, parser: configparser.ConfigParser, title: str, problems: list[Problem]) -> Section:
    """A section of the standard library's dialect, where args alone are interpolated."""
    section = _section(file, parser, title)
    for key in {"args", "kwargs"} & section.values.keys():
        try:
            section.values[key] = parser.get(title, key)
        except configparser.InterpolationError:
            problems.append(section.problem("MS833", "has a %( that names nothing", key, "write %% for a percent sign"))
    return section


def _section(file: str, parser: configparser.ConfigParser, title: str) -> Section:
    own = parser.items(title, raw=True)
    defaults = parser.defaults()
    return Section(file, title, {key: value or "" for key, value in own if key not in defaults})


def _with_environment(value: str, environ: Mapping[str, str]) -> str:
    """Replace each ``$NAME`` that the environment has, as Moya does."""
    return re.sub(r"\$(\w+)", lambda match: environ.get(match[1], match[0]), value)


def split_names(text: str) -> tuple[str, ...]:
    """The names of a comma separated list."""
    return tuple(name for part in text.split(",") if (name := part.strip()))
