"""What holds for a site, and where each value comes from; secrets are masked."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multisite.config.model import Home, Site, SiteFile
    from multisite.config.option import Option

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


def settings(home: Home, file: SiteFile, site: Site) -> Iterator[Setting]:
    """Yield the effective values of a site in the order of the reference, then those of its Moya project."""
    from multisite.config.options import OPTIONS, SITE_FILE

    origins = _Origins(home, file)
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

    def __init__(self, home: Home, file: SiteFile) -> None:
        from multisite.config.ini import Chain
        from multisite.config.options import KNOWN, SITE_FILE

        self._values, self._home = file.values, home
        self._file = Chain(file.path, home.environ, KNOWN[SITE_FILE])
        self._moya = Chain(home.file, home.environ)
        self._file.read()
        self._moya.read()

    def of(self, option: Option, key: str, text: str) -> Setting:
        """Return the setting of an option, or of one key of a section that takes any key."""
        from multisite.config.options import INHERITED

        if key in self._values.get(option.section, {}):
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


def origin(home: Home, setting: Setting) -> str:
    """Return for people where a setting comes from: file and line, or the default."""
    from multisite.config.options import KNOWN, SITE_FILE

    if setting.file:
        inside = os.path.relpath(setting.file, home.path)
        file = setting.file if inside.startswith("..") else inside
        return f"{file}:{setting.line}" + (f" [{setting.of}]" if setting.of else "")
    if setting.origin == "found":
        return "found in location"
    option = KNOWN[SITE_FILE].get(setting.section, {}).get(setting.key)
    return f"default: {option.note}" if option and option.note and not setting.value else "default"
