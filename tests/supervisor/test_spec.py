"""When a fork would be no plain start, and what is believed of what sites say about their modules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from multisite.config.read import Home, read_home
from multisite.supervisor.process.preloaders import MOST_MODULES, Knowledge, Learned
from multisite.supervisor.process.spec import Identity, Launch, fork_difference, fork_obstacle

WHO = Identity(1000, 1000, (1000,), "ada")
SHARED = {"PATH": "/bin", "LANG": "C.UTF-8"}
LAUNCH = Launch(("/venv/bin/python", "-u", "run"), dict(SHARED), "/", WHO, job=b"{}", shared_env=SHARED)


def test_an_ordinary_site_is_forked() -> None:
    assert fork_obstacle(LAUNCH) == ""
    assert fork_difference(LAUNCH, SHARED, (), 1024) == ""


@pytest.mark.parametrize(
    ("launch", "why"),
    [
        (replace(LAUNCH, preload="preload = no"), "preload = no"),
        (replace(LAUNCH, job=b""), "runner"),
        (replace(LAUNCH, chroot="/jail"), "root directory"),
        (replace(LAUNCH, env={**SHARED, "PYTHONPATH": "/a:lib"}), "PYTHONPATH is relative"),
    ],
)
def test_some_sites_never_are(launch: Launch, why: str) -> None:
    assert why in fork_obstacle(launch)


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "LD_PRELOAD", "LC_ALL", "LANG", "MALLOC_ARENA_MAX", "READ"])
def test_a_variable_that_has_been_read_must_be_the_same(name: str) -> None:
    other = replace(LAUNCH, env={**SHARED, name: "x"})
    assert name in fork_difference(other, SHARED, {"READ"}, 1024)
    assert name in fork_difference(LAUNCH, {**SHARED, name: "x"}, {"READ"}, 1024)
    assert fork_difference(other, {**SHARED, name: "x"}, {"READ"}, 1024) == ""


def test_other_variables_may_differ() -> None:
    assert fork_difference(replace(LAUNCH, env={**SHARED, "SECRET": "x"}), SHARED, {"READ"}, 1024) == ""


@pytest.mark.parametrize("keys", [{"nice": -1}, {"nofile": 2048}])
def test_what_only_root_may_raise_needs_a_plain_start(keys: dict[str, int]) -> None:
    assert fork_difference(replace(LAUNCH, **keys), SHARED, (), 1024) != ""
    root = replace(LAUNCH, identity=Identity(0, 0), **keys)
    assert fork_difference(root, SHARED, (), 1024) == ""


def test_sites_of_other_groups_are_another_pair() -> None:
    other = replace(LAUNCH, identity=replace(WHO, groups=(1000, 4)))
    assert other.preloader_key != LAUNCH.preloader_key
    assert str(other.preloader_key) != str(LAUNCH.preloader_key)


@pytest.mark.parametrize("name", ["", "a b", "a-b", "../x", "a..b", ".a", "1a", "a;import os", "a" * 300, "ä"])
def test_only_names_of_modules_are_taken(name: str) -> None:
    knowledge = Knowledge()
    assert knowledge.learn([name]) == 0
    knowledge.deny({name: "x"})
    assert not knowledge.modules
    assert not knowledge.denied


def test_there_is_a_bound_to_what_is_learned() -> None:
    knowledge = Knowledge()
    assert knowledge.learn(f"m{number}" for number in range(2 * MOST_MODULES)) == MOST_MODULES


def test_what_is_denied_is_forgotten_with_all_below_it_and_never_learned_again() -> None:
    knowledge = Knowledge()
    knowledge.learn(["a", "a.b", "a.b.c", "ab"])
    knowledge.deny({"a.b": "starts threads"})
    assert list(knowledge.modules) == ["a", "ab"]
    assert knowledge.learn(["a.b.c", "a.b", "c"]) == 1


@pytest.mark.parametrize("document", ["[]", "{", '{"pair": 5}', '{"pair": {"modules": 3, "denied": []}}', "null"])
def test_a_document_that_makes_no_sense_is_none(tmp_path: Path, document: str) -> None:
    learned = Learned(home := _home(tmp_path))
    Path(learned._file.directory).mkdir(mode=0o700, exist_ok=True)
    Path(learned._file.path).write_text(document)
    assert not Learned(home).of("pair").modules


def test_knowledge_is_kept(tmp_path: Path) -> None:
    home = _home(tmp_path)
    learned = Learned(home)
    learned.of("pair").learn(["b", "a"])
    learned.of("pair").deny({"c": "opens descriptors"})
    learned.change()
    learned.keep()
    again = Learned(home).of("pair")
    assert list(again.modules) == ["b", "a"]
    assert again.denied == {"c": "opens descriptors"}


def _home(path: Path) -> Home:
    (path / "moya.conf").write_text("[service]\nstate_dir = state\n")
    return read_home(str(path))
