"""The plan of a logging.ini, checked as a whole before anything is changed.

`make_plan` turns sections into a plan and finds all problems; `Plan.build` makes the handlers. The loggers are set by
`multisite.logs.servicelog`. `logging.config` is not used: it evaluates `args`, stops at the first fault, and shuts down
the handlers of everybody else in the process, the WSGI server's included.

In the arguments of a handler are understood: Python literals, `sys.stdout`, `sys.stderr`, and the constants of
`logging` and `logging.handlers` by the names that the standard library's own examples use
(``handlers.SysLogHandler.LOG_USER``).
"""

from __future__ import annotations

import ast
import difflib
import errno
import logging
import logging.handlers
import os
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multisite.errors import Problem
from multisite.logs.loggingini import Section, Sections, split_names
from multisite.logs.loghandlers import MOYA_CLASSES, NO_SITE

KEYS = {
    "logger": ("level", "handlers", "propagate", "qualname"),
    "handler": ("class", "args", "kwargs", "level", "formatter", "target"),
    "formatter": ("format", "datefmt", "style", "class"),
}
BOOLEANS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
LEVELS = "one of DEBUG, INFO, WARNING, ERROR, CRITICAL"


@dataclass(frozen=True)
class LoggerPlan:
    """The settings of one logger; None leaves that part unchanged."""

    name: str  # "" is the root logger
    level: int | None
    handlers: tuple[str, ...] | None
    propagate: bool


@dataclass(frozen=True)
class HandlerPlan:
    """How one handler is made."""

    section: Section
    factory: type[logging.Handler]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    level: int
    formatter: logging.Formatter | None
    target: str  # name of the handler that a MemoryHandler flushes to

    def build(self) -> logging.Handler:
        """Make the handler; raises what its class raises."""
        handler = self.factory(*self.args, **self.kwargs)
        handler.setLevel(self.level)
        handler.setFormatter(self.formatter)
        return handler


@dataclass(frozen=True)
class Plan:
    """A logging configuration without errors."""

    loggers: tuple[LoggerPlan, ...]
    handlers: Mapping[str, HandlerPlan]

    def build(self) -> tuple[dict[str, logging.Handler], list[Problem]]:
        """Make all handlers that a logger or a handler uses; a handler that fails is a problem."""
        built: dict[str, logging.Handler] = {"null": logging.NullHandler()}
        problems = []
        for name in self._used():
            try:
                built[name] = self.handlers[name].build()
            except Exception as fault:  # a class that the administrator named may raise anything
                problems.append(_cannot_be_made(self.handlers[name].section, fault))
        for name, handler in built.items():
            if isinstance(handler, logging.handlers.MemoryHandler):
                handler.setTarget(built.get(self.handlers[name].target))
        return built, problems

    def foreseen(self) -> list[Problem]:
        """Return those problems of `build` that show without making anything: files without a folder."""
        return [fault for name in self._used() if (fault := _without_folder(self.handlers[name]))]

    def _used(self) -> list[str]:
        # Moya's own logging.ini has a handler that nobody uses; making it could open a file nobody wants
        wanted = {name for logger in self.loggers for name in logger.handlers or ()}
        wanted |= {self.handlers[name].target for name in wanted & self.handlers.keys()}
        return [name for name in self.handlers if name in wanted]


def make_plan(sections: Sections) -> tuple[Plan | None, list[Problem]]:
    """The plan, or None if there is an error among the problems."""
    reader = _Reader(sections)
    handlers = {name: reader.handler(section) for name, section in sections.handler.items()}
    loggers = [reader.logger(name, section) for name, section in sections.logger.items()]
    if "root" not in sections.logger and not reader.problems:
        remedy = "add a section [logger:root] with handlers = and level ="
        reader.problems.append(Problem("MS833", sections.file, "has no root logger", remedy=remedy))
    if any(problem.severity == "error" for problem in reader.problems):
        return None, reader.problems
    return Plan(tuple(loggers), {name: handler for name, handler in handlers.items() if handler}), reader.problems


