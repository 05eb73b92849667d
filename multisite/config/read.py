"""From files to the model: the home, its moya.conf and the site files."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from multisite.config import checks, hosting, ini, policies
from multisite.config.checks import Fault, Texts, Values
from multisite.config.ini import Chain
from multisite.config.model import Home, Site, SiteFile
from multisite.config.options import HOME_FILE, INHERITED, KNOWN, OPTIONS, SECTIONS, SITE_FILE
from multisite.config.serving.development import LOCALHOST
from multisite.config.site import PROMISES
from multisite.config.values import NAME, did_you_mean
from multisite.errors import ConfigError, Problem

SYSTEM_HOME = "/etc/moya"
MOYA_SETTINGS = "production.ini"
_ODD = re.compile(r"[^A-Za-z0-9._-]+|\.{2,}")
_SITE_OPTIONS = tuple(option for option in OPTIONS if option.file == SITE_FILE)


def find_home(explicit: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Find the home: *explicit*, else ``$MOYA_SERVICE_HOME``, else /etc/moya, else ./etc-moya.

    Raises:
        ConfigError: none is named, and neither /etc/moya nor ./etc-moya holds a moya.conf.
    """
    named = explicit or environ.get("MOYA_SERVICE_HOME")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    for path in (SYSTEM_HOME, os.path.abspath("etc-moya")):
        if os.path.exists(os.path.join(path, HOME_FILE)):
            return path
    reason = f"there is no home: {SYSTEM_HOME} and ./etc-moya hold no {HOME_FILE}"
    remedy = "make one with multisite init, or name it with --home or MOYA_SERVICE_HOME"
    raise ConfigError(Problem("MS119", os.path.join(path, HOME_FILE), reason, remedy=remedy))


def read_home(home: str, environ: Mapping[str, str] = os.environ) -> Home:
    """Read moya.conf; a minor fault goes into `Home.problems`, and the option has its default.

    Raises:
        ConfigError: moya.conf is missing, unreadable or not INI.
    """
    home = os.path.abspath(home)
    file = os.path.join(home, HOME_FILE)
    chain = Chain(file, environ)
    chain.read()
    chain.expand_names(KNOWN[HOME_FILE], {"home": home})
    if chain.problems and (chain.unusable or not chain.texts):
        raise ConfigError(*chain.problems[:1])
    faults: list[Fault] = []
    values = checks.check(chain.texts, HOME_FILE, faults)
    faults += checks.check_names(values)
    faults += _check_policy(values)
    sections: dict[str, Any] = {
        section: declaring(**_set(values.get(section, {}))) for section, declaring in SECTIONS.items()
    }
    if environ.get(LOCALHOST) == "1":
        sections["service"] = replace(sections["service"], localhost_names=True)
    defaults, env = values.get("defaults", {}), values.get("env", {})
    return Home(
        home,
        file,
        **sections,
        defaults=defaults,
        env=env,
        problems=chain.report(faults),
        names_proxies=bool(chain.texts.get("service", {}).get("trusted_proxies")),
        environ=environ,
        system_temp=tempfile.gettempdir(),
    )


def _check_policy(values: Values) -> list[Fault]:
    policy = values.get("supervisor", {}).get("user_policy") or policies.OWNER
    if policies.is_known(policy):
        return []
    remedy = f"there are {', '.join(policies.names())}; a package offers one in the group {policies.GROUP}"
    reason = "there is no such policy" + did_you_mean(policy, policies.names())
    return [Fault("MS131", "supervisor", "user_policy", reason, remedy)]


