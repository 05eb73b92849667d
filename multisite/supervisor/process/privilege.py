"""The user that a spawned site runs as: never root by accident, and refused with a reason if it would be unsafe."""

from __future__ import annotations

import glob
import grp
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace

from multisite.config import policies
from multisite.config.model import Home, Site
from multisite.config.policies import Refused
from multisite.supervisor.process import reach
from multisite.supervisor.process.spec import Identity

ALLOW = "set [supervisor] allow_root = yes in moya.conf if you mean that"


class NeedsRoot(Refused):
    """Only root could start it, and the service may well run as root."""

    id = "MS538"
    severity = "warning"


def identity(site: Site, home: Home, program: str = "", needed: tuple[str, ...] = ()) -> tuple[Identity, str]:
    """Decide which user `site` runs as; returns that user and a remark for the start report.

    Args:
        site: its user, group, location and chroot count.
        home: its default_user and allow_root count.
        program: the interpreter or server to run, "" if it is not known.
        needed: what else the process runs or reads, including files of ours.

    Raises:
        Refused: the configuration asks for something impossible or unsafe.
    """
    wanted = () if site.chroot else (site.location, program, based_on(program).get("home", ""), *needed)
    needed = tuple(path for path in wanted if path and not reach.is_missing(path))  # reported by the step that needs it
    if os.geteuid() != 0:
        who = _own(site)
        _check_reach(who, needed, site.name)
        return who, ""
    who, remark = _chosen(site, home, needed)
    if site.group:
        who = _with_group(who, site.group)
    if 0 in (who.uid, who.gid) and not home.supervisor.allow_root:
        raise Refused("it would run as root", f"multisite set {site.name} user=USER, or {ALLOW}", id="MS535")
    if not home.supervisor.allow_root:
        who = replace(who, groups=tuple(gid for gid in who.groups if gid != 0))
    for path in filter(None, (site.location, *_code(site), program, *_environment(program), site.chroot)):
        _check_owner(path, who)
        if not home.supervisor.allow_root:  # a demonstration may lie anywhere
            _check_way(path, who)
    _check_reach(who, needed, site.name)
    return who, remark


def chosen(site: Site, home: Home, program: str) -> Identity:
    """Return the user that root would run `site` as, whether or not everything that it needs is in order.

    Raises:
        Refused: the user cannot be determined.
    """
    return _chosen(site, home, tuple(path for path in (site.location, program) if path))[0]


def based_on(python: str) -> dict[str, str]:
    """Return what pyvenv.cfg states about the virtualenv of an interpreter, by its keys (PEP 405); {} for any other."""
    try:
        with open(os.path.join(os.path.dirname(os.path.dirname(python)), "pyvenv.cfg"), encoding="utf-8") as file:
            pairs = (line.partition("=") for line in file.read(65536).splitlines())
            return {key.strip().lower(): value.strip() for key, _, value in pairs}
    except (OSError, ValueError):
        return {}


def _check_reach(who: Identity, needed: Iterable[str], site: str) -> None:
    """Refuse what would end in a "Permission denied" that names neither the user nor the place."""
    for path in needed:
        place = reach.closed_to(who, path) if who.change else reach.closed(path)
        if place:
            closed = f"{place} is closed to that user{reach.mode_of(place)}"
            remedy = f"{reach.opening(who, place)}, or multisite set {site} user=USER"
            raise Refused(f"it runs as '{who.name}', who cannot reach {path}: {closed}", remedy, id="MS532")


def _own(site: Site) -> Identity:
    """The supervisor's own user, because there is no other."""
    uid, gid = os.geteuid(), os.getegid()
    who = _by_uid(uid)
    remedy = "start the service as root, or remove the key"
    if site.chroot:
        raise NeedsRoot(f"chroot needs root, and the supervisor runs as '{who.name}'", remedy)
    wanted = _owner(site) if site.user == "owner" else _user(site.user) if site.user else who
    if wanted.uid != uid:
        raise NeedsRoot(f"user = {site.user} needs root, and the supervisor runs as '{who.name}'", remedy)
    if site.group and _gid(site.group) not in (gid, *os.getgroups()):
        raise NeedsRoot(f"group = {site.group} needs root or membership, and '{who.name}' has neither", remedy)
    return replace(who, change=False)


def _chosen(site: Site, home: Home, needed: tuple[str, ...]) -> tuple[Identity, str]:
    if site.user and site.user != "owner":
        return _user(site.user), ""
    policy = home.supervisor.user_policy
    if not site.user and policy != policies.OWNER:
        return _by_policy(policy, site)
    who = _owner(site)
    if who.uid != 0:
        return who, ""
    if site.user == "owner":
        raise Refused(
            "user = owner, and its location belongs to root",
            f"chown -R USER {site.location}, or multisite set {site.name} user=USER",
            id="MS535",
        )
    who = _user(home.supervisor.default_user)
    hidden, place = next(((path, place) for path in needed if (place := reach.closed_to(who, path))), ("", ""))
    if not hidden:
        return who, f"runs as '{who.name}' because its location belongs to root"
    where = f"{hidden}: {place} is closed to that user" if place != hidden else hidden
    if home.supervisor.allow_root:
        return replace(_by_uid(0), change=True), f"runs as root because '{who.name}' cannot reach {where}"
    where += reach.mode_of(place)
    remedy = f"{reach.opening(who, place)}, or give the location to the user that it should run as"
    remedy += f": chown -R USER {site.location}" if hidden == site.location else ""
    if hidden != site.location:
        remedy = (
            f"{reach.opening(who, place)}, put it where everybody can reach it, or set [supervisor] allow_root = yes"
        )
        remedy += f" in {home.file} if this is your own container"
    raise Refused(
        f"its location belongs to root, so it would run as '{who.name}', who cannot reach {where}", remedy, id="MS532"
    )


