"""``python -m multisite.supervisor``: how a worker starts the supervisor of its home.

The guard is forked before anything large is imported, so that it stays small.
"""

from __future__ import annotations

import os
import sys

from multisite.supervisor.watchdog import guard


def _arguments() -> dict[str, str]:
    words = sys.argv[1:]
    return dict(zip(words[::2], words[1::2], strict=True))


def detach() -> None:
    """Leave the caller's session; who started us reaps at once."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o022)


def main() -> int:
    """Run the supervisor of ``--home DIR``, with the lock that ``--lock-fd N`` is."""
    arguments = _arguments()
    detach()
    lock = int(arguments["--lock-fd"])
    os.set_inheritable(lock, False)
    ready = guard()
    from multisite.errors import MultisiteError
    from multisite.supervisor.main import run

    try:
        return run(arguments["--home"], lock=lock, ready=ready)
    except MultisiteError as error:
        print(f"multisite: the supervisor cannot start: {error.reason}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
