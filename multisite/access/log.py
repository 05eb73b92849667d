"""The access log of one site.

`AccessLog.begin` is called when a request comes, and `Visit.done` once when its answer has ended, by whoever ends it:
the layer around the site's app, or the relay loop that has taken the request over.
"""

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
        self.fields = logformat.fields_of(text)
        self.headers = {name: logformat.header_key(name) for name in self.fields if logformat.header_key(name)}
        self.safe = logformat.decoded if text == "json" else logformat.plain
        self.line = logformat.line_of(text)
        self._trusts = TrustedProxies(home.service.trusted_proxies).trusts
        syslog = logformat.parse_syslog(site.access_log)
        target: LogFile | SyslogLines = SyslogLines(syslog, "multisite") if syslog else LogFile(site.access_log)
        self.write = target.write

    def begin(self, environ: Environ, how: str) -> Visit:
        """Note a request that has come; `how` is who answers it."""
        return Visit(self, environ, how)

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


class Visit:
    """One request on its way, for the line about it.

    Attributes:
        how: who answers: in-process, spawned, proxy, static or page.
    """

    __slots__ = ("_began", "_client", "_environ", "_log", "_method", "_peer", "_protocol", "_uri", "how")

    def __init__(self, log: AccessLog, environ: Environ, how: str) -> None:
        self._log = log
        self._environ = environ
        self._began = time.monotonic()
        self.how = how
        # Now, since an application may write what it likes into its environ.
        get = environ.get
        self._method = get("REQUEST_METHOD", "")
        self._uri = get("RAW_URI") or get("REQUEST_URI") or _uri(environ)
        self._protocol = get("SERVER_PROTOCOL", "")
        self._peer = get("REMOTE_ADDR", "")
        self._client = log.client(environ)

    def done(self, status: int, sent: int, *, cut: bool = False, seconds: float | None = None) -> None:
        """Write the line; call it once.

        Args:
            status: of the answer; 0 where the client left before there was one.
            sent: bytes of the body that were passed on.
            cut: whether the answer did not arrive whole.
            seconds: that it took; by default since `AccessLog.begin`.
        """
        log = self._log
        took = time.monotonic() - self._began if seconds is None else seconds
        get, safe = self._environ.get, log.safe
        apache, iso = now()
        values = {
            "remote": safe(self._client or "-"),
            "peer": safe(self._peer or "-"),
            "user": safe(get("REMOTE_USER") or "-"),
            "time": apache,
            "iso": iso,
            "method": safe(self._method),
            "uri": safe(self._uri),
            "protocol": safe(self._protocol),
            "status": str(status or 499),
            "bytes": str(sent),
            "referer": safe(get("HTTP_REFERER") or "-"),
            "agent": safe(get("HTTP_USER_AGENT") or "-"),
            "host": safe(get("HTTP_HOST") or "-"),
            "scheme": safe(get("wsgi.url_scheme") or "-"),
            "site": log.site,
            "seconds": f"{took:.6f}",
            "how": self.how + ",cut" if cut else self.how,
            "pid": str(os.getpid()),
        }
        for name, key in log.headers.items():
            values[name] = safe(get(key) or "-")
        log.write(log.line(values))


def _uri(environ: Environ) -> str:
    from urllib.parse import quote

    path = quote(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""), safe="/:@!$&'()*+,;=~", encoding="latin-1")
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
