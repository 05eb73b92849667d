"""What a machine knows of the others while it asks nobody: the last entries of the registry (pure).

While the engine answers, it says what has expired. While it is away nothing expires. When it is back, or another one
is there with nothing in it, everybody needs a moment to announce what is theirs; until then, what was known counts. An
owner who withdraws an entry announces an empty value, which counts at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from multisite.cluster.registry import Snapshot, Version

TTL = 10.0  # seconds that an entry lives
WITHDRAWN = ""  # the value of an entry whose owner has withdrawn it
GRACE = TTL  # seconds for which entries that an engine does not know any more count, after it was away

Entries = dict[str, dict[str, str]]  # kind → key → value


class LocalCopy:
    """The last entries.

    Args:
        version: of the entries that another process knew, None for none.
        entries: those.

    Attributes:
        version: that of the engine's entries.
        entries: what counts now.
        waits_until: monotonic seconds until which entries count that the engine has lost; None while there are none.
    """

    def __init__(self, version: Version | None = None, entries: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.version = version
        self.entries: Entries = {kind: dict(found) for kind, found in (entries or {}).items()}
        self.waits_until: float | None = None
        self._theirs: Entries = {}  # with those that their owners have withdrawn
        self._was_away = True
        self._trusts_at = 0.0

    @property
    def since(self) -> Version | None:
        """The version after which what is new suffices; None where all entries are needed."""
        return None if self._was_away else self.version

    def away(self) -> None:
        """Take note that the engine does not answer."""
        self._was_away = True

    def take(self, snapshot: Snapshot, now: float) -> bool:
        """Take what the engine says; return whether anything is different now."""
        if self._was_away or not self.version or snapshot.version.epoch != self.version.epoch:
            self._was_away = False
            self._trusts_at = now + GRACE
        self.version = snapshot.version
        self._theirs = snapshot.entries if snapshot.is_whole else _merged(self._theirs, snapshot.entries)
        lost = self._lost(self._theirs)
        self.waits_until = self._trusts_at if lost and now < self._trusts_at else None
        return self._become(_merged(lost, self._theirs) if self.waits_until else self._theirs)

    def expire(self, now: float) -> bool:
        """Forget what nobody has announced in time; return whether anything is different now."""
        if self.waits_until is None or now < self.waits_until or self._was_away:
            return False
        self.waits_until = None
        return self._become(self._theirs)

    def _lost(self, theirs: Entries) -> Entries:
        return {
            kind: lost
            for kind, known in self.entries.items()
            if (lost := {key: value for key, value in known.items() if key not in theirs.get(kind, ())})
        }

    def _become(self, entries: Entries) -> bool:
        count = {
            kind: counts
            for kind, found in entries.items()
            if (counts := {key: value for key, value in found.items() if value != WITHDRAWN})
        }
        before, self.entries = self.entries, count
        return before != self.entries


def differences(before: Entries, after: Entries) -> Entries:
    """Return what turns entries into others: what is new or changed, and `WITHDRAWN` for what is gone."""
    found: Entries = {}
    for kind in {**before, **after}:
        old, new = before.get(kind, {}), after.get(kind, {})
        changed = {key: value for key, value in new.items() if old.get(key) != value}
        changed |= {key: WITHDRAWN for key in old if key not in new}
        if changed:
            found[kind] = changed
    return found


def applied(entries: Entries, changed: Entries) -> Entries:
    """Return entries with the `differences` to others; neither is altered."""
    found = dict(entries)
    for kind, values in changed.items():
        found[kind] = {key: value for key, value in {**found.get(kind, {}), **values}.items() if value != WITHDRAWN}
    return {kind: values for kind, values in found.items() if values}


def _merged(one: Entries, other: Entries) -> Entries:
    return {kind: {**one.get(kind, {}), **other.get(kind, {})} for kind in (*one, *other)}
