"""Front ends whose headers are believed, and the header in which they name the host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

_MOST_PEERS = 4096


def of_gunicorn(proxies: Iterable[str]) -> list[str]:
    """Return `proxies` for gunicorn's ``forwarded_allow_ips``; gunicorn believes every unix socket anyway."""
    named = [proxy for proxy in proxies if proxy != "unix"]
    return [str(ipaddress.ip_network(proxy, strict=False)) if "/" in proxy else proxy for proxy in named]


class Networks:
    """Addresses and networks in CIDR notation."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in texts]

    def contain(self, address: str) -> bool:
        """Tell whether `address` is in one of them; a text that is not an address is in none."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self._networks)


class TrustedProxies:
    """Peers that are one of `proxies`: addresses, networks or ``unix``.

    Attributes:
        known: the results for addresses that were looked up before, for fast access.
    """

    def __init__(self, proxies: Iterable[str]) -> None:
        proxies = tuple(proxies)
        self._unix = "unix" in proxies
        self._networks = Networks(proxy for proxy in proxies if proxy != "unix")
        self.known: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """Tell whether the peer with this address, "" for a unix socket, is believed."""
        known = self.known.get(address)
        if known is None:
            known = self._networks.contain(address) if address else self._unix
            if len(self.known) >= _MOST_PEERS:
                self.known.clear()
            self.known[address] = known
        return known


def client_of(environ: dict[str, Any], proxies: TrustedProxies) -> str:
    """Return the client's address: the last one in X-Forwarded-For that is not a trusted proxy.

    A trusted front end appends its own client, so everything before an untrusted address was sent by the client. Return
    "" for a peer of a unix socket that sends no such header.
    """
    address = str(environ.get("REMOTE_ADDR", ""))
    told = str(environ.get("HTTP_X_FORWARDED_FOR", ""))
    for hop in reversed(told.split(",") if told else ()):
        if not proxies.trusts(address):
            break
        address = hop.strip() or "unknown"
    return address


def scheme_of(environ: dict[str, Any], proxies: TrustedProxies) -> str:
    """Return the scheme that the client used: from a trusted front end's header, else the server's."""
    told = _told(environ, "HTTP_X_FORWARDED_PROTO", proxies).lower()
    return told if told in ("http", "https") else str(environ["wsgi.url_scheme"])


def forwarded_host(environ: dict[str, Any], proxies: TrustedProxies) -> str:
    """Return the host that the client asked for, from a trusted front end's header; "" if there is none."""
    return _told(environ, "HTTP_X_FORWARDED_HOST", proxies)


def _told(environ: dict[str, Any], variable: str, proxies: TrustedProxies) -> str:
    value = environ.get(variable, "")
    believed = value and proxies.trusts(environ.get("REMOTE_ADDR", ""))
    return str(value).partition(",")[0].strip() if believed else ""


def key_of(header: str) -> str:
    """Return the key of a field in an environ (PEP 3333)."""
    return "HTTP_" + header.upper().replace("-", "_")


class TrustedHeader:
    """`header` names the host if the peer is one of `proxies`; from any other peer it is removed."""

    def __init__(self, header: str, proxies: Iterable[str]) -> None:
        self._variable = key_of(header)
        self._proxies = TrustedProxies(proxies)

    def host(self, environ: dict[str, Any]) -> str:
        """Return the host that the front end names, "" if it names none or is not trusted."""
        value = environ.get(self._variable)
        if value is None:
            return ""
        if self._proxies.trusts(environ.get("REMOTE_ADDR", "")):
            return str(value)
        del environ[self._variable]  # a site may believe it
        return ""
