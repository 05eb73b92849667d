"""What has happened to the sites between two looks, for those who watch (pure), and the form of the stream that tells.

The stream is that of server-sent events (HTML standard, section 9.2).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from multisite.status.needs import FAILED
from multisite.status.web.overview import cells, state_word

Row = dict[str, Any]
MOST_ROWS = 200  # that one look tells of
RETRY = 2000  # milliseconds until a browser asks again when a stream has ended


def happenings(before: dict[str, Row], rows: Iterable[Row]) -> Iterator[tuple[str, str, str]]:
    """Yield what happened: kind (start, stop, deploy, failure, incident), site, and a sentence.

    Args:
        before: the rows of the look before, by name.
        rows: those of now.
    """
    for row in rows:
        old, name = before.get(row["name"]), row["name"]
        if not old:
            continue
        failure, known = row.get("failure") or {}, old.get("failure") or {}
        if failure and failure.get("incident") != known.get("incident"):
            yield "failure", name, f"failed: {failure.get('failure')}"
            yield "incident", name, f"incident {failure.get('incident')}"
        deploy, last = row.get("deploy") or {}, old.get("deploy") or {}
        if deploy.get("number") and (deploy["number"], deploy["state"]) != (last.get("number"), last.get("state")):
            yield "deploy", name, f"deploy {deploy['number']}: {deploy['state']} {deploy.get('failure') or ''}".strip()
        if row["state"] != old["state"]:
            started = row["state"] in ("starting", "running", "in-process")
            yield ("start" if started else "stop"), name, f"{old['state']} → {row['state']}"


def changed(before: dict[str, Row], rows: Iterable[Row]) -> list[Row]:
    """Return the rows that look otherwise than before."""
    keys = ("state", "service", "requests", "errors", "in_flight", "waiting", "memory", "failure", "enabled")

    def look(row: Row | None) -> list[Any]:
        return [row.get(key) for key in keys] if row else []

    return [row for row in rows if look(row) != look(before.get(row["name"]))][:MOST_ROWS]


def told(before: dict[str, Row], rows: list[Row], now: float) -> str:
    """Return the text of the stream for what has changed since the look before."""
    lines = [event("row", _row(row, now)) for row in changed(before, rows)]
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    for kind, name, what in happenings(before, rows):
        data = {"kind": kind, "name": name, "what": what[:300], "time": clock, "at": round(now, 3)}
        lines += [event("happened", data), event(kind, data)]
    return "".join(lines)


def _row(row: Row, now: float) -> dict[str, Any]:
    kind = "bad" if row["enabled"] and row["state"] in FAILED else "odd" if row.get("service") else "good"
    return {"name": row["name"], "kind": kind, "cells": {"state": state_word(row), **cells(row, now)}}


def event(name: str, data: Any) -> str:
    """Return one event; JSON has no line ends, so nothing in it can begin another."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
