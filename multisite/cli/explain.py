"""``multisite explain``: which site answers an address and why, how the site runs, and its last failure."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from multisite.cli import complete
from multisite.cli.group import fail
from multisite.cli.output import complain, not_replaced, say, say_json, say_paragraph, say_problems, suggestion
from multisite.cli.router import ago, explained
from multisite.cli.session import Named, Session, UnknownSite, pass_session

if TYPE_CHECKING:
    from multisite.config.domains import HostMatch
    from multisite.config.site import Site
    from multisite.sites.catalogue import Catalogue, Mounts
    from multisite.sites.failures import Failure
    from multisite.status.report import SiteReport

AT_WORK = "is working without a request, so it is not stopped as idle"

EPILOG = """\b
Examples:
  multisite explain blog.example.com
  multisite explain https://blog.example.com/api/items
  multisite explain blog
  multisite explain MS114
  multisite --json explain blog.example.com
"""


@dataclass(frozen=True)
class Candidate:
    """One site that claims an address, and the rule by which it does."""

    name: str
    rule: str
    domain: str
    mount: str
    captures: dict[str, str] = field(default_factory=dict)


@click.command(epilog=EPILOG, short_help="Explain which site answers an address.")
@click.argument("address", metavar="HOST[/PATH]|NAME|ID", shell_complete=complete.explained)
@pass_session
def explain(session: Session, address: str) -> None:
    """Explain which site answers HOST[/PATH] and why, how the site runs, and its last failure.

    You can also give a whole URL, or the name of a site, unless that is a domain of another one. The command sends no
    request and imports no application.

    With the ID of a warning or an error, such as MS114, explain its cause, its outcome and what to do.
    """
    from multisite.config.domains import normalise
    from multisite.control import localnames
    from multisite.errors import BadHost, codes
    from multisite.status.needs import FAILED

    if codes.ID.fullmatch(address.upper()):
        return _explain_message(session, address.upper())
    raw, path = split_address(address)
    named = _named(session, address)
    try:
        host, path = (named.site.canonical_host, named.site.mount) if named else (normalise(raw), path)
    except BadHost:
        fail(f"{raw[:100]!r} is not a host name: it gets a 400 page")
    developed = None if named else _developed(session, host)
    is_served = developed is not None and localnames.is_held(session.home)
    if developed and is_served:
        session.catalogue = developed  # the one that the workers of `serve` use
    found = candidates(session.catalogue, host, path)
    if named:
        found = _led_by(named.site.name, path, found)
    elif not found or not found[0].domain:
        routed = explained(session, host, raw)
        if routed and (not found or routed["mapper"] != "fallback"):
            return say_json(routed) if session.as_json else _say_routed(routed)
    if not found:
        also = developed.table.lookup(host)[0].value[0][1] if developed else ""
        fail(_unknown(session, host, path) + (f"; with multisite serve, the site {also} answers it" if also else ""))
    session.warn_of_hidden()
    session.warn_of_drain()
    answer = describe(session, host, path, found)
    if is_served:
        answer["notes"].append("has this name only with multisite serve, which is running, not with other servers")
    if session.as_json:
        say_json(answer)
    else:
        say_answer(answer)
        say_problems(p for p in session.catalogue.problems if p.file == answer["file"])
    if answer["faults"] or answer["state"] in FAILED:
        raise SystemExit(1)


def _explain_message(session: Session, id: str) -> None:
    """Explain what an id means; needs no home."""
    from multisite.errors import codes

    message = codes.messages().get(id)
    if not message:
        fail(f"no message has the id {id}")
    if session.as_json:
        return say_json(message.as_dict())
    say(f"{id}: {message.title}")
    lines = {"cause": message.cause, "outcome": message.outcome, "what to do": message.remedy}
    for label, text in lines.items():
        say_paragraph(f"{label + ':':12}{text}", indent=" " * 12)
    return None


def _developed(session: Session, host: str) -> Catalogue | None:
    """Return the catalogue of `multisite serve` if a site answers `host` by its name there and no domain matches."""
    from multisite.sites import catalogue

    home = session.home
    if home.service.localhost_names or not host.endswith(".localhost") or session.catalogue.table.lookup(host):
        return None
    found = catalogue.read(replace(home, service=replace(home.service, localhost_names=True)))
    return found if found.table.lookup(host) else None


def of_site(session: Session, site: Site) -> dict[str, Any]:
    """Describe an enabled site, or the instance of a hosting site, as `explain` does that gets its name."""
    host = site.host or site.canonical_host
    found = candidates(session.catalogue, host, site.mount)
    return describe(session, host, site.mount, _led_by(site.entry_name, site.mount, found))


def _led_by(name: str, path: str, found: list[Candidate]) -> list[Candidate]:
    """Return the candidates with those of a site first, even if another one answers its address."""
    own = [one for one in found if one.name == name] or [Candidate(name, "", "", path)]
    return [*own, *(one for one in found if one not in own)]


def _named(session: Session, address: str) -> Named | None:
    """Return the enabled site with the name `address`, unless a site has that as a domain."""
    if "/" in address or address.lower() in session.catalogue.table.exact:
        return None
    try:
        file = session.enabled_site(address)
    except UnknownSite:
        return None
    return None if session.catalogue.hosting(file.name) else Named(file, session.catalogue.site(file.name))


def _say_routed(routed: dict[str, Any]) -> None:
    """Print which nodes answer a host that no site claims."""
    say(f"mapper    {routed['mapper']}: [router] in moya.conf; no site of this home claims {routed['host']}")
    say(f"key       {routed['key']}")
    for node in routed["nodes"]:
        health = "cannot be reached" if node["dead"] else f"last seen {ago(node['last_seen'])}"
        counts = f"{node['requests']} requests, {node['failures']} failures, {health}"
        modifier = f", modifier1 {node['modifier1']}" if node["modifier1"] else ""
        say(f"node      {node['node']}{modifier}, weight {node['weight']}: {counts}")


def split_address(address: str) -> tuple[str, str]:
    """Split an address as users type or paste it into the raw host and the path."""
    rest = address.partition("://")[2] if "://" in address else address
    raw, slash, path = rest.partition("/")
    return raw, slash + path.partition("?")[0].partition("#")[0] if slash else "/"


def candidates(catalogue: Catalogue, host: str, path: str) -> list[Candidate]:
    """Return the sites that claim `path` on `host`, in the order in which they are tried."""
    from multisite.dispatch import mounts

    found = []
    for mount, name, claim in mounts.ways(catalogue.answering(host)):
        if mounts.covers(mount, path):
            found.append(Candidate(name, _rule(catalogue, claim), claim.domain, mount, dict(claim.captures)))
    return found


def _rule(catalogue: Catalogue, claim: HostMatch[Mounts]) -> str:
    from multisite.config.domains import is_pattern

    if not claim.domain:
        return "default site"
    if catalogue.table.falls_back(claim):
        return "name of the site"
    return "pattern" if is_pattern(claim.domain) else "exact domain"


def describe(session: Session, host: str, path: str, found: list[Candidate]) -> dict[str, Any]:
    """Gather all that is known about the first of `found`."""
    from multisite.sites import hosts
    from multisite.status.report import judge

    first = found[0]
    site = _site(session, first.name, host)
    report, row = judge(session, site), session.placements.of(first.name)
    failure = report.failure or report.trouble
    return {
        "host": host,
        "path": path,
        "name": site.name,
        "rule": first.rule,
        "domain": first.domain,
        "captures": first.captures,
        "mount": first.mount,
        "file": site.file,
        "location": site.location,
        "application": site.application or (hosts.application(site.location) if site.host else ""),
        "placement": report.placement,
        "reason": report.reason,
        "saving": report.may_save,
        "notes": [
            *(row.found.notes if row and report.placement != "proxy" else ()),
            *([AT_WORK] if session.known.get(site.name, {}).get("working") else []),
        ],
        "state": report.state,
        "service": report.service,
        "outage": _outage(report),
        **_nodes(session, host, first),
        **({"draining": {"since": session.drain.since}} if session.drain else {}),
        "expires": _expires(site),
        "processes": report.figures or None,
        "failure": _as_dict(failure) if failure else None,
        "start": _start(session, first.name),
        "redirect": _redirect(session, first.name, host),
        **({"access": {"allow": list(site.allow), "htpasswd": site.htpasswd}} if site.is_restricted else {}),
        "otherwise": [other.name for other in found[1:] if other.name != first.name],
        "faults": [f"{problem.id} {problem}" for problem in report.faults],
        "warnings": [f"{problem.id} {problem}" for problem in (*report.doubts, *report.lost)],
    }


def _nodes(session: Session, host: str, first: Candidate) -> dict[str, Any]:
    """Return the machine of the cluster that each kind of front end chooses for a host, if moya.conf lists any."""
    from multisite.cli.frontends import syntax
    from multisite.cluster import nodes, pins, rings
    from multisite.dispatch import mounts

    listed = nodes.machines(session.home)
    if not listed or not host:
        return {}
    if first.domain:  # the rules name it
        ways = mounts.ways(session.catalogue.answering(host))
        names = {name for _, name, claim in ways if claim.domain == first.domain}
        listed = pins.common([_site(session, name, host).nodes for name in names], listed) or listed
    return {"nodes": {kind: str(one) for kind, one in rings.choices(listed, host, syntax.version_of_caddy()).items()}}


def _as_dict(failure: Failure) -> dict[str, Any]:
    document = {**asdict(failure), "outdated": failure.outdated}
    del document["answered"]  # only shows whether it is over
    return document


def _expires(site: Site) -> str:
    """Return when a site goes out of service, "" for never."""
    from multisite.sites.outages import end_of

    end = end_of(site) if site.expires else float("inf")
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(0.0, end))) if end < float("inf") else ""


def _outage(report: SiteReport) -> str:
    """Return why the site is out of service, since when, and what ends that; "" if it is in service."""
    from multisite.sites.outages import remedy

    outage = report.outage
    if not outage:
        return ""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(outage.since))
    return f"{outage.kind} since {since}; {remedy(outage, report.site.name)}"


def _start(session: Session, name: str) -> str:
    """Return how the site's last process started, forked or not, and why; "" if there has been none."""
    known = (session.supervisor or {}).get("sites", {}).get(name) or {}
    return str((known.get("journey") or {}).get("way", ""))


