"""Active checks: endpoints are asked for a path at intervals, so that no request is the first to meet an ill one.

One thread of the process asks them all, without waiting for any of them; it starts with the first. The result of a
check is in the `Health` of the upstream: requests look nowhere else. An upstream that is ill is left out until a check
succeeds, even if it accepts connections. One whose destination is gone is not asked any more.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from multisite.config.domains import is_pattern
from multisite.config.endpoint import Endpoint
from multisite.config.model import Home
from multisite.proxy.balancer import Upstream

LONGEST_ANSWER = 65536  # bytes that are read before the connection is closed
PATIENCE = 5.0  # seconds for an answer
_STATUS = len(b"HTTP/1.1 200")
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_log = logging.getLogger("multisite.proxy")


def watch(upstream: Upstream, home: Home, domains: Sequence[str] = ()) -> None:
    """Check an upstream, as the [router] section of `home` says.

    Args:
        upstream: to be asked; one that speaks uwsgi is not asked.
        home: has the path and the interval.
        domains: of the site whose upstream it is; the first is the Host of the request.
    """
    options, endpoint = home.router, upstream.proxy.endpoint
    if not options.check_path or endpoint.protocol != "http":
        return
    host = next((domain for domain in domains[:1] if not is_pattern(domain)), "") or _address(endpoint)
    lines = f"GET {options.check_path} HTTP/1.1", f"Host: {host}", "User-Agent: multisite", "Accept: */*"
    request = "\r\n".join((*lines, "Connection: close", "", "")).encode("latin-1")
    _checks().add(Patient(ref(upstream), endpoint, request, max(0.1, options.check_every)))


def _address(endpoint: Endpoint) -> str:
    if endpoint.path:
        return "localhost"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return host if endpoint.port == 80 else f"{host}:{endpoint.port}"


@dataclass(eq=False)
class Patient:
    """An endpoint that is asked again and again.

    Attributes:
        upstream: whose health it is, as long as there is one.
        every: seconds between two checks.
        due: monotonic seconds of the next step: a check, or the end of the one under way.
    """

    upstream: Callable[[], Upstream | None]
    endpoint: Endpoint
    request: bytes
    every: float
    due: float = 0.0
    addresses: list[tuple[int, Any]] = field(default_factory=list, repr=False)
    wire: socket.socket | None = None
    answer: bytes = b""
    is_sent: bool = False
    last_fault: str = field(default="", repr=False)


class Checks:
    """Asks all patients of the process."""

    def __init__(self) -> None:
        self._patients: list[Patient] = []
        self._new: list[Patient] = []
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, _READ)
        self._is_running = False

    def add(self, patient: Patient) -> None:
        """Ask one from now on."""
        with self._lock:
            self._new.append(patient)
            if not self._is_running:
                thread = threading.Thread(target=self._run, name="multisite-checks", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    _log.error("MS477 cannot check upstreams: %s", error)
                    return
                self._is_running = True
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while True:
            pause = min((patient.due for patient in self._patients), default=math.inf) - time.monotonic()
            for key, _events in self._selector.select(None if pause == math.inf else max(0.0, pause)):
                if key.data is None:
                    os.eventfd_read(self._wake)
                else:
                    self._attempt(key.data, self._go_on)
            with self._lock:
                self._patients += self._new
                self._new.clear()
            now = time.monotonic()
            for patient in [one for one in self._patients if now >= one.due]:
                self._attempt(patient, self._late if patient.wire else self._begin)
            if not all(patient.upstream() or patient.wire for patient in self._patients):
                self._patients = [one for one in self._patients if one.upstream() or one.wire]

    def _attempt(self, patient: Patient, step: Callable[[Patient], None]) -> None:
        """Do something that fails where the endpoint cannot be asked."""
        try:
            step(patient)
        except OSError as error:
            self._end(patient, f"cannot ask it: {error.strerror or error}")
        except Exception as error:  # the others are asked all the same
            _log.exception("MS478 a check failed")
            self._end(patient, f"cannot ask it: {error!r}")

    # One check

    def _begin(self, patient: Patient) -> None:
        if not patient.upstream():
            return
        patient.due = time.monotonic() + PATIENCE
        patient.answer, patient.is_sent = b"", False
        endpoint = patient.endpoint
        if endpoint.path:
            patient.addresses = [(socket.AF_UNIX, endpoint.path)]
        else:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
            patient.addresses = [(family, address) for family, _type, _protocol, _name, address in found]
        self._connect(patient)

    def _connect(self, patient: Patient) -> None:
        """Connect to the next of its addresses, as requests do; the kernel says later whether anybody is there."""
        family, address = patient.addresses.pop(0)
        patient.wire = wire = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        code = wire.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._refused(patient, code)
        else:
            self._selector.register(wire, _WRITE, patient)

    def _refused(self, patient: Patient, code: int) -> None:
        if not patient.addresses:
            raise OSError(code, os.strerror(code))
        self._hang_up(patient)
        self._connect(patient)

    def _go_on(self, patient: Patient) -> None:
        wire = patient.wire
        assert wire
        if not patient.is_sent:
            error = wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._refused(patient, error)
                return
            wire.send(patient.request, socket.MSG_NOSIGNAL)  # a new connection takes as much as that
            patient.is_sent = True
            self._selector.modify(wire, _READ, patient)
            return
        data = wire.recv(LONGEST_ANSWER)
        patient.answer += data
        if not data or len(patient.answer) >= LONGEST_ANSWER:
            self._end(patient, _fault(patient.answer))

    def _late(self, patient: Patient) -> None:
        """Judge it now that its time is over; the head of an answer is enough."""
        self._end(patient, _fault(patient.answer) if patient.answer else f"no answer within {PATIENCE:g} s")

    def _end(self, patient: Patient, fault: str) -> None:
        """Close the connection, and note the result of the check."""
        self._hang_up(patient)
        patient.due = time.monotonic() + patient.every * random.uniform(0.9, 1.1)
        upstream = patient.upstream()
        if upstream:
            self._note(patient, upstream, fault)

    def _hang_up(self, patient: Patient) -> None:
        wire, patient.wire = patient.wire, None
        if wire:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(wire)
            wire.close()

    @staticmethod
    def _note(patient: Patient, upstream: Upstream, fault: str) -> None:
        is_ill = upstream.health.dead_until == math.inf
        if fault:
            if not is_ill:
                upstream.failed(math.inf, True)
            if fault != patient.last_fault:
                _log.warning("MS479 %s is left out: %s", patient.endpoint, fault)
        elif upstream.health.dead_until:
            upstream.revived()
            _log.info("%s is well again", patient.endpoint)
        patient.last_fault = fault


def _fault(answer: bytes) -> str:
    """Say what is wrong with an answer, "" for nothing."""
    status = answer[9:_STATUS]
    if not answer.startswith(b"HTTP/1.") or len(answer) < _STATUS or not status.isdigit():
        return "it did not answer in HTTP" if answer else "it closed the connection without an answer"
    return f"it answered {int(status)}" if int(status) >= 500 else ""


_here: Checks | None = None
_making = threading.Lock()


def _checks() -> Checks:
    """Return those of this process."""
    global _here
    with _making:
        if _here is None:
            _here = Checks()
        return _here


def _forked() -> None:
    """A child checks for itself what it sends requests to."""
    global _here, _making
    _making = threading.Lock()
    _here = None


os.register_at_fork(after_in_child=_forked)
