"""An answer that is passed on as it is, and whose end something follows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Closing:
    """A body that the server iterates over and closes as it would without this (PEP 3333); then comes `_closed`."""

    __slots__ = ("_body",)

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close it, and have follow what is to follow, whether that fails or not."""
        try:
            close = getattr(self._body, "close", None)
            if close:
                close()
        finally:
            self._closed()

    def _closed(self) -> None:
        """Do what follows."""
        raise NotImplementedError
