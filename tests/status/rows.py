"""Invented rows of ``--json status``: as many as a test wants, and as hostile as a site could make them."""

from __future__ import annotations

import random
from typing import Any

NOW = 1_800_000_000.0
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\n\x1b[31m\u202e=cmd|'/c calc'!A0"


def row(name: str, **more: Any) -> dict[str, Any]:
    """One site as the document has it, at rest."""
    usual = {
        "name": name,
        "file": f"/etc/moya/sites-enabled/{name}.ini",
        "domains": [f"{name}.example.org", f"www.{name}.example.org"],
        "mount": "/",
        "location": f"/srv/{name}",
        "application": "app:application",
        "mode": "auto",
        "share": False,
        "saving": None,
        "enabled": True,
        "placement": "spawned",
        "reason": "its file does not say share = yes",
        "state": "stopped",
        "service": None,
        "failure": None,
        "pids": [],
        "in_flight": 0,
        "waiting": 0,
        "memory": None,
        "up_since": None,
        "starts": 1,
        "cold_starts": 1,
        "requests": 0,
        "errors": 0,
        "busy": 0.0,
        "received": 0,
        "sent": 0,
        "cpu": 0.0,
        "alive": 0.0,
        "first_start": NOW - 1e6,
        "last_use": NOW - 100,
        "latencies": [0] * 19,
        "problems": [],
    }
    return {**usual, **more}


def failure(reason: str = "it needs the module flask", **more: Any) -> dict[str, Any]:
    """Why a site does not start."""
    usual = {"failure": reason, "incident": "c0ffee42", "at": NOW - 60, "serving": False, "remedy": "pip install flask"}
    return {
        **usual,
        "steps": [{"step": "load", "seconds": 0.2}],
        "output": ["Traceback", "ModuleNotFoundError"],
        **more,
    }


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    """A document with a supervisor."""
    told = {"pid": 4711, "version": "1.0", "home": "/etc/moya", "uptime": 4000.0, "backends": 3, "max_backends": 50}
    return {"supervisor": told, "preloaders": [], "sites": list(rows)}


def many(number: int) -> dict[str, Any]:
    """A home with many sites, of which some run and some fail."""
    chance, rows = random.Random(number), []
    for each in range(number):
        state = chance.choices(("stopped", "running", "in-process", "broken", "backoff"), (60, 20, 10, 3, 1))[0]
        broken = failure(f"reason {each}", incident=f"{each:08x}") if state in ("broken", "backoff") else None
        running = {"pids": [1000 + each], "memory": chance.randrange(10**7, 10**8)} if state == "running" else {}
        figures = {"requests": chance.randrange(10**6), "cpu": chance.random() * 1000, "errors": chance.randrange(99)}
        rows.append(row(f"customer-{each:04}", state=state, failure=broken, **running, **figures))
    return document(*rows)
