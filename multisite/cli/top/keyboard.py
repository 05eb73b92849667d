"""What a terminal sends for a key, by name (pure)."""

from __future__ import annotations

_NAMED = {
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x03": "quit",
    b"\x04": "quit",
    b"\x0c": "redraw",
    b"\x1a": "suspend",
}
_SEQUENCES = {
    **{b"A": "up", b"B": "down", b"C": "right", b"D": "left", b"H": "home", b"F": "end"},
    **{b"1~": "home", b"4~": "end", b"5~": "page up", b"6~": "page down", b"7~": "home", b"8~": "end"},
}


class Keys:
    """Splits what is read into keys; a sequence may come in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the keys of what has been read: a name, or the character itself; unknown sequences are none."""
        self._rest += data
        found: list[str] = []
        while self._rest:
            key = self._next()
            if key is None:
                break
            found.extend([key] if key else ())
        return found

    @property
    def is_waiting(self) -> bool:
        """Whether more has to come, or what came was the key Escape."""
        return bool(self._rest)

    def flush(self) -> list[str]:
        """Nothing has followed at once: return the key Escape if that was it."""
        rest, self._rest = self._rest, b""
        return ["escape"] if rest == b"\x1b" else []

    def _next(self) -> str | None:
        """Take the first key; "" for what is none, None where more has to come."""
        rest = self._rest
        if rest[:1] == b"\x1b":
            return self._escape(rest)
        if rest[:1] in _NAMED:
            self._rest = rest[1:]
            return _NAMED[rest[:1]]
        lead = rest[0]
        size = 1 if not 0xC2 <= lead <= 0xF4 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        if len(rest) < size:
            return None
        self._rest = rest[size:]
        text = rest[:size].decode(errors="replace")
        return text if text.isprintable() else ""

    def _escape(self, rest: bytes) -> str | None:
        if len(rest) == 1:
            return None
        if rest[1:2] not in (b"[", b"O"):
            self._rest = rest[1:]
            return "escape"
        for end in range(2, len(rest)):
            if 0x40 <= rest[end] <= 0x7E:
                self._rest = rest[end + 1 :]
                return _SEQUENCES.get(rest[2 : end + 1], "")
        if len(rest) > 16:
            self._rest = b""
            return ""
        return None
