"""``multisite init --system``: the files by which a service manager runs multisite, and how to go on."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib import resources

import click

from multisite.cli.scaffold import write_new
from multisite.cli.systemfiles import KINDS, NEXT, SystemFile, adapted, is_untouched, marked

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
_PLAIN = re.compile(r"/[\w./+@-]*\Z")


def install(kind: str, home: str, user: str, proxies: str, root: str, force: bool) -> Iterator[tuple[str, str, str]]:
    """Write the files of a `kind` of service manager below `root`; yield (action, path, purpose) for each.

    Actions are "wrote", "updated" (ours, of another version or other settings), "same" and "kept" (changed by hand).

    Raises:
        click.UsageError: a name would mean something else in these files.
        OSError: a file cannot be written.
    """
    programs = os.path.dirname(os.path.abspath(sys.executable))
    if not _USER.match(user):
        raise click.UsageError(f"--user {user!r}: it is no name of a user")
    for path in (programs, home):
        if not _PLAIN.match(path):
            raise click.UsageError(f"{path!r} cannot stand in these files; choose a path without blanks and signs")
    for file in KINDS[kind]:
        target = os.path.join(root, file.target.lstrip("/")) if root else file.target
        yield (
            _put(target, marked(adapted(_text(file), programs=programs, home=home, user=user, proxies=proxies)), force),
            target,
            file.purpose,
        )


def _text(file: SystemFile) -> str:
    return resources.files("multisite.cli").joinpath("units", *file.source.split("/")).read_text(encoding="utf-8")


def _put(path: str, text: str, force: bool) -> str:
    if write_new(path, text):
        return "wrote"
    with open(path, encoding="utf-8", errors="replace") as file:
        there = file.read()
    if there == text:
        return "same"
    if not force and not is_untouched(there):
        return "kept"
    write_new(path, text, force=True)
    return "updated"


def next_steps(kind: str, user: str) -> list[str]:
    """Return the commands that come next, as root."""
    front = "multisite create-rules --nginx --check --output /etc/nginx/conf.d/multisite.conf"
    return [*(step.format(user=user) for step in NEXT[kind]), front]
