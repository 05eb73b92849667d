"""Hosts and domains: from the bytes a client sent to the sites that may answer.

A *host* is what a request names, a *domain* what a site claims; a domain may be a
pattern in Moya's grammar: ``*`` is any run of characters, ``{name}`` one label
(captured), ``{*name}`` any run of characters (captured). Exact domains beat patterns;
among patterns the last registered wins. All of it is pure.

Patterns are filed under the literal labels they end with (``*.example.org`` under
``example.org``), so a look-up costs as much as the host has labels, however many
sites there are.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from multisite.errors import BadHost

MAX_HOST = 253  # octets of a name in its textual form, RFC 1035 section 2.3.4

_LABEL = re.compile(r"[a-z0-9_-]{1,63}\Z")  # as browsers and nginx take them; DNS holds any (RFC 2181 section 11)
_HOST_PORT = re.compile(r"([^:\[\]]+|\[[^\[\]]*\])(?::([0-9]{0,5}))?\Z")
_WILDCARD = re.compile(r"\{(\*?)([A-Za-z_]\w*)\}|(\*)")
_LITERAL = re.compile(r"[a-z0-9_.-]*\Z")

T = TypeVar("T")


def normalise(raw: str) -> str:
    """Return the host that `raw`, the value of a Host header, names.

    Lower case, without port and final dot, international names in their ASCII form
    (IDNA 2008, UTS 46), an IPv6 literal in its shortest form within brackets.

    Raises:
        BadHost: it is invalid (RFC 9110 section 7.2 requires a 400 then).
    """
    if len(raw) > 2 * MAX_HOST:
        raise BadHost("The request's host name is too long")
    match = _HOST_PORT.match(raw)
    if not match or int(match[2] or 0) > 65535:
        raise BadHost("The request's host name is not valid")
    name = match[1]
    if name[0] == "[":
        return _ipv6(name[1:-1])
    return _name(name)


def _ipv6(text: str) -> str:
    try:
        if "%" in text:
            raise ValueError("a zone has no meaning to a server")
        return f"[{ipaddress.IPv6Address(text)}]"
    except ValueError as error:
        raise BadHost("The request's host is not a valid IPv6 address") from error


def _name(name: str) -> str:
    if not name.isascii():
        name = _to_ascii(name)
    name = name.lower().removesuffix(".")
    if len(name) > MAX_HOST or not all(map(_LABEL.match, name.split("."))):
        raise BadHost("The request's host name is not valid")
    return name


def _to_ascii(name: str) -> str:
    # PEP 3333 environs carry bytes as Latin-1; a browser would have sent xn--, but
    # a hand-made request or a configuration file may have the name itself in UTF-8.
    import idna

    with contextlib.suppress(UnicodeError):
        name = name.encode("latin-1").decode("utf-8")
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise BadHost("The request's host name is not valid") from error


def local_host(name: str) -> str:
    """Return ``NAME.localhost``, which is the client's own machine (RFC 6761 section 6.3); "" if it is not valid."""
    try:
        return normalise(f"{name}.localhost")
    except BadHost:
        return ""


def is_pattern(domain: str) -> bool:
    """Tell whether `domain` has a wildcard."""
    return "*" in domain or "{" in domain


def check_pattern(text: str) -> str:
    """Return the normal form of a domain of a site file.

    Raises:
        ValueError: with a sentence, when it is neither a host nor a pattern.
    """
    if not is_pattern(text):
        try:
            host = normalise(text)
        except BadHost:
            raise ValueError("it is not a host name") from None
        if re.search(r":[0-9]*\Z", text) and not text.endswith("]"):
            raise ValueError("a domain has no port")
        return host
    literals = _WILDCARD.split(text)[::4]
    normal = [_pattern_literal(part) for part in literals]
    wildcards = [match[0] for match in _WILDCARD.finditer(text)]
    names = [match[2] for match in _WILDCARD.finditer(text) if match[2]]
    if len(set(names)) < len(names):
        raise ValueError("a name is captured twice")
    return "".join(a + b for a, b in zip(normal, [*wildcards, ""], strict=True)).removesuffix(".")


