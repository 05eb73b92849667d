"""For a server that accepts as soon as it runs: runs it on a private socket first, and sends a request there.

Run as a separate program (standard library only), as the site's user, with the site's listening socket. It starts the
command as its child with a private socket instead, sends the smoke request there, and ends it. Only then does it
become the command itself, now with the site's socket. So no visitor's request reaches a server that does not answer.

    trial.py (http|uwsgi) HOST PATH [--stdin] -- COMMAND ARGUMENT…
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import tempfile
import time
from typing import NoReturn

LISTENER = 3
NOT_WELL = 6  # exit status
FAILS_FROM = 500
GRACE = 5.0  # seconds for the command to end after SIGTERM
PATIENCE = 0.2  # seconds between two looks whether the command still runs
PAUSE = 0.02
LONGEST = 65536  # bytes of an answer that are read


def request(protocol: str, host: str, path: str) -> bytes:
    """Return the smoke request."""
    if protocol == "http":
        lines = (f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: multisite-smoke", "Accept: */*")
        return "\r\n".join((*lines, "Connection: close", "", "")).encode("latin-1")
    plain, _, query = path.partition("?")
    variables = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": path,
        "PATH_INFO": plain,
        "QUERY_STRING": query,
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": host,
        "HTTP_USER_AGENT": "multisite-smoke",
        "REMOTE_ADDR": "127.0.0.1",
    }
    packet = b"".join(_counted(word) for pair in variables.items() for word in pair)
    return b"\0" + len(packet).to_bytes(2, "little") + b"\0" + packet


def _counted(word: str) -> bytes:
    data = word.encode("latin-1")
    return len(data).to_bytes(2, "little") + data


def status_of(answer: bytes) -> int:
    """Return the status in the first line of an answer, 0 if there is none."""
    version, _, rest = answer[:100].partition(b" ")
    return int(rest[:3]) if version.startswith(b"HTTP/1.") and rest[:3].isdigit() else 0


class Command:
    """The command, run on a private socket."""

    def __init__(self, argv: list[str], private: socket.socket, is_stdin: bool) -> None:
        self._gone = False
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
                os.setpgid(0, 0)
                os.dup2(private.fileno(), 0 if is_stdin else LISTENER, inheritable=True)
                os.environ.pop("NOTIFY_SOCKET", None)
                become(argv, is_stdin)
            finally:
                os._exit(127)

    def is_gone(self) -> bool:
        """Tell whether it has ended."""
        self._gone = self._gone or bool(os.waitpid(self.pid, os.WNOHANG)[0])
        return self._gone

    def end(self) -> None:
        """End it and what it has started."""
        deadline = time.monotonic() + GRACE
        self._signal(signal.SIGTERM)
        while not self.is_gone() and time.monotonic() < deadline:
            time.sleep(PAUSE)
        self._signal(signal.SIGKILL)
        if not self.is_gone():
            os.waitpid(self.pid, 0)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.pid, number)


def become(argv: list[str], is_stdin: bool) -> NoReturn:
    """Become the command.

    Raises:
        OSError: it cannot be run.
    """
    if not is_stdin:
        os.environ["LISTEN_PID"] = str(os.getpid())
    os.execvp(argv[0], argv)


def answered(command: Command, address: str, data: bytes) -> int:
    """Send `data` to the socket and return the status of the answer, 0 if the command ends without one."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(address)
        connected.sendall(data)
        connected.settimeout(PATIENCE)
        while b"\r\n\r\n" not in answer and len(answer) < LONGEST:
            try:
                more = connected.recv(LONGEST)
            except TimeoutError:
                if command.is_gone():
                    break
                continue
            except OSError:
                break
            if not more:
                break
            answer += more
    return status_of(answer)


def try_out(argv: list[str], data: bytes, is_stdin: bool) -> int:
    """Run the command on a private socket and return the status of its answer, 0 if there is none."""
    with tempfile.TemporaryDirectory(prefix="multisite-trial-") as folder, socket.socket(socket.AF_UNIX) as private:
        address = os.path.join(folder, "s")
        private.bind(address)
        private.listen(8)
        command = Command(argv, private, is_stdin)
        private.close()
        try:
            return answered(command, address, data)
        finally:
            command.end()


def tell(message: str) -> None:
    """Report to the supervisor (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.send(message.encode())


def main(arguments: list[str]) -> int:
    """Try the command, and become it; return the exit status if the trial failed."""
    cut = arguments.index("--")
    (protocol, host, path, *stdin), argv = arguments[:cut], arguments[cut + 1 :]
    asked = f"the smoke request GET {path}"
    tell(f"STATUS={asked} is not answered")
    try:
        status = try_out(argv, request(protocol, host, path), bool(stdin))
        if not status or status >= FAILS_FROM:
            reason = f"{asked} was answered with {status}" if status else f"{asked} got no answer"
            tell(f"FAILED=1\nSTATUS={reason}")
            print(f"MS623 {reason}", file=sys.stderr, flush=True)
            return NOT_WELL
        tell("STATUS=\nTRIED=1")
        become(argv, bool(stdin))
    except OSError as error:
        print(f"MS622 cannot run {argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
