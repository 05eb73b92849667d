"""The program that tells of events: it runs a command for each, and posts each to a URL, in a process of its own.

``python -m multisite.supervisor.process.messenger`` reads lines of JSON from standard input. The first line names the
command and the URL (which may hold a secret, and is no argument for that reason), each of the others is an event.
Whoever is told has a bounded queue and a thread, so that a URL that hangs keeps nobody else waiting. What goes wrong is
printed for the supervisor's log. It ends when standard input does, and everybody has been told or given up.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

QUEUED = 100  # events that wait for one who is told; more are left out
TRIES = 6  # of an event at a URL
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before it is tried again
TIMEOUT = 10.0  # seconds for a URL
COMMAND_TIMEOUT = 30.0  # seconds for a command
LAST = 90.0  # seconds to tell the rest, once nothing more comes
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})

Event = dict[str, Any]


class Failed(Exception):
    """Somebody could not be told."""

    def __init__(self, reason: str, again: bool = False, after: float = 0.0) -> None:
        super().__init__(reason)
        self.again, self.after = again, after


class Outlet:
    """One who is told of events, in turn.

    Args:
        label: for the log.
        deliver: tells of one event, or raises `Failed`.
    """

    def __init__(self, label: str, deliver: Callable[[Event], None]) -> None:
        self._label, self._deliver = label, deliver
        self._queue: queue.Queue[Event | None] = queue.Queue(QUEUED)
        self._left_out, self._lock = 0, threading.Lock()
        self._is_failing = False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def put(self, event: Event) -> None:
        """Tell of an event when its turn comes, if there is room."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._lost(event)

    def _lost(self, event: Event) -> None:
        with self._lock:
            self._left_out += 1 + int(event.get("left_out", 0))

    def end(self) -> None:
        """End when all have been told."""
        self._queue.put(None)

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            with self._lock:
                left_out, self._left_out = self._left_out, 0
            self._tell({**event, "left_out": event.get("left_out", 0) + left_out})

    def _tell(self, event: Event) -> None:
        pause = FIRST_PAUSE
        for tries_left in reversed(range(TRIES)):
            try:
                self._deliver(event)
            except Failed as failure:
                again = failure.again and tries_left > 0
                self._report(failure, event, again)
                if not again:
                    self._lost(event)
                    return
                _pause(max(pause, failure.after))
                pause = min(LONGEST_PAUSE, 2 * pause)
            else:
                if self._is_failing:
                    say(f"{self._label}: works again")
                self._is_failing = False
                return

    def _report(self, failure: Failed, event: Event, again: bool) -> None:
        """Report the first failure in a row, and that an event is given up."""
        if not again or not self._is_failing:
            then = "it is tried again" if again else f"the event {event.get('event')} is given up"
            say(f"{self._label}: {failure}; {then}")
        self._is_failing = True


def _pause(seconds: float) -> None:
    threading.Event().wait(min(seconds, LONGEST_PAUSE))


def say(text: str) -> None:
    """Print a line for the supervisor's log."""
    with contextlib.suppress(OSError):
        os.write(1, text.replace("\n", " ")[:1000].encode("utf-8", "replace") + b"\n")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect of a POST would become a GET, at an address that nobody has named."""

    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        return None


class Webhook:
    """Posts events to a URL."""

    def __init__(self, url: str, agent: str) -> None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit(parts._replace(netloc=host, fragment=""))
        self._fields = {"Content-Type": "application/json", "User-Agent": agent}
        if parts.username is not None:
            account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._fields["Authorization"] = f"Basic {base64.b64encode(account.encode()).decode()}"
        self.label = f"url = {parts.scheme}://{host}/…"  # the rest may be a secret
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __call__(self, event: Event) -> None:
        """Post an event.

        Raises:
            Failed: it was not accepted.
        """
        request = urllib.request.Request(self._url, json.dumps(event).encode(), self._fields, method="POST")
        try:
            self._opener.open(request, timeout=TIMEOUT).close()
        except urllib.error.HTTPError as error:
            error.close()
            after = error.headers.get("Retry-After", "") if error.headers else ""
            seconds = float(after) if after.isascii() and after.isdigit() else 0.0
            raise Failed(f"HTTP {error.code}", error.code in RETRIED, seconds) from None
        except urllib.error.URLError as error:
            raise Failed(f"cannot be reached: {error.reason}", again=True) from None
        except TimeoutError:
            raise Failed(f"no answer within {TIMEOUT:g} s", again=True) from None
        except OSError as error:
            raise Failed(f"cannot be reached: {error.strerror or type(error).__name__}", again=True) from None
        except (http.client.HTTPException, ValueError) as error:  # its text may repeat the URL
            raise Failed(type(error).__name__, isinstance(error, http.client.HTTPException)) from None


class EventCommand:
    """Runs a command for each event."""

    def __init__(self, argv: list[str], directory: str, environ: dict[str, str]) -> None:
        self._argv, self._directory, self._environ = argv, directory, environ
        self.label = f"command = {argv[0]}"

    def __call__(self, event: Event) -> None:
        """Run it, with the event at its standard input.

        Raises:
            Failed: it could not be run, or its exit status is not 0. It is not run again.
        """
        facts = {"MULTISITE_EVENT": str(event.get("event", "")), "MULTISITE_SITE": str(event.get("name", ""))}
        try:
            process = subprocess.Popen(
                self._argv,
                cwd=self._directory,
                env={**self._environ, **facts},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise Failed(f"cannot be run: {getattr(error, 'strerror', None) or error}") from None
        try:
            said = process.communicate(json.dumps(event).encode() + b"\n", COMMAND_TIMEOUT)[1]
        except subprocess.TimeoutExpired:
            raise Failed(f"it ran longer than {COMMAND_TIMEOUT:g} s") from None
        finally:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever it left running as well
            process.poll()
        if process.returncode:
            last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise Failed(f"exit status {process.returncode}{''.join(f': {line}' for line in last)}")


def main() -> None:
    """Tell of what standard input has."""
    lines = iter(sys.stdin.buffer.readline, b"")
    told = json.loads(next(lines, b"{}"))
    outlets = []
    if told.get("command"):
        command = EventCommand(told["command"], told["directory"], told["environ"])
        outlets.append(Outlet(command.label, command))
    if told.get("url"):
        webhook = Webhook(told["url"], told["agent"])
        outlets.append(Outlet(webhook.label, webhook))
    for line in lines:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            for outlet in outlets:
                outlet.put(event)
    threading.Thread(target=_give_up, daemon=True).start()
    for outlet in outlets:
        outlet.end()
    for outlet in outlets:
        outlet.thread.join()


def _give_up() -> None:
    threading.Event().wait(LAST)
    os._exit(1)


if __name__ == "__main__":
    main()
