"""The one option table: every key of every file, gathered from the model's fields; and the same as text.

Parsing, the checks, ``multisite new`` and the reference in the documentation read it.
"""

from __future__ import annotations

import re
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, fields, replace
from typing import Any

from multisite.config.model import (
    ClusterOptions,
    EventsOptions,
    ProjectsOptions,
    RouterOptions,
    ServiceOptions,
    Site,
    SupervisorOptions,
)
from multisite.config.option import Option
from multisite.config.sections import PublisherOptions

READING = 8  # raise it when the dialect, the checks or `SiteFile` change
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
    "events": EventsOptions,
}
INHERITED = (
    *("idle_timeout", "busy_timeout", "start_timeout", "drain_timeout", "stop_timeout", "request_timeout", "preload"),
)
#: kind → how a value is written
KINDS = {
    "text": "text",
    "multiline": "text, which indented lines continue",
    "path": "path",
    "boolean": "yes or no",
    "integer": "whole number",
    "octal": "octal number",
    "duration": "duration (500ms, 30 or 30s, 5m, 1h, 1d)",
    "size": "size (4096, 64k, 512M, 2G)",
    "choice": "one word",
    "list": "list, comma separated or one item on each indented line",
    "nodes": "list of nodes: HOST:PORT, a path or @NAME for uwsgi, http://HOST:PORT and http+unix:PATH for HTTP; "
    ",MODIFIER1 or ,MODIFIER1,MODIFIER2 may follow",
    "machine": "ADDRESS:PORT",
    "machines": "list of ADDRESS:PORT or ADDRESS:PORT=WEIGHT",
    "subscriptions": "list of ADDRESS:PORT:KEY or /PATH:KEY; ,MODIFIER1 may follow",
    "networks": "list of addresses and networks",
    "argv": "command line",
    "webhook": "http:// or https:// URL",
    "name": "name",
    "mount": "URL path",
    "application": "text, in one of these forms",
    "expiries": "list of durations, each with an optional pattern before it",
    "types": "list of a file extension and a media type",
    "log": "path, or syslog:, syslog:FACILITY or syslog:FACILITY@HOST:PORT",
    "format": "combined, json, or text with fields in braces",
    "sender": "x-sendfile or x-accel-redirect /PREFIX",
    "target": "path of a URL",
    "warm": "never, predicted, always, or hours (mon-fri 8-18, sat 10:30-14)",
    "expiry": "date (2026-12-31, 2026-12-31 18:00, 2026-12-31T18:00Z) or duration (7d)",
}
_PURPOSE = {
    (HOME_FILE, "projects"): "Where the site files are.",
    (HOME_FILE, "service"): "The service as a whole.",
    (HOME_FILE, "supervisor"): "The processes of spawned sites.",
    (
        HOME_FILE,
        "router",
    ): "Nodes for hosts that no site claims. The mappers are tried in this order: map, pattern, the "
    "nodes that announced themselves, base, code, redis, sql, mappers, to.",
    (
        HOME_FILE,
        "cluster",
    ): "The machines that serve the same home, and the registry through which they know each other.",
    (HOME_FILE, "events"): "The recipients of events; see the page about the supervisor.",
    (HOME_FILE, "env"): "Environment of every site.",
    (PUBLISHER_FILE, "publisher"): "The server.",
    (SITE_FILE, "service"): "The site and how it runs.",
    (SITE_FILE, "env"): "Environment of the site.",
    (SITE_FILE, "static"): "Files served without the application.",
    (SITE_FILE, "access"): "Who may use the site.",
    (SITE_FILE, "logging"): "Log files of the site.",
}
_INTRODUCTION = {
    HOME_FILE: "The file ``moya.conf`` in the configuration directory (the home). Its section ``[defaults]`` accepts "
    "every key of a site file's ``[service]`` except ``name``, as the default for all sites.",
    SITE_FILE: "One file for each site, enabled by a link in ``sites-enabled``. ``%(name)s``, ``%(location)s`` and "
    "``%(home)s`` stand for the site's name, its location and the home; ``$NAME`` is a variable of the environment.",
    PUBLISHER_FILE: "A file for ``multisite serve --publisher``. Nagare's spellings (``minSpare``, ``maxChildren``, "
    "``maxRequests``) are understood.",
}
_TITLES = {HOME_FILE: "moya.conf", SITE_FILE: "Site files", PUBLISHER_FILE: "Publisher files"}
_OFFERED = ("domains", "location", "application", "mode", "share", "python", "processes", "threads", "idle_timeout")
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
    placed = [(one, _placed(one, SITE_FILE, "service")) for one in fields(Site) if "option" in one.metadata]
    placed.sort(key=lambda pair: (pair[1].section != "service", pair[0].kw_only))  # what is inherited comes last in it
    yield from (option for _, option in placed)


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
    """Give a text that changes when site files would be read differently; for caches."""
    return f"{READING}-{zlib.crc32(chr(10).join(configspec(SITE_FILE)).encode()):08x}"


