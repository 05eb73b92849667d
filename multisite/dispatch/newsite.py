"""The app for a site's first request, and the destination of requests that no thread waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multisite.config.model import Home, Site
from multisite.dispatch import mounts
from multisite.errors import UnknownHost
from multisite.sites import outages, sharing
from multisite.sites.catalogue import Catalogue
from multisite.sites.sitedir import Entry

if TYPE_CHECKING:
    from multisite.proxy.destination import Destination


def settled(current: Catalogue, name: str, host: str) -> tuple[Entry, Site]:
    """Return the app.

    Raises:
        UnknownHost: the site is gone, or its host has no directory.
    """
    if host:
        instance = current.instance(name, host)
        if not instance:
            raise UnknownHost("No site answers here under this name")
        return instance
    if name not in current.entries:
        raise UnknownHost("No site answers here any more")
    return current.entries[name], current.site(name)


def destination(current: Catalogue, host: str, is_free: bool) -> Destination | None:
    """Return where requests for a host go; None if its site needs a thread of this process.

    A site needs one if it runs here or is out of service, or if its file asks for more than processes: files that we
    send, a mount, a check of the user.

    Args:
        current: all sites.
        host: in its normal form.
        is_free: sites may have their own processes.

    Raises:
        UnknownHost: no site answers it.
    """
    found = current.answering(host)
    if not found:
        raise UnknownHost("No site answers here under this name")
    if not mounts.is_plain(current, found) or not is_free:
        return None
    entry, site = settled(current, *mounts.key_of(current, found[0].value[0][1], host))
    known = outages.of_home(current.home)
    known.look()
    if known.of(site) or entry.broken or site.static or site.is_restricted:
        return None
    if not _lives_elsewhere(site, current.home):
        return None
    from multisite.proxy import elsewhere  # a worker without such sites never loads it

    return elsewhere.destination(site, current.home)


def _lives_elsewhere(site: Site, home: Home) -> bool:
    return sharing.place(site, home).kind != "in-process" or sharing.is_examined(site, home)
