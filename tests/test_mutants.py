"""The bugs that `make mutants` plants can be planted: the code that they spoil is there, and so are their tests."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.table import KINDS, ROOT, Mutant, mutants

ALL = mutants()


def test_there_are_many_of_each_kind() -> None:
    assert len(ALL) >= 170
    assert {mutant.kind for mutant in ALL} == set(KINDS)
    assert len({(mutant.file, mutant.text, mutant.replacement) for mutant in ALL}) == len(ALL)


@pytest.mark.parametrize("mutant", ALL, ids=str)
def test_a_bug_can_be_planted(mutant: Mutant) -> None:
    source = (ROOT / "multisite" / mutant.file).read_text()
    spoilt = mutant.planted(source)
    assert spoilt != source
    ast.parse(spoilt)


@pytest.mark.parametrize("mutant", ALL, ids=str)
def test_whoever_must_notice_is_there(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert not name or f"def {name.partition('[')[0]}(" in text, test
