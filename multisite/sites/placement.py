"""Where a site runs: the decision, pure, its reason in a sentence, and what an examination of the site found."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from multisite.config import hosting
from multisite.config.model import Home, Site, SupervisorOptions

# What the supervisor stands on: Linux 5.3 and Python 3.9 have it.
CAN_SPAWN = hasattr(os, "pidfd_open")
MANY = 2**16  # calls at once, where nobody knows how many


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision needs to know of this process and the site's files.

    Attributes:
        user: name (or number) of the user this process runs as.
        location_owner: user name; "" where there is no such directory.
        threads: how many calls of an application this process makes at once; 0: not known, as outside the workers.
        has_siblings: the server has several processes like this one.
        own_umask: a thread of the workers can have its own umask.
    """

    user: str
    root: bool
    location_owner: str = ""
    threads: int = 0
    has_siblings: bool = False
    own_umask: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """`kind` is ``in-process``, ``spawned`` or ``proxy``; `reason` completes "…, because …".

    `cause` is why a site moves out of the workers: `SLOW`, `IDLE` or nothing.
    """

    kind: str
    reason: str
    cause: str = ""

    @property
    def shareable(self) -> bool:
        """Whether the site may live in the workers' interpreter."""
        return self.kind == "in-process"


# Options of a site that need a separate process.
_OWN_PROCESS = {
    "exclusive": "it is exclusive",
    "python": "it has its own Python",
    "env": "it has its own [env], and sites in one process share one environment",
    "pass_env": "it wants variables of the service's own environment",
    "chroot": "it wants a chroot",
    "command": "it has its own command",
    "memory_limit": "it has a memory_limit",
    "nice": "it sets nice",
    "nofile": "it sets nofile",
}


HOSTING = "each host of its file is a separate site"
UNTRIED = "its next requests show whether it can be called in a thread other than the main one"
UNSHARED = "its file does not say share = yes"


def decide(site: Site, home: Home, facts: Facts) -> Placement:
    """Place `site`; clashes with other sites are decided later, by their claims."""
    if site.files_only:
        return Placement("in-process", "it has files and no application")
    if site.mode == "proxy" or (site.mode == "auto" and site.upstreams):
        return Placement("proxy", "its file names the upstreams")
    if site.host or hosting.is_hosting(site.location):
        return Placement("spawned", HOSTING)
    if site.mode == "spawned":
        return Placement("spawned", "its file says mode = spawned")
    unshared = UNSHARED if is_left_to_us(site) and not site.share and CAN_SPAWN else ""
    if reason := obstacle(site, home, facts) or unshared:
        return Placement("spawned", reason)
    why = "it is a Moya project" if site.is_moya else "nothing in its file requires its own process"
    return Placement("in-process", "its file says mode = in-process" if site.mode == "in-process" else why)


def obstacle(site: Site, home: Home, facts: Facts) -> str:
    """Return why `site` needs its own process, whether or not it may share; "" for no reason."""
    if reason := _own_process(site, facts) or _other_user(site, facts):
        return reason
    if facts.root and not home.supervisor.allow_root:
        return "the workers run as root and moya.conf does not set [supervisor] allow_root = yes"
    return _promise(site, facts)


def is_left_to_us(site: Site) -> bool:
    """Tell whether the file of `site` says nothing about where it runs."""
    runs_elsewhere = bool(site.upstreams or site.host) or hosting.is_hosting(site.location)
    return site.mode == "auto" and not (site.is_moya or site.files_only or runs_elsewhere)


def is_tried(site: Site) -> bool:
    """Tell whether `site` is called in several threads before it may move where it would be called so."""
    return site.share and not ("threads" in site.promised and site.threads == 1)


def basis(home: Home) -> str:
    """Return a digest of the options in moya.conf that decide where sites run."""
    return hashlib.sha256(repr((home.supervisor, home.defaults)).encode()).hexdigest()[:16]


def _own_process(site: Site, facts: Facts) -> str:
    for option, reason in _OWN_PROCESS.items():
        if getattr(site, option):
            return reason
    if site.umask is not None and not facts.own_umask:
        return "it sets umask"
    return _other_ways(site)


