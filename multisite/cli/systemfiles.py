"""Files by which a machine's service manager runs multisite, made for one machine (pure).

Each written file begins with a line that has a digest of the rest, so that a later version can tell what somebody has
changed by hand from what it may replace.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MARK = "multisite init --system wrote this; digest"
_MARKED = re.compile(rf"\A[#;] {MARK} ([0-9a-f]{{16}})\n")

#: what the files say as they lie in the package
BIN, HOME, USER = "/opt/multisite/bin", "/etc/moya", "www-data"
PROXIES = "127.0.0.1,::1"


@dataclass(frozen=True)
class SystemFile:
    """One file: where it lies in the package, where it goes, what for."""

    source: str
    target: str
    purpose: str


_SYSTEMD = "/etc/systemd/system"
_COMMON = (
    SystemFile("logrotate.conf", "/etc/logrotate.d/multisite", "keeps eight weeks of the sites' logs"),
    SystemFile(
        "tmpfiles.conf", "/etc/tmpfiles.d/multisite.conf", "makes the folders of logs and of the workers' notes"
    ),
)
KINDS: dict[str, tuple[SystemFile, ...]] = {
    "systemd": (
        SystemFile(
            "systemd/multisite.socket",
            f"{_SYSTEMD}/multisite.socket",
            "holds the socket that the front end connects to, so that nobody is refused while gunicorn restarts",
        ),
        SystemFile(
            "systemd/multisite.service", f"{_SYSTEMD}/multisite.service", "runs gunicorn, confined, without root"
        ),
        SystemFile(
            "systemd/multisite-supervisor.service",
            f"{_SYSTEMD}/multisite-supervisor.service",
            "runs the supervisor, which starts each site as its own user",
        ),
        SystemFile(
            "systemd/multisite.service.d/supervisor.conf",
            f"{_SYSTEMD}/multisite.service.d/supervisor.conf",
            "tells gunicorn's unit that the supervisor has one of its own",
        ),
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


def adapted(text: str, *, programs: str, home: str, user: str, proxies: str = PROXIES) -> str:
    """Return the text of a file for one machine.

    Args:
        programs: folder of the programs of the virtualenv that multisite is in.
        home: the home.
        user: who gunicorn's workers run as; its group has the same name.
        proxies: whom gunicorn believes, as trusted_proxies of moya.conf says.
    """
    for here, there in ((BIN, programs), (HOME, home), (USER, user)):
        text = re.sub(rf"(?<![\w.-]){re.escape(here)}(?![\w-])", there.replace("\\", r"\\"), text)
    believed = proxies or '""'
    return text.replace(f"--forwarded-allow-ips {PROXIES} ", f"--forwarded-allow-ips {believed} ")


def marked(text: str) -> str:
    """Return `text` behind a line by which a later change of it is noticed."""
    sign = ";" if text.startswith(";") else "#"
    return f"{sign} {MARK} {_digest(text)}\n{text}"


def is_untouched(text: str) -> bool:
    """Tell whether a file is as it was written by us, in whichever version."""
    found = _MARKED.match(text)
    return found is not None and found[1] == _digest(text[found.end() :])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
