"""Caddy: a site for each group of exact domains, and one for all other hosts; https://caddyserver.com/docs/caddyfile."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from multisite.cli.frontends.blocks import (
    UNDERSCORED,
    Block,
    Front,
    Static,
    Unwritable,
    expression,
    has_control,
    path_expression,
    unsent,
    without_check,
)
from multisite.cli.frontends.blocks import comment as plain_comment
from multisite.config.domains import is_pattern

HEAD = """\
# Save this file as /etc/caddy/Caddyfile, or import it there, then:
#     caddy validate --config /etc/caddy/Caddyfile && systemctl reload caddy
# A new site is answered at once, without a reload; run the command again to have rules of its own for it.

# A connection towards multisite carries one request and is closed (keepalive off). That is fastest, since multisite can
# hand such a connection over to the site, and it is safe: no site ever holds a connection on which the next visitor of
# another site is to come.
"""
DIRECT = """\
# Requests go straight to a site whose own socket is open, with no Python in between: whether it is, a folder named
# like the domain says. Caddy must be allowed to connect: put its user into the group of [supervisor] socket_group in
# moya.conf. Everything else goes to multisite, which starts sites, so that no request is lost and none is sent twice.
"""
BUFFER = 1 << 20  # bytes of a request's body that Caddy takes in before it passes the request on
RENAMED = (2, 6, 3)  # the version in which this got another name
OLD_BUFFERS = ("buffer_requests", f"max_buffer_size {BUFFER}")
_FILE = re.compile(r"[A-Za-z0-9._-]+\Z")


def render(front: Front) -> str:
    """Return the configuration; it ends in whole sites."""
    exact = [block for block in front.blocks if not is_pattern(block.domains[0])]
    patterns = [block for block in front.blocks if is_pattern(block.domains[0])]
    parts = [[comment(front.title) + "\n" + HEAD + ("\n" + DIRECT if front.folders else "")]]
    if _certificates_on_demand(front):
        parts.append(list(_ask(front)))
    parts.append(list(_shared(front)))
    parts += [list(_site(block, front)) for block in exact]
    if patterns or front.rest:
        parts.append(list(_others(patterns, front)))
    return "\n".join("".join(f"{line}\n" for line in part).rstrip("\n") + "\n" for part in parts)


def quoted(text: str) -> str:
    """Return `text` as one token that means itself.

    Raises:
        Unwritable: Caddy would take a part of it for something else.
    """
    if has_control(text) or "{" in text or "`" in text:
        raise Unwritable("it holds a character that Caddy takes for something else")
    return f"`{text}`"


def comment(text: str, indent: str = "") -> str:
    """Return `text` as a comment; Caddy puts the environment in place of ``{$NAME}`` even there."""
    return plain_comment(text.replace("{$", "{ $"), indent)


def _certificates_on_demand(front: Front) -> bool:
    return bool(front.ask) and not front.listen and front.rest


def _ask(front: Front) -> Iterator[str]:
    yield comment(
        "Certificates of hosts that no site below names are fetched at their first visit. Caddy asks multisite"
    )
    yield comment("whether a site claims the host, so that nobody makes it fetch certificates for names of his own.")
    yield "{"
    yield "    on_demand_tls {"
    yield f"        ask {quoted(front.ask)}"
    yield "    }"
    yield "}"


def _site(block: Block, front: Front) -> Iterator[str]:
    yield from map(comment, block.titles)
    yield ", ".join(address for domain in block.domains for address in _addresses(domain, front)) + " {"
    yield from (f"    {line}" for line in _inside(block.log, front))
    yield "    route {"
    yield from (f"        {line}" for line in _routes(block, front))
    yield "    }"
    yield "}"


def _addresses(domain: str, front: Front) -> Iterator[str]:
    if not front.listen:
        yield domain
    for port in sorted({listen.port for listen in front.listen}):
        yield f"http://{domain}:{port}"


def _others(patterns: list[Block], front: Front) -> Iterator[str]:
    if front.rest:
        yield comment("All other hosts: patterns, sites that are newer than this file, and the page for unknown ones.")
    if _certificates_on_demand(front):
        yield "https:// {"
        yield "    tls {"
        yield "        on_demand"
        yield "    }"
    else:
        yield ", ".join(_addresses("", front) if front.listen else ["http://"]) + " {"
    yield from (f"    {line}" for line in _inside("multisite", front))
    yield "    route {"
    for number, block in enumerate(patterns, 1):
        either = "|".join(map(expression, block.domains))
        yield from (comment(title, " " * 8) for title in block.titles)
        yield f"        @site{number} header_regexp Host `(?i)^({either})(:[0-9]+)?$`"
        yield f"        handle @site{number} {{"
        yield from (f"            {line}" for line in _routes(block, front))
        yield "        }"
    yield "        handle {"
    rest = Block("", (), ("*",), timeout=front.timeout, direct=not front.blocks, sent=front.sent)
    yield from (f"            {line}" for line in _routes(rest, front))
    yield "        }"
    yield "    }"
    yield "}"


def _inside(log: str, front: Front) -> Iterator[str]:
    hosts = sorted({listen.host for listen in front.listen if listen.host})
    if any(listen.path for listen in front.listen):
        raise Unwritable("--listen takes a port for Caddy")
    if hosts:
        yield f"bind {' '.join(hosts)}"
    yield "log {"
    yield f"    output file {quoted(f'{front.logs}/{log}.access.log')}"
    yield "}"
    if front.max_body:
        yield "request_body {"
        yield f"    max_size {front.max_body}"
        yield "}"


def _routes(block: Block, front: Front) -> Iterator[str]:
    yield from (comment(reason) for reason in [*block.left, *unsent(block.sent, "Caddy")])
    dispatcher = list(_handle("", [_proxy(_upstream(front), block, front)]))
    for number, rule in enumerate(block.static, 1):
        yield f"@prefix{number} path_regexp `^{path_expression(rule.prefix)}(/|$)`"
        yield from _handle(f" @prefix{number}", [*_files(rule, f"static{number}", dispatcher), *dispatcher])
    if block.check:
        yield from _files(block.check, "check", dispatcher)
    yield from _application(block, front, bool(block.direct and front.folders))


def _handle(matcher: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"handle{matcher} {{"
    yield from (f"    {line}" for line in lines)
    yield "}"


def _files(rule: Static, name: str, otherwise: list[str]) -> Iterator[str]:
    """Yield handles for the files that are there, or a comment where Caddy cannot serve them."""
    try:
        if rule.folders or rule.file:
            yield from list(_found(rule, name, otherwise))
    except Unwritable as error:
        yield comment(f"{rule.prefix or '/'} is served by multisite: {error}.")


def _found(rule: Static, name: str, otherwise: list[str]) -> Iterator[str]:
    """Yield two steps: one condition needs what another found, and Caddy tries those of one matcher in no order."""
    if rule.links != "all":
        raise Unwritable(without_check("Caddy"))
    folders, file = rule.folders, ""
    if rule.file:
        folder, file = posixpath.split(rule.file)
        folders = (folder,)
        if not _FILE.match(file):
            raise Unwritable("its file has a name that Caddy takes for something else")
    yield f"@{name} {{"
    yield "    method GET HEAD"
    yield f"    path_regexp {name} `^{path_expression(rule.prefix)}{'' if file else f'({rule.rest})'}$`"
    yield "}"
    inside: list[str] = []
    for turn, folder in enumerate(folders, 1):
        inside += [f"@{name}_{turn} file {{", f"    root {quoted(folder)}"]
        inside += [f"    try_files {f'/{file}' if file else f'{{re.{name}.1}}'}", "}"]
        inside += _handle(f" @{name}_{turn}", _serve(folder, file, rule))
    yield from _handle(f" @{name}", [*inside, *otherwise])


def _serve(folder: str, file: str, rule: Static) -> Iterator[str]:
    if file:
        yield f"rewrite * /{file}"
    elif rule.prefix:
        yield f"uri strip_prefix {rule.prefix}"
    if rule.expires is not None:
        yield f'header Cache-Control "{f"max-age={rule.expires}" if rule.expires else "no-cache"}"'
    yield f"root * {quoted(folder)}"
    yield "file_server"


def _application(block: Block, front: Front, direct: bool) -> Iterator[str]:
    if direct:
        yield "@direct {"
        yield "    header_regexp Host `^[a-z0-9_-][a-z0-9_.-]*(:[0-9]+)?$`"
        for domain in front.indirect:
            yield f"    not host {domain}"
        yield "    file {"
        yield f"        root {quoted(front.folders)}"
        yield "        try_files /{host}/"
        yield "    }"
        yield "}"
        yield from _handle(" @direct", [_proxy(f"`unix/{_plain(front.folders)}/{{host}}/http.sock`", block, front)])
    yield from _handle("", [_proxy(_upstream(front), block, front)])


def _proxy(to: str, block: Block, front: Front) -> str:
    return f"import {_snippet(front)} {to} {block.timeout}s"


def _snippet(front: Front) -> str:
    """Return a name that other files, for other sites, do not use: Caddy takes each name once."""
    blocks = [] if front.rest else sorted({name for block in front.blocks for _, name in block.sites})
    return "-".join(["multisite", *blocks])


def _shared(front: Front) -> Iterator[str]:
    """How a request is passed on, to an address and with a time limit."""
    yield f"({_snippet(front)}) {{"
    yield "    reverse_proxy {args.0} {"
    yield comment("What a client claims of itself ends here; Caddy sets X-Forwarded-For, -Proto and -Host.", " " * 8)
    yield from (f"        header_up -{name}" for name in (*front.claims, *UNDERSCORED, "X-Forwarded-Port"))
    yield comment("A slow client is waited for here, rather than in a process of the site's.", " " * 8)
    old = () < front.caddy < RENAMED
    yield from (f"        {line}" for line in (OLD_BUFFERS if old else (f"request_buffers {BUFFER >> 20}MiB",)))
    yield "        transport http {"
    yield "            dial_timeout 5s"
    yield comment("request_timeout and start_timeout, and a little: the page that says why is multisite's", " " * 12)
    yield "            response_header_timeout {args.1}"
    yield "            keepalive off"
    yield "        }"
    yield "    }"
    yield "}"


def _upstream(front: Front) -> str:
    upstream = front.upstream
    if upstream.path:
        if upstream.path.startswith("\0"):
            raise Unwritable("Caddy cannot connect to an abstract socket")
        return f"`unix/{_plain(upstream.path)}`"
    return upstream.address


def _plain(text: str) -> str:
    return quoted(text)[1:-1]
