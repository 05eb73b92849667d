"""One import of a site into an interpreter that it shares, completely or not at all.

A generation is the result of an import: the application, the module names that were
claimed for it, the modules that were loaded. `make` adds a new one beside the old, and
restores everything if that fails; `drop` removes one.
"""

from __future__ import annotations

import importlib
import io
import logging
import mmap
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from multisite.config.model import Site
from multisite.errors import AppLoadError
from multisite.inprocess import isolation, loader
from multisite.inprocess.importer import finder, forget, referring
from multisite.inprocess.isolation import Changes, Guard
from multisite.inprocess.workdir import WorkDir
from multisite.logs import servicelog
from multisite.runner.answer import FileWrapper, WsgiAnswer
from multisite.runner.load import import_file, is_just_written, unique_name
from multisite.runner.smoke import Nobody, Smoke, why_unwell
from multisite.sites import claims, sharing
from multisite.sites.claims import Ledger

WSGI = Callable[..., Iterable[bytes]]

_guard = Guard()
_log = logging.getLogger("multisite.generation")


@dataclass(slots=True)
class Generation:
    """One import of a site: its application and what it brought into the interpreter."""

    app: WSGI
    names: claims.Names
    unique_name: str  # of the module it was loaded as, "" if that is one of `names`
    modules: frozenset[str]  # loaded by its first import, other sites' concurrent ones included
    workdir: WorkDir | None = None  # where it was imported and is called; None for wherever the server is
    size: int = 0  # bytes that its imports have added to this process, other sites' concurrent ones included


def make(site: Site, ledger: Ledger, old: Generation | None, workdir: WorkDir | None = None) -> Generation:
    """Import `site`, again if there is an `old` generation, which keeps serving meanwhile.

    Raises:
        AppLoadError: there is no usable application.
        NeedsProcess: the site may not share this interpreter.
    """
    wanted = sharing.wanted(site)
    source = _Importer(site, wanted)
    names = dict(wanted.names)
    _claim(site, ledger, names, source.unique_name)
    taken = forget(_outdated({*_of_all(names), *_of_all(old.names if old else {}), source.unique_name}, old))
    before, resident = frozenset(sys.modules), _resident()
    try:
        with _place(site, workdir):
            app = _run(site, source)
            _claim_more(site, ledger, names, source)
            if old:
                check_smoke(app, site)
    except BaseException:
        forget({*_of_all(names), source.unique_name, *(module.partition(".")[0] for module in taken)})
        sys.modules.update(taken)
        _unclaim(site, ledger, old)
        if workdir:
            workdir.close()
        raise
    modules = (old.modules if old else frozenset()) | (frozenset(sys.modules) - before)
    size = max(0, _resident() - resident) + (old.size if old else 0)
    return Generation(app, names, source.unique_name, modules, workdir, size)


def _resident() -> int:
    """Return the resident set size of this process in bytes, 0 where the kernel does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _place(site: Site, workdir: WorkDir | None) -> AbstractContextManager[None]:
    """Return where to import; the loader reports a missing location."""
    return workdir.inside() if workdir and os.path.isdir(site.location or "/") else nullcontext()


def drop(site: Site, ledger: Ledger, generation: Generation | None) -> None:
    """Remove a site's modules from the interpreter and release its claims."""
    ledger.release([site.name])
    names = finder.remove(site.name)
    if generation:
        names.add(generation.unique_name)
        if generation.workdir:
            generation.workdir.close()
    forget(_outdated(names, generation))


class _Importer:
    """Where the modules of one generation come from (`importer.Importer`).

    The location never enters `sys.path`: the finder knows the site's names.
    """

    def __init__(self, site: Site, wanted: sharing.Wanted) -> None:
        self._site = site
        self.alone, self.own = wanted.alone, wanted.own
        self.unique_name = unique_name(site.name, wanted.alone) if wanted.alone else ""
        self.django_before = isolation.is_django_configured()
        self.changes = Changes()

    def module(self, dotted: str) -> ModuleType:
        if self.alone:
            return import_file(self.alone, self.unique_name, self.own)
        importlib.invalidate_caches()
        return importlib.import_module(dotted)

    def file(self, path: str) -> ModuleType:
        return import_file(path, self.unique_name or unique_name(self._site.name, path))


def _run(site: Site, source: _Importer) -> WSGI:
    """Run the site's code, and restore what it changed outside itself."""
    writes = sys.dont_write_bytecode
    if site.location and is_just_written(site.location):
        sys.dont_write_bytecode = True
    try:
        with _guard.watch(site.name) as source.changes:
            app: WSGI = loader.load(site, source)
    finally:
        sys.dont_write_bytecode = writes
        for word in servicelog.restore():
            _log.warning("MS248 site %s: its import changed %s; restored", site.name, word)
    return app


def _claim(site: Site, ledger: Ledger, names: claims.Names, unique_name: str) -> None:
    ledger.acquire(site.name, names)
    finder.add(site.name, _of_all(names))
    for name, root in names.items():
        if root == claims.EACH:
            finder.add_own(site.name, site.location, name, unique_name)


def _of_all(names: claims.Names) -> claims.Names:
    """Return the names that stand for the same module in the whole interpreter."""
    return {name: root for name, root in names.items() if name != claims.DJANGO and root != claims.EACH}


def _claim_more(site: Site, ledger: Ledger, names: claims.Names, source: _Importer) -> None:
    """Add to `names` claims that only the import itself could show."""
    more = sharing.more_names([path for path in source.changes.paths if path != site.location])
    if isolation.is_django_configured() and not source.django_before:
        more[claims.DJANGO] = site.location
    if more.keys() - names.keys():
        names |= more
        _claim(site, ledger, names, source.unique_name)
    if claims.DJANGO in names:
        isolation.fence_django(site.name)


def _unclaim(site: Site, ledger: Ledger, old: Generation | None) -> None:
    finder.remove(site.name)
    ledger.release([site.name])
    if old:
        _claim(site, ledger, old.names, old.unique_name)


def _outdated(names: set[str], generation: Generation | None) -> set[str]:
    """Return the top-level names to import again when `names` are."""
    if generation and claims.DJANGO in generation.names:
        return referring({*names, "django"}, generation.modules)
    return names


def check_smoke(app: WSGI, site: Site) -> None:
    """Let `app` answer the smoke request of `site`, if it has one.

    Raises:
        AppLoadError: the answer is not good; the cause is the exception.
    """
    if not site.smoke_path:
        return
    smoke = Smoke({"host": site.canonical_host, "mount": site.mount, "path": site.smoke_path})
    connection: Any = Nobody(smoke)
    answer = WsgiAnswer(connection, "GET", "HTTP/1.1")
    try:
        _call(app, smoke.environ(), answer)
    except (Exception, SystemExit) as error:  # the site's code may raise anything
        raise AppLoadError(f"{smoke} failed: {type(error).__name__}: {error}") from error
    reason = why_unwell(smoke, answer.status)
    if reason:
        raise AppLoadError(reason)


def _call(app: WSGI, environ: dict[str, Any], answer: WsgiAnswer) -> None:
    environ |= {
        "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
    }
    result: Any = app(environ, answer.start_response)
    try:
        answer.send(result)
    finally:
        if hasattr(result, "close"):
            result.close()
