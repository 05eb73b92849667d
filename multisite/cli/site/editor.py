"""``multisite edit``: edit a site file, and check it before it replaces the old one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import click

from multisite.cli import complete
from multisite.cli.group import fail
from multisite.cli.output import say, say_json, say_problems
from multisite.cli.session import Session, pass_session
from multisite.cli.site.edit import replace_text, text_of
from multisite.errors import Problem

if TYPE_CHECKING:
    from multisite.config.model import SiteFile

EPILOG = """\b
Examples:
  multisite edit blog
  VISUAL=nano multisite edit blog
"""
EDITORS = ("editor", "sensible-editor", "nano", "vim", "vi")  # if neither variable is set; the first is Debian's
EDIT, UNDO, KEEP = "edit", "undo", "keep"


@click.command(epilog=EPILOG, short_help="Edit the file of a site and check it.")
@click.argument("name", metavar="SITE", shell_complete=complete.known)
@pass_session
def edit(session: Session, name: str) -> None:
    """Open the file of SITE in $VISUAL or $EDITOR, and check the changes before they take effect.

    You edit a copy. If the new text has problems, the command prints them, and you can edit again, undo the changes or
    keep the text anyway. The file is replaced in one step and keeps its mode and owner.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise click.UsageError("edit needs a terminal; use multisite set SITE KEY=VALUE to change single options")
    file = session.known_site(name)
    path = os.path.realpath(file.path)
    before = text_of(path)
    for needed in (path, os.path.dirname(path)):
        if not os.access(needed, os.W_OK):
            fail(f"{needed}: permission denied; do you need sudo?")
    editor = chosen_editor()
    folder = tempfile.mkdtemp(prefix="multisite-edit-")
    copy = os.path.join(folder, os.path.basename(path))
    with open(copy, "x", encoding="utf-8", newline="") as draft:
        draft.write(before)
    try:
        text, found = _edited(session, file, copy, editor)
        if text != before and text_of(path) != before:
            fail(f"somebody else has changed {path} in the meantime")
        if text != before:
            replace_text(path, text)
    except BaseException:
        if _is_kept(copy, before):
            say(f"{path} has not changed; your text is in {copy}", err=True)
        raise
    shutil.rmtree(folder)
    _report(session, file.name, path, text != before, found)


def _is_kept(copy: str, before: str) -> bool:
    """Tell whether the copy has changes that would be lost; if not, remove it."""
    with open(copy, "rb") as file:
        is_new = file.read() != before.encode()
    if not is_new:
        shutil.rmtree(os.path.dirname(copy))
    return is_new


def chosen_editor() -> list[str]:
    """Return the command of the user's editor, as words."""
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")
    if words:
        return words
    found = next(filter(shutil.which, EDITORS), "")
    return [found] if found else fail("no editor found; set EDITOR to the command of one")


def _edited(session: Session, file: SiteFile, copy: str, editor: list[str]) -> tuple[str, list[Problem]]:
    """Return the final text and its problems."""
    with open(copy, encoding="utf-8", newline="") as draft:
        before = draft.read()
    while True:
        _run(editor, copy)
        try:
            text = text_of(copy)
        except SystemExit:  # the reason has been printed
            answer = _asked((EDIT, UNDO), EDIT)
        else:
            if text == before:
                return text, []
            found = problems_of_text(session, file, text)
            if not found:
                return text, found
            say_problems(found)
            answer = _asked((EDIT, UNDO, KEEP), EDIT if any(one.is_error for one in found) else KEEP)
            if answer == KEEP:
                return text, found
        if answer == UNDO:
            return before, []


def _run(editor: list[str], copy: str) -> None:
    try:
        status = subprocess.run([*editor, copy], check=False).returncode
    except OSError as error:
        fail(f"{editor[0]}: {(error.strerror or 'cannot be run').lower()}; set EDITOR to another editor")
    if status:
        fail(f"{editor[0]} exited with status {status}")


def _asked(choices: tuple[str, ...], default: str) -> str:
    """Ask what to do; the answer may be a choice or the beginning of one."""
    words = ", ".join(f"[{choice[0]}]{choice[1:]}" for choice in choices)
    while True:
        answer = click.prompt(f"{words}?", default=default, err=True).strip().lower()
        found = [choice for choice in choices if answer and choice.startswith(answer)]
        if found:
            return found[0]


def problems_of_text(session: Session, file: SiteFile, text: str) -> list[Problem]:
    """Return the problems that a site would have if its file had this text."""
    from multisite.config.read import make_site, read_site
    from multisite.sites.enabling import identity
    from multisite.status.report import problems_of_site

    home, path = session.home, file.path
    draft = read_site(path, home.path, defaults=home.defaults, text=text)
    found = list(draft.problems)
    if not draft.errors:
        found += problems_of_site(make_site(draft, home), home)
    held = session.catalogue.holdings
    claims = [("MS243", "domains", domain, held.domains.get((domain, draft.mount), path)) for domain in draft.domains]
    claims.append(("MS242", "name", draft.name, held.names.get(draft.name, path)))
    for id, key, value, holder in claims:
        if identity(holder) != identity(path):
            reason = f"{holder} already has it and keeps it"
            found.append(Problem(id, path, reason, "service", key, value, "change it in one of the two files"))
    return list(dict.fromkeys(found))


def _report(session: Session, name: str, path: str, is_changed: bool, found: list[Problem]) -> None:
    if session.as_json:
        say_json({"name": name, "file": path, "changed": is_changed, "problems": [one.as_dict() for one in found]})
    else:
        say(f"{path} changed" if is_changed else f"{path} is unchanged")
    if any(problem.is_error for problem in found):
        raise SystemExit(1)
