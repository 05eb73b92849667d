"""The one option table: every key of every file, gathered from the model's fields.

Parsing, the checks, ``multisite new`` and the reference in the documentation read it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import Field, fields, replace
from typing import Any

from multisite.config.model import (
    ClusterOptions,
    ProjectsOptions,
    RouterOptions,
    ServiceOptions,
    Site,
    SupervisorOptions,
)
from multisite.config.option import Option
from multisite.config.publisher import PublisherOptions

READING = 4  # raise it when the dialect, the checks or `SiteFile` change
HOME_FILE = "moya.conf"
SITE_FILE = "site"
PUBLISHER_FILE = "publisher.conf"
#: section of moya.conf → its dataclass
SECTIONS: dict[str, type[Any]] = {
    "projects": ProjectsOptions,
    "service": ServiceOptions,
    "supervisor": SupervisorOptions,
    "router": RouterOptions,
    "cluster": ClusterOptions,
}
INHERITED = ("idle_timeout", "start_timeout", "drain_timeout", "stop_timeout", "request_timeout", "preload")
_HOME_ENV = Option(
    "multiline",
    help="Environment variable of every site, unless the site's own [env] sets it.",
    any_key=True,
    example="LANG = C.UTF-8",
    file=HOME_FILE,
    section="env",
    attribute="env",
)


def _placed(declared: Field[Any], file: str, section: str) -> Option:
    found: Option = declared.metadata["option"]
    key = "" if found.any_key else found.key or declared.name
    return replace(found, file=file, section=found.section or section, key=key, attribute=declared.name)


def _gathered() -> Iterator[Option]:
    for section, declaring in SECTIONS.items():
        yield from (_placed(declared, HOME_FILE, section) for declared in fields(declaring))
    yield _HOME_ENV
    yield from (_placed(declared, PUBLISHER_FILE, "publisher") for declared in fields(PublisherOptions))
    for declared in fields(Site):
        if "option" in declared.metadata:
            yield _placed(declared, SITE_FILE, "service")


#: every option there is
OPTIONS: tuple[Option, ...] = tuple(_gathered())


def sections(file: str) -> tuple[str, ...]:
    """Name the sections of a kind of file ("moya.conf" or "site") in the order they are written."""
    return tuple(dict.fromkeys(option.section for option in OPTIONS if option.file == file))


def of_section(file: str, section: str) -> tuple[Option, ...]:
    """Give the options of one section in the order they are written."""
    return tuple(option for option in OPTIONS if (option.file, option.section) == (file, section))


def _known(file: str) -> dict[str, dict[str, Option]]:
    return {section: {option.key: option for option in of_section(file, section)} for section in sections(file)}


_SITE = _known(SITE_FILE)
_DEFAULTS = {key: option for key, option in _SITE["service"].items() if key != "name"}
#: file → section → key → option; the key "" stands for any key
KNOWN: dict[str, dict[str, dict[str, Option]]] = {
    HOME_FILE: {**_known(HOME_FILE), "defaults": _DEFAULTS},
    SITE_FILE: _SITE,
    PUBLISHER_FILE: _known(PUBLISHER_FILE),
}


def configspec(file: str) -> list[str]:
    """Give ConfigObj's configspec of a kind of file, as lines."""
    lines = []
    for section, known in KNOWN[file].items():
        lines.append(f"[{section}]")
        lines += (f"{key or '__many__'} = {option.check}" for key, option in known.items())
    return lines


def fingerprint() -> str:
    """Give a text that changes when site files would be read differently, for caches of them."""
    return f"{READING}-{zlib.crc32(chr(10).join(configspec(SITE_FILE)).encode()):08x}"


def default_text(option: Option) -> str:
    """Say the default of *option* in words."""
    return option.note or option.default or "none"
