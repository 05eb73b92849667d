"""What a program that replaces a supervisor receives: everything, or the reason why not."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
from pathlib import Path

import pytest

import multisite.supervisor
from multisite.supervisor import __main__ as program
from multisite.supervisor import main, reexec
from multisite.supervisor.reexec import CannotTakeOver, Handed, Keeper, kept
from tests.descriptors import all_open

PACKAGE = Path(multisite.supervisor.__file__).parent
# What does not outlive a program, is made for one moment, or is packed by its owner (and then never changes).
OTHERWISE = {
    *("Access", "AlreadyRunning", "Aside", "Child", "Client", "Command", "Commands"),
    *("Connections", "Control", "ControlSockets", "DescriptorLimits", "Exit", "Far", "ForkChannel", "Journey"),
    *("Keeper", "Knowledge", "LastLines", "Learned", "Loop", "Pipe", "Preloader", "Relay"),
    *("RuntimeDir", "Sandbox", "Scales", "Context", "SiteUnavailable", "SpawnBudget", "Starts"),
    *("SupervisorError", "Trial", "Unavailable", "Upgrade", "Announcer", "NodeStats", "Asked", "Wakes"),
    *("Recorder", "Workers", "Journal", "LoadReport", "Held", "LeaseKeeper", "Leases"),
    *("Question", "Events", "EventCommand", "Failed", "Messenger", "Noted", "Outlet", "Webhook"),
}

#: by class, what older programs have written: an attribute may be renamed, its key may not
KEYS = {
    "Activity": "_stamp asked last_use",
    "Backend": "_failure_text answered_before channel deadline failure graceful journey launch leaves lessons memory "
    "obsolete on_trial ours output pid ready_at reason refusal reports since started state status told tried",
    "Caller": "follows received socket to_send waits",
    "Channel": "_second _taken begun descriptor is_over path",
    "Costs": "size spent start_cost",
    "Deploys": "is_followed last",
    "Failures": "_counted_at _crashes _proven begun in_a_row last mending not_before refused replacement",
    "Habits": "_days _hour _used",
    "Output": "_read _second descriptor",
    "Preloaders": "_serial",
    "Promotion": "_blocked _changed _names rows uses",
    "Servers": "head_limits seen_any",
    "SiteLog": "_left_out _logged _second _told",
    "SiteParts": "_is_asked_for activity backends costs deploys failures is_due is_put_to_rest journey listener log "
    "room scoreboard stamp",
    "SiteSocket": "_folders is_withdrawn socket",
    "SupervisedSites": "accounts triggers warming",
    "Supervisor": "_lonely_since budget doors foreground lock nofile placing preloaders roster rundir serial servers "
    "started",
    "Triggers": "_due _retries mending watched",
    "Use": "_changed readings",
    "WaitQueue": "_told owner since",
    "Warming": "_begun _has_news habits",
}


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        found.update({f"{path.stem}.{node.name}": node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)})
    return found


def is_attribute(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def assigned(definition: ast.ClassDef) -> set[str]:
    """All that its methods assign to `self`, and the fields of a dataclass that may change."""
    names = {
        node.attr
        for node in ast.walk(definition)
        if is_attribute(node) and isinstance(node.ctx, ast.Store)  # type: ignore[attr-defined]
    }
    kinds = [ast.unparse(one) for one in definition.decorator_list if "dataclass" in ast.unparse(one)]
    if kinds and "frozen" not in kinds[0]:
        names |= {ast.unparse(one.target) for one in definition.body if isinstance(one, ast.AnnAssign)}
    return names


def handed() -> list[type[Handed]]:
    assert main, "all of them are there"
    ours = (kind for kind in below(Handed) if kind.__module__.startswith("multisite."))
    return sorted(ours, key=lambda kind: kind.__name__)


def below(kind: type[Handed]) -> set[type[Handed]]:
    return {one for direct in kind.__subclasses__() for one in (direct, *below(direct))}


@pytest.mark.parametrize("kind", handed(), ids=lambda kind: kind.__name__)
def test_of_each_attribute_it_is_said_what_becomes_of_it(kind: type[Handed]) -> None:
    """Who adds one decides whether the next program needs it; a forgotten one is what an upgrade loses."""
    lists = [*kind.KEPT, *kind.BY_HAND, *kind.ANEW]
    assert len(lists) == len(set(lists))
    own = [one for one in kind.__mro__ if issubclass(one, Handed) and one is not Handed]
    names = [assigned(classes()[f"{one.__module__.rpartition('.')[2]}.{one.__name__}"]) for one in own]
    assert set(lists) == set().union(*names)


@pytest.mark.parametrize("name", KEYS)
def test_what_older_programs_have_written_is_read(name: str) -> None:
    """A key that goes, or another one, takes a new format number."""
    (kind,) = (kind for kind in handed() if kind.__name__ == name)
    assert {form.key for form in kind.KEPT.values()} >= {*KEYS[name].split()}


def test_whatever_changes_while_the_supervisor_runs_is_one_of_these() -> None:
    declared = {kind.__name__ for kind in handed()}
    changing = {name.rpartition(".")[2].lstrip("_") for name, node in classes().items() if assigned(node)}
    assert changing - declared - OTHERWISE == set()


class Known(Handed):
    KEPT = kept("number names pair rows")

    def __init__(self) -> None:
        self.number, self.names, self.pair = 1, {"a"}, (1, 2)
        self.rows: dict[str, int] = {}


def test_sets_and_tuples_arrive_as_what_they_are() -> None:
    first, second = Known(), Known()
    first.number, first.names, first.pair, first.rows = 2, {"b", "c"}, (3, 4), {"x": 1}
    second.take_over(json.loads(json.dumps(first.pack(Keeper()))))
    assert vars(second) == vars(first)


def test_what_an_older_program_did_not_know_stays_as_it_is() -> None:
    known = Known()
    known.take_over({"number": 5})
    assert vars(known) == {"number": 5, "names": {"a"}, "pair": (1, 2), "rows": {}}


def test_the_state_of_the_version_before_is_taken_over_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text("[service]\n")
    for version, is_known in ((1, False), (2, True), (reexec.FORMAT, True), (reexec.FORMAT + 1, False)):
        sealed = os.memfd_create("handover")
        os.write(sealed, json.dumps({"format": version}).encode())
        refusal = program._try_out(str(tmp_path), str(version))
        assert ("" if is_known else "restart the service") in refusal and bool(refusal) != is_known
        with contextlib.nullcontext() if is_known else pytest.raises(CannotTakeOver):
            assert reexec.unseal(sealed) == {"format": version}


def test_nothing_stays_open_when_no_state_can_be_written() -> None:
    before = all_open()
    with pytest.raises(TypeError):
        reexec.seal({"what": object()}, Keeper())
    assert all_open() <= before
