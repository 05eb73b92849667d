"""What answers for a site that is out of service, in a worker: a page, in place of whoever else would."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from multisite.config.model import Home, Site
from multisite.errors import pages
from multisite.logs.requests import PAGE
from multisite.sites import outages
from multisite.sites.outages import Outage

WSGI = Callable[..., Iterable[bytes]]


class Gate:
    """The gate before one site, which is open or not."""

    def __init__(self, site: Site, home: Home) -> None:
        self._site = site
        self._outages = outages.of_home(home)
        self._outages.look()
        self._outage = self._outages.of(site)

    def has_moved(self) -> bool:
        """Look, as is due every second; tell whether it is another than before."""
        self._outages.look()
        before, self._outage = self._outage, self._outages.of(self._site)
        return self._outage != before

    @property
    def is_closed(self) -> bool:
        """Whether the site is out of service."""
        return self._outage is not None

    @property
    def is_whole(self) -> bool:
        """Whether no file of it is served either: of a site that is nothing else, something has to be closed."""
        return self._site.files_only

    @property
    def how(self) -> str:
        """Who it is that answers, for the access log."""
        return PAGE

    @property
    def app(self) -> WSGI:
        """What answers in the site's place."""
        assert self._outage
        return answer(self._outage)


def answer(outage: Outage) -> WSGI:
    """Return the page of an outage (PEP 3333)."""
    error = outage.error
    if outage.page:
        body = outage.page.encode("utf-8", "surrogateescape")
        return pages.OwnPage(error.status, outage.media_type, body, error.retry_after or 0)
    return pages.for_error(error)
