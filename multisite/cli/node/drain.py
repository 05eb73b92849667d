"""``multisite drain``: take this machine out of service without losing a request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from multisite.cli.output import say, say_json
from multisite.cli.session import Session, pass_session
from multisite.control import draining
from multisite.errors import MultisiteError
from multisite.sites import figures
from multisite.sites.usage import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

EPILOG = """\b
Examples:
  multisite drain --wait
  multisite drain --undo
"""
SETTLED = 6.0  # seconds without a request; HAProxy takes so long for its three checks, unless it is set otherwise
LOOK_EVERY = 0.25  # seconds between two looks at what is in flight


class CannotDrain(MultisiteError):
    """The drain cannot be begun, ended or watched."""

    id = "MS913"


@dataclass(frozen=True)
class Traffic:
    """The requests of a home: how many have come, and of which sites some are in flight."""

    requests: int
    in_flight: Mapping[str, int]

    def __str__(self) -> str:
        """Return ``3 requests in flight (blog 2, shop 1)``."""
        count = sum(self.in_flight.values())
        sites = ", ".join(f"{name} {number}" for name, number in sorted(self.in_flight.items()))
        return f"{count} request{'' if count == 1 else 's'} in flight" + (f" ({sites})" if sites else "")


@click.command(epilog=EPILOG, short_help="Take this machine out of service without losing a request.")
@click.option("--wait", is_flag=True, help="Wait until no request is in flight and no more come.")
@click.option("--undo", is_flag=True, help="End the drain: /health answers 200 again.")
@pass_session
def drain(session: Session, wait: bool, undo: bool) -> None:
    """Make /health on status_domain answer 503, so that front ends send new requests to other machines.

    All requests that still come are answered as usual, and sites start as usual. The drain concerns this machine only,
    and ends with --undo, or when the last server that is running now has ended.

    With --wait, the command ends when no request is in flight and none has come for 6 seconds. The exit status is 1 if
    that takes longer than the longest drain_timeout of a site and these 6 seconds.
    """
    if wait and undo:
        raise click.UsageError("give --wait or --undo, not both")
    if undo:
        return _undo(session)
    before = session.drain
    now = before or _begin(session)
    if not session.home.service.status_domain:
        remedy = "set status_domain under [service] in moya.conf, and let front ends check /health there"
        session.warn(f"{session.home.file}: no front end learns of the drain, for there is no status_domain; {remedy}")
    traffic = _settled(session) if wait else _traffic(session)
    done = "already draining" if before else "draining"
    if session.as_json:
        in_flight = None if traffic is None else sum(traffic.in_flight.values())
        return say_json({"node": draining.node(), "draining": {"since": now.since}, "in_flight": in_flight})
    left = "" if traffic is None else f", {traffic}"
    say(f"{draining.node()}: {done}{left}; multisite drain --undo ends that")


def _begin(session: Session) -> draining.Drain:
    drain = draining.begin(session.servers())
    try:
        draining.note(draining.file_of(session.home), drain)
    except OSError as error:
        raise _refused(error) from None
    return drain


def _undo(session: Session) -> None:
    try:
        was = bool(session.drain)
        was = draining.undo(draining.file_of(session.home)) and was
    except OSError as error:
        raise _refused(error) from None
    if session.as_json:
        return say_json({"node": draining.node(), "draining": None})
    say(f"{draining.node()}: {'in service again' if was else 'it was not draining'}")


def _refused(error: OSError) -> CannotDrain:
    reason = (error.strerror or "it fails").lower()
    return CannotDrain(f"{error.filename}: {reason}; run the command as the owner of this directory")


def _settled(session: Session) -> Traffic | None:
    """Wait until no request is in flight and none has come for `SETTLED` seconds.

    Raises:
        CannotDrain: this user may not see the requests, or they take longer than sites allow.
    """
    if session.hidden:
        raise CannotDrain(f"it drains, but nobody can wait for its end: {session.hidden}")
    longest = max((site.drain_timeout for site in map(session.catalogue.site, session.catalogue.sites)), default=0.0)
    began = quiet_since = time.monotonic()
    last = _traffic(session)
    with session.waiting("waiting for the end of the requests"):
        while last and time.monotonic() - quiet_since < SETTLED:
            if time.monotonic() - began > longest + SETTLED + LOOK_EVERY:
                raise CannotDrain(f"after {longest + SETTLED:g} seconds, {_unfinished(last)}")
            time.sleep(LOOK_EVERY)
            found = _traffic(session)
            if found is None or found.in_flight or found.requests != last.requests:
                quiet_since = time.monotonic()
            last = found
    return last


def _unfinished(traffic: Traffic) -> str:
    if traffic.in_flight:
        return f"there are {traffic}; wait again, or set a longer drain_timeout for these sites"
    return "requests still come; make the front ends check /health on status_domain, or remove this machine from them"


def _traffic(session: Session) -> Traffic | None:
    """Return the requests until now; None if this user may not see them."""
    if session.hidden:
        return None
    now = Session(session.home_path, session.as_json)
    now.home = session.home
    told, used = (now.supervisor or {}).get("sites", {}), now.usage[0]
    rows = {name: figures.counted(used.get(name), told.get(name, {})) for name in {*told, *used} - {UNKNOWN}}
    busy = {name: (row["in_flight"] or 0) + (told.get(name, {}).get("waiting") or 0) for name, row in rows.items()}
    came = sum(row["requests"] or 0 for row in rows.values())
    return Traffic(came, {name: count for name, count in busy.items() if count})
