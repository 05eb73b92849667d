"""``multisite init --system``: the files with which a service manager runs multisite, and the next steps.

Each file begins with a line that has a digest of the rest, so that a later version can tell files that somebody has
changed by hand from those that it may replace.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click

from multisite.cli.scaffold import write_new

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
_PLAIN = re.compile(r"/[\w./+@-]*\Z")
MARK = "multisite init --system wrote this; digest"
_MARKED = re.compile(rf"\A[#;] {MARK} ([0-9a-f]{{16}})\n")
#: values in the files of the package
BIN, HOME, USER = "/opt/multisite/bin", "/etc/moya", "www-data"
PROXIES = "127.0.0.1,::1"


@dataclass(frozen=True)
class SystemFile:
    """One file: its place in the package, its target and its purpose."""

    source: str
    target: str
    purpose: str


def _unit(name: str, purpose: str) -> SystemFile:
    return SystemFile(f"systemd/{name}", f"/etc/systemd/system/{name}", purpose)


_COMMON = (
    SystemFile("logrotate.conf", "/etc/logrotate.d/multisite", "keeps eight weeks of the sites' logs"),
    SystemFile(
        "tmpfiles.conf", "/etc/tmpfiles.d/multisite.conf", "creates the folders for logs and the workers' state"
    ),
)
KINDS: dict[str, tuple[SystemFile, ...]] = {
    "systemd": (
        _unit(
            "multisite.socket",
            "holds the front end's socket open, so that no connection is refused while gunicorn restarts",
        ),
        _unit("multisite.service", "runs gunicorn, confined, without root"),
        _unit("multisite-supervisor.service", "runs the supervisor, which starts each site as its own user"),
        _unit("multisite.service.d/supervisor.conf", "makes gunicorn's unit use the supervisor's unit"),
        *_COMMON,
    ),
    "supervisord": (
        SystemFile(
            "supervisord/multisite.conf",
            "/etc/supervisor/conf.d/multisite.conf",
            "runs the supervisor, which starts each site as its own user, and gunicorn",
        ),
        *_COMMON,
    ),
}
NEXT: dict[str, tuple[str, ...]] = {
    "systemd": (
        "systemd-tmpfiles --create /etc/tmpfiles.d/multisite.conf",
        "systemctl daemon-reload",
        "systemctl enable --now multisite-supervisor.service multisite.socket multisite.service",
    ),
    "supervisord": (
        "install -d -o root -g {user} -m 0775 /var/log/multisite",
        "install -d -o {user} -g {user} -m 0700 /var/lib/multisite-workers",
        "supervisorctl update",
    ),
}


def write_files(
    kind: str, home: str, user: str, proxies: str, root: str, force: bool
) -> Iterator[tuple[str, str, str]]:
    """Write the files of a `kind` of service manager below `root`; yield (action, path, purpose) for each.

    Actions are "wrote", "updated" (ours, of another version or with other settings), "same" and "kept" (changed by
    hand).

    Raises:
        click.UsageError: a name would have another meaning in these files.
        OSError: a file cannot be written.
    """
    programs = os.path.dirname(os.path.abspath(sys.executable))
    if not _USER.match(user):
        raise click.UsageError(f"--user {user!r} is not a user name")
    for path in (programs, home):
        if not _PLAIN.match(path):
            raise click.UsageError(
                f"these files cannot name {path!r}; choose a path without blanks and special characters"
            )
    for file in KINDS[kind]:
        target = os.path.join(root, file.target.lstrip("/")) if root else file.target
        yield (
            _put(target, marked(adapted(_text(file), programs=programs, home=home, user=user, proxies=proxies)), force),
            target,
            file.purpose,
        )


def _text(file: SystemFile) -> str:
    from importlib import resources

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
    """Return the next commands, for root."""
    front = "multisite create-rules --nginx --check --output /etc/nginx/conf.d/multisite.conf"
    return [*(step.format(user=user) for step in NEXT[kind]), front]


def adapted(text: str, *, programs: str, home: str, user: str, proxies: str = PROXIES) -> str:
    """Return the text of a file for this machine.

    Args:
        programs: folder of the programs in the virtualenv of multisite.
        home: the home.
        user: user of gunicorn's workers; its group has the same name.
        proxies: proxies that gunicorn trusts: trusted_proxies of moya.conf.
    """
    for here, there in ((BIN, programs), (HOME, home), (USER, user)):
        text = re.sub(rf"(?<![\w.-]){re.escape(here)}(?![\w-])", there.replace("\\", r"\\"), text)
    believed = proxies or '""'
    return text.replace(f"--forwarded-allow-ips {PROXIES} ", f"--forwarded-allow-ips {believed} ")


def marked(text: str) -> str:
    """Return `text` after a line that shows whether somebody changes it later."""
    sign = ";" if text.startswith(";") else "#"
    return f"{sign} {MARK} {_digest(text)}\n{text}"


def is_untouched(text: str) -> bool:
    """Tell whether a file is exactly what some version of ours wrote."""
    found = _MARKED.match(text)
    return found is not None and found[1] == _digest(text[found.end() :])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
