"""Whether a process forked from a preloader would be what a plain start gives: the decision, pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from multisite.supervisor.process.process import Launch

# Read by the interpreter, the dynamic loader or the C library before any module could ask for them.
_AT_START = ("PYTHON", "LD_", "LC_", "MALLOC_", "OPENSSL_", "COVERAGE_", "COV_CORE_")
_AT_START_WHOLE = frozenset({"LANG", "LANGUAGE", "GLIBC_TUNABLES"})


def obstacle(launch: Launch) -> str:
    """Return why no preloader can make this process, whichever it is; "" if one can."""
    if launch.preload:
        return launch.preload
    if not launch.job:
        return "only multisite's own runner is forked"
    if launch.chroot:
        return "it has a root folder of its own"
    relative = [path for path in launch.env.get("PYTHONPATH", "").split(":") if path and not path.startswith("/")]
    return "PYTHONPATH is relative" if relative else ""


def difference(launch: Launch, started_with: Mapping[str, str], reads: Collection[str], nofile: int) -> str:
    """Return what this process would have other than its preloader and cannot be changed by now; "" if nothing.

    Args:
        launch: of the process.
        started_with: the preloader's environment.
        reads: names of variables that the preloaded modules have asked for.
        nofile: how many descriptors the preloader may have at most.
    """
    for name in sorted(launch.env.keys() | started_with.keys()):
        if launch.env.get(name) != started_with.get(name) and (_is_read_at_start(name) or name in reads):
            return f"the environment variable {name} differs and has been read"
    if launch.identity.uid:
        if launch.nice < 0:
            return "nice is below 0"
        if (launch.nofile or 0) > nofile:
            return f"nofile is above {nofile}"
    return ""


def _is_read_at_start(name: str) -> bool:
    return name in _AT_START_WHOLE or name.startswith(_AT_START)
