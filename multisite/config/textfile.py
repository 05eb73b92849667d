"""Reading a small text file that anybody may have put there: refuse early, never hang."""

from __future__ import annotations

import errno
import os
import stat

LARGEST = 2**20  # bytes of a configuration file

_KINDS = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


class Unusable(Exception):
    """The file cannot be used as text; the arguments are the reason and the remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def read_bytes(path: str) -> bytes:
    """Read a regular file of at most `LARGEST` bytes; nothing else is even opened.

    Raises:
        Unusable: the file is missing, a dangling link, unreadable, too large or no regular file.
    """
    try:
        status = os.stat(path)
        _require_regular(status)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            data = os.read(descriptor, min(status.st_size + 4096, LARGEST + 1))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _explained(path, error) from None
    except ValueError as error:
        raise Unusable(f"cannot be read ({error})", "rename it") from None
    if len(data) > LARGEST:
        raise _too_large(len(data))
    return data


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        reason = next((word for test, word in _KINDS if test(status.st_mode)), "is not a regular file")
        raise Unusable(reason, "put a text file in its place or remove it")
    if status.st_size > LARGEST:
        raise _too_large(status.st_size)


def _too_large(size: int) -> Unusable:
    return Unusable(f"is too large ({size} bytes; at most {LARGEST})", "a configuration file is a few lines of text")


def _explained(path: str, error: OSError) -> Unusable:
    if error.errno == errno.ENOENT and os.path.islink(path):
        return Unusable(f"is a dangling link to {os.readlink(path)}", "restore the file or remove the link")
    if error.errno == errno.ELOOP:
        return Unusable("is a link that leads back to itself", "remove the link")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Unusable("does not exist", "create it or correct the path")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unusable("may not be read by this user", "give the service's user permission to read it")
    return Unusable(f"cannot be read ({error.strerror})", "correct that and try again")


def decode(data: bytes) -> tuple[str, Unusable | None]:
    """Decode UTF-8; where it is not, the text has replacement characters and the fault is told.

    Raises:
        Unusable: the data is binary.
    """
    if b"\0" in data:
        raise Unusable("is a binary file, not text", "put an INI file in its place or remove it")
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"is not UTF-8 (byte 0x{data[error.start]:02x} in line {line})"
        remedy = "save it as UTF-8, for example with iconv -f latin1 -t utf-8"
        return data.decode("utf-8", "replace"), Unusable(reason, remedy)