def _pattern_literal(part: str) -> str:
    if not part.isascii():
        import idna

        try:
            labels = part.split(".")
            part = ".".join(label and idna.encode(label, uts46=True).decode("ascii") for label in labels)
        except (idna.IDNAError, UnicodeError):
            raise ValueError("it is not a host name") from None
    part = part.lower()
    if not _LITERAL.match(part) or ".." in part:
        raise ValueError("only letters, digits, '-', '_', '.', '*', '{name}' and '{*name}' may stand in a pattern")
    return part


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern in its normal form."""
    parts, position = [], 0
    for match in _WILDCARD.finditer(pattern):
        parts.append(re.escape(pattern[position : match.start()]))
        many, name, _star = match.groups()
        parts.append(".*" if not name else f"(?P<{name}>.*)" if many else rf"(?P<{name}>[\w-]+)")
        position = match.end()
    parts.append(re.escape(pattern[position:]))
    return re.compile("".join(parts) + r"\Z", re.ASCII)


def literal_suffix(pattern: str) -> str:
    """Return the whole labels that end every host of `pattern`: ``a.b`` for ``*x.a.b``."""
    last = max(pattern.rfind("*"), pattern.rfind("}"))
    return pattern[last + 1 :].partition(".")[2]


def suffixes(host: str) -> Iterator[str]:
    """Yield the endings of `host`, cut at its dots: "" first, and all of it last."""
    yield ""
    position = len(host)
    while position > 0:
        position = host.rfind(".", 0, position)
        yield host[position + 1 :]


@dataclass(frozen=True, slots=True)
class HostMatch(Generic[T]):
    """One claim that answers a host."""

    domain: str  # as claimed: the host itself or a pattern
    value: T
    captures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Pattern(Generic[T]):
    order: int
    domain: str
    regex: re.Pattern[str]
    value: T


class HostTable(Generic[T]):
    """The value of each domain; built once, then only read.

    `claims` are (domain in its normal form, value) in the order of registration; each
    domain is there once. `fallbacks` are the values for hosts that no claim matches.
    """

    def __init__(self, claims: Iterable[tuple[str, T]], fallbacks: Mapping[str, T] = MappingProxyType({})) -> None:
        self.exact: dict[str, T] = {}
        self.fallbacks = fallbacks
        self._patterns: dict[str, list[_Pattern[T]]] = {}
        for order, (domain, value) in enumerate(claims):
            if is_pattern(domain):
                pattern = _Pattern(order, domain, compile_pattern(domain), value)
                self._patterns.setdefault(literal_suffix(domain), []).append(pattern)
            else:
                self.exact[domain] = value

    def lookup(self, host: str) -> list[HostMatch[T]]:
        """Return the claims that match the normalised `host`, the best first."""
        found = [HostMatch(host, self.exact[host], {})] if host in self.exact else []
        if self._patterns:
            found += self._matching(host)
        if not found and host in self.fallbacks:
            found = [HostMatch(host, self.fallbacks[host], {})]
        return found

    def claims(self) -> Iterator[tuple[HostMatch[T], str]]:
        """Yield all claims in the order in which they are tried, each with its kind."""
        yield from ((HostMatch(host, value, {}), "exact domain") for host, value in self.exact.items())
        patterns = (pattern for filed in self._patterns.values() for pattern in filed)
        for pattern in sorted(patterns, key=lambda pattern: -pattern.order):
            yield HostMatch(pattern.domain, pattern.value, {}), "pattern"
        for host, value in self.fallbacks.items():
            if host not in self.exact:
                yield HostMatch(host, value, {}), "name of the site"

    def falls_back(self, found: HostMatch[T]) -> bool:
        """Tell whether no claim matched the host that was looked up."""
        return found.domain in self.fallbacks and found.domain not in self.exact

    def _matching(self, host: str) -> list[HostMatch[T]]:
        filed = [p for suffix in suffixes(host) for p in self._patterns.get(suffix, ())]
        filed.sort(key=lambda pattern: -pattern.order)
        matches = [(pattern, pattern.regex.match(host)) for pattern in filed]
        return [HostMatch(p.domain, p.value, m.groupdict()) for p, m in matches if m]

    def __len__(self) -> int:
        return len(self.exact) + sum(map(len, self._patterns.values()))

    def __repr__(self) -> str:
        return f"<HostTable {len(self.exact)} exact, {len(self) - len(self.exact)} patterns>"


def expression(domain: str) -> str:
    """Return the regular expression, not anchored, of a domain in its normal form; the host is in lower case."""
    parts, position = [], 0
    for match in _WILDCARD.finditer(domain):
        parts.append(_literal(domain[position : match.start()]))
        parts.append("[a-z0-9_-]+" if match[0].startswith("{") and not match[1] else ".*")
        position = match.end()
    return "".join([*parts, _literal(domain[position:])])


def _literal(text: str) -> str:
    """Escape the characters of a host name: letters, digits, ``_-.``, and ``[:]`` in an IPv6 address."""
    return re.sub(r"[][.]", lambda match: f"[{match[0]}]", text)
