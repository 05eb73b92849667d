"""``multisite set``, ``remove`` and ``rename``: change site files, each in one step."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING

import click

from multisite.cli import complete
from multisite.cli.group import fail
from multisite.cli.output import say, say_json, say_problems
from multisite.cli.session import Session, pass_session, stem_of

if TYPE_CHECKING:
    from multisite.config.model import SiteFile
    from multisite.errors import Problem

SET = """\b
Examples:
  multisite set blog threads=4 idle_timeout=1h
  multisite set blog env.DEBUG=1 logging.error=/var/log/blog.log
"""
REMOVE = """\b
Examples:
  multisite remove blog
  multisite remove --yes blog
"""
RENAME = """\b
Examples:
  multisite rename blog journal
"""


@click.command("set", epilog=SET, short_help="Set options of a site.")
@click.argument("name", metavar="SITE", shell_complete=complete.known)
@click.argument("words", metavar="KEY=VALUE...", nargs=-1, required=True, shell_complete=complete.keys)
@pass_session
def set_(session: Session, name: str, words: tuple[str, ...]) -> None:
    """Set options in the file of SITE; all other lines, the comments and the order stay the same.

    KEY is an option of [service], or SECTION.KEY. An empty VALUE means the default. If an option or a value is not
    valid, nothing is written.
    """
    file = session.known_site(name)
    changes = [_change(word) for word in words]
    path = os.path.realpath(file.path)
    wrong = _wrong(session, file, changes)
    if wrong:
        fail(str(wrong[0]), wrong[0].id)
    replace_text(path, _changed(path, changes))
    file = session.reread(file)
    if session.as_json:
        listed = [{"section": section, "key": key, "value": value} for section, key, value in changes]
        say_json({"name": file.name, "file": path, "set": listed, "problems": [p.as_dict() for p in file.problems]})
    else:
        say(f"{file.name}: {', '.join(key for _, key, _ in changes)} set in {path}")
        say_problems(file.problems)
    if any(problem.is_error for problem in file.problems):
        raise SystemExit(1)


def _change(word: str) -> tuple[str, str, str]:
    """Return section, key and value."""
    from multisite.config.options import KNOWN, SITE_FILE

    name, equals, value = word.partition("=")
    if not equals or not name.strip():
        raise click.UsageError(f"{word!r} is not KEY=VALUE")
    section, dot, key = name.strip().partition(".")
    if not dot or (section not in KNOWN[SITE_FILE] and not section.isidentifier()):
        section, key = "service", name.strip()
    return section, key, value.strip()


def _wrong(session: Session, file: SiteFile, changes: list[tuple[str, str, str]]) -> list[Problem]:
    """Return the problems of the new values; other problems of the file do not matter."""
    from multisite.config import checks
    from multisite.config.ini import Chain
    from multisite.config.options import KNOWN, SITE_FILE
    from multisite.errors import Problem

    chain = Chain(file.path, session.home.environ, KNOWN[SITE_FILE])
    chain.read()
    new = {(section, key): value for section, key, value in changes}
    for (section, key), value in new.items():
        chain.texts.setdefault(section, {})[key] = value
    chain.expand_names(KNOWN[SITE_FILE], {"home": session.home.path, "name": file.name})
    faults: list[checks.Fault] = []
    values = checks.check(chain.texts, SITE_FILE, faults)
    faults += checks.check_names(values)
    checks.check_domains(values.get("service", {}).get("domains", ()), faults)
    about = {*new, *((section, "") for section, _ in new)}
    return [
        Problem(fault.id, file.path, fault.reason, *where, new.get(where, ""), fault.remedy)
        for fault in faults
        if fault.severity == "error" and (where := (fault.section, fault.key)) in about
    ]


def _changed(path: str, changes: list[tuple[str, str, str]]) -> str:
    from multisite.cli.site.inilines import Unchangeable, with_value
    from multisite.config.options import KNOWN, SITE_FILE

    text = text_of(path)
    for section, key, value in changes:
        try:
            text = with_value(text, section, key, value, KNOWN[SITE_FILE])
        except Unchangeable as error:
            fail(f"{path}: [{section}] {key} cannot be set: {error}; edit the file")
    return text


def text_of(path: str) -> str:
    """Return the text of a file; if that fails, print the reason and end the command."""
    from multisite.config.safefiles import Unusable, decode, read_bytes

    try:
        text, undecodable = decode(read_bytes(path))
    except Unusable as error:
        fail(f"{path} {error.reason}; {error.remedy}")
    if undecodable:
        fail(f"{path} {undecodable.reason}; {undecodable.remedy}")
    return text


def replace_text(path: str, text: str, new: str = "") -> None:
    """Write a file in one step, with the owner and the mode of `path`.

    Args:
        path: an existing file.
        text: the new text.
        new: another path for it, which must not exist; "" replaces `path`.

    Raises:
        OSError: the file cannot be written; FileExistsError: `new` exists.
    """
    status = os.stat(path)
    descriptor, draft = tempfile.mkstemp(prefix=".", suffix=".new", dir=os.path.dirname(new or path))
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            if os.geteuid() == 0:
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o777)
        if new:
            os.link(draft, new)
        else:
            os.replace(draft, path)
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)


@click.command(epilog=REMOVE, short_help="Disable a site and delete its file.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("name", metavar="SITE", shell_complete=complete.known)
@pass_session
def remove(session: Session, yes: bool, name: str) -> None:
    """Disable SITE and delete its file in sites-available. The files in its location stay.

    On a terminal, the command asks first; otherwise it needs --yes.
    """
    file = session.known_site(name)
    stem, path = _available(session, file)
    location = session.any_site(file.name).site.location
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("cannot ask without a terminal; --yes removes the site without asking")
    if not yes:
        click.confirm(f"Delete {path}?", abort=True)
    step = session.places.disable(stem)
    if step.action == "refuse":
        fail(step.message)
    os.unlink(path)
    session.outages.end(file.name)  # another site may get this name
    if session.as_json:
        return say_json({"name": file.name, "file": path, "action": "remove"})
    say(f"removed {path}{f'; {location} is still there' if location else ''}")


@click.command(epilog=RENAME, short_help="Give a site another name.")
@click.argument("name", metavar="SITE", shell_complete=complete.known)
@click.argument("new", metavar="NEW")
@pass_session
def rename(session: Session, name: str, new: str) -> None:
    """Rename SITE to NEW: its file, the link that enables it, and `name` in the file. The site stays enabled.

    Processes with the old name end after they have answered their requests. Statistics and logs start over.
    """
    from multisite.cli.site.inilines import Unchangeable, with_value
    from multisite.config.ini import parse
    from multisite.config.options import KNOWN, SITE_FILE
    from multisite.config.values import NAME

    file, stem = session.known_site(name), stem_of(new)
    if not NAME.fullmatch(stem):
        raise click.UsageError(f"{new!r} is not a site name (1 to 64 letters, digits, '.', '_' and '-')")
    old, path = _available(session, file)
    target = session.places.source(stem)
    if os.path.islink(path):
        fail(f"{path} itself is a link; rename it by hand")
    taken = {*session.catalogue.sites, *(each.name for each in session.disabled.values())} - {file.name}
    if stem in taken or os.path.lexists(target) or os.path.lexists(session.places.link(stem)):
        fail(f"there already is a site {stem}")
    text = text_of(path)
    if "name" in parse(text, KNOWN[SITE_FILE]).values.get("service", {}):
        try:
            text = with_value(text, "service", "name", stem, KNOWN[SITE_FILE])
        except Unchangeable as error:
            fail(f"{path}: [service] name cannot be set: {error}; edit the file")
    replace_text(path, text, target)
    link = session.places.relink(old, stem)
    os.unlink(path)
    session.outages.rename(file.name, stem)
    if session.as_json:
        return say_json({"name": stem, "file": target, "link": link, "action": "rename"})
    say(f"renamed {file.name} to {stem}: {target}{', enabled' if link else ''}")


def _available(session: Session, file: SiteFile) -> tuple[str, str]:
    """Return the stem and the path of a site's file in sites-available."""
    from multisite.sites.enabling import identity

    places, wanted = session.places, identity(file.path)
    for stem in places.choices():
        if wanted and identity(places.source(stem)) == wanted:
            return stem, places.source(stem)
    fail(f"{file.path} is not in {places.available}; change it by hand")
