"""What a front end has to know about the sites: a small view for every kind of server, and how to write domains.

A front end only takes work off the dispatcher. If a server's grammar cannot express a rule exactly, the rule is left
out with a comment that gives the reason, and the dispatcher does the work, since it gets all other requests.
Expressions contain no backslash, because each server would unescape it in its own way.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from multisite.config.domains import is_pattern, literal_suffix, suffixes
from multisite.config.endpoint import Endpoint
from multisite.config.nodes import Machine

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WILDCARD = re.compile(r"\{(\*?)\w+\}|\*")
DISPATCHER = Endpoint("http", host="127.0.0.1", port=8000)


class Unwritable(ValueError):
    """A value that may have no exact form in a server's grammar; the message completes "PATH …"."""


@dataclass(frozen=True, slots=True)
class Static:
    """Files below a URL prefix; without `folders` and `file`, multisite gets all requests below it.

    A front end serves plain files that exist. It leaves the rest (a folder and its index, a link that it may not
    follow, a missing file, another method) to multisite, which knows the site's policy.

    Attributes:
        prefix: whole path, mount included, without a final slash; "" is everything.
        folders: searched in this order.
        file: the answer to `prefix` itself.
        links: the site's static_links.
        hidden: whether names that start with a dot are served.
        expires: seconds for caches; None sends no header.
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
        prefix: the part before the path in X-Accel-Redirect.
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
        """The folder to name for a server that supports only folders."""
        return (posixpath.dirname(self.path) if self.is_file else self.path) or "/"


@dataclass(frozen=True, slots=True)
class Block:
    """Domains with the same rules.

    Attributes:
        name: of the site at "/", or else of the first mount.
        sites: the sites of these domains, each with its mount.
        domains: exact ones, or patterns in the order in which they are tried; never both.
        static: the longest prefix first.
        check: files that are searched before the application of the site at "/".
        left: what the dispatcher does because no rule can, in sentences.
        timeout: seconds that the slowest of the sites may take to answer.
        direct: whether requests that are not for static files may go directly to the site's own socket.
        log: stem of the access log's name.
        sent: what multisite may tell the front end to send.
        app_send: whether an application may name files, too.
        nodes: the machines that run its sites; () for all.
        streams: whether some answers last, and each part of them has to arrive at once.
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
    streams: bool = False
    nodes: tuple[Machine, ...] = ()

    @property
    def titles(self) -> list[str]:
        """Headings: the sites, and where they are mounted."""
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
            ValueError: it has none of these forms; the message is the reason.
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
    """One configuration: its blocks and the settings that all of them share.

    Attributes:
        title: the command that prints this, for the first line.
        blocks: those with exact domains first, then those with patterns, in the order in which they are tried.
        rest: whether a last block answers the hosts that no other block names.
        listen: where the server listens; empty: the server's own default.
        upstream: where the dispatcher listens, and which protocol it speaks.
        timeout: seconds for hosts that no block names.
        max_body: bytes; 0 is no limit.
        logs: folder of the access logs.
        folders: folder with those of the exact domains that are open directly; "" if no request goes directly.
        indirect: exact domains that have such a folder but whose requests must go to the dispatcher.
        host_header: the header in which the dispatcher accepts the host from a front end.
        script: file that Apache's mod_wsgi loads; "": Apache is a proxy.
        sent: what multisite may tell the front end to send, for any host.
        app_send: whether an application may name files, too.
        ask: address at which Caddy asks whether a host is ours; "" if there is none.
        redirect: whether plain HTTP redirects to HTTPS for hosts with a certificate.
        certificates: folder of the files DOMAIN.pem, for HAProxy.
        caddy: its version; () if it is unknown, which counts as a recent one.
        nodes: machines that all serve these sites, instead of `upstream`; the host of a request decides which gets it.
        status_host: the host for whose /health each of them reports whether it is ready.
        bounded: most requests of a node at once, as a multiple of the mean; 0.0 for no limit.
        group: which of the groups of machines `nodes` is; 0 is all of them.
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
    certificates: str = ""
    caddy: tuple[int, ...] = ()
    nodes: tuple[Machine, ...] = ()
    status_host: str = ""
    bounded: float = 0.0
    group: int = 0

    @property
    def name(self) -> str:
        """A name that files for other sites do not use: servers accept each once."""
        sites = [] if self.rest else sorted({name for block in self.blocks for _, name in block.sites})
        safe = ("".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name) for name in sites)
        return "-".join(["multisite", *safe])

    @property
    def upstream_name(self) -> str:
        """The name of `nodes` in the rules: sites that are pinned to some of them have other ones than the rest."""
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def groups(self) -> list[Front]:
        """This front once more for each group of machines to which sites are pinned, with these as its `nodes`."""
        found = dict.fromkeys(block.nodes for block in self.blocks if block.nodes)
        return [replace(self, nodes=nodes, group=number) for number, nodes in enumerate(found, 1)]

    def of(self, block: Block) -> Front:
        """Return this front with the machines that run the sites of `block` as its `nodes`."""
        return next(group for group in self.groups if group.nodes == block.nodes) if block.nodes else self

    @property
    def claims(self) -> list[str]:
        """The header fields with which a client could pose as a front end."""
        named = [self.host_header] if re.fullmatch(r"[A-Za-z0-9-]+", self.host_header) else []
        return [*named, *CLAIMS]


#: headers in which front ends describe their clients and that we do not set. A client could send them, and we would
#: believe them, since they come from a trusted front end. gunicorn reads the last two, with underscores, as its own.
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
#: where a certificate authority fetches certbot's answer to its challenge over plain HTTP (RFC 8555 section 8.3)
CHALLENGES = "/.well-known/acme-challenge/"


def comment(text: str, indent: str = "") -> str:
    """Return `text` as a comment line; nothing in it can end the line."""
    return f"{indent}# {_CONTROL.sub('?', text)}"


def without_check(name: str) -> str:
    """Return why a server that follows every link leaves files to multisite."""
    return f"{name} follows any link, so it serves files only with static_links = all"


def unsent(sent: tuple[Sent, ...], name: str, header: str = "") -> list[str]:
    """Return a sentence about files that are sent with a header that this server does not support."""
    if all(each.header == header for each in sent):
        return []
    remedy = f"set static_send = {header.lower()}{' /PREFIX' if 'Accel' in header else ''}" if header else "remove it"
    return [f"static_send names a header that {name} does not support, so these files would be empty: {remedy}."]


def has_control(text: str) -> bool:
    """Tell whether `text` contains a character that no line of a configuration can hold."""
    return bool(_CONTROL.search(text))


def path_expression(prefix: str) -> str:
    """Return the regular expression of a plain URL path."""
    return re.sub(r"[.+]", lambda match: f"[{match[0]}]", prefix)


def has_label(domain: str) -> bool:
    """Tell whether `domain` captures one label, which the wildcards of most servers cannot express."""
    return any(match[0].startswith("{") and not match[1] for match in _WILDCARD.finditer(domain))


def glob(domain: str) -> str:
    """Return `domain` with ``*`` for each of its wildcards."""
    return _WILDCARD.sub("*", domain)


def undisputed(patterns: Sequence[str]) -> frozenset[str]:
    """Return those ``*.SUFFIX`` of `patterns`, in their order of registration, that a server may look up first.

    Servers prefer their own wildcards to expressions, and the longer wildcard to the shorter; here the pattern that was
    registered last wins. So no pattern that was registered later could take a host from the ones returned.
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