def reference_rst() -> str:
    """Give the reference page of all options as reStructuredText."""
    lines = [".. This page is made from the option table.", "", *_title("Options", "=")]
    for file, title in _TITLES.items():
        lines += [*_title(title, "-"), *textwrap.wrap(_INTRODUCTION[file], 100), ""]
        for section in sections(file):
            lines += [*_title(f"[{section}]", "~"), _PURPOSE[file, section], ""]
            for option in of_section(file, section):
                lines += _entry(option)
    return "\n".join(lines)


def _title(text: str, underline: str) -> list[str]:
    return [text, underline * len(text), ""]


def _entry(option: Option) -> Iterator[str]:
    yield f".. option-key:: {file_section_key(option)}"
    yield ""
    if option.key:
        yield f"   .. index:: ! single: {option.key.replace('_', ' ')}"
        yield ""
    yield from textwrap.wrap(_escaped(option.help), 96, initial_indent="   ", subsequent_indent="   ")
    yield ""
    yield f"   | Value: {', '.join(option.choices) or KINDS[option.kind]}{_limits(option)}"
    if not option.any_key:
        yield f"   | Default: {_default(option)}"
    if option.example:
        yield f"   | Example: ``{example_line(option)}``"
    yield ""


def file_section_key(option: Option) -> str:
    """Name an option for links and the search of the documentation: ``site.service.python``."""
    return f"{option.file.removesuffix('.conf')}.{option.section}.{option.key or 'any key'}"


def _default(option: Option) -> str:
    text = option.note or option.default or "none"
    return f"``{text}``" if text == option.default else _escaped(text)


def _limits(option: Option) -> str:
    if option.limits is None or option.kind != "integer":
        return ""
    return f" from {option.limits[0]} to {option.limits[1]}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("`", "\\`").replace("|", "\\|")


def example_line(option: Option) -> str:
    """Give a line that could stand in the file."""
    return option.example if option.any_key else f"{option.key} = {option.example or option.default}"


def site_template(
    values: Mapping[str, str], comments: Iterable[str] = (), static: Mapping[str, str] | None = None, serve: bool = True
) -> str:
    """Write a commented site file.

    Args:
        values: key of [service] → text. Keys that are not given and often used follow as comments.
        comments: what the file begins with.
        static: of [static]: URL prefix → folder; None: unknown.
        serve: whether that is put into force, or is a comment.
    """
    lines = [*(line for comment in comments for line in _comment(comment)), "[service]"]
    for option in of_section(SITE_FILE, "service"):
        if option.key in values:
            lines += ["", *_comment(option.help), setting(option.key, values[option.key])]
        elif option.key in _OFFERED:
            lines += ["", *_comment(option.help), f"# {example_line(option)}"]
    for section in sections(SITE_FILE)[1:]:
        if section == "static" and static:
            mark = "" if serve else "# "
            lines += ["", f"{mark}[static]", *(f"{mark}{setting(*each)}" for each in static.items())]
            continue
        lines += ["", f"# [{section}]"]
        lines += (f"# {example_line(option)}" for option in of_section(SITE_FILE, section))
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent="# ", subsequent_indent="# ")


def setting(key: str, value: str) -> str:
    """Give the line, or lines, that set a key; `value` has a line for each item of a list."""
    if re.search(r"\s#|^[\"']", value) and '"' not in value:
        value = f'"{value}"'
    items = value.split("\n")
    return f"{key} = {value}".rstrip() if len(items) == 1 else "\n".join([f"{key} =", *(f"    {i}" for i in items)])
