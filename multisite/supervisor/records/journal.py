"""What the supervisor has counted since it wrote its document last, in a file that outlives it however it ends.

Each site has a record with two places, which are written in turn, through a mapping: a writer that is killed in the
middle leaves the place before it whole. A place is a checksum, a length, and JSON: a number that grows, the site's
name, and its whole `Tally`. A record replaces what the document has of the site.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator

from multisite.config.model import Home
from multisite.sites.statefile import StateFile
from multisite.sites.tally import Tally, tally_of

PLACE = 2048  # bytes
RECORD = 2 * PLACE
MORE = 64  # records by which the file grows
MOST = 4096  # records; of sites beyond, the document alone is kept
_HEAD = struct.Struct("<IH")


class Journal:
    """The journal of one home.

    A file that cannot be had costs the counts since the last document only.
    """

    def __init__(self, home: Home) -> None:
        kept = StateFile(home, "journal")
        self.path = os.path.join(kept.directory, f"journal-{kept.key}.bin")
        self._newest: dict[str, int] = {}  # by site: the number of the place that was written last
        self._turn = 0
        self._map: mmap.mmap | None = None

    def read(self) -> dict[str, Tally]:
        """Return what is in it, by the name of the site."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return {}
        try:
            status = os.fstat(file)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return {}
            data = os.pread(file, min(status.st_size, MOST * RECORD), 0)
        finally:
            os.close(file)
        found: dict[str, tuple[int, Tally]] = {}
        for turn, name, tally in _places(data):
            if name not in found or found[name][0] < turn:
                found[name] = turn, tally
            self._turn = max(self._turn, turn)
        return {name: tally for name, (_, tally) in found.items()}

    def put(self, name: str, tally: Tally) -> None:
        """Note what a site has used."""
        self._turn += 1
        known = {key: value for key, value in tally.as_dict().items() if value}
        known |= {"statuses": tally.statuses, "requests": tally.requests}
        text = json.dumps([self._turn, name, known], separators=(",", ":")).encode()
        place = self._newest[name] ^ 1 if name in self._newest else 2 * len(self._newest)
        if len(text) > PLACE - _HEAD.size or not self._reserve(place // 2):
            return
        assert self._map
        self._newest[name] = place
        at = place * PLACE
        self._map[at : at + _HEAD.size + len(text)] = _HEAD.pack(zlib.crc32(text), len(text)) + text

    def clear(self) -> None:
        """Forget everything: the document has it."""
        if self._map:
            self._map.close()
            self._map = None
        self._newest = {}
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _reserve(self, record: int) -> bool:
        """Have room for a record on the disk: what is mapped and has none would end this process (SIGBUS)."""
        if record >= MOST:
            return False
        if self._map and record * RECORD < len(self._map):
            return True
        size = (record // MORE + 1) * MORE * RECORD
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(self.path, flags if self._map else flags | os.O_TRUNC, 0o600)
            try:
                os.posix_fallocate(file, 0, size)
                grown = mmap.mmap(file, size)
            finally:
                os.close(file)
        except OSError:
            return False
        if self._map:
            self._map.close()
        self._map = grown
        return True


def _places(data: bytes) -> Iterator[tuple[int, str, Tally]]:
    for at in range(0, len(data) - PLACE + 1, PLACE):
        check, length = _HEAD.unpack_from(data, at)
        text = data[at + _HEAD.size : at + _HEAD.size + length]
        if not length or zlib.crc32(text) != check:
            continue
        try:
            turn, name, known = json.loads(text)
        except ValueError:
            continue
        tally = tally_of(known)
        if tally:
            yield int(turn), str(name), tally
