"""The program that sets up unknown domains: ``provision =``, a function of the administrator or a command.

``python -m multisite.router.provisioner HOME TARGET DOMAIN`` calls the function, in a separate process. Its result is
printed: a node in one line, or nothing. It may write a site file meanwhile. Its own output goes to the log. The exit
status is 0, or `FAILED` if it raised.
"""

from __future__ import annotations

import ipaddress
import os
import shlex
import sys
import traceback

FAILED = 70  # EX_SOFTWARE in sysexits.h; 1 is a command's way to refuse
_MODULE = "multisite.router.provisioner"


def is_function(target: str) -> bool:
    """Tell whether `target` is MODULE:FUNCTION or FILE.py:FUNCTION, rather than a command."""
    where, _, name = target.rpartition(":")
    is_module = all(map(str.isidentifier, where.split(".")))
    return name.isidentifier() and (is_module or (where.endswith(".py") and where.split() == [where]))


def command(target: str, home: str, domain: str, interpreter: str) -> list[str]:
    """Return the words of the command that asks about `domain`, which is one of them; no shell sees it.

    Raises:
        ValueError: `target` is neither a function nor a command.
    """
    if is_function(target):
        return [interpreter, "-m", _MODULE, home, target, domain]
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise ValueError(f"cannot split it into words: {str(error).lower()}") from None
    if not words:
        raise ValueError("it is empty")
    return [*words, domain]


def is_domain(host: str) -> bool:
    """Tell whether a host in its normal form may be set up as a domain: a name with a dot, not an address."""
    first, dot, last = host.rpartition(".")
    if not dot or not first or not last or host.startswith(("-", ".")) or not set(host) <= _OF_A_DOMAIN:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return not last.isdigit()
    return False


_OF_A_DOMAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")


def main() -> int:
    """Call the function; return the exit status."""
    from multisite.router.code import Function

    home, target, domain = sys.argv[1:]
    answers = os.dup(1)
    os.dup2(2, 1)
    os.chdir(home)
    try:
        node = Function(target, home)(domain)
        if node is not None and not isinstance(node, str):
            raise TypeError(f"{target} returned {type(node).__name__} instead of text or None")
    except (Exception, SystemExit):
        traceback.print_exc()
        return FAILED
    if node:
        os.write(answers, node.strip().encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
