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
        help="Time after which a browser that waits for a spawned site to start gets a page that tries again by itself "
        "(503 with Refresh and Retry-After); its request never reaches the site. Only GET requests of a browser for a "
        "page get it (Accept: text/html); all others wait until the site is up. Front ends do not go straight to the "
        "socket of such a site.",
        note="everybody waits",
        example="2s",
        limits=(0, _DAY),
    )

    pause_timeout: float = option(
        "duration",
        "30s",
        "Time that a request waits at most while the site is paused (multisite pause); after it the client gets 503 "
        "with Retry-After.",
        limits=(0, _DAY),
    )

    expires: str = option(
        "expiry",
        help="When the site goes out of service: every request gets 410 from then on, and its processes end. A date "
        "(the site serves until that day ends), a date with a time, or a duration that counts from when the site was "
        "enabled. Local time, unless Z or an offset follows. To renew a duration, disable and enable the site.",
        note="never",
        example="2026-12-31",
    )

    wakes_per_minute: int | None = option(
        "integer",
        help="Number of spawned sites that one client address may start within a minute; IPv6 addresses count by /64. "
        "All sites that say this count together. A request that would start one more gets 429 with Retry-After. Sites "
        "that run are not affected. Front ends do not go straight to the socket of such a site.",
        note="no bound",
        example="10",
        limits=(1, 1000),
    )

    @property
    def is_greeted(self) -> bool:
        """Whether requests have to pass the workers, since what they get depends on whether the site is up."""
        return self.waiting_page is not None or self.wakes_per_minute is not None
