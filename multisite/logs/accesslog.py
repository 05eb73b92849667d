"""A site's access log: the line of each request, in the format that its file names.

Every site's requests come through here when they are logged; how few steps one takes is what keeps that cheap.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import localtime, strftime, time
from typing import Any

from multisite.config import logformat
from multisite.config.model import Home, Site
from multisite.config.trusted import TrustedProxies
from multisite.logs.logfiles import Batch, LogFile
from multisite.logs.loghandlers import SyslogLines
from multisite.logs.requests import RequestRecord

_QUOTES_OF_JSON = b'"' * (2 * 14 + 2 * 11) + b"\n"  # fourteen names, and eleven values that are no numbers
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


#: bytes that may stand in a line wherever a client likes; only quotes are left, which are counted
_HARMLESS = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')


#: time, peer, X-Forwarded-For, user, method, uri, protocol, scheme, host, referer, agent, status, bytes, seconds, how,
#: and the values of the headers that a format names
Record = tuple[Any, ...]


class AccessLog:
    """Writes the line of each request of `site`.

    A request leaves a record, which is all that it pays for under load; lines are made of records when they are written
    (`Batch`). Nearly always no value has to be escaped. So a line is made of what there is, and looked at as a
    whole: if it holds no more than printable ASCII and its own quotes, it is what the careful way would have made.

    Raises:
        OSError: the log cannot be opened.
    """

    def __init__(self, site: Site, home: Home) -> None:
        self._site = site.name
        text = site.access_format
        self._headers = logformat.headers_of(text)
        self._keys = tuple(self._headers.values())
        self._word = logformat.decoded if text == "json" else logformat.word
        self._text = logformat.decoded if text == "json" else logformat.plain
        self._format = logformat.line_of(text)
        self._trusts = TrustedProxies(home.service.trusted_proxies).trusts
        self._line: Callable[[Record], bytes] = {"combined": self._combined, "json": self._json}.get(text, self.careful)
        syslog = logformat.parse_syslog(site.access_log)
        target: LogFile | SyslogLines = SyslogLines(syslog, "multisite") if syslog else LogFile(site.access_log)
        self._check_renamed = target.check_renamed
        self._second = now(time())
        self._take = Batch(self.line, target.append, at_once=bool(syslog)).append

    def write(self, request: RequestRecord, status: int, sent: int, seconds: float, how: str) -> None:
        """Write the line of a request that has ended.

        Args:
            status: 0 where the client left before there was one.
            sent: bytes of the answer's body.
            seconds: that it took.
            how: it was answered.
        """
        get = request.environ.get
        self._take(
            (
                time(),
                request.peer,
                get("HTTP_X_FORWARDED_FOR"),
                get("REMOTE_USER"),
                request.method,
                request.uri,
                get("SERVER_PROTOCOL"),
                get("wsgi.url_scheme"),
                get("HTTP_HOST"),
                get("HTTP_REFERER"),
                get("HTTP_USER_AGENT"),
                status or 499,
                sent,
                seconds,
                how,
                tuple(map(get, self._keys)) if self._keys else (),
            )
        )

    def line(self, record: Record) -> bytes:
        """Return the line of a record, with its end."""
        if self._second[0] != int(record[0]) or now.known is not self._second:
            self._second = now(record[0])
            self._check_renamed()
        try:
            return self._line(record)
        except Exception:  # an app has put into its environ what is no text
            return self.careful((record[0], *map(_text, record[1:11]), *record[11:15], tuple(map(_text, record[15]))))

    def _combined(self, record: Record) -> bytes:
        _, peer, forwarded, user, method, uri, protocol, _, _, referer, agent, status, sent, seconds, how, _ = record
        client = self.client(peer, forwarded) if forwarded else peer or "-"
        user = user or "-"
        line = (
            f'{client} - {user} [{self._second[1]}] "{method} {uri} {protocol or "-"}" {status} {sent} '
            f'"{referer or "-"}" "{agent or "-"}" {self._site} {seconds:.6f} {how}\n'
        )
        data = line.encode("ascii", "backslashreplace")
        if data.translate(None, _HARMLESS) == b'""""""\n' and not (" " in uri or " " in client or " " in user):
            return data
        return self.careful(record)

    def _json(self, record: Record) -> bytes:
        _, peer, forwarded, user, method, uri, protocol, _, host, referer, agent, status, sent, seconds, how, _ = record
        site, iso = self._site, self._second[2]
        client = self.client(peer, forwarded) if forwarded else peer or "-"
        line = (
            f'{{"iso":"{iso}","site":"{site}","remote":"{client}","user":"{user or "-"}","method":"{method}",'
            f'"host":"{host or "-"}","uri":"{uri}","protocol":"{protocol or "-"}","status":{status},"bytes":{sent},'
            f'"seconds":{seconds:.6f},"how":"{how}","referer":"{referer or "-"}","agent":"{agent or "-"}"}}\n'
        )
        data = line.encode("ascii", "backslashreplace")
        return data if data.translate(None, _HARMLESS) == _QUOTES_OF_JSON else self.careful(record)

    def careful(self, record: Record) -> bytes:
        """Return the line of a record, each of whose values has been escaped."""
        return f"{self._format(self._values(record))}\n".encode("ascii", "backslashreplace")

    def _values(self, record: Record) -> dict[str, str]:
        word, text = self._word, self._text
        _, peer, forwarded, user, method, uri, protocol, scheme, host, *others = record
        referer, agent, status, sent, seconds, how, more = others
        values = {
            "remote": word(self.client(peer, forwarded) if forwarded else peer or "-"),
            "peer": word(peer or "-"),
            "user": word(user or "-"),
            "time": self._second[1],
            "iso": self._second[2],
            "method": word(method),
            "uri": word(uri),
            "protocol": word(protocol or "-"),
            "scheme": word(scheme or "-"),
            "host": word(host or "-"),
            "referer": text(referer or "-"),
            "agent": text(agent or "-"),
            "site": self._site,
            "pid": str(os.getpid()),
            "status": str(status),
            "bytes": str(sent),
            "seconds": f"{seconds:.6f}",
            "how": how,
        }
        return values | {name: text(value or "-") for name, value in zip(self._headers, more, strict=True)}

    def client(self, peer: str, forwarded: str) -> str:
        """Return the client's address: the last one that no trusted proxy stands behind."""
        address = peer
        if self._trusts(address):
            for named in reversed(forwarded.split(",")):
                address = named.strip() or address
                if not self._trusts(address):
                    break
        return address or "-"


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else f"<{type(value).__name__}>"


Second = tuple[int, str, str]  # since 1970, and as Apache and as ISO 8601 write it


class _Clock:
    """The time as text, made once a second.

    Attributes:
        known: the last second that somebody asked for.
    """

    def __init__(self) -> None:
        self.known: Second = (-1, "", "")

    def __call__(self, at: float) -> Second:
        """Return the second of `at`, since 1970; month names are English whatever the locale is."""
        second, known = int(at), self.known
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
