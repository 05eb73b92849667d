"""A module of which each of several sites has its own is found, by its plain name, by the site that asks."""

from __future__ import annotations

import copy
import importlib
import logging
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from multisite.inprocess.importer import OwnModule, finder
from multisite.logs.servicelog import current_site
from multisite.runner.load import import_file

NAME = "shared_by_name"
CODE = """
import dataclasses, importlib, logging, pickle, sys, threading
log = logging.getLogger(__name__)

class Cart:
    items = {text!r}

@dataclasses.dataclass
class Item:
    name: "str" = {text!r}

def again():
    return pickle.loads(pickle.dumps(Cart())).__class__ is Cart

def by_import():
    import {name}
    from {name} import Cart as found
    return {name}.Cart is found is Cart

def by_name():
    return importlib.import_module(__name__).Cart is sys.modules[__name__].Cart is Cart

def in_a_thread(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]
"""


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[dict[str, ModuleType]]:
    """One of two sites each."""
    found = {}
    for site in "ab":
        (tmp_path / site).mkdir()
        path = tmp_path / site / f"{NAME}.py"
        path.write_text(CODE.format(text=site, name=NAME))
        finder.add_own(site, str(path.parent), NAME, f"_of_{site}")
        token = current_site.set(site)
        found[site] = import_file(str(path), f"_of_{site}", NAME)
        current_site.reset(token)
    yield found
    for site in "ab":
        finder.remove(site)
        del sys.modules[f"_of_{site}"]
    assert NAME not in sys.modules


@pytest.fixture(params="ab")
def site(request: pytest.FixtureRequest) -> Iterator[str]:
    token = current_site.set(request.param)
    yield request.param
    current_site.reset(token)


@pytest.mark.parametrize("question", ["again", "by_import", "by_name"])
def test_it_is_found_by_its_own_name(modules: dict[str, ModuleType], site: str, question: str) -> None:
    module = modules[site]
    assert module.__name__ == NAME
    assert getattr(module, question)() is True
    assert module.in_a_thread(getattr(module, question)) is True


def test_what_is_pickled_names_no_place(modules: dict[str, ModuleType], site: str) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(modules[site].Cart, protocol)
        assert NAME.encode() in data and b"_of_" not in data
        assert pickle.loads(data) is modules[site].Cart
        assert pickle._loads(data) is pickle._loads(pickle._dumps(modules[site].Cart)) is modules[site].Cart
    assert copy.deepcopy(modules[site].Item()) == modules[site].Item(site)


def test_whoever_looks_into_sys_modules_finds_the_sites(modules: dict[str, ModuleType], site: str) -> None:
    found = sys.modules[NAME]
    assert isinstance(found, OwnModule)
    assert vars(found) is vars(modules[site])
    assert found.__file__ == modules[site].__file__ and found.__spec__.name == NAME
    found.added = 1
    assert modules[site].added == 1 and "added" in dir(found)
    del found.added
    assert not hasattr(modules[site], "added")


def test_it_is_not_there_for_others(modules: dict[str, ModuleType]) -> None:
    token = current_site.set("another")
    try:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(NAME)
        with pytest.raises(ModuleNotFoundError):
            __import__(NAME)
        assert not hasattr(sys.modules[NAME], "Cart")
    finally:
        current_site.reset(token)


def test_each_has_loggers_of_its_own(modules: dict[str, ModuleType]) -> None:
    first, second = (modules[site].log for site in "ab")
    assert first is not second and first.name == second.name == NAME
    token = current_site.set("a")
    try:
        below = logging.getLogger(f"{NAME}.part.of")
        assert (below.name, below.parent.name, below.parent.parent) == (f"{NAME}.part.of", f"{NAME}.part", first)
        assert first.getChild("part.of") is below
    finally:
        current_site.reset(token)
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    first.addHandler(handler)
    second.error("of the second")
    below.error("of the first")
    first.removeHandler(handler)
    assert [(record.name, record.getMessage()) for record in seen] == [(f"{NAME}.part.of", "of the first")]


def test_a_thread_that_is_nobodys_finds_nobodys(modules: dict[str, ModuleType]) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(getattr(sys.modules[NAME], "Cart", None)))
    thread.start()
    thread.join()
    assert found == [None]
