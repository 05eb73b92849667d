"""Which user and group a spawned site runs as, where its file names no user: policies, ours and those of others.

A package offers one as an entry point of the group ``multisite.policies``::

    [options.entry_points]
    multisite.policies =
        customers = our_hosting.users:customer

moya.conf names it with ``[supervisor] user_policy = customers``, and it is called as::

    def customer(site: multisite.model.Site) -> tuple[str | int, str | int | None]:
        '''Return user and group, by name or number; None for the user's own group.

        Raises:
            multisite.policies.Refused: the site may not run; the message is the reason.
        '''

before each start, in the supervisor, which waits for it. Its result is checked like the values of a site file: never
root unless moya.conf allows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from multisite.errors import Problem

if TYPE_CHECKING:
    from importlib_metadata import EntryPoints

    from multisite.config.model import Site

GROUP = "multisite.policies"
OWNER = "owner"  # the default, which `multisite.supervisor.process.privilege` knows

Answer = tuple["str | int", "str | int | None"]
Policy = Callable[["Site"], Answer]


class Refused(Exception):
    """The site cannot be started as its file says; the text is ``KEY = VALUE: REASON; REMEDY``, as far as known.

    Args:
        reason: half a sentence or a whole one.
        remedy: what to do about it.
        key: of ``[service]``, with its `value`, if the reason is about that alone.
        id: names the kind of reason (`multisite.errors.codes`); a policy of another package needs none.
    """

    id = "MS530"
    severity = "error"

    def __init__(self, reason: str, remedy: str = "", key: str = "", value: str = "", *, id: str = "") -> None:
        setting = f"{key} = {value}: " if key else ""
        super().__init__(f"{setting}{reason}{'; ' if remedy else ''}{remedy}")
        self.id = id or self.id
        self.reason, self.remedy, self.key, self.value = reason, remedy, key, value

    def problem(self, file: str) -> Problem:
        """Return it as a problem of a site file."""
        section = "service" if self.key else ""
        return Problem(self.id, file, self.reason, section, self.key, self.value, self.remedy, self.severity)


def directory(site: Site) -> Answer:
    """Return the user and the group that own the location (Luisito's rule).

    Raises:
        Refused: there is no such folder.
    """
    if not site.location:
        raise Refused("the site has no location", "give it one, or name a user in its file", id="MS531")
    try:
        status = os.stat(site.location)
    except OSError as error:
        raise Refused(f"location {site.location}: {error.strerror}", id="MS531") from None
    return status.st_uid, status.st_gid


OURS: dict[str, Policy] = {"directory": directory}


@cache
def installed() -> EntryPoints:
    """Return the policies of other packages; a process looks for them once."""
    from importlib_metadata import entry_points

    return entry_points(group=GROUP)


def names() -> tuple[str, ...]:
    """Return the names of all policies."""
    return (OWNER, *OURS, *sorted(installed().names - {OWNER} - OURS.keys()))


def is_known(name: str) -> bool:
    """Tell whether there is a policy of that name; ours are known without a search."""
    return name == OWNER or name in OURS or name in installed().names


def ask(name: str, site: Site) -> Answer:
    """Return the decision of the policy `name` for `site`.

    Raises:
        Refused: it refuses, there is no such policy, or it fails.
    """
    try:
        policy = OURS.get(name) or installed()[name].load()
    except KeyError:
        raise Refused(f"user_policy = {name}: there is no such policy", f"there are {', '.join(names())}") from None
    except Exception as error:  # another package
        raise Refused(f"user_policy = {name} cannot be loaded: {type(error).__name__}: {error}") from error
    try:
        return _checked(name, policy(site))
    except Refused as error:
        reason, _, remedy = str(error).partition("; ")  # of another package, which may give a sentence only
        raise Refused(f"user_policy = {name} refuses it: {reason}", remedy) from None
    except Exception as error:  # another package's code
        raise Refused(f"user_policy = {name} failed: {type(error).__name__}: {error}") from error


def _checked(name: str, answer: object) -> Answer:
    match answer:
        case (str() | int() as user, str() | int() | None as group) if user != "":
            return user, group
    raise TypeError(f"it returned {answer!r} instead of a user and a group")
