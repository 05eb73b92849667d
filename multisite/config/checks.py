"""Checks the content of a file against the option table; every fault becomes a `Problem` (pure).

Only the keys that a file holds are checked: ``ConfigObj.validate`` would also visit the forty that it does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from multisite.config import hosting, subscription
from multisite.config.domains import check_pattern, is_pattern
from multisite.config.endpoint import Endpoint
from multisite.config.option import Option
from multisite.config.options import KNOWN, SITE_FILE
from multisite.config.values import EMPTY, did_you_mean, mount

Texts = dict[str, dict[str, str]]
Values = dict[str, dict[str, Any]]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
MOST_GUESSES = 50  # "did you mean" costs a millisecond, and a file of junk has 100,000 unknown keys
RUNS = ("application", "command", "upstreams", "ini")
_OF_AN_INSTANCE = ("python", "user", "group", "chroot")  # where a placeholder is never meant to be itself


class Fault(NamedTuple):
    """A problem before it is known which file of an ``extends`` chain holds it."""

    id: str
    section: str
    key: str
    reason: str
    remedy: str = ""
    severity: str = "error"


def check(texts: Texts, file: str, faults: list[Fault]) -> Values:
    """Cast every value; settings for a Moya project stay text."""
    service = texts.get("service", {})
    overlays = file == SITE_FILE and bool(service.get("ini")) and not service.get("application")
    known = KNOWN[file]
    values: Values = {}
    for section, keys in texts.items():
        options = known.get(section)
        cast: dict[str, Any] = {}
        if options is None and not overlays:
            faults.append(_unknown_section(file, section, guesses=len(faults) < MOST_GUESSES))
            continue
        for key, text in keys.items():
            option = options.get(key) or options.get("") if options else None
            if option is not None:
                try:
                    cast[key] = option.cast(text) if text else EMPTY[option.kind]
                except KeyError:
                    continue  # left empty, which means "not set" for this kind
                except ValueError as error:
                    remedy = (
                        "a line indented deeper than its key continues it"
                        if "\n" in text
                        else _sample(option, str(error))
                    )
                    faults.append(Fault("MS115", section, key, str(error), remedy))
            elif overlays and section != "service":
                cast[key] = text
            else:
                faults.append(_unknown_key(file, section, key, guesses=len(faults) < MOST_GUESSES))
        if cast:
            values[section] = cast
    return values


def _sample(option: Option, reason: str) -> str:
    """Return an example of a good value, if one is known and `reason` does not contain it."""
    if option.choices:
        return "" if reason.endswith("?") else "write one of these"
    sample = option.example or option.default
    return f"write it like {sample}" if sample and option.kind != "boolean" else ""


def _unknown_section(file: str, section: str, guesses: bool) -> Fault:
    known, reason, remedy = tuple(KNOWN[file]), "unknown section", ""
    if guesses and not section:
        return Fault("MS134", "", "", "there are keys before the first section", "put [service] above them")
    if guesses:
        reason, remedy = reason + did_you_mean(section, known), f"the known ones are {', '.join(known)}"
    return Fault("MS113", section, "", reason, remedy)


def _unknown_key(file: str, section: str, key: str, guesses: bool) -> Fault:
    guess = did_you_mean(key, tuple(KNOWN[file][section])) if guesses else ""
    remedy = ""
    if guesses and not guess:
        elsewhere = next((name for name, options in KNOWN[file].items() if key in options), "")
        remedy = f"it belongs in [{elsewhere}]" if elsewhere else "remove it"
    return Fault("MS114", section, key, "unknown key" + guess, remedy)


def check_domains(domains: tuple[str, ...], faults: list[Fault]) -> tuple[str, ...]:
    """Return the normal forms of the valid domains, each once."""
    good: dict[str, None] = {}
    for domain in domains:
        try:
            good[check_pattern(domain)] = None
        except ValueError as error:
            remedy = "write it like blog.example.com or *.example.com"
            faults.append(Fault("MS121", "service", "domains", f"{domain[:100]!r} is no domain: {error}", remedy))
    return tuple(good)


def in_doubt(faults: list[Fault]) -> bool:
    """Tell whether a key that seems missing may have been reported already."""
    known = KNOWN[SITE_FILE]["service"]
    return any(fault.key not in known or fault.key in (*RUNS, "domains") for fault in faults)


def cross_check(
    values: Values, service: Mapping[str, Any], domains: tuple[str, ...], doubt: bool = False
) -> Iterator[Fault]:
    """Find the keys that do not go together.

    Args:
        values: of the file.
        service: its [service] with the defaults of moya.conf merged in.
        domains: the valid ones.
        doubt: a key that seems missing may be there, misspelt.
    """
    is_hosting = hosting.is_hosting(service.get("location", ""))  # what runs there is found in each folder
    if not doubt and not is_hosting and not any(service.get(key) for key in RUNS) and not values.get("static"):
        yield Fault(
            "MS122",
            "service",
            "application",
            "the site has nothing to run",
            "set application, command, upstreams or ini, or give it a [static] section",
        )
    if service.get("mode") == "proxy" and not service.get("upstreams"):
        yield Fault("MS123", "service", "mode", "there are no upstreams to relay to", "set upstreams")
    if service.get("server") == "command" and not service.get("command"):
        yield Fault("MS123", "service", "server", "there is no command to run", "set command")
    if service.get("ini") and not service.get("application") and not service.get("location"):
        yield Fault("MS123", "service", "ini", "a Moya project needs a location", "set location")
    if service.get("redirect_to_canonical") and domains and is_pattern(domains[0]) and not is_hosting:
        yield Fault(
            "MS123",
            "service",
            "redirect_to_canonical",
            f"the first domain, {domains[0]}, is a pattern and names no host",
            "put an exact domain first",
        )
    yield from _check_exclusive(service)
    yield from _check_placeholders(values, service, domains)
    yield from _check_upstreams(service)
    yield from _check_subscriptions(service, is_hosting, bool(values.get("access")))
    yield from check_names(values)
    if not doubt and not domains and not service.get("domains"):
        reason = "the site has no domains, so only default_site reaches it"
        yield Fault("MS124", "service", "domains", reason, "set domains", "warning")


def _check_exclusive(service: Mapping[str, Any]) -> Iterator[Fault]:
    """Find what could run twice although its file says that it must not."""
    if not service.get("exclusive"):
        return
    if service.get("mode") == "proxy" or service.get("upstreams"):
        reason = "its upstreams run elsewhere, so nothing here keeps them from running twice"
        yield Fault("MS123", "service", "exclusive", reason, "remove exclusive, or let multisite run the site")
    elif service.get("mode") == "in-process":
        reason = "an exclusive site needs its own process, and mode = in-process shares the workers'"
        yield Fault("MS123", "service", "mode", reason, "remove mode, or write mode = spawned")
    if service.get("subscribe_to"):
        reason = "a fastrouter would send requests to nodes that do not run the site"
        yield Fault("MS123", "service", "subscribe_to", reason, "remove subscribe_to, or exclusive")


def _check_placeholders(values: Values, service: Mapping[str, Any], domains: tuple[str, ...]) -> Iterator[Fault]:
    """Find placeholders without a meaning."""
    location = service.get("location", "")
    captured = hosting.names(domains)
    known = tuple(dict.fromkeys((*hosting.NAMES, *(captured if hosting.is_hosting(location) else ()))))
    for name in hosting.unknown(service.get("command") or (), known):
        remedy = f"there are {hosting.listed(known)}, and %% for a per cent sign"
        yield Fault("MS125", "service", "command", f"the placeholder %{name} means nothing", remedy)
    for name in hosting.unknown([location], captured):
        remedy = f"there is {hosting.listed(captured)}; what each of the domains captures can be used, too"
        yield Fault("MS125", "service", "location", f"the placeholder %{name} means nothing", remedy)
    if hosting.is_hosting(location):
        return
    texts = {("service", key): str(service.get(key) or "") for key in _OF_AN_INSTANCE}
    for section in ("logging", "access"):
        texts |= {(section, key): str(text) for key, text in values.get(section, {}).items()}
    for (section, key), text in texts.items():
        if hosting.HOST in hosting.placeholders([text]):
            reason = "%HOST stands for nothing here, because location has none"
            yield Fault("MS125", section, key, reason, "write it into location, too, or remove it")


def _check_upstreams(service: Mapping[str, Any]) -> Iterator[Fault]:
    for text in service.get("upstreams") or ():
        try:
            Endpoint.parse(text, service.get("protocol") or "http")
        except ValueError as error:
            remedy = "write it like http://10.0.0.5:8000, uwsgi://10.0.0.6:3031 or unix:/run/x.sock"
            yield Fault("MS126", "service", "upstreams", f"{text[:100]!r}: {error}", remedy)


def _check_subscriptions(service: Mapping[str, Any], is_hosting: bool, is_restricted: bool) -> Iterator[Fault]:
    """Find sites that cannot be announced to a Fastrouter; they are served all the same."""
    if not service.get("subscribe_to"):
        return
    if is_restricted:
        reason = "a fastrouter would bypass the check of [access], so the site is not announced"
        yield Fault(
            "MS127", "service", "subscribe_to", reason, "remove subscribe_to, or the section [access]", "warning"
        )
    elif is_hosting:
        reason = "with %HOST in location, sites are not known before their first request; none is announced"
        remedy = "write a site file for each site that should be announced"
        yield Fault("MS127", "service", "subscribe_to", reason, remedy, "warning")
    elif not subscription.may_be(service):
        reason = "a fastrouter speaks only uwsgi, and no process of this site does; it is not announced"
        remedy = "let our own server run it (server = auto), or uWSGI or a command with protocol = uwsgi"
        yield Fault("MS127", "service", "subscribe_to", reason, remedy, "warning")


def check_names(values: Values) -> Iterator[Fault]:
    """Find keys of [env] that are no variables, of [static] that are no prefixes, and an [access] for everybody."""
    for key, value in values.get("access", {}).items():
        if not value:  # whoever wrote it wants the site closed
            yield Fault(
                "MS128", "access", key, "is empty, so it keeps nobody out", "give it a value, or remove the line"
            )
    for key in values.get("env", ()):
        if not _VARIABLE.match(key):
            yield Fault("MS129", "env", key, "is not the name of an environment variable", "use letters, digits and _")
    for key, paths in values.get("static", {}).items():
        if key != "check" and not key.startswith("/"):
            yield Fault("MS130", "static", key, "a URL prefix starts with /", "write /PREFIX or check")
        elif key != "check" and (fault := _prefix_fault(key)):
            yield Fault("MS130", "static", key, fault, "write the prefix as in the URL, decoded")
        elif not paths:
            yield Fault("MS130", "static", key, "names no folder or file", "write PREFIX = FOLDER")


def _prefix_fault(prefix: str) -> str:
    try:
        mount(prefix)
    except ValueError as error:
        return str(error)
    return ""
