"""What counts while an engine is away, and after it came back."""

from __future__ import annotations

from multisite.cluster.localcopy import GRACE, WITHDRAWN, LocalCopy, applied, differences
from multisite.cluster.registry import Snapshot, Version

ONE, OTHER = {"node": {"a": "1", "b": "1"}}, {"node": {"b": "1"}}


def of(entries: dict[str, dict[str, str]], number: int = 1, epoch: str = "e") -> Snapshot:
    return Snapshot(Version(epoch, number), entries)


def settled() -> LocalCopy:
    """One that has long trusted the engine, at second 100."""
    copy = LocalCopy()
    assert copy.take(of(ONE), 0.0)
    assert not copy.take(of(ONE), 100.0)
    return copy


def test_the_engine_says_what_is_gone() -> None:
    copy = settled()
    assert copy.take(of(OTHER, 2), 101.0)
    assert copy.entries == OTHER
    assert copy.waits_until is None
    assert copy.take(of({}, 3), 102.0)
    assert copy.entries == {}


def test_nothing_expires_while_the_engine_is_away() -> None:
    copy = settled()
    copy.away()
    assert not copy.expire(10_000.0)
    assert copy.entries == ONE


def test_what_an_empty_engine_does_not_know_counts_for_a_while() -> None:
    copy = settled()
    copy.take(of({}, 1, "other"), 101.0)
    assert copy.entries == ONE
    copy.take(of({"node": {"b": "2"}, "pool": {"b": "x"}}, 2, "other"), 102.0)
    assert copy.entries == {"node": {"a": "1", "b": "2"}, "pool": {"b": "x"}}
    assert not copy.expire(101.0 + GRACE - 0.1)
    assert copy.expire(101.0 + GRACE)
    assert copy.entries == {"node": {"b": "2"}, "pool": {"b": "x"}}
    assert copy.waits_until is None


def test_after_an_absence_the_engine_is_trusted_later_again() -> None:
    copy = settled()
    copy.away()
    assert not copy.take(of(OTHER, 2), 101.0)
    assert copy.entries == ONE
    assert not copy.expire(102.0)
    copy.away()
    assert not copy.expire(200.0)
    assert not copy.take(of(OTHER, 2), 201.0)
    assert copy.entries == ONE
    assert copy.expire(201.0 + GRACE)
    assert copy.entries == OTHER


def test_what_another_process_knew_counts_until_the_engine_was_asked() -> None:
    copy = LocalCopy(Version("e", 1), ONE)
    assert copy.entries == ONE
    copy.take(of({}, 1), 5.0)
    assert copy.entries == ONE
    assert copy.expire(5.0 + GRACE)
    assert copy.entries == {}


def test_what_is_withdrawn_is_gone_at_once() -> None:
    copy = settled()
    assert copy.take(of({"node": {"a": WITHDRAWN}}, 1, "other"), 101.0)
    assert copy.entries == OTHER
    assert copy.take(of({"node": {"a": WITHDRAWN, "b": WITHDRAWN}}, 2, "other"), 102.0)
    assert copy.entries == {}


def test_what_is_new_suffices_while_the_engine_answers() -> None:
    copy = LocalCopy(Version("e", 1), ONE)
    assert copy.since is None
    copy.take(of(ONE, 3), 0.0)
    assert copy.since == Version("e", 3)
    news = Snapshot(Version("e", 4), {"node": {"a": WITHDRAWN, "c": "1"}, "pool": {"b": "x"}}, is_whole=False)
    assert copy.take(news, 100.0)
    assert copy.entries == {"node": {"b": "1", "c": "1"}, "pool": {"b": "x"}}
    assert copy.take(Snapshot(Version("e", 5), {"node": {"a": "2"}}, is_whole=False), 101.0)
    assert copy.entries["node"] == {"a": "2", "b": "1", "c": "1"}
    assert copy.since == Version("e", 5)
    copy.away()
    assert copy.since is None


def test_differences_turn_entries_into_others() -> None:
    before, after = {"node": {"a": "1", "b": "1"}, "pool": {"a": "x"}}, {"node": {"b": "2", "c": "1"}}
    changed = differences(before, after)
    assert changed == {"node": {"a": WITHDRAWN, "b": "2", "c": "1"}, "pool": {"a": WITHDRAWN}}
    assert applied(before, changed) == after
    assert differences(after, after) == {}
