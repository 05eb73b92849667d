"""The layer in front of a site's app that answers with files.

Every answer is made from a file that is already open: it is found below its directory without following links that lead
outside (`safefiles`), examined by its descriptor, and sent from it. The description of a file is remembered as long as
its stamp stays the same.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from multisite.config import filerules
from multisite.config.filerules import MediaTypes
from multisite.config.model import Home, Site
from multisite.config.safefiles import Reached, beside, reach
from multisite.config.trusted import TrustedProxies
from multisite.config.values import duration
from multisite.dispatch.static import answers
from multisite.dispatch.static.answers import Expires, Headers, Representation, stamp_of
from multisite.errors import pages

Environ = dict[str, Any]
CODINGS = {"br": b".br", "zstd": b".zst", "gzip": b".gz"}  # in order of our preference
MOST_KNOWN = 1024  # files remembered for a site
LOOK_EVERY = 1.0  # seconds between two looks for compressed variants of a file

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.ENODEV)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NOT_FOUND = pages.error_page(404, text="There is no file at this address.")
_REFUSED = pages.error_page(403, text="Access to this file is not allowed.")
_NOT_ALLOWED = pages.error_page(405, text="Files can only be read.", headers=(("Allow", "GET, HEAD"),))
_CHANGED = pages.error_page(412, text="The file has changed since the client last saw it.")


class StaticFiles:
    """The files of one site; called with a request, it answers or returns None.

    Args:
        root: whether this process runs as root, to which the kernel would open every file.
    """

    def __init__(self, site: Site, home: Home, *, root: bool | None = None) -> None:
        places = dict(site.static)
        self._check = tuple(map(os.fsencode, places.pop("check", ())))
        self._prefixes = Prefixes(places)
        self._index = [os.fsencode(name) for name in site.static_index]
        self._hidden, self._policy = site.static_hidden, site.static_links
        self._types = MediaTypes(map(filerules.parse_type, site.static_types))
        self._expiries = [filerules.parse_expiry(item, duration) for item in site.static_expires]
        self._sender = filerules.parse_sender(site.static_send)
        self._trusts = TrustedProxies(home.service.trusted_proxies).trusts
        self._root = os.geteuid() == 0 if root is None else root
        self._expires = Expires()
        self._known: dict[tuple[str, str, bool], Representation] = {}
        self._variants: dict[str, tuple[float, tuple[str, ...]]] = {}

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes] | None:
        """Answer one request, if it asks for files."""
        path = environ.get("PATH_INFO", "")
        found = self._prefixes.find(path)
        if found:
            prefix, folders = found
            return self._below(path[len(prefix) :], folders, environ, start_response)
        if self._check and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            candidates = self._candidates(self._check, path)
            if candidates:
                try:
                    return self._first_of(candidates, environ, start_response)
                except OSError as error:
                    if error.errno not in _MISSING + _FORBIDDEN:
                        raise
        return None

    def _below(self, rest: str, folders: Iterable[bytes], environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer under a prefix, in any case."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _NOT_ALLOWED(environ, start_response)
        try:
            return self._first_of(self._candidates(folders, rest), environ, start_response)
        except OSError as error:
            if error.errno in _FORBIDDEN:
                return _REFUSED(environ, start_response)
            if error.errno not in _MISSING:
                raise
            return _NOT_FOUND(environ, start_response)

    def _candidates(self, places: Iterable[bytes], path: str) -> list[tuple[bytes, list[bytes]]]:
        """Return the files that seem to exist for a path, each as a directory and names below it.

        This only looks, which costs less than trying to open a missing file; what is shown is decided later.
        """
        parts = names(path, self._hidden)
        if parts is None:
            return []
        wanted = [[*parts, index] for index in self._index] if path[-1:] == "/" else [parts]
        return [(place, each) for place in places for each in wanted if os.access(b"/".join((place, *each)), os.F_OK)]

    def _first_of(
        self, candidates: Iterable[tuple[bytes, list[bytes]]], environ: Environ, start_response: Any
    ) -> Iterable[bytes]:
        """Answer with the first available file; raises OSError if there is none."""
        reason: OSError = FileNotFoundError(errno.ENOENT, "there is no such file")
        for place, parts in candidates:
            try:
                reached, name = self._reach(place, parts)
            except OSError as error:
                if error.errno not in _MISSING:
                    reason = error
                continue
            try:
                return self._send(reached, name, b"/".join((place, *parts)), environ, start_response)
            finally:
                reached.close()
        raise reason

    def _reach(self, place: bytes, parts: list[bytes]) -> tuple[Reached, bytes]:
        """Open the file `parts` of a directory, or the file that `place` itself is; returns its name too."""
        try:
            return reach(place, parts, self._policy, trusting=not self._root), parts[-1] if parts else b""
        except NotADirectoryError:
            if parts:
                raise
        folder, name = os.path.split(place)
        policy = "owner" if self._root else "all"  # the site file names this path, not a visitor
        return reach(folder, [name], policy, trusting=not self._root), name

    # One open file

    def _send(
        self, reached: Reached, name: bytes, where: bytes, environ: Environ, start_response: Any
    ) -> Iterable[bytes]:
        """Answer with an open file, or redirect to the directory that it is; `where` is the requested path."""
        status = os.fstat(reached.file)
        if stat.S_ISDIR(status.st_mode):
            return self._redirect(reached, environ)(environ, start_response)
        self._refuse_odd(reached.folder, status)
        path = environ["PATH_INFO"]
        offered = self._offered(path, name, reached.folder)
        coding = filerules.best_coding(environ.get("HTTP_ACCEPT_ENCODING", ""), offered) if offered else ""
        if coding:
            try:
                status = self._compressed(reached, name + CODINGS[coding])
            except OSError:
                coding = ""  # gone within the last second, or not allowed
        told = self._about(path, name, coding, status, varies=bool(offered))
        if self._sender and self._trusts(environ.get("REMOTE_ADDR", "")):
            value = self._sender.value(where + CODINGS[coding] if coding else where)
            if value and self._is_straight(reached.file, where, coding):
                return self._pass_on(self._sender.header, value, told, start_response)
        status_code = answers.status_of(environ, told)
        if status_code == 304:
            start_response("304 Not Modified", told.kept + self._expiry(told))
            return []
        if status_code == 412:
            return _CHANGED(environ, start_response)
        spans = answers.spans_of(environ, told)
        if spans is None:
            return self._whole(reached, told, environ, start_response)
        return self._parts(reached, told, spans, environ, start_response)

    def _redirect(self, reached: Reached, environ: Environ) -> pages.Page:
        """Redirect to a directory that has an index; we show no other directory."""
        path = environ["PATH_INFO"]
        if path.endswith("/") or not any(_is_file(index, reached.file) for index in self._index):
            raise FileNotFoundError(errno.ENOENT, "it is a directory")
        query = environ.get("QUERY_STRING", "")
        location = quote((environ.get("SCRIPT_NAME", "") + path).encode("latin-1")) + "/"
        return pages.redirect(f"{location}?{query}" if query else location, 301)

    def _refuse_odd(self, folder: int, status: os.stat_result) -> None:
        """Refuse what is not a file, and, in a worker that runs as root, what only root may read."""
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is not a regular file")
        if self._root and not status.st_mode & stat.S_IROTH and status.st_uid != os.fstat(folder).st_uid:
            raise PermissionError(errno.EACCES, "neither everybody nor the owner of its directory may read it")

    def _offered(self, path: str, name: bytes, folder: int) -> tuple[str, ...]:
        """Return the codings in which the directory has the file, as of a second ago at most."""
        now = time.monotonic()
        known = self._variants.get(path)
        if known and now < known[0]:
            return known[1]
        found = tuple(coding for coding, suffix in CODINGS.items() if _is_file(name + suffix, folder))
        if len(self._variants) >= MOST_KNOWN:
            self._variants.clear()
        self._variants[path] = (now + LOOK_EVERY, found)
        return found

    def _compressed(self, reached: Reached, name: bytes) -> os.stat_result:
        """Replace the file with a compressed variant."""
        file = beside(reached.folder, name)
        try:
            status = os.fstat(file)
            self._refuse_odd(reached.folder, status)
        except BaseException:
            os.close(file)
            raise
        reached.replace(file)
        return status

    def _about(self, path: str, name: bytes, coding: str, status: os.stat_result, *, varies: bool) -> Representation:
        """Return the description of the file, from memory if it is still the same."""
        key = (path, coding, varies)
        known = self._known.get(key)
        if known and known.stamp == stamp_of(status):
            return known
        fresh = filerules.freshness(self._expiries, path)
        told = Representation(status, self._types.of(os.fsdecode(name)), coding, fresh, varies=varies)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[key] = told
        return told

    def _expiry(self, told: Representation) -> Headers:
        return [] if told.fresh is None else [self._expires.at(told.fresh)]

    # Answers

    def _whole(self, reached: Reached, told: Representation, environ: Environ, start_response: Any) -> Iterable[bytes]:
        headers = told.headers + self._expiry(told)
        if environ["REQUEST_METHOD"] == "HEAD":
            start_response("200 OK", headers)
            return []
        if told.size > answers.IN_MEMORY:
            body = answers.whole(reached.take_file(), told.size, environ)
            start_response("200 OK", headers)
            return body
        data = answers.read(reached.file, told.size)
        if len(data) != told.size:  # it is being written; its present content has no name yet
            headers = [("Content-Type", told.media_type), ("Content-Length", str(len(data)))]
        start_response("200 OK", headers)
        return [data]

    def _parts(
        self,
        reached: Reached,
        told: Representation,
        spans: list[answers.Span],
        environ: Environ,
        start_response: Any,
    ) -> Iterable[bytes]:
        if not spans:
            page = pages.error_page(
                416, text="The file has no such part.", headers=(("Content-Range", f"bytes */{told.size}"),)
            )
            return page(environ, start_response)
        if len(spans) == 1:
            (start, stop), media_type, length = spans[0], told.media_type, spans[0][1] - spans[0][0]
            body = answers.part(reached.take_file(), spans[0], environ)
            headers = [("Content-Range", f"bytes {start}-{stop - 1}/{told.size}")]
        else:
            several = answers.Multipart(told.media_type, told.size, spans)
            body, media_type, length, headers = (
                several.body(reached.take_file()),
                several.media_type,
                several.length,
                [],
            )
        headers += [("Content-Type", media_type), ("Content-Length", str(length)), *told.kept, *self._expiry(told)]
        headers += [("Content-Encoding", told.coding)] if told.coding else []
        start_response("206 Partial Content", headers)
        return body

    @staticmethod
    def _is_straight(file: int, where: bytes, coding: str) -> bool:
        """Tell whether the file still has its name, so that a front end which follows no links finds it too."""
        name = os.readlink(b"/proc/self/fd/%d" % file).rpartition(b"/")[2]
        return name == os.path.basename(where) + CODINGS.get(coding, b"")

    def _pass_on(self, header: str, value: str, told: Representation, start_response: Any) -> Iterable[bytes]:
        """Let the front end send the file; it handles conditions and ranges itself."""
        drop = ("Content-Length", "ETag", "Last-Modified", "Accept-Ranges")
        headers = [field for field in told.headers if field[0] not in drop]
        headers += [("Content-Length", "0"), (header, value), *self._expiry(told)]
        start_response("200 OK", headers)
        return []


def _is_file(name: bytes, folder: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


LONGEST = 4096  # bytes of a path; PATH_MAX of Linux, and no file system has longer ones
WELL_KNOWN = b".well-known"  # RFC 8615: certificates are issued for what is there


def names(path: str, hidden: bool = False) -> list[bytes] | None:
    """Split a path, as PATH_INFO contains it, into names; None if it cannot name a file.

    Empty names, ``.`` and ``..`` have no meaning in a URL here, and names that start with a dot are not served unless
    `hidden` is set. One slash at either end is ignored.
    """
    try:
        data = path.encode("latin-1")  # PEP 3333: bytes, each as one character
    except UnicodeEncodeError:
        return None
    if b"\0" in data or len(data) > LONGEST:
        return None
    data = data[data[:1] == b"/" :]
    if not data:
        return []
    parts = data.split(b"/")
    if not parts[-1]:
        parts.pop()
    for number, part in enumerate(parts):
        if part in (b"", b".", b".."):
            return None
        if part[0] == 46 and not hidden and (number or part != WELL_KNOWN):
            return None
    return parts


class Prefixes:
    """The prefixes of ``[static]``, found by the first name of a path."""

    def __init__(self, prefixes: Mapping[str, tuple[str, ...]]) -> None:
        merged: dict[str, tuple[bytes, ...]] = {}
        for prefix, places in prefixes.items():
            plain = prefix.rstrip("/").encode().decode("latin-1")
            merged[plain] = merged.get(plain, ()) + tuple(map(os.fsencode, places))
        self._by_first: dict[str, list[tuple[str, tuple[bytes, ...]]]] = {}
        for prefix in sorted(merged, key=len, reverse=True):
            self._by_first.setdefault(first(prefix), []).append((prefix, merged[prefix]))
        root = self._by_first.pop("", None)
        self._root = root[0] if root else None

    def find(self, path: str) -> tuple[str, tuple[bytes, ...]] | None:
        """Return the longest prefix that `path` is at or below, and its folders and files."""
        for entry in self._by_first.get(first(path), ()):
            prefix = entry[0]
            if path == prefix or path.startswith(prefix + "/"):
                return entry
        return self._root


def first(path: str) -> str:
    """Return the first name of a path that begins with a slash."""
    return path[1:].partition("/")[0]
