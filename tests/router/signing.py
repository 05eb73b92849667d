"""Signed announcements, with keys that openssl makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from multisite.router import announcement
from multisite.router.announcement import Announcement


class Signer:
    """A key pair; the public half lies in `folder`, named for `key` as uWSGI names it.

    Attributes:
        private: file of the private key.
    """

    def __init__(self, folder: Path, key: str, name: str = "") -> None:
        self.private = folder.parent / f"{key}-private.pem"
        public = folder / f"{name or key}.pem"
        _openssl("genrsa", "-out", str(self.private), "2048")
        _openssl("rsa", "-in", str(self.private), "-pubout", "-out", str(public))

    def packet(self, announced: Announcement, digest: str = "sha1") -> bytes:
        """The datagram of an announcement, signed as uWSGI does; `unix` must be set."""
        plain = announcement.write(announced)
        body = plain[4:] + _string(b"unix") + _string(str(announced.unix).encode())
        signature = subprocess.run(
            ["openssl", "dgst", f"-{digest}", "-sign", str(self.private)], input=body, capture_output=True, check=True
        ).stdout
        body += _string(b"sign") + _string(signature)
        return plain[:1] + len(body).to_bytes(2, "little") + plain[3:4] + body


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(2, "little") + text


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], capture_output=True, check=True)
