"""The import graph goes downward only: a module imports from lower layers, never from its own layer's users."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "multisite"

# From the top to the bottom.  A module may import what stands in a lower layer, and in its own layer as long as no
# circle comes of it; docs/architecture.md explains the layers.
LAYERS: tuple[tuple[str, str], ...] = (
    ("entry", "__main__ service cli"),
    ("assembly", "dispatcher"),
    (
        "actors",
        "inprocess placed generation choice spawned supervisor live catalogue proxy balance relay passage layers "
        "request pending fresh environ",
    ),
    (
        "one kind of input and output",
        "config chain textfile globs hosted sitedir enabling statefile claims sharing mentions finder django_fence "
        "guard process_state loader loaders importer blame verdicts logs loghandlers loggingini loggingplan upload "
        "upstream client peer relayloop tunnel queued share threads handoff logfile logbatch access beneath static "
        "usage visit tally policies route codeversion placements codefiles certificates publisherfile survey "
        "sessionstore tree watched smoke logtail ownlog workdir relativepaths errands keepalive lingering "
        "slowclients patience socketowner sockdiag",
    ),
    (
        "pure",
        "timers appspec ask callables checks dialect endpoint errors headers hosts literals model option options pages "
        "examined placement reference sections site trusted values wire pace filerules logformat activity hosting "
        "template frontends bound closing tempo percentiles development publisher guess systemfiles",
    ),
    ("what runs in a site's interpreter", "runner"),
)
# The option table offers what is written from it, so that its readers need to know one module only.
DELIBERATE = frozenset({("options", "reference")})
# Input and output in a pure module would be a decision that cannot be tested without a file, a socket or a clock.
IMPURE = frozenset({"socket", "subprocess", "threading", "time", "select", "signal", "shutil", "fcntl"})
EVERYWHERE = frozenset({"multisite"})  # the package itself: it holds the version and imports nothing

LEVEL = {unit: level for level, (_, units) in enumerate(reversed(LAYERS)) for unit in units.split()}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """The name the table knows: `multisite.cli.sites` belongs to the unit `cli`."""
    return module.split(".")[1] if "." in module else module


def is_for_types_only(node: ast.If) -> bool:
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def import_nodes(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that may run, those inside functions too; `if TYPE_CHECKING:` never runs."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    runs = node.orelse if isinstance(node, ast.If) and is_for_types_only(node) else ast.iter_child_nodes(node)
    for child in runs:
        yield from import_nodes(child)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that a file imports; `from multisite import x` names `multisite.x`."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in import_nodes(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
            continue
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        if base == "multisite":
            yield from ((node.lineno, f"multisite.{alias.name}") for alias in node.names)
        else:
            yield node.lineno, base


def ours(name: str) -> bool:
    return name == "multisite" or name.startswith("multisite.")


def exists(unit: str) -> bool:
    return (PACKAGE / f"{unit}.py").exists() or (PACKAGE / unit / "__init__.py").exists()


def test_every_module_stands_in_the_table() -> None:
    """A new module has to be given its layer before anything else."""
    unknown = {unit_of(dotted(path)) for path in modules()} - set(LEVEL) - EVERYWHERE
    assert not unknown, f"give these a layer in {__file__}: {sorted(unknown)}"


def test_the_table_names_a_module_once() -> None:
    """A module cannot stand in two layers."""
    assert sum(len(units.split()) for _, units in LAYERS) == len(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_go_downward(path: Path) -> None:
    """No module imports from a layer above its own, and no layer has a circle in it."""
    unit = unit_of(dotted(path))
    for line, name in imported(path):
        target = unit_of(name)
        if not ours(name) or target == unit or not exists(target):
            continue  # foreign, the unit's own package, or a name of multisite/__init__.py such as __version__
        assert unit not in EVERYWHERE, f"{path}:{line}: the package itself imports {name}"
        assert LEVEL[target] <= LEVEL[unit], f"{path}:{line}: {unit} stands below {target} and may not import it"


def test_no_circles() -> None:
    """Modules of one layer may use each other, but never in a circle."""
    graph: dict[str, set[str]] = {}
    for path in modules():
        unit = unit_of(dotted(path))
        targets = {unit_of(name) for _, name in imported(path) if ours(name)}
        targets -= {target for source, target in DELIBERATE if source == unit}
        graph.setdefault(unit, set()).update(target for target in targets - {unit} - EVERYWHERE if exists(target))
    while graph:
        free = {unit for unit, targets in graph.items() if not targets & set(graph)}
        assert free, f"these import each other in a circle: {sorted(graph)}"
        for unit in free:
            del graph[unit]


@pytest.mark.parametrize("unit", LAYERS[-2][1].split())
def test_pure_modules_do_no_input_or_output(unit: str) -> None:
    """Decisions stand apart from files, sockets, threads and clocks."""
    if not exists(unit):
        pytest.fail(f"the table names {unit}, which does not exist")
    found = {
        name.partition(".")[0] for path in modules() if unit_of(dotted(path)) == unit for _, name in imported(path)
    }
    assert not found & IMPURE


def test_the_reader_of_imports_sees_the_hidden_ones(tmp_path: Path) -> None:
    """Imports inside functions count, those under TYPE_CHECKING do not."""
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import multisite.cli\nelse:\n    import multisite.hosts\n"
        "def f():\n    from multisite import logs\n    import socket\n"
    )
    file = tmp_path / "sample.py"
    file.write_text(source)
    found = {node.lineno for node in import_nodes(ast.parse(source))}
    assert found == {1, 5, 7, 8}