def _other_ways(site: Site) -> str:
    if site.env_mode == "replace":
        return "its file says env_mode = replace"
    if site.server != "auto":
        return f"its file says server = {site.server}"
    if site.processes > 1:
        return f"it wants {site.processes} processes"
    if site.application.startswith("asgi:"):
        return "it is an ASGI application"
    return ""


def _other_user(site: Site, facts: Facts) -> str:
    wanted = facts.location_owner if site.user == "owner" else site.user
    if wanted and wanted != facts.user:
        return "it " + of_another(wanted, facts.user)
    if site.group:
        return f"it wants the group '{site.group}'"
    return ""


def of_another(user: str, ours: str) -> str:
    """Return why a site with its own `user` stays out: half a sentence, like a finding of an examination."""
    return f"runs as user '{user}' and the workers as '{ours}'"


def _promise(site: Site, facts: Facts) -> str:
    """Return the promise of its file that the workers would break."""
    if "processes" in site.promised and facts.has_siblings:
        return f"its file says processes = {site.processes}, and the service has several workers"
    if "threads" in site.promised and facts.threads not in (0, site.threads):
        calls = f"up to {facts.threads} times at once" if facts.threads < MANY else "many times at once"
        calls = "once at a time" if facts.threads == 1 else calls
        return f"its file says threads = {site.threads}, and a worker calls it {calls}"
    return ""


# Sites whose file leaves it to us: they are examined in their own process first.

SLOW, IDLE = "slow", "idle"
MINUTE = 60.0  # seconds over which requests are counted
ENOUGH = 20  # requests in the workers before their duration is judged


@dataclass(frozen=True, slots=True)
class Saving:
    """What it would save to have a site in the workers, as it was measured while the site was busy.

    Attributes:
        memory: bytes; 0: none.
        seconds: of each request; 0.0: none, or unknown.
    """

    memory: int = 0
    seconds: float = 0.0

    @property
    def sentence(self) -> str:
        """The sentence without its subject."""
        memory = f"{max(1, round(self.memory / 2**20))} MiB" if self.memory else ""
        seconds = f"{max(0.1, self.seconds * 1000):.1f} ms a request" if self.seconds else ""
        less = " and ".join(filter(None, (memory, seconds)))
        return f"would fit into the workers{f': {less} less' if less else ''}; share = yes allows it"


NOT_EXAMINED = "its code has not been examined yet; its first request starts the examination"
CHANGED = "its files have changed since they were examined; its next start examines them"
ALONE = "no process is available for it"


@dataclass(frozen=True, slots=True)
class Heat:
    """How a site is used.

    Attributes:
        requests: within the last `MINUTE`.
        idle: seconds since the last one.
        average: seconds that a request of that minute took in the workers; 0.0: not known, or too few.
    """

    requests: int = 0
    idle: float = 0.0
    average: float = 0.0


def objection(found: Examined, options: SupervisorOptions) -> str:
    """Return why a site that was found to be so may not live in the workers, whatever its use; "" if it may."""
    if found.findings:
        return "it " + "; it ".join(found.findings)
    if found.seconds > options.share_import_time:
        limit = _time(options.share_import_time)
        return f"its import takes {_time(found.seconds)}, more than share_import_time = {limit}"
    if found.memory > options.share_memory:
        return f"it takes {_size(found.memory)}, more than share_memory = {_size(options.share_memory)}"
    return ""


def settle(
    found: Examined,
    heat: Heat,
    options: SupervisorOptions,
    *,
    here: bool,
    idle_timeout: float,
    share: bool = True,
    saving: Saving | None = None,
) -> Placement:
    """Decide where a site that was examined and clashes with no other runs from now on.

    Args:
        found: by its examination.
        heat: how it is used.
        options: of the home.
        here: whether it lives in the workers now.
        idle_timeout: seconds without a request after which it leaves the workers; 0: never.
        share: whether it may live there.
        saving: what that would save, for one that may not and has been busy.
    """
    refused = objection(found, options)
    if not share:
        return Placement("spawned", _apart(refused, saving))
    if refused:
        return Placement("spawned", refused)
    if here:
        return _stay(found, heat, options, idle_timeout)
    if heat.requests >= options.promote_after:
        if found.is_untried:
            return Placement("spawned", f"it is clean ({found.figures}) so far; {UNTRIED}")
        use = f"{heat.requests} requests within a minute"
        return Placement("in-process", f"it is clean ({found.figures}) and had {use}")
    moves = f"it moves into the workers when it has {options.promote_after} requests within a minute"
    return Placement("spawned", f"it is clean ({found.figures}); {moves}")


