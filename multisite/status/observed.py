"""A home as the status pages show it: figures of now, and judgements that are renewed little by little.

To judge a site costs about ten milliseconds: its files, its program and its user are looked at. A page of a thousand
sites cannot wait for that. So each judgement is kept, and made again soon after something was noted about the site or
its file changed, and otherwise twice a minute while somebody looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from multisite.errors import MultisiteError
from multisite.status import details, incidents
from multisite.status.document import document
from multisite.status.fence import sentence
from multisite.status.inventory import Inventory
from multisite.status.report import SiteReport, judge
from multisite.status.web.incidentpage import of_rows
from multisite.status.web.markup import Html

if TYPE_CHECKING:
    from multisite.config.model import Home, Site, SiteFile
    from multisite.sites.catalogue import Catalogue

FRESH = 0.5  # seconds for which one look serves all who ask
RENEWED = 30.0  # seconds after which a judgement is made again
AT_ONCE = 0.05  # seconds of a request that go into judging
AT_FIRST = 1.5  # of the first one
SHARE = 4  # a thread that judges sleeps so many times as long as it works
WATCHED = 60.0  # seconds after the last request for which it goes on
DRAWN = 15.0  # seconds for which a curve of the first page is kept
FEW = 100  # sites that a request itself judges
DISABLED = 10.0  # seconds between two looks at what is not enabled
MORE = ("backends", "deploy")  # what the supervisor tells, and only the pages show
NOT_YET = "it has not been looked at yet"

Key = tuple[Any, ...]


class Shown(Inventory):
    """What is known of a home in a worker, which has read its files already."""

    def __init__(self, catalogue: Catalogue, disabled: dict[str, SiteFile] | None = None) -> None:
        super().__init__(catalogue.home.path)
        self.home = catalogue.home
        self.catalogue = catalogue
        if disabled is not None:
            self.disabled = disabled


class Observed:
    """The document of a home and of each site, for all who look in this process.

    Args:
        catalogue_of: returns the sites as this worker has read them last.
        clock: monotonic seconds.
    """

    def __init__(self, catalogue_of: Callable[[], Catalogue], clock: Callable[[], float] = time.monotonic) -> None:
        self._catalogue_of, self._clock = catalogue_of, clock
        self._lock = threading.Lock()  # over what follows; held while a document is made
        self._judged: dict[str, tuple[Key, float, SiteReport]] = {}
        self._document: dict[str, Any] = {}
        self._made_at = self._asked_at = float("-inf")
        self._sites: dict[str, tuple[Key, Site | None]] = {}  # those that are still to be judged
        self._curves: dict[str, tuple[float, Html]] = {}
        self._disabled: dict[str, SiteFile] | None = None
        self._disabled_at = float("-inf")
        self._thread: threading.Thread | None = None

    @property
    def home(self) -> Home:
        """The home as this worker has read it last."""
        return self._catalogue_of().home

    def document(self) -> dict[str, Any]:
        """Return what ``--json status`` prints; `unseen` is the number of sites that are still to be judged."""
        with self._lock:
            now = self._asked_at = self._clock()
            if now - self._made_at > FRESH:
                self._document = self._made(now)
                self._made_at = self._clock()
            return self._document

    def detail(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return what a site's page shows besides its row (`multisite.status.web.sitepage`)."""
        return details.of(self.inventory(), row)

    def curve(self, row: dict[str, Any]) -> Html:
        """Draw what a site did in the last hour."""
        name, now = row["name"], self._clock()
        at, drawn = self._curves.get(name, (float("-inf"), Html("")))
        if now - at > DRAWN:
            drawn = details.last_hour(row)
            self._curves[name] = now, drawn
        return drawn

    def incident(self, incident: str) -> dict[str, Any] | None:
        """Return what is known of an incident, None where nothing is."""
        found = incidents.find(self.home, incident)
        return found.as_dict() if found else of_rows(self.document()["sites"], incident)

    def inventory(self) -> Shown:
        """Return what is known at this moment, to be read when it is needed."""
        return Shown(self._catalogue_of(), self._disabled)

    def _made(self, now: float) -> dict[str, Any]:
        if now - self._disabled_at > DISABLED:
            self._disabled, self._disabled_at = None, now
        inventory = self.inventory()
        self._disabled = inventory.disabled
        if len(inventory.catalogue.entries) <= FEW:  # else, a thread does it all
            self._judge(inventory, now + (AT_ONCE if self._judged else AT_FIRST))
        try:
            made = document(inventory, self._report)
        except MultisiteError as error:  # the supervisor cannot be asked
            inventory.supervisor = None
            made = {**document(inventory, self._report), "hidden": sentence(inventory, error)}
        for row in made["sites"]:
            known = inventory.known.get(row["name"], {})
            row.update((key, known[key]) for key in MORE if key in known)
        due = self._due(inventory)
        if due and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._keep_judging, name="multisite-status", daemon=True)
            self._thread.start()
        unseen = sum(name not in self._judged for name in inventory.catalogue.entries)
        return {**made, "home": inventory.home.path, "unseen": unseen}

    def _report(self, inventory: Inventory, name: str) -> SiteReport:
        """Return the last judgement of a site, with the figures of now."""
        known = self._judged.get(name)
        if known:
            return replace(known[2], inventory=inventory)
        entry = inventory.catalogue.entries[name]
        stamp, site = self._sites.get(name, ((), None))
        if site is None or stamp != entry.stamp:
            site = inventory.catalogue.site(name)
            self._sites[name] = entry.stamp, site
        failure = inventory.failed_starts.get(site.name) or inventory.failed_loads.get(site.name)
        return SiteReport(inventory, site, None, NOT_YET, "broken" if entry.broken else "stopped", failure=failure)

    def _due(self, inventory: Inventory) -> list[str]:
        """Return the names of the sites to be judged: those of which something is new, then the oldest judgements."""
        now, entries = self._clock(), inventory.catalogue.entries
        if len(self._judged) > len(entries):
            self._judged = {name: known for name, known in self._judged.items() if name in entries}
            self._curves, self._sites = {}, {}
        found = []
        for name in entries:
            key, at, _ = self._judged.get(name, ((), float("-inf"), None))
            if key != self._key(inventory, name):
                found.append((0.0, name))
            elif now - at > RENEWED:
                found.append((at, name))
        return [name for _, name in sorted(found)]

    @staticmethod
    def _key(inventory: Inventory, name: str) -> Key:
        """Return what changes when a judgement may have."""
        entry, row = inventory.catalogue.entries[name], inventory.placements.of(name)
        notes = (inventory.failed_loads.get(name), inventory.failed_starts.get(name))
        return (entry.stamp, entry.broken, row and (row.is_here, row.version, row.reason), *notes)

    def _judge(self, inventory: Inventory, until: float) -> int:
        """Judge sites until that moment; return how many are left."""
        due = self._due(inventory)
        for number, name in enumerate(due):
            if self._clock() >= until:
                return len(due) - number
            key = self._key(inventory, name)
            report = judge(inventory, inventory.catalogue.site(name))
            self._judged[name] = key, self._clock(), report
            self._sites.pop(name, None)
        return 0

    def _keep_judging(self) -> None:
        """Judge what is due, in a small share of the time, while somebody looks."""
        while self._clock() - self._asked_at < WATCHED:
            begun = self._clock()
            with self._lock:
                left = self._judge(self.inventory(), begun + AT_ONCE / 2)
            if not left:
                return
            time.sleep(SHARE * (self._clock() - begun))
