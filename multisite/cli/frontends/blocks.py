"""What a front end has to know of the sites: a small view, the same for every kind of server, and how domains are said.

A front end only ever takes work off the dispatcher. Whatever a rule cannot say exactly in a server's own grammar is
left out, with the reason as a comment, and the dispatcher, which everything else is passed on to, does it.
Expressions are without a backslash, which each server would unescape its own way.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from multisite.config.domains import is_pattern, literal_suffix, suffixes
from multisite.config.endpoint import Endpoint

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WILDCARD = re.compile(r"\{(\*?)\w+\}|\*")
DISPATCHER = Endpoint("http", host="127.0.0.1", port=8000)


class Unwritable(ValueError):
    """A value that a server's grammar cannot hold with certainty; the message completes "PATH …"."""


@dataclass(frozen=True, slots=True)
class Static:
    """Files below a URL prefix; without `folders` and `file`, multisite is asked for whatever is there.

    A front end answers for plain files that are there. The rest (a folder and its index, a link that may not be
    followed, a file that is missing, another method) it leaves to multisite, whose answer is the site's policy.

    Attributes:
        prefix: whole path, mount included, without a final slash; "" is everything.
        folders: tried in this order.
        file: answers `prefix` itself.
        links: the site's static_links.
        hidden: whether names that start with a dot are served.
        expires: seconds for caches; None says nothing.
    """

    prefix: str
    folders: tuple[str, ...] = ()
    file: str = ""
    links: str = "inside"
    hidden: bool = False
    expires: int | None = None

    @property
    def rest(self) -> str:
        """Regular expression of a plain path below the prefix, with its first slash and without ``.`` and ``..``."""
        begin = "(?:[^/.]|[.][^/.]|[.][.][^/])" if self.hidden else "[^/.]"
        return f"(?:/{begin}[^/]*)+"


@dataclass(frozen=True, slots=True)
class Sent:
    """A folder or a file that multisite may tell the front end to send (static_send).

    Attributes:
        header: X-Accel-Redirect or X-Sendfile.
        prefix: what stands before the path in X-Accel-Redirect.
        path: without a final slash.
        links: the site's static_links.
    """

    header: str
    prefix: str
    path: str
    links: str = "inside"
    is_file: bool = False

    @property
    def folder(self) -> str:
        """What a server names that knows folders only."""
        return (posixpath.dirname(self.path) if self.is_file else self.path) or "/"


@dataclass(frozen=True, slots=True)
class Block:
    """Domains that are served alike, and what is special about them.

    Attributes:
        name: of the site that has "/" or else the first mount.
        sites: whose domains these are, each with its mount.
        domains: exact ones, or patterns in the order in which they are tried; never both.
        static: the longest prefix first.
        check: files tried before the application of the site at "/".
        left: what the dispatcher does because no rule can, in sentences.
        timeout: seconds that the slowest of the sites may take to answer.
        direct: whether all that is not static may go straight to the site's own socket.
        log: stem of the access log's name.
        sent: what multisite may have the front end send.
        app_send: whether an application may name files too.
    """

    name: str
    sites: tuple[tuple[str, str], ...]
    domains: tuple[str, ...]
    static: tuple[Static, ...] = ()
    check: Static | None = None
    left: tuple[str, ...] = ()
    timeout: int = 60
    direct: bool = False
    log: str = ""
    certificate: tuple[str, str] | None = None  # paths of the chain and the key
    sent: tuple[Sent, ...] = ()
    app_send: bool = False

    @property
    def titles(self) -> list[str]:
        """What is said above it: the sites, and where they are mounted."""
        return [f"{name}{f' at {mount}' if mount != '/' else ''}" for mount, name in self.sites]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the front end listens: `host` ("" is everywhere) and `port`, or the unix socket `path`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Listen:
        """Read ``PORT``, ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:/PATH``.

        Raises:
            ValueError: it is none of these; the message is the reason.
        """
        if text.startswith("unix:"):
            return cls(path=Endpoint.parse(text).path)
        text = text[2:] if text.startswith("*:") else text.removeprefix(":")
        if text.isascii() and text.isdigit():
            text = f"0:{text}"
        endpoint = Endpoint.parse(text)
        return cls("" if endpoint.host == "0" else endpoint.host, endpoint.port)

    @property
    def address(self) -> str:
        """``HOST:PORT`` with an IPv6 address in brackets; ``*`` stands for everywhere."""
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Front:
    """One configuration: its blocks and what holds for all of them.

    Attributes:
        title: the command that makes this, for the first line.
        blocks: those with exact domains first, then those with patterns, in the order in which they are tried.
        rest: whether a last block takes the hosts that no other names.
        listen: where; none is the server's own default.
        upstream: where the dispatcher listens, and which protocol it speaks.
        timeout: seconds for hosts that no block names.
        max_body: bytes; 0 is no limit.
        logs: folder of the access logs.
        folders: of the exact domains that can be had directly; "" where nothing goes direct.
        indirect: exact domains that have such a folder and must come to the dispatcher all the same.
        host_header: the header that the dispatcher believes a front end about the host.
        script: file that Apache's mod_wsgi loads; "" proxies.
        sent: what multisite may have the front end send, for any host.
        app_send: whether an application may name files too.
        ask: address at which Caddy asks whether a host is ours; "" where there is none.
        redirect: whether plain HTTP leads to HTTPS where there is that.
        caddy: its version; () where it is not known, and taken to be a newer one.
    """

    title: str
    blocks: tuple[Block, ...] = ()
    rest: bool = True
    listen: tuple[Listen, ...] = ()
    upstream: Endpoint = DISPATCHER
    timeout: int = 95
    max_body: int = 0
    logs: str = "/var/log"
    folders: str = ""
    indirect: tuple[str, ...] = ()
    host_header: str = ""
    script: str = ""
    home: str = ""
    ask: str = ""
    sent: tuple[Sent, ...] = ()
    app_send: bool = False
    redirect: bool = False
    caddy: tuple[int, ...] = ()

    @property
    def claims(self) -> list[str]:
        """The header fields by which a client could speak in a front end's stead."""
        named = [self.host_header] if re.fullmatch(r"[A-Za-z0-9-]+", self.host_header) else []
        return [*named, *CLAIMS]


