"""Caddy: a site for each group of exact domains, and one for all other hosts; https://caddyserver.com/docs/caddyfile."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from string import ascii_lowercase

from multisite.cli.frontends.blocks import (
    UNDERSCORED,
    Block,
    Front,
    Static,
    Unwritable,
    has_control,
    path_expression,
    unsent,
    without_check,
)
from multisite.cli.frontends.blocks import comment as plain_comment
from multisite.config.domains import expression, is_pattern

HEAD = """\
# Save this file as /etc/caddy/Caddyfile, or import it there, then:
#     caddy validate --config /etc/caddy/Caddyfile && systemctl reload caddy
# New sites work at once, without a reload; run the command again to give them their own rules.

# Each connection to multisite carries one request and is then closed (keepalive off). This is fastest, since multisite
# can hand the connection over to the site. It is also safe: no site ever holds a connection that will carry a request
# for another site.
"""
DIRECT = """\
# Requests go directly to a site whose own socket is open, with no Python in between. The socket is open while there is
# a folder with the name of the domain. Caddy must be allowed to connect: put its user into the group of [supervisor]
# socket_group in moya.conf. All other requests go to multisite, which starts the sites, so no request is lost or sent
# twice.
"""
KEY_HEADER = "X-Multisite-Host"
KEY = """\
The host in lower case, without its port and its final dot: a site stays on its node however the host is written."""
NODES = """\
The host decides which node gets a request, so a site runs on one node. Any node can serve any site. A node that
joins or leaves moves only its share of the sites. A node is left out when its /health is not 200: it drains, or does
not answer. No other failure counts, so a site whose answers fail moves no site. A node that refuses the connection
has not got the request, so another one gets it. No request is ever sent twice: no method matches lb_retry_match."""
ROUTES = """\
Sites share these routes: Caddy checks the nodes once a second for each of them, however many sites there are."""
NAMED = (2, 7)  # the version that has named routes
BUFFER = 1 << 20  # bytes of a request's body that Caddy reads before it passes the request on
RENAMED = (2, 6, 3)  # the version that renamed this setting
OLD_BUFFERS = ("buffer_requests", f"max_buffer_size {BUFFER}")
_FILE = re.compile(r"[A-Za-z0-9._-]+\Z")


def render(front: Front) -> str:
    """Return the configuration, which consists of whole sites."""
    exact = [block for block in front.blocks if not is_pattern(block.domains[0])]
    patterns = [block for block in front.blocks if is_pattern(block.domains[0])]
    parts = [[comment(front.title) + "\n" + HEAD + ("\n" + DIRECT if front.folders else "")]]
    if _certificates_on_demand(front):
        parts.append(list(_ask(front)))
    parts += [list(_shared(each)) for each in (front, *front.groups)]
    if _is_named(front):
        parts.append(list(_named(front)))
    parts += [list(_site(block, front)) for block in exact]
    if patterns or front.rest:
        parts.append(list(_others(patterns, front)))
    return "\n".join("".join(f"{line}\n" for line in part).rstrip("\n") + "\n" for part in parts)


def quoted(text: str) -> str:
    """Return `text` as one token that Caddy takes literally.

    Raises:
        Unwritable: Caddy would give a part of it a special meaning.
    """
    if has_control(text) or "{" in text or "`" in text:
        raise Unwritable("it contains a character that has a special meaning for Caddy")
    return f"`{text}`"


def comment(text: str, indent: str = "") -> str:
    """Return `text` as a comment; Caddy expands ``{$NAME}`` from the environment even there."""
    return plain_comment(text.replace("{$", "{ $"), indent)


def _certificates_on_demand(front: Front) -> bool:
    return bool(front.ask) and not front.listen and front.rest


def _ask(front: Front) -> Iterator[str]:
    yield comment(
        "Caddy fetches certificates for hosts that no site below names at their first visit. It first asks multisite"
    )
    yield comment("whether a site claims the host, so that nobody can make it fetch certificates for other names.")
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
        yield comment("All other hosts: patterns, sites that are newer than this file, and the page for unknown hosts.")
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
        raise Unwritable("for Caddy, --listen takes only a port")
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
    front = front.of(block)
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
    """Yield handlers for the files that exist, or a comment if Caddy cannot serve them."""
    try:
        if rule.folders or rule.file:
            yield from list(_found(rule, name, otherwise))
    except Unwritable as error:
        yield comment(f"multisite serves {rule.prefix or '/'}: {error}.")


def _found(rule: Static, name: str, otherwise: list[str]) -> Iterator[str]:
    """Yield two steps: one condition needs the result of another, and Caddy tries those of one matcher in any order."""
    if rule.links != "all":
        raise Unwritable(without_check("Caddy"))
    folders, file = rule.folders, ""
    if rule.file:
        folder, file = posixpath.split(rule.file)
        folders = (folder,)
        if not _FILE.match(file):
            raise Unwritable("the name of its file has a special meaning for Caddy")
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
    if _is_named(front):
        return f"invoke {front.upstream_name}-{block.timeout}"
    return f"import {front.upstream_name} {to} {block.timeout}s"


def _is_named(front: Front) -> bool:
    """Tell whether all sites share a handler: each handler checks every node by itself."""
    return bool(front.nodes) and not () < front.caddy < NAMED


def _named(front: Front) -> Iterator[str]:
    """Yield a route for each group of nodes and time limit, which sites invoke."""
    yield from map(comment, ROUTES.splitlines())
    uses = {(front, front.timeout), *((front.of(block), block.timeout) for block in front.blocks)}
    for group, timeout in sorted(uses, key=lambda use: (use[0].group, use[1])):
        yield f"&({group.upstream_name}-{timeout}) {{"
        yield "    route {"  # Caddy takes the first directive of a named route only
        yield f"        import {group.upstream_name} {_upstream(group)} {timeout}s"
        yield "    }"
        yield "}"


def _shared(front: Front) -> Iterator[str]:
    """Yield the snippet that passes a request on, to an address and with a time limit."""
    if front.group:
        yield comment("Some sites run only on the nodes that their files list.")
    yield f"({front.upstream_name}) {{"
    if front.nodes:
        yield from (f"    {line}" for line in _key())
    yield "    reverse_proxy {args.0} {"
    if front.nodes:
        yield from (f"        {line}" for line in _nodes(front))
    yield comment(
        "Forwarding headers sent by a client are removed; Caddy sets X-Forwarded-For, -Proto and -Host.", " " * 8
    )
    yield from (f"        header_up -{name}" for name in (*front.claims, *UNDERSCORED, "X-Forwarded-Port"))
    yield comment("Caddy waits for a slow client, so that no process of the site has to.", " " * 8)
    old = () < front.caddy < RENAMED
    yield from (f"        {line}" for line in (OLD_BUFFERS if old else (f"request_buffers {BUFFER >> 20}MiB",)))
    yield "        transport http {"
    yield "            dial_timeout 5s"
    margin = "request_timeout plus start_timeout and a margin, so that multisite can send the page that explains it"
    yield comment(margin, " " * 12)
    yield "            response_header_timeout {args.1}"
    yield "            keepalive off"
    yield "        }"
    yield "    }"
    yield "}"


def _key() -> Iterator[str]:
    """Yield what makes a header of the host in lower case, without its port and its final dot."""
    yield from map(comment, KEY.splitlines())
    yield "route {"
    yield f"    request_header {KEY_HEADER} {{host}}"
    yield f"    request_header {KEY_HEADER} `^(.*)[.]$` $1"
    yield "    @capitals header_regexp Host `[A-Z]`"
    yield "    handle @capitals {"
    yield "        route {"
    for letter in ascii_lowercase:
        yield f"            request_header {KEY_HEADER} {letter.upper()} {letter}"
    yield "        }"
    yield "    }"
    yield "}"


def _nodes(front: Front) -> Iterator[str]:
    if any(node.weight > 1 for node in front.nodes):
        raise Unwritable("Caddy hashes without weights; use nginx or HAProxy, or leave the weights out")
    yield from map(comment, NODES.splitlines())
    yield f"to {' '.join(map(str, front.nodes[1:]))}" if front.nodes[1:] else comment("There is only one node.")
    yield f"lb_policy header {KEY_HEADER}"
    yield f"header_up -{KEY_HEADER}"
    yield "lb_try_duration 12s"
    yield "lb_retry_match {"
    yield "    method NEVER"
    yield "}"
    yield "health_uri /health"
    yield "health_headers {"
    yield f"    Host {quoted(front.status_host)}"
    yield "}"
    yield "health_status 200"
    yield "health_interval 1s"
    yield "health_timeout 5s"


def _upstream(front: Front) -> str:
    if front.nodes:
        return str(front.nodes[0])
    upstream = front.upstream
    if upstream.path:
        if upstream.path.startswith("\0"):
            raise Unwritable("Caddy cannot connect to an abstract socket")
        return f"`unix/{_plain(upstream.path)}`"
    return upstream.address


def _plain(text: str) -> str:
    return quoted(text)[1:-1]
