"""What is read of a file in which anything may stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multisite.logs.records import content_of, items, number, parsed, text


def test_lines_that_make_no_sense_are_left_out() -> None:
    content = b'{"a": 1}\n[]\nnull\n\xff\n' + b"[" * 9000 + b'\n{"b": 2}\n{"a'
    assert [*parsed(content)] == [{"a": 1}, {"b": 2}]
    assert [*parsed(content, b'"b"')] == [{"b": 2}]


@pytest.mark.parametrize("written", ["NaN", "-Infinity", "1e999", "1" + "0" * 400, '"1"', "true", "null", "[1]"])
def test_what_cannot_be_computed_with_is_no_number(written: str) -> None:
    (record,) = parsed(f'{{"at": {written}}}'.encode())
    assert number(record, "at") == number(record, "other") == 0.0


def test_other_types_are_not_taken() -> None:
    record = {"a": 1, "b": "x", "c": [1]}
    assert [text(record, name) for name in "abcd"] == ["", "x", "", ""]
    assert [items(record, name) for name in "abcd"] == [[], [], [1], []]


def test_a_link_or_a_pipe_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    found = [content_of(str(tmp_path / name), 5) for name in ("file", "link", "pipe", "none")]
    assert found == [b"01234", b"", b"", b""]
