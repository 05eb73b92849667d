"""The access log of one site: what is noted of a request when it comes, and the line when its answer has ended."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from multisite import logformat
from multisite.logfile import LogFile
from multisite.loghandlers import SyslogLines
from multisite.model import Home, Site
from multisite.trusted import TrustedProxies

Environ = dict[str, Any]

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class AccessLog:
    """Writes the line of each request of `site`.

    Raises:
        OSError: the log cannot be opened.
    """

    def __init__(self, site: Site, home: Home) -> None:
        self.site = site.name
        text = site.access_format
        #: fields that the combined format has not, and their keys of the environ
        self.more = {} if text == "combined" else logformat.environ_keys(text)
        self.safe = logformat.decoded if text == "json" else logformat.plain
        self.format = logformat.line_of(text)
        self._trusts = TrustedProxies(home.service.trusted_proxies).trusts
        syslog = logformat.parse_syslog(site.access_log)
        target: LogFile | SyslogLines = SyslogLines(syslog, "multisite") if syslog else LogFile(site.access_log)
        self.write = target.write

    def line(self, environ: Environ) -> Line:
        """Note a request that has come."""
        return Line(self, environ)

    def client(self, environ: Environ) -> str:
        """Return the client's address: the last one that no trusted proxy stands behind."""
        address: str = environ.get("REMOTE_ADDR", "")
        told = environ.get("HTTP_X_FORWARDED_FOR")
        if told and self._trusts(address):
            for named in reversed(told.split(",")):
                address = named.strip() or address
                if not self._trusts(address):
                    break
        return address


class Line:
    """The line about one request."""

    __slots__ = ("_client", "_environ", "_log", "_method", "_peer", "_protocol", "_uri")

    def __init__(self, log: AccessLog, environ: Environ) -> None:
        self._log = log
        self._environ = environ
        # Now, since an application may write what it likes into its environ.
        get = environ.get
        self._method = get("REQUEST_METHOD", "")
        self._uri = get("RAW_URI") or get("REQUEST_URI") or _uri(environ)
        self._protocol = get("SERVER_PROTOCOL", "")
        self._peer = get("REMOTE_ADDR", "")
        self._client = log.client(environ)

    def write(self, status: int, sent: int, cut: bool, seconds: float, how: str) -> None:
        """Write it (see `multisite.visit.Visit.done`)."""
        log = self._log
        log.write(log.format(self._values(status, sent, f"{how},cut" if cut else how, seconds)))

    def _values(self, status: int, sent: int, how: str, seconds: float) -> dict[str, str]:
        get, safe = self._environ.get, self._log.safe
        apache, iso = now()
        values = {
            "remote": safe(self._client or "-"),
            "user": safe(get("REMOTE_USER") or "-"),
            "time": apache,
            "method": safe(self._method),
            "uri": safe(self._uri),
            "protocol": safe(self._protocol),
            "status": str(status or 499),
            "bytes": str(sent),
            "referer": safe(get("HTTP_REFERER") or "-"),
            "agent": safe(get("HTTP_USER_AGENT") or "-"),
            "site": self._log.site,
            "seconds": f"{seconds:.6f}",
            "how": how,
        }
        if self._log.more:
            values |= {name: safe(get(key) or "-") for name, key in self._log.more.items()}
            values |= {"peer": safe(self._peer or "-"), "iso": iso, "pid": str(os.getpid())}
        return values


def _uri(environ: Environ) -> str:
    from urllib.parse import quote

    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    path = quote(path, safe="/:@!$&'()*+,;=~", encoding="latin-1", errors="replace")
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


class _Clock:
    """The time as text, made once a second."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._known: tuple[int, str, str] = (-1, "", "")
        self._lock = threading.Lock()

    def __call__(self) -> tuple[str, str]:
        """Return the time as Apache and as ISO 8601 write it; month names are English whatever the locale is."""
        second = int(self._clock())
        known = self._known
        if known[0] != second:
            local = time.localtime(second)
            zone = time.strftime("%z", local)
            month = MONTHS[local.tm_mon - 1]
            apache = time.strftime(f"%d/{month}/%Y:%H:%M:%S {zone}", local)
            iso = time.strftime(f"%Y-%m-%dT%H:%M:%S{zone[:3]}:{zone[3:]}", local)
            known = self._known = (second, apache, iso)
        return known[1:]


now = _Clock()
