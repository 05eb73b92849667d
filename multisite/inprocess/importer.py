"""How a site's modules come into this interpreter.

`multisite.inprocess.loader` says *what* to import and asks an `Importer` to do it, so that who hosts the
site decides where its modules live.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Protocol

from multisite.runner.load import unique_name

if TYPE_CHECKING:
    from multisite.config.model import Site


class Importer(Protocol):
    """Imports for one site. Whatever the site's code raises comes out unchanged."""

    def module(self, dotted: str) -> ModuleType:
        """The module of that name, as ``import`` would give it to this site."""

    def file(self, path: str) -> ModuleType:
        """Execute the file under a module name of its own, registered in `sys.modules`."""


class PlainImporter:
    """Python's own import; it leaves `sys.path` alone."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @classmethod
    def alone(cls, site: Site) -> PlainImporter:
        """For a process that is the site's own: its location comes first in `sys.path` from now on."""
        if site.location and site.location not in sys.path:
            sys.path.insert(0, site.location)
        return cls(site)

    def module(self, dotted: str) -> ModuleType:
        """Import a dotted module; a file written a moment ago is seen."""
        importlib.invalidate_caches()
        return importlib.import_module(dotted)

    def file(self, path: str) -> ModuleType:
        """Execute a file under the name that `name_of` gives it."""
        return import_file(path, self.name_of(path))

    def name_of(self, path: str) -> str:
        """The module name of a file of this site."""
        return unique_name(self._site.name, path)


def import_file(path: str, module_name: str, own_name: str = "") -> ModuleType:
    """Execute a Python file (of any suffix) as the module `module_name`.

    Where it is to know itself by another name, that is `own_name`. The module is in `sys.modules` before it runs
    (Flask and dataclasses look themselves up there); when it fails, what was there before is there again.

    Raises:
        OSError: the file cannot be read. And whatever its code raises.
    """
    path = os.path.abspath(path)
    name = own_name or module_name
    loader = (SourceFileLoader if path.endswith(".py") else _UncachedLoader)(name, path)
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    before = sys.modules.get(module_name)
    sys.modules[module_name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        _put_back(module_name, before)
        raise
    return sys.modules.get(module_name, module)


def _put_back(module_name: str, before: ModuleType | None) -> None:
    if before is None:
        sys.modules.pop(module_name, None)
    else:
        sys.modules[module_name] = before


class _UncachedLoader(SourceFileLoader):
    """Neither reads nor writes byte code: ``blog.wsgi`` and ``blog.py`` would share one .pyc."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code