def _apart(refused: str, saving: Saving | None) -> str:
    """Return why a site that may not share has its own process, and what would happen if it might."""
    if refused:
        return f"{UNSHARED}, and would not fit into the workers: {refused}"
    return f"it {saving.sentence}" if saving else UNSHARED


def _stay(found: Examined, heat: Heat, options: SupervisorOptions, idle_timeout: float) -> Placement:
    if heat.average > options.share_request_time:
        took, limit = _time(heat.average), _time(options.share_request_time)
        return Placement(
            "spawned", f"its requests took {took} in the workers, more than share_request_time = {limit}", SLOW
        )
    if idle_timeout and heat.idle >= idle_timeout:
        left = f"it left the workers after {_time(idle_timeout)} without a request"
        return Placement("spawned", f"it is clean ({found.figures}); {left}", IDLE)
    return Placement("in-process", "")


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.3g} s" if seconds < 60 else f"{seconds / 60:.3g} min"


def _size(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


@dataclass(frozen=True, slots=True)
class Calls:
    """How the server calls an application.

    Attributes:
        at_once: the most calls that one of its processes makes at once; 0: not known.
        in_several: it has several processes that do.
    """

    at_once: int = 0
    in_several: bool = False


UNKNOWN = Calls()


MOST = 12  # findings that are kept
LONGEST = 200  # characters of one
_LARGEST = 2.0**50


@dataclass(frozen=True, slots=True)
class Examined:
    """One examination of one version of a site's code.

    Attributes:
        findings: what it changes in its process, each as half a sentence: "started a thread when it was imported".
        seconds: that its import took.
        memory: bytes that it and its first requests added to the process.
        requests: how many had been answered when this was told.
        is_untried: no request has been answered yet in another thread than the one that imported the site.
        notes: what it does that the workers tolerate, as half sentences, too.
    """

    findings: tuple[str, ...] = ()
    seconds: float = 0.0
    memory: int = 0
    requests: int = 0
    is_untried: bool = False
    notes: tuple[str, ...] = ()

    def after(self, before: Examined) -> Examined:
        """Return this, told later than `before` of the same version, with what that process had seen."""
        notes = tuple(dict.fromkeys((*before.notes, *self.notes)))[:MOST]
        untried = self.is_untried and before.is_untried
        return replace(self, requests=max(before.requests, self.requests), is_untried=untried, notes=notes)

    @property
    def figures(self) -> str:
        """Memory and import time for a sentence."""
        return f"{max(1, round(self.memory / 2**20))} MiB, {max(1, round(self.seconds * 1000))} ms to import"

    def as_dict(self) -> dict[str, Any]:
        """Return what `examined` takes."""
        return asdict(self)


def heard(text: str) -> Examined | None:
    """Return the report of a site's process; None if it is invalid."""
    try:
        return examined(json.loads(text))
    except (ValueError, RecursionError):
        return None


def examined(told: Any) -> Examined | None:
    """Read a document that may hold anything: check its types, and limit it."""
    if not isinstance(told, dict):
        return None
    findings, notes = told.get("findings"), told.get("notes", ())
    figures = [told.get("seconds"), told.get("memory"), told.get("requests")]
    is_whole = isinstance(findings, (list, tuple)) and isinstance(notes, (list, tuple))
    if not (is_whole and all(map(_is_figure, figures))):
        return None
    seconds, memory, requests = figures
    untried = told.get("is_untried") is True
    counts = int(memory or 0), int(requests or 0)
    return Examined(_phrases(findings), float(seconds or 0.0), *counts, untried, _phrases(notes))


def _phrases(told: Any) -> tuple[str, ...]:
    texts = (str(one)[: 2 * LONGEST] for one in told[:MOST])
    return tuple("".join(letter if letter.isprintable() else "?" for letter in text)[:LONGEST] for text in texts)


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LARGEST
