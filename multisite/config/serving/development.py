"""What only a developer's own server does: reload what changed, show tracebacks, answer ``NAME.localhost``.

`multisite serve` passes this to its workers, and they to a supervisor that they start, in environment variables;
nothing else sets them. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

DEBUG, RELOAD, KEY, LOCALHOST = "MULTISITE_DEBUG", "MULTISITE_RELOAD", "MULTISITE_DEBUG_KEY", "MULTISITE_LOCALHOST"
LINES = "MULTISITE_REQUEST_LINES"
SIMULATE = "MULTISITE_SIMULATE"  # of how many invented sites the status pages show figures; also for other servers
MOST_SIMULATED = 10_000
#: variables that make frameworks raise their errors, rather than answer with their own page
RAISING = {"FLASK_DEBUG": "1"}


@dataclass(frozen=True, slots=True)
class Development:
    """How much of it is on.

    Attributes:
        debug: error pages show what happened.
        reload: each site is loaded again when its code has changed.
        key: a secret, from which each site's PIN for the debugger follows; "" for no debugger.
        lines: each request prints a line.
        local: only this machine can connect, so sites have names of their own, and strange hosts get the list of all.
    """

    debug: bool = False
    reload: bool = False
    key: str = ""
    lines: bool = False
    local: bool = False

    def pin(self, site: str) -> str:
        """Return the PIN of one site, which reveals no other PIN; "" if there is no debugger."""
        if not (self.debug and self.key):
            return ""
        number = int.from_bytes(hashlib.blake2b(site.encode(), key=self.key.encode()[:64]).digest()[:8], "big")
        digits = f"{number % 10**9:09d}"
        return "-".join((digits[:3], digits[3:6], digits[6:]))

    @property
    def environ(self) -> dict[str, str]:
        """The variables from which `from_environ` makes an equal one."""
        switches = {DEBUG: self.debug, RELOAD: self.reload, LINES: self.lines, LOCALHOST: self.local}
        words = {name: "1" for name, is_on in switches.items() if is_on}
        return {**words, KEY: self.key} if self.key else words


OFF = Development()


def raising(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for frameworks in the processes of sites with --debug; those of `environ` win."""
    return {name: environ.get(name, value) for name, value in RAISING.items()} if from_environ(environ).debug else {}


def from_environ(environ: Mapping[str, str]) -> Development:
    """Return the settings in the environment."""
    debug, reload, lines, local = (environ.get(name) == "1" for name in (DEBUG, RELOAD, LINES, LOCALHOST))
    return Development(debug, reload, environ.get(KEY, ""), lines, local)


def simulated(environ: Mapping[str, str]) -> int:
    """Return how many invented sites the environment asks for, 0 for none."""
    asked = environ.get(SIMULATE, "")
    return min(int(asked), MOST_SIMULATED) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 0