class _Reader:
    """Reads sections and collects problems; each method returns something usable in any case."""

    def __init__(self, sections: Sections) -> None:
        self.sections = sections
        self.problems = list(sections.problems)
        self.formatters = {name: self.formatter(section) for name, section in sections.formatter.items()}

    def formatter(self, section: Section) -> logging.Formatter | None:
        self.unknown_keys(section, "formatter")
        factory = self.resolve(section, logging.Formatter) if section.values.get("class") else logging.Formatter
        form, dates = section.values.get("format") or None, section.values.get("datefmt") or None
        style: Any = section.values.get("style") or "%"
        if factory is None:
            return None
        try:
            if factory is logging.Formatter:
                return logging.Formatter(form, dates, style, defaults=NO_SITE)
            made: logging.Formatter = factory(form, dates) if style == "%" else factory(form, dates, style)
            return made
        except Exception as fault:  # a class that the administrator named may raise anything
            self.add(section, f"is not a format: {fault}", "format", "write fields like %(asctime)s %(message)s")
            return None

    def handler(self, section: Section) -> HandlerPlan | None:
        self.unknown_keys(section, "handler")
        factory = self.resolve(section, logging.Handler)
        args = self.literal(section, "args", tuple, "write a tuple like ('/var/log/sites.log',)")
        kwargs = self.literal(section, "kwargs", dict, "write a dictionary like {'delay': True}")
        level = self.level(section)
        formatter = self.one_of(section, "formatter", self.formatters)
        target = self.one_of(section, "target", self.sections.handler)
        if factory is None:
            return None
        made = self.formatters.get(formatter)
        return HandlerPlan(section, factory, tuple(args), kwargs, level or logging.NOTSET, made, target)

    def logger(self, name: str, section: Section) -> LoggerPlan:
        self.unknown_keys(section, "logger")
        names: tuple[str, ...] | None = None
        if "handlers" in section.values:
            names = split_names(section.values["handlers"])
            for each in names:
                if each not in self.sections.handler and each != "null":
                    known = sorted({*self.sections.handler, "null"})
                    self.add(section, f"no handler is called {each!r}", "handlers", _say(each, known))
        qualified = "" if name == "root" else section.values.get("qualname") or name
        return LoggerPlan(qualified, self.level(section), names, self.boolean(section, "propagate"))

    def resolve(self, section: Section, base: type) -> Any:
        """The class that a section names, in the namespace of `logging` or by its dotted name; None with a problem."""
        name = section.values.get("class", "")
        if not name:
            self.add(section, "names no class", "class", "write class = StreamHandler, for example")
            return None
        try:
            found = MOYA_CLASSES.get(name) or _resolve(name)
        except Exception as fault:  # the import of a module that the administrator named may raise anything
            self.add(section, f"cannot be imported: {fault}", "class", "correct the name or install its package")
            return None
        if isinstance(found, type) and issubclass(found, base):
            return found
        self.add(section, f"is not a {base.__name__.lower()} class", "class", "name a class of logging or of a package")
        return None

    def literal(self, section: Section, key: str, kind: type, remedy: str) -> Any:
        text = section.values.get(key)
        if not text:
            return kind()
        try:
            value = evaluate(text)
        except ValueError as fault:
            self.add(section, str(fault), key, remedy)
            return kind()
        if isinstance(value, kind) or (kind is tuple and isinstance(value, list)):
            return value
        self.add(section, f"is not a {kind.__name__}", key, remedy)
        return kind()

    def level(self, section: Section) -> int | None:
        text = section.values.get("level", "").strip().upper()
        if not text:
            return None
        level = int(text) if text.isdecimal() else logging.getLevelName(text)
        if isinstance(level, int):
            return level
        self.add(section, "is not a level", "level", LEVELS)
        return None

    def boolean(self, section: Section, key: str) -> bool:
        text = section.values.get(key, "yes").strip().lower()
        if text not in BOOLEANS:
            self.add(section, "is neither yes nor no", key, "write yes or no")
        return BOOLEANS.get(text, True)

    def one_of(self, section: Section, key: str, known: Mapping[str, object]) -> str:
        name = section.values.get(key, "").strip()
        if name and name not in known:
            what = "handler" if key == "target" else key
            self.add(section, f"no {what} is called {name!r}", key, _say(name, sorted(known)))
        return name

    def unknown_keys(self, section: Section, kind: str) -> None:
        for key in section.values.keys() - set(KEYS[kind]):
            self.add(section, "is not a key of this section", key, _say(key, KEYS[kind]), "warning")

    def add(self, section: Section, reason: str, key: str, remedy: str, severity: str = "error") -> None:
        self.problems.append(section.problem("MS833", reason, key, remedy, severity))


def _resolve(name: str) -> Any:
    for namespace in (f"logging:{name}", f"logging.{name}"):
        try:
            return pkgutil.resolve_name(namespace)
        except (ImportError, AttributeError, ValueError):
            continue
    return pkgutil.resolve_name(name)


def _say(name: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else "there are " + ", ".join(known)


def _without_folder(handler: HandlerPlan) -> Problem | None:
    path = handler.kwargs.get("filename", handler.args[0] if handler.args else "")
    if not issubclass(handler.factory, logging.FileHandler) or not isinstance(path, str):
        return None
    folder = os.path.dirname(os.path.abspath(path))
    return (
        None
        if os.path.isdir(folder)
        else _cannot_be_made(handler.section, FileNotFoundError(errno.ENOENT, f"there is no folder {folder}"))
    )


def _cannot_be_made(section: Section, fault: Exception) -> Problem:
    reason = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
    remedy = "correct the arguments"
    if isinstance(fault, FileNotFoundError):
        remedy = "create the directory, or start what should listen there"
    elif isinstance(fault, PermissionError):
        remedy = "give the service's user the right to write there"
    return section.problem(
        "MS834", f"cannot be opened: {reason}", "args" if section.values.get("args") else "class", remedy
    )


def evaluate(text: str) -> Any:
    """The value of an expression.

    Raises:
        ValueError: it is no expression or has a part that is not understood; the text says which.
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as fault:
        raise ValueError(f"is not a Python value: {fault.msg}") from fault
    except (RecursionError, MemoryError) as fault:
        raise ValueError("is nested too deeply") from fault


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Tuple(elts=parts):
            return tuple(map(_value, parts))
        case ast.List(elts=parts):
            return list(map(_value, parts))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as fault:
        raise ValueError(f"has {ast.unparse(node)}, which is not a plain value") from fault


def _named(name: str) -> Any:
    if name in ("sys.stdout", "sys.stderr"):
        return getattr(sys, name.removeprefix("sys."))
    found: Any = logging
    for part in name.removeprefix("logging.").split("."):
        # only through logging's own modules and classes: it imports os and sys too
        inside = found in (logging, logging.handlers) or isinstance(found, type)
        found = vars(found).get(part) if inside else None
    if not isinstance(found, int | str):
        raise ValueError(f"has {name}, which is not a name that may stand here")
    return found
