"""What the document of a site says that somebody has to do (pure)."""

from __future__ import annotations

from typing import Any

FAILED = ("broken", "backoff", "fatal")  # states in which a site's visitors get an error page


def state_of(site: dict[str, Any]) -> str:
    """Return the state for a table: that of its processes, and why the site is out of service, if it is."""
    return f"{site['state']}, {site['service']}" if site["service"] else str(site["state"])
