"""The option table as text: the reference of the documentation and commented site files (pure)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from multisite.config.option import Option
from multisite.config.options import HOME_FILE, PUBLISHER_FILE, SITE_FILE, default_text, of_section, sections

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
    "argv": "command line",
    "name": "name",
    "mount": "URL path",
    "application": "text, in one of these forms",
    "expiries": "list of durations, each behind the pattern it is for, if any",
    "types": "list of a file extension and a media type",
    "log": "path, or syslog:, syslog:FACILITY or syslog:FACILITY@HOST:PORT",
    "format": "combined, json, or text with fields in braces",
    "sender": "x-sendfile or x-accel-redirect /PREFIX",
    "target": "path of a URL",
}
_PURPOSE = {
    (HOME_FILE, "projects"): "Where the site files are.",
    (HOME_FILE, "service"): "The service as a whole.",
    (HOME_FILE, "supervisor"): "The processes of spawned sites.",
    (HOME_FILE, "router"): "Where hosts go that no site claims. *No effect yet.*",
    (HOME_FILE, "cluster"): "What several machines share. *No effect yet.*",
    (HOME_FILE, "env"): "Environment of every site.",
    (PUBLISHER_FILE, "publisher"): "The server.",
    (SITE_FILE, "service"): "The site and how it runs.",
    (SITE_FILE, "env"): "Environment of the site.",
    (SITE_FILE, "static"): "Files served without the application.",
    (SITE_FILE, "logging"): "Log files of the site.",
}
_INTRODUCTION = {
    HOME_FILE: "The file ``moya.conf`` in the home. Its section ``[defaults]`` takes every key of a site file's "
    "``[service]`` but ``name``, as the default of all sites.",
    SITE_FILE: "One file for each site, enabled by a link in ``sites-enabled``. ``%(name)s``, ``%(location)s`` and "
    "``%(home)s`` stand for the site's name, its location and the home; ``$NAME`` is the environment's.",
    PUBLISHER_FILE: "A file for ``multisite serve --publisher``. Nagare's spellings (``minSpare``, ``maxChildren``, "
    "``maxRequests``) are understood.",
}
#: options that are read and checked only
_LATER = frozenset({("service", "status_domain"), ("service", "status_token")})
_TITLES = {HOME_FILE: "moya.conf", SITE_FILE: "Site files", PUBLISHER_FILE: "Publisher files"}
_OFFERED = ("domains", "location", "application", "mode", "share", "python", "processes", "threads", "idle_timeout")


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
    yield f".. _{label(option)}:"
    yield ""
    yield f"``{option.key}``" if option.key else "*any key*"
    later = " *No effect yet.*" if (option.section, option.key) in _LATER else ""
    yield from textwrap.wrap(_escaped(option.help) + later, 96, initial_indent="   ", subsequent_indent="   ")
    yield ""
    yield f"   | Value: {', '.join(option.choices) or KINDS[option.kind]}{_limits(option)}"
    if not option.any_key:
        yield f"   | Default: {_default(option)}"
    if option.example:
        yield f"   | Example: ``{example_line(option)}``"
    yield ""


def label(option: Option) -> str:
    """Name an option for links of the documentation: ``site-service-python``."""
    return f"{option.file.removesuffix('.conf')}-{option.section}-{option.key or 'any'}"


def _default(option: Option) -> str:
    text = default_text(option)
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
            lines += ["", *_comment(option.help), _setting(option.key, values[option.key])]
        elif option.key in _OFFERED:
            lines += ["", *_comment(option.help), f"# {example_line(option)}"]
    for section in sections(SITE_FILE)[1:]:
        if section == "static" and static:
            mark = "" if serve else "# "
            lines += ["", f"{mark}[static]", *(f"{mark}{_setting(*each)}" for each in static.items())]
            continue
        lines += ["", f"# [{section}]"]
        lines += (f"# {example_line(option)}" for option in of_section(SITE_FILE, section))
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent="# ", subsequent_indent="# ")


def _setting(key: str, value: str) -> str:
    if re.search(r"\s#|^[\"']", value) and '"' not in value:
        value = f'"{value}"'
    items = value.split("\n")
    return f"{key} = {value}".rstrip() if len(items) == 1 else "\n".join([f"{key} =", *(f"    {i}" for i in items)])
