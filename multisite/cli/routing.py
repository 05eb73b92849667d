"""Check [router] for settings that cannot work, without opening, calling or connecting to anything."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import islice

from multisite.config.model import Home
from multisite.errors import Problem

SECTION = "router"
MOST_LINES = 50  # of a mapping file to report
LONGEST_PATH = 107  # bytes of a unix socket's, see unix(7)
_EXAMPLE = "write it like unbit.it 127.0.0.1:3031"

Fault = tuple[str, str]  # reason and remedy


def problems(home: Home) -> list[Problem]:
    """Return why a mapper, the subscription server or the provisioner could not work as moya.conf configures it."""
    from multisite.config.sections import RouterOptions

    if home.router == RouterOptions():
        return []
    found = list(_map(home))
    for key, look in _LOOKS.items():
        value = getattr(home.router, key)
        for item in value if isinstance(value, tuple) else [value] if value else []:
            found += [
                Problem("MS731", home.file, reason, SECTION, key, item, remedy) for reason, remedy in look(item, home)
            ]
    return found


def _map(home: Home) -> Iterator[Problem]:
    from multisite.router.mappers import map_faults

    if not home.router.map:
        return
    path = os.path.join(home.path, home.router.map)
    try:
        faults = map_faults(path)
        for number, line, reason in islice(faults, MOST_LINES):
            yield Problem("MS732", path, reason, value=line, remedy=_EXAMPLE, line=number)
        more = sum(1 for _ in faults)
        if more:
            reason = f"{more} more {'line is' if more == 1 else 'lines are'} wrong"
            yield Problem("MS732", path, reason, remedy=_EXAMPLE)
    except OSError as error:
        reason = f"{path} cannot be read: {error.strerror}"
        remedy = "create it, or correct the path" if isinstance(error, FileNotFoundError) else "correct its permissions"
        yield Problem("MS730", home.file, reason, SECTION, "map", home.router.map, remedy)


def _pattern(value: str, _home: Home) -> Iterator[Fault]:
    if "%s" not in value:
        remedy = "write %s for the key, as in /run/nodes/%s/uwsgi.sock"
        yield "it leads to the same node for every key", remedy


def _base(value: str, home: Home) -> Iterator[Fault]:
    yield from _folder(os.path.join(home.path, value))


def _folder(path: str) -> Iterator[Fault]:
    if not os.path.isdir(path):
        reason = f"{path} is not a folder" if os.path.lexists(path) else f"there is no folder {path}"
        yield reason, "create it, or correct the path"


# Functions and commands


def _code(value: str, home: Home) -> Iterator[Fault]:
    from multisite.router.code import Function

    try:
        Function(value, home.path)
    except ValueError as error:
        yield str(error), "write it like mapper.py:get"
    else:
        yield from _function(value, home)


def _function(value: str, home: Home) -> Iterator[Fault]:
    """Look up a function in the source text."""
    from multisite.status.project.faults import callable_fault, find_module

    where, _, name = value.rpartition(":")
    remedy = "correct it, or the name"
    if where.endswith(".py") or "/" in where:
        path: str | None = os.path.join(home.path, where)
        if not os.path.isfile(str(path)):
            yield f"there is no file {path}", "write it, or correct the path"
            return
    else:
        path = find_module(where, [home.path, *sys.path])
        if path is None:
            yield f"there is no module {where} in {home.path} or the import path", remedy
    if path and path.endswith(".py"):
        fault = callable_fault(path, (name,))
        if fault:
            yield fault, remedy


def _provision(value: str, home: Home) -> Iterator[Fault]:
    from multisite.router import provisioner

    if provisioner.is_function(value):
        yield from _function(value, home)
        return
    try:
        program = provisioner.command(value, home.path, "", "")[0]
    except ValueError as error:
        yield str(error), "quote it as in a shell"
        return
    place = os.path.join(home.path, program) if "/" in program else program
    if not shutil.which(place):
        reason = "it is not executable" if os.path.isfile(place) else f"there is no program {place}"
        yield reason, "write FILE.py:FUNCTION, MODULE:FUNCTION or an executable command"


# Libraries


def _redis(value: str, _home: Home) -> Iterator[Fault]:
    from multisite.router.groups import Groups
    from multisite.router.lookups import of_redis

    yield from _made(lambda: of_redis(value, Groups()), "write it like redis://127.0.0.1:6379/0")


def _sql(value: str, home: Home) -> Iterator[Fault]:
    from multisite.router.groups import Groups
    from multisite.router.lookups import of_sql

    query = home.router.query
    if not query:
        yield "query is missing", "write query = SELECT node FROM map WHERE domain = :key"
    elif ":key" not in query:
        yield "query does not ask for :key", "write query = SELECT node FROM map WHERE domain = :key"
    yield from _made(lambda: of_sql(value, query or ":key", home.path, Groups()), "write it like sqlite:///map.db")


def _mappers(value: str, _home: Home) -> Iterator[Fault]:
    from importlib_metadata import entry_points

    from multisite.config.values import did_you_mean

    known = sorted({each.name for each in entry_points(group="multisite.mappers")})
    if value not in known:
        reason = f"no installed package has a mapper {value}{did_you_mean(value, known)}"
        yield reason, f"install it; known mappers: {', '.join(known) or 'none'}"


def _made(make: Callable[[], object], remedy: str) -> Iterator[Fault]:
    """Make an object as a test; a missing library has its own remedy."""
    try:
        make()
    except ValueError as error:
        reason, _, own = str(error).partition("; ")
        if reason.startswith("No module named"):
            own = "pip install the driver of the database"
        yield reason, own or remedy


# The subscription server


def _address(value: str, _home: Home) -> Iterator[Fault]:
    from multisite.router.server import host_and_port

    if value.startswith(("/", "@")):
        size = len(os.fsencode(value))
        if size > LONGEST_PATH:
            yield f"it has {size} bytes, and the limit for a socket's path is {LONGEST_PATH}", "name a shorter one"
        elif value.startswith("/"):
            yield from _folder(os.path.dirname(value))
        return
    try:
        host_and_port(value)
    except ValueError as error:
        yield str(error), "write it like 127.0.0.1:7000 or /run/multisite/subscribe.sock"


def _keys(value: str, home: Home) -> Iterator[Fault]:
    from multisite.router.signatures import Signatures

    yield from _made(lambda: Signatures(value, home.path), "write it like SHA1:keys")


def _credentials(value: str, home: Home) -> Iterator[Fault]:
    yield from _folder(os.path.join(home.path, value))


_LOOKS: dict[str, Callable[[str, Home], Iterator[Fault]]] = {
    "pattern": _pattern,
    "base": _base,
    "code": _code,
    "redis": _redis,
    "sql": _sql,
    "mappers": _mappers,
    "subscription_server": _address,
    "subscription_keys": _keys,
    "subscription_credentials": _credentials,
    "stats": _address,
    "provision": _provision,
}
