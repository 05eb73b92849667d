"""The answer of a WSGI app as HTTP/1 on a connection that carries one request (PEP 3333).

The dispatcher gets what the app returns and no more: the server in front adds Date and Server, as it does for its own
apps. If the app gives no length, the body is sent in chunks, so that a body cut short differs from a complete one.
Where nothing of ours stands between the app and the client, the answer is a `WholeAnswer`.
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
from time import monotonic_ns

from .envelope import TIMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any


# RFC 9110, section 5.6.2 and 5.5; RFC 9112, section 4.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_A_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_STATUS = re.compile(r"[1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers"}
_HOP_BY_HOP |= {"transfer-encoding", "upgrade"}
_LENGTH = {"content-length"}
_OURS = _HOP_BY_HOP | {"date", "server"}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_JOIN_BELOW = 65536  # copying so much is cheaper than a system call
PAGE = "<html><head><title>{0}</title></head><body><h1>{0}</h1>{1}</body></html>\n"
_lower_names: dict[str, str] = {}
_date = (0, "")  # the second, and how it is written
BLOCK = 8192
PIECE = 131072  # bytes of a plain file that are read at once, whatever the app suggests


class WsgiAnswer:
    """One answer: `start_response` for the app, and what writes what the app returns.

    Attributes:
        status: the code, 0 until the app gives it.
        is_begun: something has been sent.
        size: bytes of the body so far.
        begun_at: when the first piece of a body that comes in pieces was sent, in nanoseconds of the monotonic clock;
            0: nothing was sent, or all at once.
    """

    _version = "HTTP/1.1"
    _ours = ""  # header lines
    _dropped = _HOP_BY_HOP
    _in_chunks = True

    def __init__(self, connection: socket.socket, method: str, protocol: str) -> None:
        self.status = 0
        self.is_begun = False
        self.size = self.begun_at = 0
        self._connection = connection
        self._is_head = method == "HEAD"
        self._has_body = not self._is_head
        self._is_chunked = False
        self._takes_hints = protocol != "HTTP/1.0"
        self._head = ""
        self._length: int | None = None
        self._sent = 0

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """As PEP 3333 says.

        Raises:
            ValueError, TypeError: HTTP cannot express that.
        """
        if exc_info:
            try:
                if self.is_begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head:
            raise AssertionError("start_response() was called a second time, without exc_info")
        if not _STATUS.fullmatch(status):
            raise ValueError(f"{status!r} is not a status")
        code = int(status[:3])
        # RFC 9110, section 8.6: a 204 has no length.
        dropped = self._dropped | _LENGTH if code == 204 else self._dropped
        lines, self._length = header_lines(headers, dropped)
        self._has_body = not self._is_head and code not in (204, 304) and code >= 200
        self._is_chunked = self._in_chunks and self._has_body and self._length is None
        framing = "Transfer-Encoding: chunked\r\n" if self._is_chunked else ""
        self._head = f"{self._version} {status}\r\n{self._ours}{framing}{lines}"
        self.status = code
        return self.write

    def early_hints(self, headers: list[tuple[Any, Any]]) -> None:
        """``wsgi.early_hints``: a 103 (RFC 8297) before the answer, for clients of HTTP/1.1."""
        if self._takes_hints and not self.is_begun:
            lines, _ = header_lines([(_text(name), _text(value)) for name, value in headers], self._dropped)
            self._connection.sendall(f"HTTP/1.1 103 Early Hints\r\n{lines}\r\n".encode("latin-1"))

    def write(self, data: bytes) -> None:
        """Send a piece of the body, and the head before the first; an empty piece sends nothing (PEP 3333)."""
        piece = self._piece(data)
        if piece:
            self._send(piece)

    def send(self, result: Any) -> None:
        """All that the app returned."""
        if type(result) is FileWrapper:
            self._send_file(result)
            return
        if type(result) in (list, tuple):
            self._end(result[0] if len(result) == 1 else b"".join(result))
            return
        for data in result:
            self.write(data)
            self.begun_at = self.begun_at or monotonic_ns()
        self._end(b"")

    def refuse(self, status: str, incident: str = "") -> None:
        """An answer of our own, in place of the app's."""
        page = PAGE.format(status[4:], incident and f"<p><small>Incident {incident}</small></p>").encode()
        ours = f"{self._version} {status}\r\n{self._ours}"
        head = f"{ours}Content-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
        self.status = int(status[:3])
        self.is_begun = True
        self.size = 0 if self._is_head else len(page)
        self._connection.sendall(head.encode() + (b"" if self._is_head else page))

    def _end(self, data: bytes) -> None:
        """The last piece, and the end of the chunks with it."""
        piece = self._piece(data)
        if self._is_chunked:
            piece += b"0\r\n\r\n"
        if piece or not self.is_begun:
            self._send(piece)

    def _piece(self, data: bytes) -> bytes:
        """Return the part of `data` that belongs to the answer, as it is sent."""
        if not isinstance(data, bytes):
            raise TypeError(f"a body consists of bytes, not of {type(data).__name__}")
        if self._length is None:
            self.size += len(data) if self._has_body else 0
            if not self._is_chunked:
                return data if self._has_body else b""
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        data = data[: max(0, self._length - self._sent)]
        self._sent += len(data)
        self.size += len(data) if self._has_body else 0
        return data if self._has_body else b""

    def _send(self, data: bytes) -> None:
        if not self.is_begun:
            if not self._head:
                raise AssertionError("the application returned without calling start_response()")
            self.is_begun = True
            head = (self._head + "\r\n").encode("latin-1")
            if len(data) > _JOIN_BELOW:
                self._connection.sendall(head)
            else:
                data = head + data
        if data:
            self._connection.sendall(data)

    def _send_file(self, wrapper: FileWrapper) -> None:
        """Let the kernel send the file, if the app gives the length; read what it cannot send, no more than needed."""
        most = self._length if self._has_body else 0
        span = wrapper.span(most - self._sent) if most else None
        if span:
            self._send(b"")
            sent = self._connection.sendfile(wrapper.filelike, *span)
            self._sent += sent
            self.size += sent
        while most is None or self._sent < most:
            data = next(wrapper, b"")
            if not data:
                break
            self.write(data)
        self._end(b"")

    @property
    def is_bare(self) -> bool:
        """Only the end of the connection ends the body, as of an answer in HTTP/1.0 that has no length."""
        return self._has_body and self._length is None and not self._is_chunked

    @property
    def is_short(self) -> bool:
        """Whether the app gave less than it had announced."""
        return self._has_body and self._length is not None and self._sent < self._length


