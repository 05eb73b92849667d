"""HAProxy: one proxy for all hosts, as HAProxy serves no files; https://docs.haproxy.org/2.6/configuration.html."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from multisite.cli.frontends.blocks import (
    CHALLENGES,
    UNDERSCORED,
    Block,
    Front,
    Listen,
    Unwritable,
    comment,
    has_control,
    unsent,
)
from multisite.cluster import rings
from multisite.config.domains import expression, is_pattern

HEAD = """\
# Save this file as /etc/haproxy/multisite.cfg and let HAProxy read it after haproxy.cfg; on Debian with
# EXTRAOPTS="-S /run/haproxy-master.sock -f /etc/haproxy/multisite.cfg" in /etc/default/haproxy. Then:
#     haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/multisite.cfg && systemctl restart haproxy
# New sites work at once, without a reload; run the command again for their certificates and time limits.
"""
CLOSED = """\
Each connection to multisite carries one request and is then closed, unless it becomes a WebSocket. This is fastest,
since multisite can hand the connection over to the site. It is also safe: no site ever holds a connection that will
carry a request for another site."""
HASHED = """\
The host decides which node gets a request, so a site runs on one node. Any node can serve any site. A node that
joins or leaves moves only its share of the sites, since its id decides which hosts are its."""
BOUNDED = """\
No node has more than {share} % of the mean number of requests at once. Requests above it go to the next node. So a site
with many requests at once runs on several nodes, and its sessions or caches in memory differ from node to node."""
CHECKED = """\
A node is left out when its /health is not 200: it drains, or it does not answer. No other failure counts, so a site
whose answers fail moves no site."""
REFUSED = """\
A node that refuses the connection has not got the request: it goes to the next node. No request is ever sent twice."""
MOST_WORDS = 40  # on one line; HAProxy takes 64


def render(front: Front) -> str:
    """Return the configuration: a section with defaults of its own, and one proxy."""
    parts = [[comment(front.title) + "\n" + HEAD], list(_defaults(front)), list(_proxy(front))]
    parts += [list(_pinned(group, front)) for group in front.groups]
    return "\n".join("".join(f"{line}\n" for line in part).rstrip("\n") + "\n" for part in parts)


def quoted(text: str) -> str:
    """Return `text` as one word that HAProxy takes literally.

    Raises:
        Unwritable: HAProxy would give a part of it a special meaning; it expands ``$NAME`` in addresses even in quotes.
    """
    if has_control(text) or "'" in text or "$" in text:
        raise Unwritable("it contains a character that has a special meaning for HAProxy")
    return f"'{text}'"


def _defaults(front: Front) -> Iterator[str]:
    yield f"defaults {front.name}"
    yield "    mode http"
    yield "    log global"
    yield "    option httplog"
    yield "    option dontlognull"
    yield "    timeout connect 5s"
    yield "    timeout http-request 30s"
    yield "    timeout http-keep-alive 60s"
    why = "request_timeout plus start_timeout and a margin, so that multisite can send the page that explains it"
    yield comment(why, "    ")
    yield f"    timeout client {front.timeout}s"
    yield f"    timeout server {front.timeout}s"
    yield "    timeout tunnel 1h  # WebSockets"


def _proxy(front: Front) -> Iterator[str]:
    yield f"listen {front.name} from {front.name}"
    yield from (f"    bind {_listen(listen)}" for listen in front.listen or (Listen(port=80),))
    if any(block.certificate for block in front.blocks):
        yield comment("HAProxy reads each file of the folder: a chain and its key.", "    ")
        yield f"    bind *:443 ssl crt {quoted(front.certificates)} alpn h2,http/1.1"
    yield comment("The host in lower case, without its port and its final dot; it goes into the log.", "    ")
    yield "    http-request set-var(txn.host) 'req.hdr(host),lower,regsub(:[0-9]+$,),regsub([.]$,)'"
    yield "    http-request capture var(txn.host) len 64"
    yield from _sites(front)
    if front.redirect:
        yield from _redirect(front)
    if front.max_body:
        yield f"    http-request deny deny_status 413 if {{ req.body_size gt {front.max_body} }}"
    yield from _headers(front)
    yield comment("HAProxy waits for the first 16 KiB of a slow client, so that no process of the site has to.", "    ")
    yield "    option http-buffer-request"
    yield from _closed()
    if front.nodes:
        yield from _groups(front)
        yield from _nodes(front)
        yield from _checks(front)
        yield from _servers(front)
    else:
        yield f"    server multisite {_upstream(front)}"


def _nodes(front: Front) -> Iterator[str]:
    yield from (comment(line, "    ") for line in HASHED.splitlines())
    yield "    balance hash var(txn.host)"
    yield "    hash-type consistent crc32 avalanche"
    if front.bounded:
        share = round(front.bounded * 100)
        yield from (comment(line, "    ") for line in BOUNDED.format(share=share).splitlines())
        yield f"    hash-balance-factor {share}"
    yield from (comment(line, "    ") for line in REFUSED.splitlines())
    yield "    retries 3"
    yield "    retry-on conn-failure"
    yield "    option redispatch 1"


def _checks(front: Front) -> Iterator[str]:
    yield from (comment(line, "    ") for line in CHECKED.splitlines())
    yield "    option httpchk"
    yield f"    http-check send meth GET uri /health ver HTTP/1.1 hdr Host {quoted(front.status_host)}"
    yield "    http-check expect status 200"
    yield "    timeout check 5s"
    yield "    default-server check inter 1s fall 2 rise 1"


def _servers(front: Front, checked: str = "") -> Iterator[str]:
    """Yield the nodes; `checked` is the proxy that checks them, "" for this one."""
    finest, numbers = rings.finesse(front.nodes), rings.ids(front.nodes)
    for node in front.nodes:
        name = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in str(node)).strip("-")
        tracked = f" track {checked}/{name}" if checked else ""
        yield f"    server {name} {node} id {numbers[node]} weight {node.weight * finest}{tracked}"


def _closed() -> Iterator[str]:
    yield from (comment(line, "    ") for line in CLOSED.splitlines())
    yield "    option http-server-close"
    yield "    http-reuse never"


def _groups(front: Front) -> Iterator[str]:
    """Yield which hosts go to groups of nodes only: the last rule that fits counts, so the blocks come backwards."""
    if not front.groups:
        return
    yield comment("Some sites run only on the nodes that their files list.", "    ")
    pieces = [(of.upstream_name, list(blocks)) for of, blocks in groupby(front.blocks, front.of)]
    patterned = [name != front.name and is_pattern(blocks[-1].domains[0]) for name, blocks in pieces]
    for number, (name, blocks) in reversed(list(enumerate(pieces, 1))):
        if name == front.name and not any(patterned[number:]):
            continue  # no pattern could take its hosts
        yield from _hosts(f"on_{number}", blocks)
        yield f"    http-request set-var(txn.nodes) str({name}) if on_{number}"
    for group in front.groups:
        yield f"    use_backend {group.upstream_name} if {{ var(txn.nodes) -m str {group.upstream_name} }}"


def _pinned(group: Front, front: Front) -> Iterator[str]:
    yield f"backend {group.upstream_name} from {front.name}"
    yield from _timeouts([block for block in front.blocks if block.nodes == group.nodes], front)
    yield from _closed()
    yield from _nodes(group)
    yield from _servers(group, front.name)


def _sites(front: Front) -> Iterator[str]:
    """Yield what differs between hosts: whether they are served here, and how long HAProxy waits for them."""
    yield from (comment(reason, "    ") for reason in unsent(front.sent, "HAProxy"))
    for block in front.blocks:
        yield comment(f"{'; '.join(block.titles)}: {', '.join(block.domains)}", "    ")
    if not front.rest:
        yield from _hosts("ours", front.blocks)
        yield "    http-request deny deny_status 404 unless ours"
    yield from _timeouts(front.blocks, front)


def _timeouts(blocks: Iterable[Block], front: Front) -> Iterator[str]:
    exact = [block for block in blocks if not is_pattern(block.domains[0])]
    for timeout in sorted({block.timeout for block in exact} - {front.timeout}):
        yield from _hosts(f"within_{timeout}s", [block for block in exact if block.timeout == timeout])
        yield f"    http-request set-timeout server {timeout}s if within_{timeout}s"


def _hosts(name: str, blocks: Iterable[Block]) -> Iterator[str]:
    """Yield the lines of a condition on the host."""
    domains = [domain for block in blocks for domain in block.domains]
    exact = [quoted(domain) for domain in domains if not is_pattern(domain)]
    for start in range(0, len(exact), MOST_WORDS):
        yield f"    acl {name} var(txn.host) -m str -- {' '.join(exact[start : start + MOST_WORDS])}"
    for domain in filter(is_pattern, domains):
        yield f"    acl {name} var(txn.host) -m reg -- '^{expression(domain)}$'"


def _redirect(front: Front) -> Iterator[str]:
    """Yield the redirect of all requests but certificate challenges, for hosts with a certificate."""
    found = list(_hosts("secure", [block for block in front.blocks if block.certificate]))
    if found:
        yield from found
        yield f"    acl challenge path_beg {CHALLENGES}"
        yield (
            "    http-request redirect location https://%[var(txn.host)]%[pathq] code 308 "
            "if secure !{ ssl_fc } !challenge"
        )


def _headers(front: Front) -> Iterator[str]:
    yield comment("These replace the client's own headers, so no client can forge them.", "    ")
    yield from (f"    http-request del-header {name}" for name in (*front.claims, *UNDERSCORED))
    yield "    http-request set-header X-Forwarded-For %[src]"
    yield "    http-request set-header X-Forwarded-Host %[req.hdr(host)]"
    yield "    http-request set-header X-Forwarded-Port %[dst_port]"
    yield "    http-request set-header X-Forwarded-Proto http"
    yield "    http-request set-header X-Forwarded-Proto https if { ssl_fc }"


def _listen(listen: Listen) -> str:
    return quoted(listen.path) if listen.path else listen.address


def _upstream(front: Front) -> str:
    upstream = front.upstream
    if upstream.path:
        if upstream.path.startswith("\0"):
            raise Unwritable("HAProxy pads the names of abstract sockets, so it cannot connect to this one")
        return quoted(f"unix@{upstream.path}")
    return upstream.address
