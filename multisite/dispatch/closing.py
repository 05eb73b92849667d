"""An answer whose end is noticed: when the server closes it (PEP 3333)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Closing:
    """A body that the server iterates over and closes as it would without this (PEP 3333); then `_closed` is called."""

    __slots__ = ("_body",)

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close it, then do what follows, whether closing fails or not."""
        try:
            close = getattr(self._body, "close", None)
            if close:
                close()
        finally:
            self._closed()

    def _closed(self) -> None:
        """Do what follows."""
        raise NotImplementedError
