"""The rooms of the package: what each may import, and how large it may become.

``python tests/test_house.py`` prints the table of rooms as docs/architecture.md shows it, and the figures.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "multisite"


@dataclass(frozen=True)
class Room:
    """A package of the house, or a file at its top."""

    charter: str
    may_import: str


ROOMS = {
    "service": Room(
        "the WSGI callable; composition root of a worker", "dispatch router proxy control config logs sites status"
    ),
    "errors": Room("what can go wrong, its HTTP status, `Problem`, and the page that reports it", ""),
    "config": Room("from INI text to frozen values; the one option table; safe reading of files", "errors"),
    "logs": Room("what is written down: the service's log, sites' logs, request lines", "errors config"),
    "sites": Room(
        "the sites of a home as every process sees them: which there are, who answers a host, where each may run, "
        "what is noted and counted of them",
        "errors config logs cluster runner",
    ),
    "control": Room(
        "how everybody else talks to the supervisor, where its sockets are, and whether this machine drains",
        "errors config",
    ),
    "cluster": Room(
        "several machines that serve one home: which there are, what they share through an engine, and which of them a "
        "front end chooses for a host",
        "errors config runner",
    ),
    "inprocess": Room(
        "importing a site into this interpreter, whole or not at all, and taking it out again",
        "errors config logs sites runner",
    ),
    "proxy": Room(
        "relaying a request to a backend and its answer back; `wire/` is pure bytes, `waiting/` inside",
        "errors config logs sites control cluster runner",
    ),
    "router": Room(
        "hosts that are no site of this home: who answers them, and where",
        "errors config sites control proxy runner",
    ),
    "dispatch": Room(
        "from a request to the site that answers it, in a worker; `static/` inside",
        "errors config logs sites control cluster inprocess proxy runner",
    ),
    "supervisor": Room(
        "one process per home that starts, watches and stops backends; `site/`, `process/`, `records/` and `cluster/` "
        "inside",
        "errors config logs sites control cluster proxy router runner",
    ),
    "status": Room(
        "what an administrator sees of a home: the report of each site, the document that all who show it read, and "
        "the pages; `project/` and `web/` inside",
        "errors config logs sites control inprocess proxy supervisor runner",
    ),
    "runner": Room("what runs as a site's user in a site's interpreter: standard library only, Python 3.9", ""),
    "cli": Room("the commands; `frontends/`, `node/`, `project/`, `publishers/`, `site/` and `top/` inside", "*"),
    "__main__": Room("``python -m multisite``", "cli"),
}
ROOT = "multisite"
TESTS = Path(__file__).parent
#: what tests are about that no single file does
MATTERS = {
    "cli": "documents",
    "inprocess": "concurrency",
    "logs": "access",
    "proxy": "owners",
    "runner": "answers bad_sites handed interpreters life signals websocket wsgi_websocket",
    "supervisor": "access channels crashes deploys drills exhausted hostile kept ports resting statistics stop "
    "successor tenants told",
}
#: why a stem occurs twice: the same noun seen from either side of a wire or of an interpreter
TWICE = {
    "incidents": "as they are written down, and as they are shown",
    "bill": "the command, and who writes it",
    "body": "of a request: as it is sent to a backend, and as the runner reads it",
    "envelope": "proxy/wire writes what the runner reads",
    "failures": "the last one that is noted for others, and those in a row that the supervisor counts",
    "report": "what a process of a site says of itself, what is known of nodes, and of a site",
    "router": "the command, and what it is about",
    "server": "which server a site has, and the one at which nodes announce themselves",
    "nodes": "as options write them, and which of a cluster's this machine is",
    "loop": "in which one thread waits for all connections: a worker's, and the supervisor's",
    "site": "as its file says, and as a worker has it",
    **dict.fromkeys(("loghandlers", "model", "policies"), "the name that users have in their files, and the real one"),
}
MOST_AT_THE_TOP = 17  # cluster is the last: front ends, supervisors and commands must agree on who serves a host
MOST_IN_A_FOLDER, MOST_IN_THE_RUNNER = 25, 34
LONGEST_FILE = 450
MEDIAN = (120, 220)

#: servers and debuggers of the site that it can use, and what is there for types only
KNOWN_BY_THE_RUNNER = {"gunicorn", "werkzeug", "_typeshed"}

#: input and output in a decision could not be tested without a file, a socket or a clock
IMPURE = frozenset({"socket", "subprocess", "threading", "time", "select", "signal", "shutil", "fcntl"})
PURE = (
    *("errors", "config.model", "config.option", "config.options", "config.sections", "config.site", "config.values"),
    *("config.checks", "config.filerules", "config.logformat", "config.domains", "config.hosting", "config.endpoint"),
    *(
        "config.trusted",
        "config.serving.development",
        "config.cluster",
        "proxy.wire.http11",
        "proxy.wire.framing",
        "proxy.wire.envelope",
    ),
    *(
        "config.availability",
        "config.times",
        "config.nodes",
        "config.subscription",
        "router.keys",
        "router.announcement",
        "router.pool",
    ),
    *("proxy.headers", "sites.placement", "dispatch.states", "supervisor.lifecycle", "supervisor.planner"),
)


def name_of(path: Path) -> str:
    """The dotted name of a file, without ``multisite.``; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def files() -> dict[str, Path]:
    """All files by their dotted names."""
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(name: str) -> str:
    return name.partition(".")[0]


