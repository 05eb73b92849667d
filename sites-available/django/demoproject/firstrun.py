"""What the project needs before its first request: a secret key, a database, a user.

Several workers may import the project at the same moment, so each step is done under a file lock and only when its
result is not there yet.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock file of a directory, which is made if it is missing; closing the file lets go of it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def secret_key(directory: Path) -> str:
    """Read the secret key; the first to ask makes it."""
    path = directory / "secret_key"
    with locked(directory):
        if not path.exists():
            draft = path.with_suffix(".new")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
                stream.write(secrets.token_urlsafe(50))
            os.replace(draft, path)
        return path.read_text()


def database(directory: Path) -> None:
    """Bring the database to the current schema, with the user demo/demo in it.  Needs a set-up Django."""
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    with locked(directory):
        call_command("migrate", verbosity=0, interactive=False)
        users = get_user_model().objects
        if not users.filter(username="demo").exists():
            users.create_superuser("demo", "demo@django.localhost", "demo")
