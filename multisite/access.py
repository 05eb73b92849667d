"""The access log of one site: a line for each request, when its answer has ended."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from multisite import logformat
from multisite.logfile import LogFile
from multisite.loghandlers import SyslogLines
from multisite.model import Home, Site
from multisite.trusted import TrustedProxies

if TYPE_CHECKING:
    from multisite.visit import Visit

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class AccessLog:
    """Writes the line of each request of `site`.

    Raises:
        OSError: the log cannot be opened.
    """

    def __init__(self, site: Site, home: Home) -> None:
        self._site = site.name
        text = site.access_format
        self._is_combined = text == "combined"
        self._headers = logformat.headers_of(text)
        self._word = logformat.decoded if text == "json" else logformat.word
        self._text = logformat.decoded if text == "json" else logformat.plain
        self._format = logformat.line_of(text)
        self._trusts = TrustedProxies(home.service.trusted_proxies).trusts
        syslog = logformat.parse_syslog(site.access_log)
        target: LogFile | SyslogLines = SyslogLines(syslog, "multisite") if syslog else LogFile(site.access_log)
        self._append = target.write

    def write(self, visit: Visit, status: int, sent: int, seconds: float, how: str) -> None:
        """Write the line of a request that has ended."""
        get = visit.environ.get
        client, user = visit.peer or "-", get("REMOTE_USER") or "-"
        if "HTTP_X_FORWARDED_FOR" in visit.environ:
            client = self.client(visit)
        if self._is_combined:
            line = (
                f'{client} - {user} [{now()[0]}] "{visit.method} {visit.uri} {get("SERVER_PROTOCOL")}" '
                f'{status or 499} {sent} "{get("HTTP_REFERER") or "-"}" "{get("HTTP_USER_AGENT") or "-"}" '
                f"{self._site} {seconds:.6f} {how}"
            )
            # The usual case: nothing is to be escaped.
            plain = line.isascii() and line.isprintable() and line.count('"') == 6 and "\\" not in line
            if plain and " " not in client and " " not in user and " " not in visit.uri:
                self._append(line)
                return
        values = self._values(visit, client, user)
        values |= {"status": str(status or 499), "bytes": str(sent), "seconds": f"{seconds:.6f}", "how": how}
        self._append(self._format(values))

    def _values(self, visit: Visit, client: str, user: str) -> dict[str, str]:
        get, word, text = visit.environ.get, self._word, self._text
        apache, iso = now()
        values = {
            "remote": word(client),
            "peer": word(visit.peer or "-"),
            "user": word(user),
            "time": apache,
            "iso": iso,
            "method": word(visit.method),
            "uri": word(visit.uri),
            "protocol": word(get("SERVER_PROTOCOL") or "-"),
            "scheme": word(get("wsgi.url_scheme") or "-"),
            "host": word(get("HTTP_HOST") or "-"),
            "referer": text(get("HTTP_REFERER") or "-"),
            "agent": text(get("HTTP_USER_AGENT") or "-"),
            "site": self._site,
            "pid": str(os.getpid()),
        }
        for name, key in self._headers.items():
            values[name] = text(get(key) or "-")
        return values

    def client(self, visit: Visit) -> str:
        """Return the client's address: the last one that no trusted proxy stands behind."""
        address = visit.peer
        if self._trusts(address):
            for named in reversed(visit.environ["HTTP_X_FORWARDED_FOR"].split(",")):
                address = named.strip() or address
                if not self._trusts(address):
                    break
        return address or "-"


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
