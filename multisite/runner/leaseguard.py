"""The parent of a site that must not run twice: it ends the site with its lease, whoever else is frozen or dead.

Run as a separate program (standard library only), as the site's user. It starts the command as its child, passes on
SIGTERM, and ends as the command ends. The supervisor writes into a mapped file until when the lease is valid, by the
clock that counts suspended time too (CLOCK_BOOTTIME). This process sleeps until then. If the file then has a later
moment, it sleeps on; otherwise it kills the command and everything that descends from it. It needs neither the
supervisor, nor the site's interpreter, nor the site's consent for that. `warning` seconds before, it asks the command
to end.

It kills all of them, too, when the supervisor dies, and when the command has ended: nothing that the site has started
outlives its lease. Descendants cannot escape by a session of their own, because this process is their reaper.

    leaseguard.py WARNING [--stdin] -- COMMAND ARGUMENT…
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import signal
import struct
import sys
import time

FENCE = 7  # the descriptor of the mapped file
LOST = 79  # exit status: the lease was over
SIZE = 8  # bytes of the file: nanoseconds
TAIL = 0.005  # seconds between two looks for what is still alive
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLOCK_BOOTTIME, TFD_TIMER_ABSTIME = 7, 1
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)
ORPHANED = signal.SIGUSR1  # the kernel's sign that the supervisor has died

_libc = ctypes.CDLL(None, use_errno=True)


def now() -> int:
    """Return nanoseconds since the machine was started, suspended time included."""
    return time.clock_gettime_ns(CLOCK_BOOTTIME)


class Alarm:
    """A descriptor that can be read once a moment of CLOCK_BOOTTIME has come (timerfd_create(2)).

    The timeout of poll(2) would not do: it does not count the time for which the machine was suspended.

    Raises:
        OSError: the kernel has none left.
    """

    def __init__(self) -> None:
        self._file = _checked(_libc.timerfd_create(CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._file

    def set(self, moment: int) -> None:
        """Let it go off at this nanosecond; what was set before is forgotten."""
        told = struct.pack("=qqqq", 0, 0, *divmod(max(moment, 1), 10**9))
        _checked(_libc.timerfd_settime(self._file, TFD_TIMER_ABSTIME, told, None))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


class LeaseGuard:
    """The command, and how long it may live.

    Args:
        argv: of the command.
        fence: maps the nanosecond at which the lease ends.
        warning: nanoseconds before that in which the command may end by itself.
        is_stdin: its listening socket is its standard input.
    """

    def __init__(self, argv: list[str], fence: mmap.mmap, warning: int, is_stdin: bool) -> None:
        self._fence, self._warning = memoryview(fence).cast("q"), warning
        self._alarm = Alarm()
        self._wake, waker = os.pipe()
        for end in (self._wake, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (*PASSED_ON, ORPHANED, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        _libc.prctl(PR_SET_PDEATHSIG, int(ORPHANED))
        self._is_warned = False
        self.pid = self._start(argv, is_stdin) if now() < self.until else 0

    @property
    def until(self) -> int:
        """The nanosecond at which the lease ends, as far as it has been renewed."""
        return int(self._fence[0])

    def _start(self, argv: list[str], is_stdin: bool) -> int:
        guard = os.getpid()
        # A signal that is passed on at once must not meet our handlers in the child: they would swallow it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return pid
        try:
            signal.set_wakeup_fd(-1)
            for number in (*PASSED_ON, ORPHANED, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
            if os.getppid() != guard:
                os._exit(LOST)
            if not is_stdin:
                os.environ["LISTEN_PID"] = str(os.getpid())
            os.execvp(argv[0], argv)
        except OSError as error:
            print(f"MS622 cannot run {argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)

    def watch(self) -> int:
        """Wait for the end of the command, or end it; returns the exit status, negative for a signal."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._alarm.fileno(), select.POLLIN)
        while self.pid:
            until, moment = self.until, now()
            if moment >= until:
                break
            if moment >= until - self._warning:
                self._warn()
            else:
                self._is_warned = False
            self._alarm.set(until if self._is_warned else until - self._warning)
            poll.poll()
            if self._is_left():
                return self._end(LOST)
            status = self._reap()
            if status is not None:
                return self._end(LOST if self._is_warned and status in (0, -signal.SIGTERM) else status)
        print("MS624 the site's lease is over, so it ends", file=sys.stderr, flush=True)
        return self._end(LOST)

    def _warn(self) -> None:
        if not self._is_warned:
            self._is_warned = True
            self._signal(signal.SIGTERM)

    def _is_left(self) -> bool:
        """Pass signals on; tell whether the supervisor has died."""
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(self._wake, 512)
        for number in numbers:
            if number in PASSED_ON:
                self._signal(number)
        return int(ORPHANED) in numbers

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)  # it has not been waited for, so nothing else has its number

    def _reap(self) -> int | None:
        """Wait for all that has ended; returns the status of the command if it is among them."""
        found = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                if pid == self.pid:
                    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
                    found, self.pid = code, 0
        return found

    def _end(self, status: int) -> int:
        """Kill all that is alive below this process; returns `status`."""
        while True:
            self._reap()
            family = descendants()
            if not family:
                return status
            for pid in family:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(TAIL)


def descendants() -> list[int]:
    """Return the pids of all processes below this one; orphans among them have become its own children."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(name))
    found, waiting = [], [os.getpid()]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def main(arguments: list[str]) -> int:
    """Guard the command; returns its exit status."""
    cut = arguments.index("--")
    (warning, *stdin), argv = arguments[:cut], arguments[cut + 1 :]
    fence = mmap.mmap(FENCE, SIZE, prot=mmap.PROT_READ)
    os.close(FENCE)
    status = LeaseGuard(argv, fence, int(float(warning) * 1e9), bool(stdin)).watch()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -status)  # as the command was
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
