"""Files of users and passwords, as Apache's htpasswd writes them: which forms are known, and whether a password fits.

A line is ``USER:HASH``; if a user has two, the first counts. ``$apr1$`` and ``{SHA}`` are computed here; bcrypt and
SHA-crypt by the C library's crypt(3), which knows them on today's systems, or else by the package ``bcrypt``.
Passwords in clear text and the old crypt(3) of eight characters are refused.
https://httpd.apache.org/docs/2.4/misc/password_encryptions.html
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import ctypes
import hashlib
import hmac
import itertools
import os
import re
import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from multisite.config.model import Site
from multisite.config.safefiles import Unusable, read_bytes
from multisite.errors import Problem

MOST_VERIFIED = 256  # credentials remembered, of each file
LARGEST_STATE = 1 << 18  # bytes of crypt_r's state; that of glibc's own is the largest, 131,232
_DIGITS = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHA = "{SHA}"
_APR1 = "$apr1$"
_FORMS = re.compile(
    r"(\{SHA\})[A-Za-z0-9+/]{27}="
    r"|(\$apr1\$)[^$]{1,8}\$[./A-Za-z0-9]{22}"
    r"|(\$2[aby]\$)[0-9]{2}\$[./A-Za-z0-9]{53}"
    r"|(\$5\$)(?:rounds=[0-9]{1,9}\$)?[^$]{1,16}\$[./A-Za-z0-9]{43}"
    r"|(\$6\$)(?:rounds=[0-9]{1,9}\$)?[^$]{1,16}\$[./A-Za-z0-9]{86}"
)
#: beginning of a hash that crypt(3) makes → one to try whether it does
_OF_CRYPT = {
    **{f"$2{letter}$": f"$2{letter}$04${'.' * 22}" for letter in "aby"},
    "$5$": "$5$rounds=1000$multisite",
    "$6$": "$6$rounds=1000$multisite",
}


@dataclass(frozen=True)
class Users:
    """What a file says.

    Attributes:
        hashes: user → hash, of those whose password can be checked.
        faults: number of a line, from 1, and what is wrong with it, with the command that mends it.
    """

    hashes: Mapping[str, str]
    faults: tuple[tuple[int, str, str], ...] = ()


def parse(path: str, text: str) -> Users:
    """Read the text of a file; `path` stands in the remedies."""
    hashes: dict[str, str] = {}
    faults = []
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        if not line or line.startswith("#"):
            continue
        user, colon, rest = line.partition(":")
        hashed = rest.partition(":")[0].strip()
        if not colon or not user or not user.isprintable():
            faults.append((number, "is not USER:HASH", f"add a user with htpasswd -B {shlex.quote(path)} USER"))
        elif not is_known(hashed):
            remedy = f"set the password again: htpasswd -B {shlex.quote(path)} {shlex.quote(user)}"
            faults.append((number, f"the password of {user[:64]} has a form that cannot be checked here", remedy))
        else:
            hashes.setdefault(user, hashed)
    return Users(hashes, tuple(faults))


def is_known(hashed: str) -> bool:
    """Tell whether a password can be compared with `hashed` on this machine."""
    form = _FORMS.fullmatch(hashed)
    begin = next(filter(None, form.groups())) if form else ""
    return begin in (_SHA, _APR1) or (begin in _OF_CRYPT and _can_crypt(begin))


def fits(password: str, hashed: str) -> bool:
    """Tell whether `password` is the one of `hashed`, in a time that does not say how much of it is right."""
    data = password.encode("utf-8", "surrogateescape")
    if hashed.startswith(_SHA):
        made = _SHA.encode() + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest())
    elif hashed.startswith(_APR1):
        made = apr1(data, hashed.split("$")[2].encode("utf-8", "surrogateescape")[:8])
    elif b"\0" in data:  # where the C library would end
        return False
    else:
        made = _crypt(data, hashed)
    return hmac.compare_digest(made, hashed.encode("utf-8", "surrogateescape"))


def apr1(password: bytes, salt: bytes) -> bytes:
    """Return Apache's variant of MD5-crypt: a thousand rounds (apr_md5.c)."""

    def md5(data: bytes) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    inner = md5(password + salt + password)
    start = password + b"$apr1$" + salt + (inner * (len(password) // 16 + 1))[: len(password)]
    length = len(password)
    while length:
        start += b"\0" if length & 1 else password[:1]
        length >>= 1
    found = md5(start)
    for turn in range(1000):
        mixed = password if turn & 1 else found
        mixed += salt if turn % 3 else b""
        mixed += password if turn % 7 else b""
        found = md5(mixed + (found if turn & 1 else password))
    order = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)]
    groups = [(found[a] << 16 | found[b] << 8 | found[c], 4) for a, b, c in order] + [(found[11], 2)]
    written = bytes(_DIGITS[value >> 6 * place & 63] for value, count in groups for place in range(count))
    return b"$apr1$" + salt + b"$" + written