def _site(session: Session, name: str, host: str) -> Site:
    """Return the site that answers, or the instance of a hosting site."""
    site = session.catalogue.hosting(name)
    if not site:
        return session.catalogue.site(name)
    instance = session.catalogue.instance(name, host)
    if not instance:
        fail(f"{name} answers {host}, but there is no folder for it at {site.location}: it gets a 404 page")
    return instance[1]


def _happened(failure: dict[str, Any] | None) -> str:
    if not failure or failure["own_process"]:
        return ""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure["at"]))
    then = "; it has changed since, and its next request tries again" if failure["outdated"] else ""
    remedy = f"; {failure['remedy']}" if failure["remedy"] else ""
    if failure["serving"]:
        return f"at {when}, incident {failure['incident']}: {not_replaced(failure['reason'])}{remedy}{then}"
    return f"failed at {when}, incident {failure['incident']}: {failure['reason']}{remedy}{then}"


def _figures(processes: dict[str, Any]) -> str:
    """Return the figures of a site's processes, if there are any."""
    if not processes.get("pids"):
        return ""
    pids = processes["pids"]
    text = f", process{'es' if len(pids) > 1 else ''} {' '.join(map(str, pids))}, {processes['memory'] / 2**20:.1f} MiB"
    if processes["requests"] is not None:
        text += f", {processes['requests']} request{'' if processes['requests'] == 1 else 's'}"
    return f"{text}, {processes['in_flight']} in flight, {processes['waiting']} waiting"