@cache
def imported(name: str) -> frozenset[tuple[int, str]]:
    """Line and name of each file of ours that a file imports: inside functions, and for types only, too."""
    path = files()[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        for line, full in _full_names(node, package):
            target = full if full in files() else full.rpartition(".")[0]
            if target in files() and target != name:
                found.add((line, target))
    return frozenset(found)


def _full_names(node: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.startswith(f"{ROOT}."):
                yield node.lineno, alias.name.removeprefix(f"{ROOT}.")
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package[: len(package) - node.level + 1]
            base = ".".join([ROOT, *above, *([base] if base else [])])
        if base == ROOT or base.startswith(f"{ROOT}."):
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}".removeprefix(f"{ROOT}.")


def circles(graph: dict[str, set[str]]) -> set[str]:
    """What is left when everything that imports nothing of the rest has been taken away, again and again."""
    rest = {source: set(targets) for source, targets in graph.items()}
    for take_away in (lambda: {one for one in rest if not rest[one] & set(rest)}, lambda: set(rest) - used(rest)):
        while free := take_away():
            for one in free:
                del rest[one]
    return set(rest)


def used(graph: dict[str, set[str]]) -> set[str]:
    return set().union(*graph.values()) if graph else set()


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def classes() -> Iterator[tuple[str, str]]:
    """Each public class at the top of a file, and that file."""
    for name, path in files().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, name


def folders() -> Counter[str]:
    """How many files of ours each folder has."""
    return Counter(str(path.parent.relative_to(PACKAGE)) for path in files().values())


def figures() -> dict[str, object]:
    """What the house is like, in numbers."""
    sizes = [lines(path) for path in files().values()]
    return {
        "files": len(sizes),
        "lines": sum(sizes),
        "median": statistics.median(sizes),
        "longest": max(sizes),
        "names at the top": len(at_the_top()),
        "folders": dict(folders().most_common()),
        "arrows between rooms": len({(room_of(one), room_of(to)) for one in files() for _, to in imported(one)}),
    }


def at_the_top() -> set[str]:
    """The names that whoever opens the package sees."""
    found = {path.stem for path in PACKAGE.glob("*.py")}
    return found | {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}


def table() -> str:
    """The rooms as a table in Markdown."""
    rows = ["| room | charter | may import |", "|---|---|---|"]
    for name, room in ROOMS.items():
        shown = f"`{name}.py`" if (PACKAGE / f"{name}.py").exists() else f"`{name}/`"
        allowed = "everything" if room.may_import == "*" else room.may_import.replace(" ", ", ") or "nothing of ours"
        rows.append(f"| {shown} | {room.charter} | {allowed} |")
    return "\n".join(rows) + "\n"


def test_the_rooms_are_those_of_the_table() -> None:
    """A new room has to be given its charter, and what it may import, before anything else."""
    assert {room_of(name) for name in files()} - {""} == set(ROOMS)
    assert len(at_the_top()) <= MOST_AT_THE_TOP


@pytest.mark.parametrize("name", files())
def test_imports_go_downward(name: str) -> None:
    """A file imports from its own room, and from those that its room may import."""
    room = room_of(name)
    allowed = ROOMS[room].may_import.split() if room else []
    for line, target in imported(name):
        other = room_of(target)
        assert other in ("", room, *allowed) or "*" in allowed, f"{files()[name]}:{line}: {room} may not import {other}"


def test_there_is_no_circle_of_files() -> None:
    """Imports inside functions and those for types only count as well."""
    graph = {name: {target for _, target in imported(name) if name != room_of(target)} for name in files()}
    assert circles(graph) == set()


def test_there_is_no_circle_of_rooms() -> None:
    graph: dict[str, set[str]] = {room: set() for room in ROOMS}
    for name in files():
        graph.setdefault(room_of(name), set()).update(room_of(target) for _, target in imported(name))
    del graph[""]
    assert circles({room: targets - {room} for room, targets in graph.items()}) == set()


def test_the_runner_knows_the_standard_library_alone() -> None:
    """It runs where nothing of ours is installed."""
    for name, path in files().items():
        if room_of(name) != "runner":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            strange = {one.partition(".")[0] for one in names} - sys.stdlib_module_names - KNOWN_BY_THE_RUNNER
            assert not strange, f"{path}: {strange}"


@pytest.mark.parametrize("name", PURE)
def test_decisions_do_no_input_or_output(name: str) -> None:
    """They stand apart from files, sockets, threads and clocks."""
    for node in ast.walk(ast.parse(files()[name].read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {one.partition(".")[0] for one in names} & IMPURE, f"{name}: {names}"


def test_a_folder_is_seen_at_a_glance() -> None:
    """The runner is one program, and may have more."""
    too_many = {
        folder: number
        for folder, number in folders().items()
        if number > (MOST_IN_THE_RUNNER if folder == "runner" else MOST_IN_A_FOLDER)
    }
    assert too_many == {}


def test_files_are_neither_long_nor_fragments() -> None:
    assert {name: lines(path) for name, path in files().items() if lines(path) > LONGEST_FILE} == {}
    assert MEDIAN[0] <= statistics.median(lines(path) for path in files().values()) <= MEDIAN[1]


def test_a_stem_says_one_thing() -> None:
    """What stands in `TWICE` has its reason there, and does stand twice."""
    number = Counter(path.stem for path in files().values() if not path.stem.startswith("__"))
    assert {stem for stem, times in number.items() if times > 1} == set(TWICE)


def test_no_two_public_classes_share_a_name() -> None:
    where: dict[str, list[str]] = {}
    for name, file in classes():
        where.setdefault(name, []).append(file)
    assert {name: found for name, found in where.items() if len(found) > 1} == {}


def test_each_permission_is_used() -> None:
    """What no file makes use of would let an import in that nobody has thought about."""
    made = {(room_of(name), room_of(target)) for name in files() for _, target in imported(name)}
    for name, room in ROOMS.items():
        unused = {other for other in room.may_import.split() if other != "*" and (name, other) not in made}
        assert not unused, f"{name} may import {unused}, and does not"


@pytest.mark.parametrize("room", [room for room in ROOMS if (TESTS / room).is_dir()])
def test_the_tests_mirror_the_rooms(room: str) -> None:
    """A test stands in the folder of the room whose file it tests, under that file's name, or tests a matter."""
    nouns = {name.rpartition(".")[2] for name in files() if room_of(name) == room}
    matters = MATTERS.get(room, "").split()
    found = {path.stem.removeprefix("test_") for path in (TESTS / room).rglob("test_*.py")}
    strange = {one for one in found - set(matters) if not any(f"{one}_".startswith(f"{noun}_") for noun in nouns)}
    assert not strange, f"no file of {room}/ is called so: {sorted(strange)}"
    assert set(matters) <= found


def test_the_docs_show_the_table() -> None:
    assert table() in (PACKAGE.parent / "docs" / "architecture.md").read_text()


if __name__ == "__main__":
    print(table())
    for what, value in figures().items():
        print(f"{what}: {value}")