@cache
def _can_crypt(begin: str) -> bool:
    return _crypt(b"multisite", _OF_CRYPT[begin]).startswith(begin.encode())


def _crypt(password: bytes, setting: str) -> bytes:
    """Return the hash of `password` with the salt and the cost of `setting`, b"" where that cannot be computed."""
    made: bytes | None = b""
    if crypt_r := _library():
        made = crypt_r(password, setting.encode("utf-8", "surrogateescape"), ctypes.create_string_buffer(LARGEST_STATE))
    if not (made or b"").startswith(setting[:3].encode()) and setting.startswith("$2"):
        with contextlib.suppress(ImportError, ValueError):
            made = import_module("bcrypt").hashpw(password[:72], setting.encode("utf-8", "surrogateescape"))
    return made or b""


@cache
def _library() -> Callable[..., bytes | None] | None:
    """Return crypt_r(3), which lets other threads run meanwhile; None where there is none."""
    for name in ("libcrypt.so.1", "libcrypt.so.2", None):  # None: musl has it in its C library
        with contextlib.suppress(OSError, AttributeError):
            found: Any = ctypes.CDLL(name).crypt_r
            found.argtypes, found.restype = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p), ctypes.c_char_p
            return found  # type: ignore[no-any-return]
    return None


def read(path: str) -> Users:
    """Read a file.

    Raises:
        Unusable: it cannot be read.
    """
    return parse(path, read_bytes(path).decode("utf-8", "surrogateescape"))


class PasswordFile:
    """The users of one file, which is read again when it has changed.

    Credentials that fit are remembered until then, under a keyed hash: each browser sends them with each request, and
    a good hash takes a tenth of a second.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._identity: tuple[int, ...] = ()
        self._users = Users({})
        self._verified: dict[bytes, str] = {}
        self._key = secrets.token_bytes(32)

    def look(self) -> bool:
        """Read the file if it has changed; tell whether it had.

        Raises:
            Unusable: it cannot be read.
        """
        identity: tuple[int, ...] = ()
        with contextlib.suppress(OSError):  # which reading tells better
            found = os.stat(self.path)
            identity = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)
        if identity and identity == self._identity:
            return False
        self._identity = ()
        users = read(self.path)
        self._users, self._verified, self._identity = users, {}, identity
        return True

    @property
    def faults(self) -> tuple[tuple[int, str, str], ...]:
        """What is wrong with its lines."""
        return self._users.faults

    def user(self, authorization: str) -> str | None:
        """Return the user whom an Authorization field names with the right password (RFC 7617), None for nobody."""
        verified, hashes = self._verified, self._users.hashes
        mark = hashlib.blake2b(authorization.encode("utf-8", "surrogateescape"), key=self._key).digest()
        known = verified.get(mark)
        if known is not None:
            return known
        named = credentials(authorization)
        if named is None:
            return None
        user, password = named
        hashed = hashes.get(user) or next(iter(hashes.values()), "")  # as long for a user that there is not
        if not hashed or not fits(password, hashed) or user not in hashes:
            return None
        if len(verified) >= MOST_VERIFIED:
            verified.clear()
        verified[mark] = user
        return user


def credentials(authorization: str) -> tuple[str, str] | None:
    """Return the user and the password of an Authorization field, None where it has none."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(rest.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def unreadable(site: Site) -> Problem | None:
    """Return why nobody can be let into `site`; None where its file can be read, or needs none."""
    if not site.htpasswd or "%" in site.htpasswd:
        return None
    try:
        read(site.htpasswd)
    except Unusable as error:
        return problem_of(site, error)
    return None


def problems(site: Site) -> list[Problem]:
    """Return what is wrong with the site's file of passwords and its lines; nothing if it cannot be read."""
    if not site.htpasswd or unreadable(site):
        return []
    users = read(site.htpasswd) if "%" not in site.htpasswd else Users({"": ""})
    found = [_problem("MS236", site, f"line {line}: {reason}", remedy) for line, reason, remedy in users.faults]
    if not users.hashes and not found:
        remedy = f"add one: htpasswd -B {shlex.quote(site.htpasswd)} USER"
        found.append(_problem("MS237", site, "has no users, so nobody may use the site", remedy, "warning"))
    served = next((each for each in itertools.chain(*site.static.values()) if _is_in(site.htpasswd, each)), "")
    if served:
        reason = f"is in {served}, where [static] serves it to everybody who may use the site"
        found.append(_problem("MS238", site, reason, "move it out of that folder", "warning"))
    return found


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _problem(id: str, site: Site, reason: str, remedy: str, severity: str = "error") -> Problem:
    return Problem(id, site.file, reason, "access", "htpasswd", site.htpasswd, remedy, severity)


def problem_of(site: Site, error: Unusable) -> Problem:
    """Return why nobody is let into `site`."""
    remedy = error.remedy
    if not os.path.lexists(site.htpasswd):
        remedy = f"correct the path, or make the file: htpasswd -B -c {shlex.quote(site.htpasswd)} USER"
    return _problem("MS239", site, error.reason, remedy)