def _by_policy(name: str, site: Site) -> tuple[Identity, str]:
    user, group = policies.ask(name, site)
    who = _by_uid(user) if isinstance(user, int) else _user(user)
    if name in policies.OURS:
        _check_exchange(site.location, who.uid)
    if group is not None and group != "":
        who = _with_group(who, str(group))
    return who, f"runs as '{who.name}' by user_policy = {name}"


def _owner(site: Site) -> Identity:
    if not site.location:
        return _by_uid(os.geteuid())
    try:
        uid = os.stat(site.location).st_uid
    except OSError as error:
        raise Refused(f"location {site.location}: {error.strerror}", id="MS531") from None
    _check_exchange(site.location, uid)
    return _by_uid(uid)


def _check_exchange(location: str, uid: int) -> None:
    """Refuse a directory whose owner could be made to run what somebody else puts in its place.

    The owner of a directory above it, or of a link on the way to it, could do that, even between two of our looks.
    Where a file names the user, its author trusts these owners. Code that runs as root's default user belongs to
    nobody.
    """
    if uid == 0 or os.geteuid() != 0:
        return
    last = None
    try:
        for path, last in reach.way(location):
            if last.st_uid not in (0, uid) and stat.S_ISLNK(last.st_mode):
                raise Refused(
                    f"{path} is a link whose owner does not own what it leads to", "name what it leads to", id="MS536"
                )
            if last.st_uid not in (0, uid):
                raise Refused(
                    f"it would run as the owner of {location}, and {path} belongs to another user",
                    "give it to root or to that owner, or set user =",
                    id="MS536",
                )
    except OSError as error:
        raise Refused(f"location {location}: {error.strerror}", id="MS531") from None
    if last is None or last.st_uid != uid:
        raise Refused(f"location {location}: it has just been replaced", "try again", id="MS531")


def _user(name: str) -> Identity:
    try:
        return _by_entry(pwd.getpwnam(name))
    except KeyError:
        if name.isascii() and name.isdigit():
            return _by_uid(int(name))
        raise Refused(
            f"there is no user '{name}' on this machine",
            f"useradd --system {name}, or correct user =",
            id="MS537",
        ) from None


def _by_uid(uid: int) -> Identity:
    try:
        return _by_entry(pwd.getpwuid(uid))
    except KeyError:
        return Identity(uid, uid, (uid,), str(uid), "/", change=True)


def of_this_process() -> Identity:
    """Return the user that we run as."""
    return replace(_by_uid(os.geteuid()), change=False)


def _by_entry(entry: pwd.struct_passwd) -> Identity:
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Identity(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir or "/", change=True)


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdigit():
            return int(name)
        raise Refused(
            f"there is no group '{name}' on this machine",
            f"groupadd --system {name}, or correct group =",
            id="MS537",
        ) from None


def _with_group(who: Identity, name: str) -> Identity:
    gid = _gid(name)
    return replace(who, gid=gid, groups=tuple(dict.fromkeys((gid, *who.groups))), change=True)


def _code(site: Site) -> Iterable[str]:
    """Return the file that is loaded first, if the text of `application` names it."""
    target = site.application.partition(":")[0]
    if not site.location or not target:
        return ()
    module = os.path.join(site.location, *target.split("."))
    return (os.path.join(site.location, target), f"{module}.py", module, os.path.join(module, "__init__.py"))


def _environment(program: str) -> Iterable[str]:
    """Return the directories of the virtualenv that `program` belongs to."""
    prefix = os.path.dirname(os.path.dirname(program))
    if not program or not os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
        return ()
    return (prefix, *glob.glob(os.path.join(glob.escape(prefix), "lib", "python*", "site-packages")))


def _check_owner(path: str, who: Identity) -> None:
    """Refuse code that a stranger could change: no other user may write to it, and root runs only root's code."""
    try:
        status = os.stat(path)
    except OSError:
        return  # reported by the step that needs it
    if _everybody_writes(status):
        raise Refused(f"{path} is writable by everybody", f"chmod o-w {path}", id="MS536")
    if who.uid == 0 and (status.st_uid != 0 or (status.st_mode & stat.S_IWGRP and status.st_gid != 0)):
        raise Refused(
            f"it runs as root and {path} is writable by users other than root", "run it as their owner", id="MS536"
        )


def _check_way(path: str, who: Identity) -> None:
    """Refuse a path whose parts a stranger could replace.

    Anyone who keeps files below another user's directory trusts that user. But a link leads where its owner wants, so
    the owner must be root, the user of the site, or the owner of what it leads to.
    """
    for name in _upwards(path):
        try:
            link, target = os.lstat(name), os.stat(name)
        except OSError:
            return
        trusted = link.st_uid in (0, who.uid, target.st_uid) or (target.st_uid == 0 and who.uid != 0)
        if stat.S_ISLNK(link.st_mode) and not trusted:
            raise Refused(
                f"{name} is a link whose owner does not own what it leads to", "name what it leads to", id="MS536"
            )
        if _everybody_writes(target):
            raise Refused(
                f"{name} is writable by everybody, so anyone could replace {path}",
                f"chmod o-w {name}, or chmod +t {name}",
                id="MS536",
            )


def _everybody_writes(status: os.stat_result) -> bool:
    return bool(status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX)


def _upwards(path: str) -> Iterator[str]:
    """Yield a path and the directories above it, then those above what it leads to."""
    for start in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        name = start
        while name != "/":
            yield name
            name = os.path.dirname(name)
