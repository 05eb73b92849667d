"""How many sites each client has started recently, and whether it may start another (pure but for its memory)."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict, deque

WINDOW = 60.0  # seconds
MOST_CLIENTS = 4096  # remembered; the client that has been away longest is forgotten first


class Wakes:
    """The starts of sites with ``wakes_per_minute``, by client; all such sites count together."""

    def __init__(self) -> None:
        self._starts: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, address: str, most: int, now: float) -> int:
        """Count one start of a client and return 0; if it has used up its starts, return the seconds until its next.

        Args:
            address: of the client.
            most: starts within a minute.
            now: monotonic seconds.
        """
        client = client_of(address)
        starts = self._starts.setdefault(client, deque())
        self._starts.move_to_end(client)
        while len(self._starts) > MOST_CLIENTS:
            self._starts.popitem(last=False)
        while starts and now - starts[0] >= WINDOW:
            starts.popleft()
        if len(starts) >= most:
            return max(1, math.ceil(starts[len(starts) - most] + WINDOW - now))
        starts.append(now)
        return 0


def client_of(address: str) -> str:
    """Return the key of a client: for IPv6 the network of one subscriber, /64 (RFC 6177, BCP 157).

    All texts that are not addresses count as one client.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
