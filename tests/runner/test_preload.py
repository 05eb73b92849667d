"""The parts of the preloader that need no supervisor: what an import may leave behind, and who may have written it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from multisite.runner import follow, purity

from .interpreters import interpreters

RUNNER = str(Path(purity.__file__).parent)


@contextlib.contextmanager
def installed(folder: Path, name: str, code: str) -> Iterator[None]:
    """A module that can be imported meanwhile."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)


def test_facts_stay_the_same_as_long_as_nothing_happens() -> None:
    assert purity.broken(purity.facts(), purity.facts()) == ""


def test_a_thread_is_noticed() -> None:
    end = threading.Event()
    before = purity.facts()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert purity.broken(before, purity.facts()) == "starts threads"
    finally:
        end.set()
        thread.join()


def test_an_open_file_is_noticed(tmp_path: Path) -> None:
    before = purity.facts()
    with (tmp_path / "file").open("w"):
        assert purity.broken(before, purity.facts()) == "opens descriptors"
    assert purity.broken(before, purity.facts()) == ""


def test_facts_are_told_on_every_interpreter() -> None:
    """The runner's modules import under a name of their own in each site's interpreter."""
    code = f"""
        import sys, types
        package = types.ModuleType("_runner")
        package.__path__ = [{RUNNER!r}]
        sys.modules["_runner"] = package
        from _runner import follow, forked, preload, purity
        assert purity.broken(purity.facts(), purity.facts()) == ""
        assert "json" in follow.names().split()
        purity.said_at_startup()
    """
    for python in interpreters().values():
        subprocess.run([python, "-I", "-c", textwrap.dedent(code)], check=True)


class Watching:
    """`os.environ` watched."""

    def __enter__(self) -> purity.Reads:
        return purity.watched(os.environ)

    def __exit__(self, *exc_info: object) -> None:
        purity.unwatched(os.environ)


def test_who_reads_which_variable_is_noted() -> None:
    with Watching() as reads:
        assert os.environ.get("COLOUR") is None
        assert os.getenv("SHAPE", "round") == "round"
        assert "SIZE" not in os.environ
    assert reads.names == {"COLOUR", "SHAPE", "SIZE"}
    assert type(os.environ._data) is dict  # type: ignore[attr-defined]


def test_the_facts_are_not_taken_for_a_reader() -> None:
    with Watching() as reads:
        purity.facts()
    assert reads.names == set()


@pytest.mark.parametrize(
    ("reads", "what"),
    [
        ("os.environ.get('DJANGO_SETTINGS_MODULE')", "asks for Django's settings"),
        ("dict(os.environ)", "asks for all environment variables"),
    ],
)
def test_a_module_that_asks_for_what_is_each_sites_own_is_tainted(tmp_path: Path, reads: str, what: str) -> None:
    with installed(tmp_path, "asking_module", f"import os\nANSWER = {reads}\n"), Watching() as watched:
        __import__("asking_module")
        assert watched.tainted() == {"asking_module": what}
        assert watched.tainted() == {}


def test_a_module_that_asks_and_fails_has_done_no_harm(tmp_path: Path) -> None:
    code = "import os\nos.environ.get('DJANGO_SETTINGS_MODULE')\nraise RuntimeError\n"
    with installed(tmp_path, "asking_module", code), Watching() as watched:
        with pytest.raises(RuntimeError):
            __import__("asking_module")
        assert watched.tainted() == {}


def test_start_up_files_name_their_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.pth").write_text("import os; os.environ.get('TRACE_ME') and print()\n/some/folder/'NOT_RUN'\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "TRACE_ME" in purity.said_at_startup()
    assert "NOT_RUN" not in purity.said_at_startup()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone can give files away")
@pytest.mark.parametrize("change", ["owner", "mode", "folder", "link", "link to nothing yet", "linked folder", "none"])
def test_what_others_than_root_may_write_is_found(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "packages"
    (folder / "package").mkdir(parents=True)
    module = folder / "package" / "module.py"
    module.write_text("")
    wanted = str(module)
    if change == "owner":
        os.chown(module, 33, 33)
    elif change == "mode":
        module.chmod(0o666)
    elif change == "folder":
        wanted = str(module.parent)
        module.parent.chmod(0o777)
    elif change == "linked folder":
        other = tmp_path / "elsewhere"
        other.mkdir()
        module.rename(other / "module.py")
        os.chown(other / "module.py", 33, 33)
        (folder / "linked").symlink_to(other)
        (other / "again").symlink_to(folder)
        wanted = str(other / "module.py")
    elif change.startswith("link"):
        other = tmp_path / "elsewhere"
        other.mkdir()
        os.chown(other, 33, 33)
        if change == "link":
            (other / "file.py").write_text("")
        wanted = str(folder / "linked.py")
        (folder / "linked.py").symlink_to(other / "file.py")
    else:
        wanted = ""
    assert purity.strangers([str(folder)]) == wanted
    assert purity.strangers([str(folder), str(tmp_path / "packages"), str(folder / "package")]) == wanted


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone can give files away")
def test_packages_below_a_folder_count_where_they_are_on_the_path(tmp_path: Path) -> None:
    """Those of the interpreter that made a virtualenv are below its standard library."""
    packages = tmp_path / "python" / "site-packages"
    (packages / "package").mkdir(parents=True)
    module = packages / "package" / "module.py"
    module.write_text("")
    os.chown(module, 33, 33)
    assert purity.strangers([str(packages.parent)]) == ""
    assert purity.strangers([str(packages.parent), str(packages)]) == str(module)
    packages.chmod(0o777)
    assert purity.strangers([str(packages.parent)]) == str(packages)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone can give files away")
@pytest.mark.parametrize("change", ["owner", "shape", "module", "none"])
def test_what_is_installed_as_editable_is_looked_at_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """setuptools gives each a finder, whose module maps names to packages and modules."""
    (tmp_path / "package").mkdir()
    code = tmp_path / "package" / "module.py"
    code.write_text("")
    where = code.with_suffix("") if change == "module" else code.parent
    finding = ModuleType("__editable___project_1_0_finder")
    text = f"MAPPING = {{'package': {str(where)!r}}}\n" if change != "shape" else ""
    exec(text + "class Finder: pass", finding.__dict__)
    monkeypatch.setitem(sys.modules, finding.__name__, finding)
    monkeypatch.setattr(sys, "meta_path", [finding.Finder])
    if change in ("owner", "module"):
        os.chown(code, 33, 33)
    wanted = {"none": "", "shape": repr(finding.Finder)}.get(change, str(code))
    assert purity.strangers([]) == wanted


def test_names_are_those_of_the_interpreters_modules_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    names = follow.names().split()
    assert "json.decoder" in names
    assert not {"__main__", "sys", "multisite", "tests", "os.path"} & set(names)
    monkeypatch.setattr(follow, "MOST", 3)
    assert len(follow.names().split()) == 3
    monkeypatch.setattr(follow, "known", set(sys.modules))
    assert follow.names() == ""


def test_learner_tells_only_what_is_new() -> None:
    told: list[str] = []

    class Notifier:
        def modules(self, names: str) -> None:
            told.append(names)

    learner: Any = follow.Learner(Notifier(), "")  # type: ignore[arg-type]
    learner.tell()
    learner.tell()
    assert len(told) == 1
    assert json.__name__ in told[0].split()