def _set(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty, so that ``key =`` means the default."""
    return {key: value for key, value in values.items() if value not in ("", ())}


def read_site(
    path: str,
    home: str,
    environ: Mapping[str, str] = os.environ,
    defaults: Mapping[str, Any] | None = None,
    text: str | None = None,
) -> SiteFile:
    """Read one site file; errors in it, and our own errors, are in the result's problems, never raised.

    Args:
        path: the file as globbed.
        home: the home, which ``%(home)s`` stands for.
        environ: where ``$NAME`` is looked up.
        defaults: the [defaults] of moya.conf, so that keys set there do not count as missing.
        text: that the file is to have; None: what it has.
    """
    try:
        return _read_site(path, home, environ, defaults, text)
    except Exception as error:
        problem = Problem("MS132", path, f"it cannot be read: {type(error).__name__}: {error}")
        return SiteFile(
            path, _usable(os.path.basename(path).removesuffix(".ini")), problems=(problem,), sources=(path,)
        )


def _read_site(
    path: str, home: str, environ: Mapping[str, str], defaults: Mapping[str, Any] | None, text: str | None
) -> SiteFile:
    chain = Chain(path, environ, KNOWN[SITE_FILE], draft=text)
    chain.read()
    faults: list[Fault] = []
    names = {"home": home, "name": _site_name(path, chain.texts, home, faults)}
    # The name of a hosting site's instance is not known yet; `make_site` fills it in.
    later = hosting.is_hosting(_text(chain.texts, "location", defaults or {}))
    chain.expand_names(KNOWN[SITE_FILE], {"home": home} if later else names)
    _assume_moya(chain, defaults or {}, names)
    values = checks.check(chain.texts, SITE_FILE, faults)
    service = {**(defaults or {}), **values.get("service", {})}
    written = tuple(ini.expand_names(domain, names) for domain in service.get("domains", ()))
    domains = checks.check_domains(written, faults)
    faults += checks.cross_check(values, service, domains, doubt=bool(chain.problems) or checks.in_doubt(faults))
    mount = service.get("mount") or _guessed_mount(chain.texts)
    problems = chain.report(faults)
    return SiteFile(path, names["name"], domains, mount, values, problems, tuple(chain.sources), chain.env_used)


def _site_name(path: str, texts: Texts, home: str, faults: list[Fault]) -> str:
    """Give the name that the file sets, else its stem; an invalid one is reported and made usable."""
    given = texts.get("service", {}).get("name", "")
    stem = os.path.basename(path).removesuffix(".ini")
    if given:
        return _usable(ini.expand_names(given, {"home": home}).strip("\"'"))
    if not NAME.fullmatch(stem):
        reason = f"the file's name {stem[:80]!r} is not a name for a site"
        remedy = "set name, or rename the file with letters, digits, . _ and -"
        faults.append(Fault("MS120", "service", "name", reason, remedy))
    return _usable(stem)


def _usable(name: str) -> str:
    return name if NAME.fullmatch(name) else (_ODD.sub("-", name).strip("-._") or "site")[:64]


def _guessed_mount(texts: Texts) -> str:
    """Keep a site with a wrong mount away from the root of its domain, which may belong to another site."""
    return "/" + texts.get("service", {}).get("mount", "").strip("\"'/ ")


def _assume_moya(chain: Chain, defaults: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Use the location's production.ini if the file does not say what to run (Moya's default)."""
    service = chain.texts.get("service", {})
    if chain.texts.get("static") or any(service.get(key) or defaults.get(key) for key in checks.RUNS):
        return
    location = ini.expand_names(_text(chain.texts, "location", defaults), names).strip("\"'")
    folder = os.path.join(os.path.dirname(chain.sources[0]), os.path.expanduser(location))
    if location and os.path.exists(os.path.join(folder, MOYA_SETTINGS)):
        service["ini"] = MOYA_SETTINGS


def _text(texts: Texts, key: str, defaults: Mapping[str, Any]) -> str:
    """Give the value of a key of [service] as text."""
    return texts.get("service", {}).get(key, "") or str(defaults.get(key, ""))


def make_site(file: SiteFile, home: Home, host: str = "", found: Mapping[str, str] | None = None) -> Site:
    """Merge [defaults] and [supervisor] of moya.conf into the values of the file, and resolve its paths.

    The site's own value wins over [defaults], that over [supervisor], and that over the
    option's default. A problem of the file does not keep this from working: the option
    has its default then.

    Args:
        host: makes the instance of a hosting site for this host.
        found: the values of its placeholders (`hosting.values`).
    """
    own, service = file.values, {**home.defaults, **file.values.get("service", {})}
    names = {"name": file.name, "home": home.path, "location": ""}
    found = found or {}
    folder = os.path.dirname(file.sources[0] if file.sources else os.path.abspath(file.path))
    location = _location(_expand(service.get("location", ""), names, found), folder)
    service["location"] = names["location"] = location
    if host:
        names["name"] = hosting.instance_name(file.name, host)
    merged: dict[str, Any] = {key: getattr(home.supervisor, key) for key in INHERITED}
    for option in _SITE_OPTIONS:
        values = service if option.section == "service" else own.get(option.section, {})
        if option.any_key:
            merged[option.attribute] = {key: _expand(value, names, found) for key, value in values.items()}
        elif option.key == "command" and option.key in values:
            merged["command"] = hosting.fill_command(_expand(values[option.key], names, {}), found)
        elif option.key in values:
            merged[option.attribute] = _expand(values[option.key], names, found)
    merged.update(
        name=names["name"],
        domains=(host,) if host else file.domains,
        mount=file.mount,
        overlay=_overlay(own),
        promised=tuple(key for key in PROMISES if key in service),
    )
    if host:
        merged.update(host=host, template=file.name)
    _resolve_paths(merged, location or folder)
    return Site(file.path, **merged)


def _location(text: str, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, os.path.expanduser(text))) if text else ""


def _expand(value: Any, names: Mapping[str, str], found: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return hosting.fill(ini.expand_names(value, names), found) if "%" in value else value
    if isinstance(value, tuple):
        return tuple(_expand(item, names, found) for item in value)
    return value


def _overlay(values: Values) -> Texts:
    """Give the sections and keys that are none of ours: a Moya project's settings."""
    known = KNOWN[SITE_FILE]
    sections = {
        section: {key: value for key, value in keys.items() if not {key, ""} & known.get(section, {}).keys()}
        for section, keys in values.items()
    }
    return {section: keys for section, keys in sections.items() if keys}


def _resolve_paths(merged: dict[str, Any], base: str) -> None:
    """Make the paths of a site absolute; relative ones count from *base*."""

    def absolute(path: str) -> str:
        if not path or path.startswith("syslog:"):
            return path
        return os.path.normpath(os.path.join(base, os.path.expanduser(path)))

    for attribute in ("python", "chroot", "htpasswd", "access_log", "error_log"):
        if merged.get(attribute):
            merged[attribute] = absolute(merged[attribute])
    merged["touch_reload"] = tuple(map(absolute, merged.get("touch_reload", ())))
    merged["static"] = {prefix: tuple(map(absolute, paths)) for prefix, paths in merged["static"].items()}
