"""Front ends whose word is believed, and the header in which one names the host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

_MOST_PEERS = 4096


class TrustedProxies:
    """Peers that are one of `proxies`: addresses, networks or ``unix``."""

    def __init__(self, proxies: Iterable[str]) -> None:
        proxies = tuple(proxies)
        self._unix = "unix" in proxies
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies if proxy != "unix"]
        self._known: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """Tell whether the peer with this address, "" for a unix socket, is believed."""
        known = self._known.get(address)
        if known is None:
            known = self._contains(address) if address else self._unix
            if len(self._known) >= _MOST_PEERS:
                self._known.clear()
            self._known[address] = known
        return known

    def _contains(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self._networks)


class TrustedHeader:
    """`header` names the host where the peer is one of `proxies`."""

    def __init__(self, header: str, proxies: Iterable[str]) -> None:
        self._variable = "HTTP_" + header.upper().replace("-", "_")
        self._proxies = TrustedProxies(proxies)

    def host(self, environ: dict[str, Any]) -> str:
        """Return the host that the front end names, "" if it names none or is not trusted."""
        value = environ.get(self._variable)
        return str(value) if value and self._proxies.trusts(environ.get("REMOTE_ADDR", "")) else ""