def _last_start(processes: dict[str, Any]) -> str:
    journey = processes.get("journey")
    if not journey or journey["failure"]:  # a failure is printed in full
        return ""
    return ", ".join(f"{step['step']} {step['seconds'] * 1000:.0f} ms" for step in journey["steps"])


def _lease(lease: dict[str, Any] | None) -> str:
    """Describe which node runs an exclusive site, "" if nobody has asked for it yet."""
    if not lease:
        return ""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lease["since"]))
    if lease["here"]:
        return f"this node, {lease['holder']}, has it since {when}, number {lease['number']}"
    return f"{lease['failure'] or 'the node ' + lease['holder'] + ' had it'} at {when}"


def _redirect(session: Session, name: str, host: str) -> str:
    """Return the canonical domain to which a request for `host` is redirected, "" if it is answered directly."""
    from multisite.dispatch import mounts

    canonical = mounts.canonical_host(session.catalogue, mounts.key_of(session.catalogue, name, host))
    return canonical if canonical != host else ""


def _admitted(access: dict[str, Any]) -> str:
    """Return who may use a site, "" for everybody."""
    users = f"users of {access['htpasswd']}" if access.get("htpasswd") else ""
    return " and ".join(filter(None, (users, f"from {', '.join(access['allow'])}" if access.get("allow") else "")))


