"""The WSGI side of recording one request: what was said, how much of it was passed on, and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Ended = Callable[[int, int, bool], None]  # status (0: none), bytes, whether the answer was cut short

#: bytes of a list that a server is given as one; what is smaller fits into a socket's buffer in any case
MOST_AT_ONCE = 65536


class Recorded:
    """Stands between the server and an answer, whose `start_response` is `start`.

    Args:
        ended: called once, when the server has closed the answer (PEP 3333).
    """

    __slots__ = (
        "_body",
        "_close",
        "_ended",
        "_failed",
        "_headers",
        "_next",
        "_start",
        "_status",
        "_whole",
        "_write",
        "sent",
    )

    def __init__(self, start_response: Any, ended: Ended) -> None:
        self._start = start_response
        self._ended: Ended | None = ended
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._whole = self._failed = False
        self._next: Callable[[], bytes] | None = None
        self.sent = 0

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        """Pass on how the answer begins, and note it (PEP 3333)."""
        self._status, self._headers = status, headers
        self._write = self._start(status, headers, exc_info) if exc_info else self._start(status, headers)
        return self._counted_write

    def _counted_write(self, data: bytes) -> object:
        self.sent += len(data)
        return self._write(data)

    def around(self, body: Iterable[bytes], environ: dict[str, Any]) -> Iterable[bytes]:
        """Return `body` so that its end is noticed; one that the server sends as a file stays what it is."""
        self._body = body
        self._close = getattr(body, "close", None)
        self._whole = environ.get("REQUEST_METHOD") == "HEAD"
        if type(body) is list:
            size = sum(map(len, body))
            if size <= MOST_AT_ONCE:
                self.sent += size
                self._whole = True
                return _Closed(body, self.close)
        wrapper = environ.get("wsgi.file_wrapper")
        if type(body) is wrapper or (wrapper and not isinstance(wrapper, type) and hasattr(body, "read")):
            return self._file(body)
        return self

    def _file(self, body: Any) -> Iterable[bytes]:
        """Notice the end of a file that the server sends, which tells nobody how much of it has gone."""
        self._whole = True
        self.sent += self._length() or 0
        try:
            body.close = self.close
        except AttributeError:  # it is none of Python's own objects: this is the last that is heard of it
            self.end()
        found: Iterable[bytes] = body
        return found

    def _length(self) -> int | None:
        for name, value in self._headers:
            if name.lower() == "content-length" and value.isascii() and value.isdigit():
                return int(value)
        return None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        following = self._next
        if following is None:
            following = self._next = iter(self._body).__next__
        try:
            data = following()
        except StopIteration:
            self._whole = True
            raise
        except BaseException:
            self._failed = True
            raise
        self.sent += len(data)
        return data

    def close(self) -> None:
        """Close the body, and tell of the end."""
        try:
            if self._close:
                self._close()
        finally:
            self.end()

    def end(self) -> None:
        """Tell of the end, once."""
        ended, self._ended = self._ended, None
        if not ended:
            return
        code = self._status[:3]
        status = int(code) if code.isdigit() else 500 if self._failed else 0
        cut = self._failed or not (self._whole or self._is_complete())
        ended(status, self.sent, cut)

    def _is_complete(self) -> bool:
        """Tell whether all was passed on though the server did not ask until the end."""
        length = self._length()
        return length is not None and self.sent >= length


class _Closed(list[bytes]):
    """The parts of a small answer, whose number servers take for a sign of its length."""

    __slots__ = ("close",)

    def __init__(self, parts: list[bytes], close: Callable[[], None]) -> None:
        super().__init__(parts)
        self.close = close
