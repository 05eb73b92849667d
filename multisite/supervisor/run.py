"""How the supervisor begins: for the first time, or in place of an older program."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import NoReturn

from multisite.control import program
from multisite.control.rundir import RuntimeDir
from multisite.errors import ConfigError
from multisite.sites.live import LiveHome
from multisite.supervisor.main import Supervisor
from multisite.supervisor.process import orphans
from multisite.supervisor.process.prctl import set_name
from multisite.supervisor.reexec import Keeper, State, seal, taken, unseal
from multisite.supervisor.upgrade import HELD_BACK

_log = logging.getLogger("multisite.supervisor")


def run(home: str, foreground: bool = False, lock: int | None = None, ready: int = -1, adopt: int = -1) -> int:
    """Supervise the sites of `home`; returns the exit code.

    Args:
        home: its directory.
        foreground: keep running, however many servers there are (``multisite supervise``).
        lock: descriptor of the lock, if the process that started us already holds it.
        ready: descriptor that receives one byte when the control socket is open.
        adopt: descriptor of the state of the program that this one replaces.

    Raises:
        ConfigError, RuntimeDirError: the home or its runtime directory cannot be used.
    """
    set_name("multisite-superv")
    live = LiveHome(home)
    rundir = RuntimeDir(live.open().home)
    if adopt >= 0:
        take_over(live, adopt).run()
        return 0
    if not foreground:
        _hush()
    rundir.make()
    if lock is None:
        lock = rundir.lock()
        if lock is None:
            pid, other = rundir.holder()
            raise rundir.other_home() if other != rundir.home else AlreadyRunning(pid)
    rundir.sign(lock)
    supervisor = Supervisor(live, rundir, lock, foreground=foreground)
    if ready >= 0:
        with contextlib.suppress(OSError):
            os.write(ready, b"1")
        os.close(ready)
    supervisor.run()
    return 0


def take_over(live: LiveHome, adopt: int) -> Supervisor:
    """Replace another program in this process and take over its running sites; else begin again without them."""
    state = unseal(adopt)
    foreground, lock = bool(state["foreground"]), taken(state["lock"])
    if not foreground:
        _hush()
    rundir = RuntimeDir(live.home, state["rundir"])
    try:
        return Supervisor(live, rundir, lock, foreground=foreground, state=None if "anew" in state else state)
    except Exception:  # whatever it is: running sites that nobody watches would be worse
        if "anew" in state:
            raise
        _log.exception(
            "MS559 cannot take over the running sites; they are stopped, and start again with their next requests"
        )
        begin_anew(live.home.path, state, lock)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


def begin_anew(home: str, state: State, lock: int) -> NoReturn:
    """End what runs and execute this program once more, with nothing but the lock.

    Some descriptors in this process already belong to half-made objects, which would one day close the descriptors of
    others.
    """
    orphans.all_children()
    for descriptor in state["kept"]:
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
    keep = Keeper()
    rest = {"lock": keep(lock), "rundir": state["rundir"], "foreground": state["foreground"], "anew": True}
    argv = program.command(home, adopt=str(seal(rest, keep)))
    os.chdir("/")
    os.execve(argv[0], argv, program.environment(os.environ))


def _hush() -> None:
    logging.getLogger("multisite.live").setLevel(logging.CRITICAL)  # the workers have logged it


class AlreadyRunning(ConfigError):
    """A supervisor of this home is already running."""

    id = "MS541"

    def __init__(self, pid: int) -> None:
        Exception.__init__(self, "already running")
        self.reason = f"a supervisor of this home is already running (process {pid})"
        self.problems = ()