def say_answer(answer: dict[str, Any]) -> None:
    """Print what `describe` has gathered."""
    rule = f"{answer['rule']} {answer['domain']}".strip()
    captures = ", ".join(f"{key} = {value}" for key, value in answer["captures"].items())
    runs = answer["placement"] or ("unknown" if answer["state"] == "unknown" else "not")
    lines = {
        "site": answer["name"],
        "rule": f"{rule} ({captures})" if captures else rule,
        "mount": answer["mount"] if answer["mount"] != "/" else "",
        "file": answer["file"],
        "location": answer["location"],
        "application": answer["application"],
        "runs": f"{runs}: {answer['reason']}",
        "state": answer["state"] + _figures(answer["processes"] or {}),
        "service": answer["outage"],
        "expires": answer["expires"] if answer["service"] != "expired" else "",
        "lease": _lease((answer["processes"] or {}).get("lease")),
        "last start": _last_start(answer["processes"] or {}),
        "started": answer["start"],
        "happened": _happened(answer["failure"]),
        "besides": "; ".join(f"it {note}" for note in answer["notes"]),
        "redirects to": answer["redirect"],
        "node": ", ".join(f"{node} ({kind})" for kind, node in answer.get("nodes", {}).items()),
        "open to": _admitted(answer.get("access", {})),
        "otherwise": ", ".join(answer["otherwise"]) + " would answer" if answer["otherwise"] else "",
    }
    for label, text in lines.items():
        if text:
            say(f"{label + ':':13}{text}")
        if text and label == "happened" and not (answer["processes"] or {}).get("failure"):
            _say_journey(answer["failure"]["steps"], answer["failure"]["output"])
    if answer["processes"]:
        _say_failure({"name": answer["name"], **answer["processes"]})
    for fault in answer["faults"]:
        complain("error", fault)
    for doubt in answer["warnings"]:
        complain("warning", doubt)


def _say_failure(site: dict[str, Any]) -> None:
    """Print why a site failed last, from the report of its start."""
    failure = site.get("failure")
    if site.get("replace_failure") and not failure:
        say_paragraph(f"{site['name']}: {not_replaced(site['replace_failure'])}")
    if not failure:
        if site.get("state") == "broken" and site.get("problems"):
            say_paragraph(f"{site['name']}: {site['problems'][0]['reason']}")
        return
    reason = f"incident {failure['incident']}: {failure['failure']}"
    what = not_replaced(reason) if failure.get("serving") else reason
    say_paragraph(f"{site['name']}: {what}{_remedy(failure)}")
    _say_journey(((step["step"], step["seconds"]) for step in failure["steps"]), failure["output"])


def _remedy(failure: dict[str, Any]) -> str:
    return f"; {failure['remedy']}" if failure.get("remedy") else ""


def _say_journey(steps: Iterable[tuple[str, float]], output: Iterable[str]) -> None:
    """Print the steps of a failed start, and the last output of the process."""
    for step, seconds in steps:
        say(f"    {step}: {seconds * 1000:.0f} ms")
    for line in output:
        say(f"    | {line}")


def _unknown(session: Session, host: str, path: str) -> str:
    catalogue = session.catalogue
    on_host = [mount for claim in catalogue.table.lookup(host) for mount, _ in claim.value]
    if on_host:
        return f"no site answers {path} on {host}; its mounts are {', '.join(sorted(on_host))}"
    for file in session.disabled.values():
        if host in (*file.domains, file.name):
            return f"no site answers {host}; {file.name} would, but it is not enabled (multisite ensite {file.name})"
    if session.unread:
        return f"no visible site answers {host}; {session.unread}"
    return f"no site answers {host}{suggestion(host, [*catalogue.table.exact, *catalogue.sites])}: it gets a 404 page"