#: what front ends say of their clients under names that we do not set: a client could say it in their stead, and a
#: trusted front end is believed. gunicorn takes the last two, with underscores, for variables of its own.
CLAIMS = (
    "Forwarded",
    "X-Client-IP",
    "X-Real-IP",
    "X-HTTPS",
    "X-Scheme",
    "X-Host",
    "X-Script-Name",
    "X-Forwarded-HTTPS",
    "X-Forwarded-Prefix",
    "X-Forwarded-Scheme",
    "X-Forwarded-Script-Name",
    "X-Forwarded-SSL",
    "Proxy",
)
UNDERSCORED = ("SCRIPT_NAME", "PATH_INFO")
#: where a certificate authority asks, over plain HTTP, for what certbot has put there (RFC 8555 section 8.3)
CHALLENGES = "/.well-known/acme-challenge/"


def comment(text: str, indent: str = "") -> str:
    """Return `text` as a comment line, on which nothing can end it."""
    return f"{indent}# {_CONTROL.sub('?', text)}"


def without_check(name: str) -> str:
    """Return why a server that cannot hold back links leaves files to multisite."""
    return f"{name} follows any link, so it serves files with static_links = all only"


def unsent(sent: tuple[Sent, ...], name: str, header: str = "") -> list[str]:
    """Return a sentence about what this server is told by a header that it does not know."""
    if all(each.header == header for each in sent):
        return []
    remedy = (
        f"say static_send = {header.lower()}{' /PREFIX' if 'Accel' in header else ''}" if header else "leave it out"
    )
    return [f"static_send names a header that {name} does not obey, and these files come empty: {remedy}."]


def has_control(text: str) -> bool:
    """Tell whether `text` holds what no line of a configuration can."""
    return bool(_CONTROL.search(text))


def expression(domain: str) -> str:
    """Return the regular expression, not anchored, of a domain in its normal form; the host is in lower case."""
    parts, position = [], 0
    for match in _WILDCARD.finditer(domain):
        parts.append(_literal(domain[position : match.start()]))
        parts.append("[a-z0-9_-]+" if match[0].startswith("{") and not match[1] else ".*")
        position = match.end()
    return "".join([*parts, _literal(domain[position:])])


def _literal(text: str) -> str:
    """Escape what stands in a host name: letters, digits and ``_-.``; of an IPv6 address ``[:]`` too."""
    return re.sub(r"[][.]", lambda match: f"[{match[0]}]", text)


def path_expression(prefix: str) -> str:
    """Return the regular expression of a plain URL path."""
    return re.sub(r"[.+]", lambda match: f"[{match[0]}]", prefix)


def has_label(domain: str) -> bool:
    """Tell whether `domain` captures one label, which the wildcards of most servers cannot say."""
    return any(match[0].startswith("{") and not match[1] for match in _WILDCARD.finditer(domain))


def glob(domain: str) -> str:
    """Return `domain` with ``*`` for each of its wildcards."""
    return _WILDCARD.sub("*", domain)


def undisputed(patterns: Sequence[str]) -> frozenset[str]:
    """Return those ``*.SUFFIX`` of `patterns`, in their order of registration, that a server may look up first.

    Servers prefer their own wildcards to expressions, and the longer wildcard to the shorter; here the pattern that was
    registered last wins. So these are the ones that nothing registered later could take a host from.
    """
    found: set[str] = set()
    later: set[str] = set()
    above_later: set[str] = set()
    for pattern in reversed([pattern for pattern in patterns if is_pattern(pattern)]):
        suffix = literal_suffix(pattern)
        lines = set(suffixes(suffix))
        if pattern == f"*.{suffix}" and suffix and suffix not in above_later and not lines & later:
            found.add(pattern)
        later.add(suffix)
        above_later |= lines
    return frozenset(found)
