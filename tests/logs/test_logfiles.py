"""What root opens as a log, and what not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.logs.logfiles import open_append


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is not root's, where that can be."""
    made = tmp_path / "logs"
    made.mkdir()
    if os.geteuid() == 0:
        os.chown(made, 33, 33)
    yield made


def victim(folder: Path) -> Path:
    """A plain file with one name, as most are."""
    made = folder.parent / "victim"
    made.write_text("mine")
    return made


def test_root_does_not_follow_a_link(folder: Path) -> None:
    target = victim(folder)
    (folder / "site.log").symlink_to(target)
    with pytest.raises(OSError, match="it is a link"):
        open_append(str(folder / "site.log"), root=True)


def test_root_makes_no_file_through_a_link(folder: Path) -> None:
    (folder / "site.log").symlink_to(folder.parent / "made")
    with pytest.raises(OSError, match="it is a link"):
        open_append(str(folder / "site.log"), root=True)
    assert not (folder.parent / "made").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a folder that is not root's")
def test_root_does_not_append_to_what_has_another_name(folder: Path) -> None:
    os.link(victim(folder), folder / "site.log")
    with pytest.raises(PermissionError):
        open_append(str(folder / "site.log"), root=True)


def test_a_plain_file_is_opened_and_made(folder: Path) -> None:
    for text in (b"one", b"two"):
        descriptor = open_append(str(folder / "site.log"), root=True)
        os.write(descriptor, text)
        os.close(descriptor)
    assert (folder / "site.log").read_bytes() == b"onetwo"
