"""The folders behind a hosting site: which hosts have one, and their other names."""

from __future__ import annotations

import itertools
import os
import stat

from multisite.config.domains import normalise
from multisite.errors import BadHost

Stamp = tuple[int, ...]
PARTS = 4  # of a stamp
APPLICATIONS = ("wsgi.py", "app.wsgi", "passenger_wsgi.py", "app.py", "application.py", "asgi.py", "main.py")
_MOST_LOOKED_AT = 1000  # names in a folder


def stamp_of(folder: str) -> Stamp:
    """Return a value that changes when another folder replaces this one, or its owner changes; () if it is no folder.

    Its contents do not count.
    """
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return ()
    return (status.st_dev, status.st_ino, status.st_uid, status.st_gid) if stat.S_ISDIR(status.st_mode) else ()


def canonical(location: str, host: str) -> str:
    """Return the host that `host` is another name of: the folder of `host` is a link to that host's folder.

    Args:
        location: of the hosting site. Only a link beside its target counts, if one component of the location is just
            the host (``/var/www/%HOST/site``).
        host: in its normal form.
    """
    before, placeholder, _after = f"{location}/".partition("/%HOST/")
    if not placeholder:
        return host
    try:
        target = os.readlink(f"{before}/{host}")
        return normalise(target) if normalise(target) == target else host
    except (OSError, BadHost):
        return host


def application(folder: str) -> str:
    """Return the file that a site without ``application`` serves from its folder, "" if there is none.

    It is the first of `APPLICATIONS`, else the only file that ends in ``.wsgi``.
    """
    for name in APPLICATIONS:
        if os.path.isfile(os.path.join(folder, name)):
            return name
    try:
        with os.scandir(folder) as entries:
            found = [each.name for each in itertools.islice(entries, _MOST_LOOKED_AT) if each.name.endswith(".wsgi")]
    except OSError:
        return ""
    return found[0] if len(found) == 1 else ""
