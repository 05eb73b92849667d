"""``wsgi.input`` in front of gunicorn's own, and the answer to a request whose body cannot be read.

If a body was cut short, gunicorn returns the part that arrived as if it were all. After invalid chunks, older versions
read what the client sends next as its next request.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CUT = "the client left before it had sent the whole body"
LONGEST_LENGTH = 18  # digits; int() refuses thousands of them


class Gone(ConnectionResetError):
    """The other side left before it had sent the whole request, or sent an invalid body.

    Because of its number, gunicorn closes the connection when it meets this error, and logs nothing.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ECONNRESET, reason)


def answered(
    app: Any, environ: dict[str, Any], start_response: Any, refuse: Any, when_failed: Any, when_over: Any = None
) -> Any:
    """Return what `app` answers to a request that may have a body.

    Args:
        app: a WSGI app.
        environ, start_response: what it is called with.
        refuse: called with a sentence and whether the body is cut short, answers in place of an app that raised
            because it could not read it.
        when_failed: called when the rest of the body cannot be read: nobody knows where the next request begins.
        when_over: called when the answer is complete, and the body is no longer read.
    """
    when_over = when_over or (lambda: None)
    result = None
    try:
        result = _answered(app, environ, start_response, refuse, when_failed)
    finally:
        if not isinstance(result, _Reading):
            when_over()
    if isinstance(result, _Reading):
        result.when_over = when_over
    return result


def _answered(app: Any, environ: dict[str, Any], start_response: Any, refuse: Any, when_failed: Any) -> Any:
    length = environ.get("CONTENT_LENGTH") or ""
    if length and (not length.isascii() or not length.isdigit() or len(length) > LONGEST_LENGTH):
        when_failed()
        return refuse("the Content-Length of the request is no number", False)
    is_sized = "HTTP_TRANSFER_ENCODING" not in environ
    if is_sized and not length.strip("0"):
        return app(environ, start_response)
    body = CheckedBody(environ["wsgi.input"], int(length) if is_sized else None, when_failed)
    environ["wsgi.input"] = body
    try:
        result = app(environ, start_response)
    except Exception:
        if not body.failure:
            raise
        return refuse(body.failure, body.is_cut)
    return result if type(result) in (list, tuple) else _Reading(result, body, refuse)


class _Reading:
    """An answer that is made while the body is read."""

    def __init__(self, result: Any, body: CheckedBody, refuse: Any) -> None:
        self.when_over: Callable[[], None] = lambda: None
        self._result = result
        self._body = body
        self._refuse = refuse
        self._parts: Any = None
        self._is_begun = False

    def __iter__(self) -> _Reading:
        return self

    def __next__(self) -> bytes:
        try:
            self._parts = self._parts or iter(self._result)
            part: bytes = next(self._parts)
        except StopIteration:
            raise
        except Exception as error:
            if not self._body.failure:
                raise
            if self._is_begun:  # it is cut short, which needs no message
                raise Gone(self._body.failure) from error
            self._parts = iter(self._refuse(self._body.failure, self._body.is_cut))
            part = next(self._parts, b"")
        self._is_begun = self._is_begun or bool(part)
        return part

    def close(self) -> None:
        """As the app's own."""
        try:
            if hasattr(self._result, "close"):
                self._result.close()
        finally:
            self.when_over()


class CheckedBody:
    """A body that is read to its end or raises `Gone`, whichever way it is read (PEP 3333).

    Args:
        source: the server's ``wsgi.input``.
        length: in bytes; None if the body itself shows where it ends.
        when_failed: called when the rest cannot be read.

    Attributes:
        failure: why it cannot be read; "" while it can.
        is_cut: because no more of it will come.
    """

    def __init__(self, source: Any, length: int | None, when_failed: Callable[[], None]) -> None:
        self._source = source
        self._left = length
        self._when_failed = when_failed
        self.failure = ""
        self.is_cut = False

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, fewer only at the end; without a size, all of them."""
        if self._left is None:
            return self._ask(self._source.read, *([] if size is None or size < 0 else [size]))
        wanted = self._most(size)
        data = b""
        while len(data) < wanted:
            more = self._ask(self._source.read, wanted - len(data))
            if not more:
                raise self._fail(CUT, is_cut=True)
            data = data + more if data else more
        self._left -= len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        """The next line with its end, or `size` bytes of it."""
        if self._left is None:
            return self._ask(self._source.readline, *([] if size is None or size < 0 else [size]))
        wanted = self._most(size)
        line = self._ask(self._source.readline, wanted) if wanted else b""
        if len(line) < wanted and not line.endswith(b"\n"):
            raise self._fail(CUT, is_cut=True)
        self._left -= len(line)
        return line

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """Lines, as many as have `hint` bytes; all of them without that."""
        lines, size = [], 0
        for line in self:
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self) -> CheckedBody:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def _most(self, size: int | None) -> int:
        left = self._left or 0
        return left if size is None or size < 0 else min(size, left)

    def _ask(self, read: Callable[..., bytes], *size: int) -> bytes:
        if self.failure:
            raise Gone(self.failure)
        try:
            return read(*size)
        except TypeError:  # that is the caller's
            raise
        except OSError as error:  # gunicorn, uWSGI and mod_wsgi raise this when the client has left
            is_cut = type(error).__name__ not in _MALFORMED
            raise self._fail(f"cannot read the body of the request: {error}", is_cut) from error
        except Exception as error:  # gunicorn's error for invalid chunks
            raise self._fail(f"cannot read the body of the request: {error}", is_cut=False) from error

    def _fail(self, reason: str, is_cut: bool) -> Gone:
        self.failure = reason
        self.is_cut = is_cut
        self._when_failed()
        return Gone(reason)


_MALFORMED = ("InvalidChunkSize", "ChunkMissingTerminator")  # which used to be I/O errors
