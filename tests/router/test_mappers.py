"""Mappers that answer from memory or from a folder."""

from __future__ import annotations

import os
import socket
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multisite.config import nodes
from multisite.router.groups import Group, Groups
from multisite.router.mappers import MOST_COMPLAINTS, Fixed, MapFile, Pattern
from tests.servers.harness import eventually


def shown(group: Group | None) -> str:
    return "|".join(map(str, group.nodes)) if group else ""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a socket for example.com, and one beside the folder."""
    inside = tmp_path / "nodes"
    inside.mkdir()
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(inside / "example.com"))
        other.bind(str(tmp_path / "outside"))
        (inside / "file").write_text("")
        yield inside


def test_a_mapping_file(tmp_path: Path) -> None:
    """Comments, ports, modifiers and several nodes are as uWSGI's cache and its own files have them."""
    path = tmp_path / "map.txt"
    path.write_text(
        "# comment\n; comment\n\nexample.com:8000 127.0.0.1:4040\nUNBIT.it.  127.0.0.1:4040,5\n"
        "two.example a:1 | b:2,5|/run/c.sock\n"
    )
    found = MapFile(str(path), Groups())
    assert shown(found.find("example.com:8000")) == "127.0.0.1:4040"
    assert found.find("example.com") is None
    group = found.find("unbit.it")
    assert group
    assert group.nodes[0].modifier1 == 5
    assert shown(found.find("two.example")) == "a:1|b:2|/run/c.sock"
    assert [key for key, _ in found.entries()] == ["example.com:8000", "unbit.it", "two.example"]


def test_a_wrong_line_costs_itself_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "map.txt"
    path.write_bytes(b"good.example a:1\nalone\na/b a:1\n\xff\xfe a:1\nbad.example nowhere\nlast.example a:2\n")
    found = MapFile(str(path), Groups())
    assert shown(found.find("good.example")) == "a:1"
    assert shown(found.find("last.example")) == "a:2"
    assert found.find("bad.example") is None
    assert f"{path}, line 2: a line is KEY NODE" in caplog.text
    assert f"{path}, line 3: a key is" in caplog.text
    assert f"{path}, line 4: " in caplog.text
    assert "'nowhere' is not a node" in caplog.text


def test_many_wrong_lines_are_summed_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "map.txt"
    path.write_text("alone\n" * 1000)
    MapFile(str(path), Groups())
    assert len(caplog.records) == MOST_COMPLAINTS + 1
    assert f"{1000 - MOST_COMPLAINTS} more lines are wrong" in caplog.text


def test_a_file_that_goes_away_serves_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "map.txt"
    path.write_text("example.com a:1\n")
    found = MapFile(str(path), Groups())
    path.unlink()
    for _ in range(3):
        found.read()
    assert shown(found.find("example.com")) == "a:1"
    assert [record.getMessage() for record in caplog.records] == [f"MS730 map = {path}: No such file or directory"]
    path.write_text("example.com a:2\n")
    found.look()
    eventually(lambda: shown(found.find("example.com")) == "a:2")


_LINES = st.lists(st.sampled_from(["a.example b:1", "A.example b:2", "b.example b:1", "c.example b:3", "alone", "# c"]))


@given(_LINES, _LINES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_was_edited_is_read_as_a_new_one(tmp_path: Path, before: list[str], after: list[str]) -> None:
    path = tmp_path / "map.txt"

    def entries(found: MapFile) -> dict[str, str]:
        return {key: shown(group) for key, group in found.entries()}

    path.write_text("\n".join(before))
    found = MapFile(str(path), Groups())
    path.write_text("\n".join(after))
    found.read()
    assert entries(found) == entries(MapFile(str(path), Groups()))


def test_a_hundred_thousand_keys(tmp_path: Path) -> None:
    """They cost at most 300 bytes each, and a line that is changed is served within a second."""
    path, many = tmp_path / "map.txt", 100_000
    lines = [
        f"host-{number}.customers.example.com 10.0.0.{number % 250}:{3000 + number % 40}" for number in range(many)
    ]
    path.write_text("\n".join(lines))
    groups = Groups()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = MapFile(str(path), groups)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / many <= 300
    assert shown(found.find("host-7.customers.example.com")) == "10.0.0.7:3007"
    lines[7] = "host-7.customers.example.com 10.9.9.9:9"
    draft = tmp_path / "draft"
    draft.write_text("\n".join(lines))
    began = time.process_time()
    os.replace(draft, path)
    found.look()
    eventually(lambda: shown(found.find("host-7.customers.example.com")) == "10.9.9.9:9")
    assert time.process_time() - began < 1  # of the processor: another may have the rest of a second


def test_requests_go_on_while_a_file_is_read(tmp_path: Path) -> None:
    """A file that does not come to an end delays nobody."""
    path = tmp_path / "map.txt"
    path.write_text("example.com a:1\n")
    found = MapFile(str(path), Groups())
    path.unlink()
    os.mkfifo(path)
    for _ in range(3):
        found.look()
    assert shown(found.find("example.com")) == "a:1"
    with open(path, "w") as writer:
        writer.write("example.com a:2\n")
    eventually(lambda: shown(found.find("example.com")) == "a:2")


def test_a_socket_for_each_key(folder: Path) -> None:
    found = Pattern("base", f"{folder}/%s", Groups())
    assert shown(found.find("example.com")) == f"{folder}/example.com"
    assert found.find("other.example") is None
    assert found.find("file") is None
    found.look()


def test_a_socket_that_goes_away(folder: Path) -> None:
    """Whoever was there a moment ago is not looked for at each request; a look at the mapper is the end of that."""
    found = Pattern("base", f"{folder}/%s", Groups())
    assert found.find("example.com")
    (folder / "example.com").unlink()
    found.look()
    assert found.find("example.com") is None


def test_a_pattern_with_a_modifier_and_a_scheme(folder: Path) -> None:
    group = Pattern("pattern", f"{folder}/%s,5", Groups()).find("example.com")
    assert group
    assert (str(group.nodes[0]), group.nodes[0].modifier1) == (f"{folder}/example.com", 5)
    assert shown(Pattern("pattern", f"http+unix:{folder}/%s", Groups()).find("example.com")).startswith("http+unix:")


def test_a_pattern_that_is_no_path() -> None:
    assert shown(Pattern("pattern", "%s:3031", Groups()).find("example.com")) == "example.com:3031"


@given(st.text(max_size=300))
def test_a_hostile_key_stays_in_its_folder(folder_of_keys: Path, key: str) -> None:
    """What looks like a key is checked before; should one not be, nothing raises, and nothing outside is reached."""
    from multisite.router import keys

    found = Pattern("base", f"{folder_of_keys}/%s", Groups())
    for each in keys.keys_of({keys.VARIABLE: key, "HTTP_HOST": key}, True):
        group = found.find(each)
        assert group is None or os.path.dirname(str(group.nodes[0])) == str(folder_of_keys)


@pytest.fixture(scope="module")
def folder_of_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.mark.parametrize("key", ["../outside", "..", "/etc", "x\0y", "a" * 5000])
def test_keys_that_lead_elsewhere(folder: Path, key: str) -> None:
    """None of them is a key, so no mapper is asked for one."""
    from multisite.router import keys

    assert (folder.parent / "outside").is_socket()
    assert keys.keys_of({keys.VARIABLE: key}, True) == ()
    assert keys.keys_of_host(key) == ()


def test_fixed_nodes() -> None:
    found = Fixed("to", nodes.parse_list(["a:1", "b:2,5"]))
    assert found.find("any") is found.find("other") is found.group
    assert shown(found.group) == "a:1|b:2"
    found.look()
