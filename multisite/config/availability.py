"""Options of a site that decide what happens to requests while it cannot answer them."""

from __future__ import annotations

from dataclasses import dataclass

from multisite.config.option import option

_DAY = 86400


@dataclass(frozen=True, kw_only=True)
class AvailabilityOptions:
    """The part of a site's [service] about this."""

    waiting_page: float | None = option(
        "duration",
        help="Time after which a browser that waits for a spawned site to start gets a page that reloads itself (503 "
        "with Refresh and Retry-After); its request never reaches the site. Only a browser's GET request for a page "
        "gets it (Accept: text/html); all others wait until the site is running. Front ends do not connect directly "
        "to the socket of such a site.",
        note="every request waits",
        example="2s",
        limits=(0, _DAY),
    )

    pause_timeout: float = option(
        "duration",
        "30s",
        "Longest time that a request waits while the site is paused (multisite pause); after it, the client gets 503 "
        "with Retry-After.",
        limits=(0, _DAY),
    )

    expires: str = option(
        "expiry",
        help="When the site goes out of service: from then on, every request gets 410, and its processes stop. A date "
        "(the site serves until the end of that day), a date with a time, or a duration since the site was enabled. "
        "Times are local unless Z or an offset follows. To restart a duration, disable and enable the site.",
        note="never",
        example="2026-12-31",
    )

    wakes_per_minute: int | None = option(
        "integer",
        help="Number of spawned sites that one client address may start within a minute; IPv6 addresses count by /64. "
        "All sites that set this option count together. A request that would start one more gets 429 with "
        "Retry-After. Running sites are not affected. Front ends do not connect directly to the socket of such a "
        "site.",
        note="no limit",
        example="10",
        limits=(1, 1000),
    )

    @property
    def is_greeted(self) -> bool:
        """Whether requests have to pass the workers, since the answer depends on whether the site is running."""
        return self.waiting_page is not None or self.wakes_per_minute is not None
