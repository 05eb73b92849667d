"""``multisite show``: the effective options of a site, and where each value comes from."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from multisite.cli import complete
from multisite.cli.output import say_json, say_problems, say_table, wide_option
from multisite.cli.session import Named, Session, pass_session

if TYPE_CHECKING:
    from multisite.cli.output import Cell
    from multisite.config.option import Option

EPILOG = """\b
Examples:
  multisite show blog
  multisite show blog --json
"""
HEADER = ("key", "value", "from")
LISTS = ("domains", "upstreams")  # a narrow terminal shows their first items
MASK = "****"
_SECRET = r"pass|pwd|secret|token|key|credential|auth|salt|cookie|private|dsn"
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
_USER_INFO = re.compile(r"(//[^/\s:@]*):[^/\s@]*@")  # of a URL: RFC 3986, 3.2.1
_ASSIGNED = re.compile(rf"([\w-]*(?:{_SECRET})[\w-]*=)[^\s&;'\"]+", re.IGNORECASE)
_FLAG = re.compile(rf"--?[\w-]*(?:{_SECRET})[\w-]*", re.IGNORECASE)
_OPAQUE = re.compile(
    r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9+=_-][A-Za-z0-9+/=_-]{19,}|eyJ[\w-]+\..*|.*PRIVATE KEY.*", re.DOTALL
)


@dataclass(frozen=True)
class Setting:
    """One effective value.

    Attributes:
        value: as written in a file.
        origin: "file" for the site's own file or one that it extends, "moya.conf", "found" or "default".
        file: the file that sets it, "" for none.
        line: line in that file, from 1; 0 for none.
        of: the section of moya.conf that sets it.
        masked: whether part of the value is hidden.
    """

    section: str
    key: str
    value: str
    origin: str = "default"
    file: str = ""
    line: int = 0
    of: str = ""
    masked: bool = False


@click.command(epilog=EPILOG, short_help="Show the effective values of a site and where they come from.")
@wide_option
@click.argument("name", metavar="SITE", shell_complete=complete.known)
@pass_session
def show(session: Session, name: str, wide: bool) -> None:
    """Show the effective value of each option of SITE, enabled or not, and the file and line that set it.

    Passwords, keys and other secrets in [env], in URLs and in command lines are masked.
    """
    named = session.any_site(name)
    found = list(settings(session, named))
    if session.as_json:
        return say_json({"name": named.site.name, "file": named.site.file, "settings": [asdict(one) for one in found]})
    say_table(HEADER, (_cells(session, one) for one in found), drop=("from",), cut=("value", "from", "key"), wide=wide)
    say_problems(named.file.problems)


def settings(session: Session, named: Named) -> Iterator[Setting]:
    """Yield the effective values of a site in the order of the reference, then those of its Moya project."""
    from multisite.config.options import OPTIONS, SITE_FILE

    origins = _Origins(session, named)
    site, home = named.site, session.home
    for option in OPTIONS:
        if option.file != SITE_FILE:
            continue
        value = getattr(site, option.attribute)
        if not option.any_key:
            yield _masked(origins.of(option, option.key, written(option, value)))
            continue
        for key, one in {**(home.env if option.section == "env" else {}), **value}.items():
            yield _masked(origins.of(option, key, written(option, one)))
    for section, keys in site.overlay.items():
        for key, text in keys.items():
            yield _masked(origins.in_file(section, key, text))


class _Origins:
    """Finds the places that set the values of a site."""

    def __init__(self, session: Session, named: Named) -> None:
        from multisite.config.ini import Chain
        from multisite.config.options import KNOWN, SITE_FILE

        self._named, self._home = named, session.home
        self._file = Chain(named.file.path, session.home.environ, KNOWN[SITE_FILE])
        self._moya = Chain(session.home.file, session.home.environ)
        self._file.read()
        self._moya.read()

    def of(self, option: Option, key: str, text: str) -> Setting:
        """Return the setting of an option, or of one key of a section that takes any key."""
        from multisite.config.options import INHERITED

        if key in self._named.file.values.get(option.section, {}):
            return self.in_file(option.section, key, text)
        if option.section == "service" and key in self._home.defaults:
            return self._in_moya(option.section, key, text, "defaults")
        if option.section == "env":
            return self._in_moya(option.section, key, text, "env")
        if key in INHERITED and self._moya.texts.get("supervisor", {}).get(key):
            return self._in_moya(option.section, key, text, "supervisor")
        return Setting(option.section, key, text)

    def in_file(self, section: str, key: str, text: str) -> Setting:
        """Return a setting of the site's file; one without a line was found in the site's folder."""
        file, line = self._file.place(section, key)
        if not line:
            return Setting(section, key, text, "found")
        return Setting(section, key, text, "file", file, line)

    def _in_moya(self, section: str, key: str, text: str, of: str) -> Setting:
        return Setting(section, key, text, "moya.conf", *self._moya.place(of, key), of)


def written(option: Option, value: Any) -> str:
    """Return a value as written in a file; durations are seconds, sizes bytes."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if option.kind == "duration":
        return f"{value:g}s"
    if option.kind == "octal":
        return f"{value:04o}"
    if option.kind == "argv":
        return shlex.join(value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _masked(setting: Setting) -> Setting:
    hidden = mask(setting.section, setting.key, setting.value)
    return setting if hidden == setting.value else replace(setting, value=hidden, masked=True)


def mask(section: str, key: str, value: str) -> str:
    """Hide passwords in URLs and assignments, and, in sections that take any key, other values that may be secret."""
    any_key = section not in ("service", "static", "access", "logging")
    if any_key and value and (_SECRET_NAME.search(key) or _OPAQUE.fullmatch(value)):
        return MASK
    if key == "command":
        return _without_arguments(value)
    return _ASSIGNED.sub(rf"\1{MASK}", _USER_INFO.sub(rf"\1:{MASK}@", value))


def _without_arguments(command: str) -> str:
    """Hide the values of options of a command line whose names suggest a secret."""
    words, is_secret = [], False
    for word in shlex.split(command):
        flag, equals, _value = word.partition("=")
        named = bool(_FLAG.fullmatch(flag))
        whole = f"{flag}={MASK}" if named and equals else _ASSIGNED.sub(rf"\1{MASK}", word)
        words.append(MASK if is_secret else _USER_INFO.sub(rf"\1:{MASK}@", whole))
        is_secret = named and not equals
    return shlex.join(words).replace(shlex.quote(MASK), MASK)


def _cells(session: Session, setting: Setting) -> tuple[Cell, ...]:
    key = setting.key if setting.section == "service" else f"[{setting.section}] {setting.key}"
    listed = tuple(setting.value.split(", ")) if setting.value and setting.key in LISTS else setting.value
    return key, listed or "-", _origin(session, setting)


def _origin(session: Session, setting: Setting) -> str:
    from multisite.config.options import KNOWN, SITE_FILE

    if setting.file:
        inside = os.path.relpath(setting.file, session.home.path)
        file = setting.file if inside.startswith("..") else inside
        return f"{file}:{setting.line}" + (f" [{setting.of}]" if setting.of else "")
    if setting.origin == "found":
        return "found in location"
    option = KNOWN[SITE_FILE].get(setting.section, {}).get(setting.key)
    return f"default: {option.note}" if option and option.note and not setting.value else "default"
