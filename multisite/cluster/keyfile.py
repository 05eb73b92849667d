"""The file with the key that the nodes of a cluster share: ``[cluster] key_file``."""

from __future__ import annotations

import os
import stat

from multisite.config.model import Home
from multisite.config.safefiles import Unusable, read_bytes
from multisite.errors import Problem

FEWEST = 32  # bytes of a key
MAKE = "openssl rand -hex 32 > FILE && chmod 600 FILE, and copy it to every node"


def read_key(home: Home) -> bytes:
    """Return the key.

    Raises:
        Unusable: it cannot be used; the message is the reason.
    """
    path = home.resolve(home.cluster.key_file)
    if not path:
        raise Unusable("[cluster] key_file is not set", MAKE)
    try:
        status = os.stat(path)
    except OSError as error:
        raise Unusable(f"{path}: {(error.strerror or 'it cannot be read').lower()}", MAKE) from None
    if status.st_mode & stat.S_IRWXO:
        raise Unusable(
            f"{path} is open to every account (mode {stat.S_IMODE(status.st_mode):04o})", f"chmod 600 {path}"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise Unusable(f"{path} belongs to another user", f"chown {os.geteuid()} {path}")
    key = read_bytes(path).strip()
    if len(key) < FEWEST:
        raise Unusable(f"{path} has fewer than {FEWEST} bytes", MAKE)
    return key


def problems(home: Home) -> list[Problem]:
    """Return why the key cannot be used, if one is named."""
    if not home.cluster.key_file:
        return []
    try:
        read_key(home)
    except Unusable as error:
        return [Problem("MS747", home.file, error.reason, "cluster", "key_file", home.cluster.key_file, error.remedy)]
    return []
