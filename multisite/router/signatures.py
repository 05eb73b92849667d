"""Signed announcements: the holder of a domain's private key may announce nodes for it.

As in uWSGI (``subscriptions-sign-check``): RSA with PKCS #1 v1.5 padding (RFC 8017) over the variables before the
signature; the public key of a domain is in a folder, in a file named after the domain.
"""

from __future__ import annotations

import os
import re
from typing import Any

from multisite.router.announcement import Announcement

DIGESTS = ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")
MOST_KEYS = 4096  # that are kept ready
LARGEST = 65536  # bytes of a key's file

_UNSAFE = re.compile(r"[^0-9A-Za-z.\-_]")


class Signatures:
    """Checks signatures with the public keys of a folder.

    Args:
        text: ``DIGEST:FOLDER``, the folder absolute or relative to `home`.
        home: folder of moya.conf.

    Raises:
        ValueError: the digest is unknown, there is no such folder, or the library is not installed.
    """

    def __init__(self, text: str, home: str) -> None:
        digest, separator, folder = text.partition(":")
        if not separator or digest.upper() not in DIGESTS:
            raise ValueError(f"it is not DIGEST:FOLDER with one of {', '.join(DIGESTS)}")
        self.folder = os.path.join(home, folder)
        if not os.path.isdir(self.folder):
            raise ValueError(f"{self.folder} is not a folder; it should hold a KEY.pem for each key")
        try:
            from cryptography.hazmat.primitives import hashes
        except ImportError:
            raise ValueError("the library cryptography is missing; pip install 'multisite-wsgi[signed]'") from None
        self._digest = getattr(hashes, digest.upper())()
        self._keys: dict[str, tuple[tuple[int, int], Any]] = {}  # by path: what its file was like, and the key

    def verify(self, announced: Announcement) -> bool:
        """Tell whether an announcement is signed with the private key of its key."""
        if not announced.sign or not announced.unix:
            return False
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import padding

        try:
            public = self._key(os.path.join(self.folder, f"{file_of(announced.key)}.pem"))
            public.verify(announced.sign, announced.signed, padding.PKCS1v15(), self._digest)
        except (InvalidSignature, OSError, ValueError, AttributeError, TypeError):
            return False  # the key cannot be read, or is not an RSA key
        return True

    def _key(self, path: str) -> Any:
        """Return the public key in a file, which is read again when it changes."""
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        status = os.stat(path)
        stamp = status.st_mtime_ns, status.st_ino
        known = self._keys.get(path)
        if not known or known[0] != stamp:
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()
            with open(path, "rb") as file:
                known = self._keys[path] = stamp, load_pem_public_key(file.read(LARGEST))
        return known[1]


def file_of(key: str) -> str:
    """Return the name of a key's file without ``.pem``, as uWSGI forms it: of example.com:8000 example.com_8000."""
    return _UNSAFE.sub("_", key)