class TimedAnswer(WsgiAnswer):
    """An answer that says when the application had the request.

    Attributes:
        taken_at: when the request was taken, in nanoseconds of the monotonic clock.
    """

    taken_at = 0

    def _send(self, data: bytes) -> None:
        if self._head and not self.is_begun:
            self._head += f"{TIMES}: {self.taken_at} {monotonic_ns()}\r\n"
        super()._send(data)


class WholeAnswer(WsgiAnswer):
    """A complete answer: with Server and Date, in the client's version of HTTP, ended by closing the connection.

    The head is that of gunicorn's sync worker, which would have served the client otherwise.
    """

    _dropped = _OURS

    def __init__(self, connection: socket.socket, method: str, protocol: str) -> None:
        super().__init__(connection, method, protocol)
        self._version = "HTTP/1.0" if protocol == "HTTP/1.0" else "HTTP/1.1"
        self._in_chunks = self._takes_hints
        self._ours = f"Server: gunicorn\r\nDate: {date()}\r\nConnection: close\r\n"


def date() -> str:
    """Return the time in the form of a Date field (RFC 9110, section 5.6.7)."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        year, month, day, hour, minute, second, weekday = time.gmtime(now)[:7]
        clock = f"{hour:02}:{minute:02}:{second:02}"
        _date = now, f"{_DAYS[weekday]}, {day:02} {_MONTHS[month]} {year:04} {clock} GMT"
    return _date[1]


def header_lines(headers: list[tuple[str, str]], dropped: set[str]) -> tuple[str, int | None]:
    """Return the lines of a head, without those that are `dropped`, and the length that they give.

    Raises:
        ValueError, TypeError: a name or a value would break out of its line, or is not text.
    """
    lines = []
    length = None
    for name, value in headers:
        lower = _lower_names.get(name) or _checked(name)
        if lower in dropped:
            continue
        if _NOT_IN_A_VALUE.search(value):
            raise ValueError(f"the value of the header {name} has a character that HTTP does not allow")
        if lower == "content-length":
            length = _length(value, length)
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines), length


def _checked(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid header name")
    if len(_lower_names) < 1000:
        _lower_names[name] = name.lower()
    return name.lower()


def _length(value: str, other: int | None) -> int:
    value = value.strip()
    if not (value.isascii() and value.isdigit()) or (other is not None and int(value) != other):
        raise ValueError(f"{value!r} is not a valid Content-Length, or contradicts another")
    return int(value)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


class FileWrapper:
    """``wsgi.file_wrapper`` (PEP 3333, "Optional Platform-Specific File Handling"): what reading a file gives is sent.

    A descriptor may hold something other than what reading the object gives: a `gzip.GzipFile` has the descriptor of
    the compressed file, a buffer may be ahead of its reader, and the sizes in /proc and /sys are not true. So the
    kernel sends only objects whose `read` certainly gives what the descriptor holds; everything else is read. The
    caller that iterates closes the file, if it can be closed.
    """

    def __init__(self, filelike: Any, blksize: int = BLOCK) -> None:
        self.filelike = filelike
        self._size = max(blksize, PIECE) if _is_plain(filelike) else blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data = self.filelike.read(self._size)
        if not data:
            raise StopIteration
        encoding = getattr(self.filelike, "encoding", None) if type(data) is str else None
        encoded: bytes = data.encode(encoding) if encoding else data
        return encoded

    def span(self, most: int) -> tuple[int, int] | None:
        """Return the file's position, and how many of the next `most` bytes the kernel can send; None if it cannot."""
        file = self.filelike
        if not _is_plain(file):
            return None
        try:
            told = os.fstat(file.fileno())
            offset = file.tell()
        except (OSError, ValueError):  # closed, or a pipe
            return None
        count = min(most, told.st_size - offset)
        return (offset, count) if count > 0 and stat.S_ISREG(told.st_mode) else None


class ReadFile:
    """``wsgi.file_wrapper`` for an app behind a server that would send what the descriptor holds.

    Servers test whether a body is an instance of the class that they gave to the app. No body is an instance of this
    class, so servers iterate over each.
    """

    def __new__(cls, filelike: Any, blksize: int = BLOCK) -> FileWrapper:  # type: ignore[misc]
        """Return the object that servers iterate over instead."""
        return FileWrapper(filelike, blksize)


def _is_plain(file: Any) -> bool:
    """Return whether reading a file gives what its descriptor holds, from the position that it reports."""
    kind = type(file)
    return kind is io.FileIO or (kind is io.BufferedReader and type(file.raw) is io.FileIO)
