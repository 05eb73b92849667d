"""Which modules a site imports, and whether its interpreter has them: found by reading files, without running any.

Only certain results are reported. An import that may fail (in a ``try``, under an ``if``, in a function) does not
count. Nothing is reported if the code changes `sys.path`, or if the interpreter's packages cannot be listed.
"""

from __future__ import annotations

import ast
import glob
import os
import pwd
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from multisite.status.project import scan
from multisite.supervisor.process.privilege import based_on

if TYPE_CHECKING:
    from multisite.config.model import Site

MOST_FILES = 20  # of a site to read
#: names by which code may find modules in other places
_DYNAMIC = {"meta_path", "path_hooks", "addsitedir", "exec", "__path__"}
_SILENT = ("addsitedir", "sys.path", "meta_path")  # in a line of a .pth file


@dataclass(frozen=True)
class Missing:
    """A module that is imported but missing, with the file and the line of the import."""

    module: str
    file: str
    line: int


def missing_import(path: str, site: Site, python: str) -> Missing | None:
    """Return the first missing import of the module at `path`, or of the site's modules that it imports.

    Args:
        path: a file of Python source.
        site: its location and [env] determine where modules are.
        python: the interpreter that runs it.
    """
    folders = [site.location, *site.env.get("PYTHONPATH", "").split(os.pathsep)]
    own = [folder for folder in folders if folder]
    installed: Installed | None = None
    waiting, seen = [path], {path}
    while waiting:
        path = waiting.pop(0)
        tree = scan.parse(scan.read(path))
        if tree is None or any(map(_is_dynamic, ast.walk(tree))):
            return None
        for name, line in _imported(tree, path, own):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == "multisite":
                continue
            if files := _files(name, own):
                waiting += [file for file in files if file not in seen and len(seen) < MOST_FILES]
                seen |= set(waiting)
                continue
            if any(_holds(folder, top) for folder in own):
                continue  # an attribute, or a module without source
            installed = installed or Installed.by(python, site)
            if not installed.may_have(top):
                return Missing(top, path, line)
    return None


def _is_dynamic(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        is_sys_path = node.attr == "path" and isinstance(node.value, ast.Name) and node.value.id == "sys"
        return is_sys_path or node.attr in _DYNAMIC
    if isinstance(node, ast.ImportFrom) and node.module == "sys":
        return any(alias.name == "path" for alias in node.names)
    return isinstance(node, ast.Name) and node.id in _DYNAMIC


def _imported(tree: ast.Module, path: str, own: list[str]) -> Iterator[tuple[str, int]]:
    """Yield the modules that are always imported, with the line."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, path, own)
            if base:
                yield base, node.lineno
                # perhaps a module of the site, else a name in one
                yield from ((full, node.lineno) for a in node.names if _files(full := f"{base}.{a.name}", own))


def _absolute(node: ast.ImportFrom, path: str, own: list[str]) -> str:
    """Return the full name of the module that a statement imports from; "" if it is unknown."""
    if not node.level:
        return node.module or ""
    folder = os.path.dirname(path)
    for _ in range(node.level - 1):
        folder = os.path.dirname(folder)
    for root in own:
        if folder.startswith(os.path.join(root, "")):
            return ".".join([*os.path.relpath(folder, root).split(os.sep), *([node.module] if node.module else [])])
    return ""


def _files(name: str, own: list[str]) -> list[str]:
    """Return the source files that run when a module of the site is imported; none for other modules."""
    parts, found = name.split("."), []
    for folder in own:
        for count in range(1, len(parts) + 1):
            path = os.path.join(folder, *parts[:count])
            found += [file for file in (os.path.join(path, "__init__.py"), f"{path}.py") if os.path.isfile(file)][:1]
        if found and found[-1].startswith(os.path.join(folder, *parts)):
            return found
        found = []
    return []


def _holds(folder: str, top: str) -> bool:
    """Tell whether a folder has a module or package, with any suffix."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return any(name.partition(".")[0] == top for name in names)


@dataclass(frozen=True)
class Installed:
    """The modules that an interpreter can import besides its standard library.

    Attributes:
        folders: folders of its packages; None if they are unknown.
        is_ours: whether it is the interpreter that runs us.
        mapped: texts of files that name further modules.
    """

    folders: tuple[str, ...] | None = None
    is_ours: bool = False
    mapped: tuple[str, ...] = ()

    @classmethod
    def by(cls, python: str, site: Site) -> Installed:
        """Return the packages of `python`."""
        if not site.python:
            return cls(is_ours=True)
        folders = list(_packages(python, site))
        if not folders:
            return cls()
        mapped: list[str] = []
        for folder in list(folders):
            for line in _pth_lines(folder):
                if any(word in line for word in _SILENT):
                    return cls()
                if line.startswith(("import ", "import\t")):
                    mapped += _finder(folder, line)
                else:
                    folders.append(os.path.join(folder, line))
        return cls(tuple(folders), mapped=tuple(mapped))

    def may_have(self, top: str) -> bool:
        """Tell whether it has a module, or may have it."""
        if self.is_ours:
            try:
                return find_spec(top) is not None
            except (ImportError, ValueError, AttributeError):
                return True
        if self.folders is None or any(_holds(folder, top) for folder in self.folders):
            return True
        return any(repr(top) in text for text in self.mapped)


def _packages(python: str, site: Site) -> Iterator[str]:
    """Yield the folders of packages of an interpreter (PEP 405, and Debian's)."""
    base = based_on(python)
    if base:
        yield from _below(os.path.dirname(os.path.dirname(python)), ("site-packages",))
        if base.get("include-system-site-packages", "").lower() != "true":
            return
        python = os.path.join(base.get("home", "/usr/bin"), "python3")
    elif not os.path.basename(os.path.realpath(python)).startswith(("python", "pypy")):
        return  # perhaps a script that runs an interpreter
    for prefix in dict.fromkeys(os.path.dirname(os.path.dirname(path)) for path in (python, os.path.realpath(python))):
        yield from _below(prefix, ("site-packages", "dist-packages"))
        yield from _below(os.path.join(prefix, "local"), ("site-packages", "dist-packages"))
    try:
        home = pwd.getpwuid(os.stat(site.location or "/").st_uid).pw_dir
    except (KeyError, OSError):
        return
    yield from _below(os.path.join(home, ".local"), ("site-packages",))


def _below(prefix: str, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield from sorted(glob.glob(os.path.join(glob.escape(prefix), "lib*", "python3*", name)))


def _pth_lines(folder: str) -> Iterator[str]:
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.pth"))):
        yield from (line.strip() for line in _text(path).splitlines() if line.strip() and line[0] != "#")


def _finder(folder: str, line: str) -> list[str]:
    """Return the text of the module that a .pth file imports; setuptools lists editable packages in it."""
    name = line.split()[1].partition(";")[0].strip()
    return [text] if (text := _text(os.path.join(folder, f"{name}.py"))) else []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
