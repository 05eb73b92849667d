"""The access log of one site: a line for each request, when its answer has ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import localtime, strftime, time
from typing import TYPE_CHECKING

from multisite import logformat
from multisite.logfile import LogFile
from multisite.loghandlers import SyslogLines
from multisite.model import Home, Site
from multisite.trusted import TrustedProxies

if TYPE_CHECKING:
    from multisite.visit import Visit

_QUOTES_OF_JSON = b'"' * (2 * 14 + 2 * 11) + b"\n"  # fourteen names, and eleven values that are no numbers
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


#: bytes that may stand in a line wherever a client likes; only quotes are left, which are counted
_HARMLESS = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')


class AccessLog:
    """Writes the line of each request of `site`.

    Nearly always no value has to be escaped. So the line is made of what there is, and looked at as a whole: if it
    holds no more than printable ASCII and its own quotes, it is what the careful way would have made.

    Attributes:
        write: writes the line of a request that has ended: its visit, the status (0: there was none), the bytes sent,
            the seconds it took, and how it was answered.

    Raises:
        OSError: the log cannot be opened.
    """

    def __init__(self, site: Site, home: Home) -> None:
        self._site = site.name
        text = site.access_format
        self._headers = logformat.headers_of(text)
        self._word = logformat.decoded if text == "json" else logformat.word
        self._text = logformat.decoded if text == "json" else logformat.plain
        self._format = logformat.line_of(text)
        self._trusts = TrustedProxies(home.service.trusted_proxies).trusts
        syslog = logformat.parse_syslog(site.access_log)
        target: LogFile | SyslogLines = SyslogLines(syslog, "multisite") if syslog else LogFile(site.access_log)
        self._append, self._look = target.append, target.look
        self._second = now()
        ways = {"combined": self._combined, "json": self._json}
        self.write: Callable[[Visit, int, int, float, str], None] = ways.get(text, self._carefully)

    def _combined(self, visit: Visit, status: int, sent: int, seconds: float, how: str) -> None:
        second = now.known
        if second[0] != int(time()) or second is not self._second:
            second = self._begin_second()
        get = visit.environ.get
        client = visit.peer or "-"
        if get("HTTP_X_FORWARDED_FOR"):
            client = self.client(visit)
        user, uri = get("REMOTE_USER") or "-", visit.uri
        line = (
            f'{client} - {user} [{second[1]}] "{visit.method} {uri} {get("SERVER_PROTOCOL") or "-"}" {status or 499} '
            f'{sent} "{get("HTTP_REFERER") or "-"}" "{get("HTTP_USER_AGENT") or "-"}" '
            f"{self._site} {seconds:.6f} {how}\n"
        )
        data = line.encode("ascii", "backslashreplace")
        plain = data.translate(None, _HARMLESS) == b'""""""\n'
        if plain and " " not in uri and " " not in client and " " not in user:
            self._append(data)
        else:
            self._carefully(visit, status, sent, seconds, how)

    def _json(self, visit: Visit, status: int, sent: int, seconds: float, how: str) -> None:
        second = now.known
        if second[0] != int(time()) or second is not self._second:
            second = self._begin_second()
        get = visit.environ.get
        client = visit.peer or "-"
        if get("HTTP_X_FORWARDED_FOR"):
            client = self.client(visit)
        line = (
            f'{{"iso":"{second[2]}","site":"{self._site}","remote":"{client}","user":"{get("REMOTE_USER") or "-"}",'
            f'"method":"{visit.method}","host":"{get("HTTP_HOST") or "-"}","uri":"{visit.uri}",'
            f'"protocol":"{get("SERVER_PROTOCOL") or "-"}","status":{status or 499},"bytes":{sent},'
            f'"seconds":{seconds:.6f},"how":"{how}",'
            f'"referer":"{get("HTTP_REFERER") or "-"}","agent":"{get("HTTP_USER_AGENT") or "-"}"}}\n'
        )
        data = line.encode("ascii", "backslashreplace")
        if data.translate(None, _HARMLESS) == _QUOTES_OF_JSON:
            self._append(data)
        else:
            self._carefully(visit, status, sent, seconds, how)

    def _begin_second(self) -> Second:
        """Return the time, and see whether the file has been renamed if it is another second."""
        second = now()
        if second is not self._second:
            self._second = second
            self._look()
        return second

    def _carefully(self, visit: Visit, status: int, sent: int, seconds: float, how: str) -> None:
        """Write a line with each value escaped."""
        values = self._values(visit)
        values |= {"status": str(status or 499), "bytes": str(sent), "seconds": f"{seconds:.6f}", "how": how}
        self._append(f"{self._format(values)}\n".encode("ascii", "backslashreplace"))

    def _values(self, visit: Visit) -> dict[str, str]:
        get, word, text = visit.environ.get, self._word, self._text
        _, apache, iso = self._begin_second()
        client = self.client(visit) if get("HTTP_X_FORWARDED_FOR") else visit.peer or "-"
        values = {
            "remote": word(client),
            "peer": word(visit.peer or "-"),
            "user": word(get("REMOTE_USER") or "-"),
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


Second = tuple[int, str, str]  # since 1970, and as Apache and as ISO 8601 write it


class _Clock:
    """The time as text, made once a second.

    Attributes:
        known: the last second that somebody asked for.
    """

    def __init__(self) -> None:
        self.known: Second = (-1, "", "")

    def __call__(self) -> Second:
        """Return this second; month names are English whatever the locale is."""
        second, known = int(time()), self.known
        if known[0] == second:
            return known
        local = localtime(second)
        zone = strftime("%z", local)
        month = MONTHS[local.tm_mon - 1]
        apache = strftime(f"%d/{month}/%Y:%H:%M:%S {zone}", local)
        iso = strftime(f"%Y-%m-%dT%H:%M:%S{zone[:3]}:{zone[3:]}", local)
        self.known = known = (second, apache, iso)
        return known


now = _Clock()
