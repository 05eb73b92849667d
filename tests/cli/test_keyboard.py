"""Keys of terminals, whole and in pieces."""

from __future__ import annotations

import pytest

from multisite.cli.top.keyboard import Keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"\x03", ["quit"]),
        ("ü€".encode(), ["ü", "€"]),
        (b"\x1b[200;5;7Zx", ["x"]),
        (b"\xff\x00a", ["\ufffd", "a"]),
    ],
)
def test_each_sequence_is_a_key(data: bytes, keys: list[str]) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        reader = Keys()
        found = [key for piece in pieces for key in reader.feed(piece)]
        assert found == keys and not reader.is_waiting


def test_escape_is_a_key_once_nothing_follows() -> None:
    reader = Keys()
    assert reader.feed(b"\x1b") == [] and reader.is_waiting
    assert reader.flush() == ["escape"] and not reader.is_waiting
