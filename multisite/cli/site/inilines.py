"""Change the value of one key in INI text, and keep all other lines, the comments and the order. Pure."""

from __future__ import annotations

import re
from collections.abc import Container

from multisite.config.ini import Document, parse
from multisite.config.options import setting

_BLOCK = re.compile(r"\"\"\"|'''")


class Unchangeable(ValueError):
    """A line of this text cannot be changed by itself."""


def with_value(text: str, section: str, key: str, value: str, commented: Container[str]) -> str:
    """Return INI text with another value for a key.

    A key that the text has keeps its place; a new one follows its commented example, else the last key of the section;
    a new section comes last.

    Args:
        text: the whole file.
        section: section of the key.
        key: the key to set.
        value: its lines, "" for the default.
        commented: the sections in which ``#`` after white space begins a comment (`multisite.config.ini.parse`).

    Raises:
        Unchangeable: other values would change, too.
    """
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("\r\n", "\n").split("\n")
    before = parse(text, commented)
    new = setting(key, value).split("\n")
    if (section, key) in before.lines:
        start = before.lines[section, key] - 1
        end = _end(lines, start)
        behind = _comment(lines[start], before.values.get(section, {}).get(key, ""))
        indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())]
        lines[start:end] = [f"{indent}{line}" for line in new]
        if len(new) == 1:
            lines[start] += behind
    elif (section, "") in before.lines:
        at = _behind(lines, before, section, key)
        lines[at:at] = new
    else:
        while lines and not lines[-1].strip():
            lines.pop()
        lines += [*([""] if lines else []), f"[{section}]", *new, ""]
    changed = ending.join(lines)
    _check(before, parse(changed, commented), section, key, value)
    return changed


def _comment(line: str, value: str) -> str:
    """Return the comment at the end of a line, with the white space before it; "" for none."""
    written = line.partition("=")[2]
    behind = written.partition(value)[2] if value else written
    return behind if behind.lstrip().startswith("#") else ""


def _end(lines: list[str], start: int) -> int:
    """Return the index after the last line of the value that begins at `start`."""
    value = lines[start].partition("=")[2].lstrip()
    quote = _BLOCK.match(value)
    if quote and quote[0] not in value[3:]:
        return next((at for at in range(start + 1, len(lines)) if quote[0] in lines[at]), start) + 1
    own, end = _indent(lines[start]), start + 1
    for at in range(start + 1, len(lines)):
        line = lines[at].strip()
        if not line or (line[0] not in "#;" and _indent(lines[at]) <= own):
            break
        if line[0] not in "#;":
            end = at + 1
    return end


def _indent(line: str) -> int:
    wide = line.expandtabs()
    return len(wide) - len(wide.lstrip())


def _behind(lines: list[str], document: Document, section: str, key: str) -> int:
    """Return the index at which to insert a new key of a section."""
    start = document.lines[section, ""]
    headers = [number for (_, name), number in document.lines.items() if not name and number > start]
    stop = min(headers, default=len(lines) + 1) - 1
    example = re.compile(rf"\s*[#;]\s*{re.escape(key)}\s*=")
    for at in range(start, stop):
        if example.match(lines[at]):
            return at + 1
    keys = [number for (of, name), number in document.lines.items() if of == section and name]
    return _end(lines, max(keys) - 1) if keys else start


def _check(before: Document, after: Document, section: str, key: str, value: str) -> None:
    """Raise Unchangeable unless the key has its new value and all others keep theirs."""

    def others(document: Document) -> dict[tuple[str, str], str]:
        all_keys = ((of, name, value) for of, keys in document.values.items() for name, value in keys.items())
        return {(of, name): value for of, name, value in all_keys if (of, name) != (section, key)}

    if others(before) != others(after):
        raise Unchangeable("other values of the file would change, too")
    found = after.values.get(section, {}).get(key)
    if found not in (value, f'"{value}"'):
        raise Unchangeable("the value would be read differently")
    if len(after.faults) > len(before.faults):
        raise Unchangeable(after.faults[-1].reason)
