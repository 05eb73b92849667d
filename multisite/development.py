"""What only a developer's own server does: reload what changed, show tracebacks, answer ``NAME.localhost``.

`multisite serve` says so to its workers, and these to a supervisor that they start, by environment variables; nothing
else sets them. Pure.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEBUG, RELOAD, KEY, LOCALHOST = "MULTISITE_DEBUG", "MULTISITE_RELOAD", "MULTISITE_DEBUG_KEY", "MULTISITE_LOCALHOST"
#: what has frameworks raise their errors, rather than answer with a page of their own
RAISING = {"FLASK_DEBUG": "1"}
#: what a front end adds: the client may be anywhere
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


@dataclass(frozen=True, slots=True)
class Development:
    """How much of it is on.

    Attributes:
        debug: error pages show what happened.
        reload: each site is loaded anew when its code has changed.
        key: a secret, from which each site's PIN for the debugger follows; "" for no debugger.
    """

    debug: bool = False
    reload: bool = False
    key: str = ""

    def pin(self, site: str) -> str:
        """Return the PIN of one site, from which no other's can be told; "" where there is no debugger."""
        if not (self.debug and self.key):
            return ""
        number = int.from_bytes(hashlib.blake2b(site.encode(), key=self.key.encode()[:64]).digest()[:8], "big")
        digits = f"{number % 10**9:09d}"
        return "-".join((digits[:3], digits[3:6], digits[6:]))

    @property
    def environ(self) -> dict[str, str]:
        """The variables from which `told` makes an equal one."""
        words = {DEBUG: "1" if self.debug else "", RELOAD: "1" if self.reload else "", KEY: self.key}
        return {name: value for name, value in words.items() if value}


OFF = Development()


def raising(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what frameworks are told of --debug in the processes of sites; what `environ` says of it counts."""
    return {name: environ.get(name, value) for name, value in RAISING.items()} if told(environ).debug else {}


def told(environ: Mapping[str, str]) -> Development:
    """Return what the environment says."""
    return Development(environ.get(DEBUG) == "1", environ.get(RELOAD) == "1", environ.get(KEY, ""))


def is_local(environ: Mapping[str, Any]) -> bool:
    """Tell whether a request comes from this machine, and not through a front end (`runner.debugger` asks so, too)."""
    return is_loopback(environ.get("REMOTE_ADDR", "")) and not any(name in environ for name in FORWARDED)


def is_loopback(host: str) -> bool:
    """Tell whether an address is one that only this machine can reach (RFC 1122 section 3.2.1.3, RFC 4291)."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
