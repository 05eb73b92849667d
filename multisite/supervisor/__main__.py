"""``python -m multisite.supervisor``: how a worker starts the supervisor of its home.

The guard is forked before anything large is imported, so that it stays small.
"""

from __future__ import annotations

import gc
import os
import sys

from multisite.supervisor.guard import guard


def _arguments() -> dict[str, str]:
    words = sys.argv[1:]
    return dict(zip(words[::2], words[1::2], strict=True))


def detach() -> None:
    """Leave the caller's session; the process that started us can reap us at once."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o022)


def main() -> int:
    """Run the supervisor of ``--home DIR``.

    ``--lock-fd N`` is its lock; ``--adopt N`` is the state of the program that it replaces in this process.
    ``--check FORMAT`` only reports whether it could replace that program.
    """
    arguments = _arguments()
    if "--check" in arguments:
        return _check(arguments["--home"], arguments["--check"])
    if "--adopt" in arguments:
        return _run(arguments["--home"], adopt=int(arguments["--adopt"]))
    detach()
    lock = int(arguments["--lock-fd"])
    os.set_inheritable(lock, False)
    return _run(arguments["--home"], lock=lock, ready=guard())


def _run(home: str, lock: int | None = None, ready: int = -1, adopt: int = -1) -> int:
    gc.disable()  # what is imported stays: to look for garbage meanwhile takes a tenth of the start
    from multisite.errors import MultisiteError
    from multisite.supervisor.run import run

    gc.enable()
    try:
        return run(home, lock=lock, ready=ready, adopt=adopt)
    except MultisiteError as error:
        print(f"multisite: the supervisor cannot start: {error.reason}", file=sys.stderr, flush=True)
        return 1


def _check(home: str, format_: str) -> int:
    reason = _try_out(home, format_)
    if reason:
        print(reason, flush=True)
    return 1 if reason else 0


def _try_out(home: str, format_: str) -> str:
    """Find out, in a separate process, whether this program could take over; returns why not.

    Args:
        home: the directory of moya.conf.
        format_: of the state that it would receive.
    """
    from multisite import __version__
    from multisite.config.read import read_home
    from multisite.errors import ConfigError
    from multisite.supervisor import reexec, run

    assert run, "everything it needs can be imported"
    try:
        read_home(home)
    except ConfigError as error:
        return error.reason
    if format_ not in map(str, reexec.KNOWN):
        return f"version {__version__} cannot take running sites over from this one; restart the service instead"
    return ""


if __name__ == "__main__":
    sys.exit(main())
