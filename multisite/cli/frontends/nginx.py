"""nginx: whole server blocks, to be included in its ``http`` block.

nginx looks up a host among exact names first, then takes the longest wildcard, then the first regular expression that
matches; https://nginx.org/en/docs/http/server_names.html.
"""

from __future__ import annotations

from collections.abc import Iterator

from multisite.cli.frontends.blocks import (
    CHALLENGES,
    Block,
    Front,
    Listen,
    Static,
    Unwritable,
    comment,
    has_control,
    path_expression,
    undisputed,
    unsent,
)
from multisite.config.domains import expression, is_pattern
from multisite.config.trusted import key_of

#: a longer name does not fit nginx's default hash tables, and nginx would not start
LONGEST_NAME = 40

HEAD = """\
# Include this file within http {} of nginx.conf, then: nginx -t && nginx -s reload
# New sites work at once, without a reload; run the command again to give them their own rules.

# Each connection to multisite carries one request and is then closed, unless it becomes a WebSocket. This is fastest,
# since multisite can hand the connection over to the site. It is also safe: no site ever holds a connection that will
# carry a request for another site.
map $http_upgrade $multisite_connection {
    default upgrade;
    "" close;
}

# The name by which nginx chose the server block, with the port that the client used. The Host field alone may differ,
# if the first line of the request names the host (RFC 9112 section 3.2.2).
map $http_host $multisite_port {
    default "";
    "~(?<multisite_sent_port>:[0-9]+)$" $multisite_sent_port;
}
"""

NODES = """\
# The host decides which node gets a request, so a site runs on one node. Any node can serve any site. A node that joins
# or leaves moves only its share of the sites. nginx checks no node: the next one gets a request if one refuses the
# connection. No failure is remembered (max_fails=0), so a site whose answers fail moves no site.
"""

PINNED = """\
# Some sites run only on the nodes that their files list.
"""

AGAIN = """\
The next node gets a request that could not be sent. If a node dies, the next one gets its requests, but no POST, PATCH
or LOCK that was sent, and none after 12 seconds."""

#: words with a special meaning in a map, quoted or not
MAP_WORDS = frozenset({"default", "hostnames", "include", "volatile"})

#: a folder that never exists: nothing in a domain's folder is a folder
NO_FOLDER = "-/-"

GUARD = """\
# Requests go directly to a site whose own socket is open, with no Python in between. The socket is open while there is
# a folder with the name of the domain. nginx must be allowed to connect: put its user into the group of [supervisor]
# socket_group in moya.conf. All other requests go to multisite, which starts the sites, so no request is lost or sent
# twice. nginx has put $host into lower case and refuses "/" and ".." in it; this map accepts only host names.
map $host $multisite_folder {
    default "-/-";
    "~^[a-z0-9_-][a-z0-9_.-]*$" $host;
"""


def render(front: Front) -> str:
    """Return the configuration, which consists of whole server blocks."""
    in_order = [domain for block in reversed(front.blocks) for domain in reversed(block.domains)]
    native = undisputed(in_order)
    parts = [comment(front.title) + "\n" + HEAD]
    if front.folders:
        parts.append(_guard(front))
    if front.nodes:
        lines = [NODES.rstrip("\n"), *_nodes(front), *([PINNED.rstrip("\n")] if front.groups else [])]
        lines += [line for group in front.groups for line in _nodes(group)]
        parts.append("".join(f"{line}\n" for line in lines))
    for block in front.blocks:
        parts.append("".join(f"{line}\n" for line in _server(block, front, native)))
    if front.rest:
        parts.append("".join(f"{line}\n" for line in _rest(front)))
    return "\n".join(parts)


def escaped(text: str) -> str:
    """Return `text` escaped for double quotes.

    Raises:
        Unwritable: nginx would give a part of it a special meaning.
    """
    if has_control(text) or "$" in text:
        raise Unwritable("it contains a character that cannot be written for nginx")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def quoted(text: str, after: str = "") -> str:
    """Return `text` as one parameter, followed by `after`, which comes from us and may contain variables."""
    return f'"{escaped(text)}{after}"'


def _nodes(front: Front) -> Iterator[str]:
    yield f"upstream {front.upstream_name} {{"
    yield "    hash $host consistent;"
    for node in front.nodes:
        yield f"    server {node}{f' weight={node.weight}' if node.weight > 1 else ''} max_fails=0;"
    yield "}"


def _guard(front: Front) -> str:
    keys = (domain if _is_short(domain) and domain not in MAP_WORDS else _regular(domain) for domain in front.indirect)
    exceptions = [f"    {key} {quoted(NO_FOLDER)};\n" for key in keys]
    reason = ["    # These sites have static files, or do not speak HTTP.\n"] if exceptions else []
    return "".join([GUARD, *reason, *exceptions, "}\n"])


def _is_short(domain: str) -> bool:
    return len(domain) <= LONGEST_NAME and ":" not in domain


def _server(block: Block, front: Front, native: frozenset[str]) -> Iterator[str]:
    front = front.of(block)
    yield from map(comment, block.titles)
    plain = list(_plain(front))
    named = [f"    server_name {' '.join(_name(domain, native) for domain in block.domains)};"]
    named.append(f"    access_log {quoted(f'{front.logs}/{block.log}.access.log')} combined;")
    if front.redirect and block.certificate:
        yield from _redirect([*plain, *named], front, block)
        plain = []
    yield "server {"
    yield from [*plain, *_secure(block.certificate), *named]
    yield from _settings(front, block.timeout)
    if block.streams:
        yield f"    {front.upstream.protocol.replace('http', 'proxy')}_buffering off;  # events arrive as they happen"
    yield from _sending(block, front)
    yield from (comment(reason, "    ") for reason in block.left)
    direct = bool(block.direct and front.folders)
    for number, rule in enumerate(block.static):
        nested = any(rule.prefix.startswith(f"{other.prefix}/") for other in block.static[number:])
        yield from _static(rule, front, apart=direct or nested)
    if block.static or block.check:
        yield from _pass(front, False, "@multisite")
    if block.check:
        yield from _check(block.check)
    yield from _pass(front, direct)
    yield "}"


def _redirect(begin: list[str], front: Front, block: Block) -> Iterator[str]:
    """Yield the server that redirects all requests but certificate challenges to HTTPS."""
    yield "server {"
    yield from begin
    yield from _settings(front, block.timeout)
    yield from _pass(front, False, f"^~ {CHALLENGES}")
    yield "    location / {"
    yield "        return 308 https://$host$request_uri;"
    yield "    }"
    yield "}"


def _rest(front: Front) -> Iterator[str]:
    yield "# All other hosts: sites that are newer than this file, and the page for unknown hosts."
    yield "server {"
    yield from _plain(front)
    yield "    server_name ~.;"
    log = quoted(f"{front.logs}/multisite.access.log")
    yield f"    access_log {log} combined;"
    if not front.blocks:
        yield "    # A domain has its own log if it has a folder here in which nginx's user may write."
        yield f"    root {quoted(f'{front.logs}/sites', '/$host')};"
        yield f"    access_log {quoted(f'{front.logs}/sites', '/$host/access.log')} combined;"
    yield from _settings(front, front.timeout)
    yield from _sending(front, front)
    yield from _pass(front, bool(front.folders and not front.blocks))
    yield "}"


def _plain(front: Front) -> Iterator[str]:
    for listen in front.listen or (Listen(port=80),):
        address = quoted(f"unix:{listen.path}") if listen.path else listen.address.removeprefix("*:")
        yield f"    listen {address};"


def _secure(certificate: tuple[str, str] | None) -> Iterator[str]:
    if certificate:
        yield "    listen 443 ssl http2;"
        yield f"    ssl_certificate {quoted(certificate[0])};"
        yield f"    ssl_certificate_key {quoted(certificate[1])};"


def _name(domain: str, native: frozenset[str]) -> str:
    return domain if _is_short(domain) and (domain in native or not is_pattern(domain)) else _regular(domain)


def _regular(domain: str) -> str:
    return f'"~^{expression(domain)}$"'


def _settings(front: Front, timeout: int) -> Iterator[str]:
    """Yield the settings of every location of a server, for multisite and for a site's own socket alike."""
    uwsgi = front.upstream.protocol == "uwsgi"
    word = "uwsgi" if uwsgi else "proxy"
    yield f"    client_max_body_size {_size(front.max_body)};"
    yield f"    {word}_connect_timeout 5s;"
    yield "    # request_timeout plus start_timeout and a margin, so that multisite can send the page that explains it"
    yield f"    {word}_read_timeout {timeout}s;"
    yield f"    {word}_send_timeout {timeout}s;"
    if front.nodes:
        yield from (comment(line, "    ") for line in AGAIN.splitlines())
        yield f"    {word}_next_upstream error timeout;"
        yield f"    {word}_next_upstream_timeout 12s;"
    else:
        yield f"    {word}_next_upstream off;  # no request is ever sent twice"
    if uwsgi:
        yield from (f"    uwsgi_param {name} {value};" for name, value in UWSGI.items())
        yield from (f'    uwsgi_param {key_of(name)} "" if_not_empty;' for name in front.claims)
        return
    yield "    proxy_http_version 1.1;"
    yield from (f"    proxy_set_header {name} {value};" for name, value in HEADERS.items())
    yield from (f'    proxy_set_header {name} "";' for name in front.claims)


def _sending(of: Block | Front, front: Front) -> Iterator[str]:
    """Yield what multisite may ask nginx to send, or a line that forbids it; these folders hold only public files."""
    ours = {each.prefix + each.path: each for each in of.sent if each.header == "X-Accel-Redirect"}.values()
    yield from (comment(reason, "    ") for reason in unsent(of.sent, "nginx", "X-Accel-Redirect"))
    if not ours and not of.app_send:
        word = "uwsgi" if front.upstream.protocol == "uwsgi" else "proxy"
        yield f"    {word}_ignore_headers X-Accel-Redirect;  # no site may name files for nginx to send"
    for each in ours:
        end = "" if each.is_file else "/"
        try:
            where, path = quoted(each.prefix + each.path, end), quoted(each.path, end)
            start = quoted(f"from={each.path}", end)
        except Unwritable as error:
            yield comment(f"nginx cannot send {each.path}: {error}. Remove static_send.", "    ")
            continue
        yield f"    location {'=' if each.is_file else '^~'} {where} {{"
        yield "        internal;"
        yield from [f"        disable_symlinks {LINKS[each.links]} {start};"] if each.links in LINKS else []
        yield f"        alias {path};"
        yield "    }"


def _size(size: int) -> str:
    return f"{size >> 20}m" if size and not size % 2**20 else str(size)


#: they replace the client's own headers, so no client can forge them
HEADERS = {
    "Host": "$host$multisite_port",
    "Upgrade": "$http_upgrade",
    "Connection": "$multisite_connection",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$host$multisite_port",
    "X-Forwarded-Port": "$server_port",
}
UWSGI = {
    "REQUEST_METHOD": "$request_method",
    "REQUEST_URI": "$request_uri",
    "PATH_INFO": "$document_uri",
    "QUERY_STRING": "$query_string",
    "CONTENT_TYPE": "$content_type",
    "CONTENT_LENGTH": "$content_length",
    "SERVER_PROTOCOL": "$server_protocol",
    "SERVER_NAME": "$host",
    "SERVER_PORT": "$server_port",
    "REMOTE_ADDR": "$remote_addr",
    "REMOTE_PORT": "$remote_port",
    "REQUEST_SCHEME": "$scheme",
    "UWSGI_SCHEME": "$scheme",
    "HTTPS": "$https if_not_empty",
    "HTTP_HOST": "$host$multisite_port",
    "HTTP_X_FORWARDED_FOR": "$remote_addr",
    "HTTP_X_FORWARDED_PROTO": "$scheme",
    "HTTP_X_FORWARDED_HOST": "$host$multisite_port",
    "HTTP_X_FORWARDED_PORT": "$server_port",
}


def _static(rule: Static, front: Front, apart: bool) -> Iterator[str]:
    """Yield a location for the files, and one for the rest of the prefix if that must not match further locations."""
    path = path_expression(rule.prefix)
    try:
        if rule.file:
            yield from _location(f"= {quoted(rule.prefix)}", quoted(rule.file), rule)
        elif rule.folders:
            yield from _location(f'~ "^{path}({rule.rest})$"', _each(rule.folders), rule)
    except Unwritable as error:
        apart = True
        yield comment(f"multisite serves {rule.prefix or '/'}: {error}.", "    ")
    if apart or not (rule.folders or rule.file):
        yield from _pass(front, False, f'~ "^{path}(?:/|$)"')


def _check(rule: Static) -> Iterator[str]:
    try:
        yield from _location(f'~ "^({rule.rest})$"', _each(rule.folders), rule)
    except Unwritable as error:
        yield comment(f"multisite serves the folders of check: {error}.", "    ")


def _location(where: str, tried: str, rule: Static) -> Iterator[str]:
    yield f"    location {where} {{"
    yield "        root /;"
    yield f"        try_files {tried} @multisite;"
    yield "        error_page 403 405 = @multisite;"
    yield from [f"        disable_symlinks {LINKS[rule.links]};"] if rule.links in LINKS else []
    if rule.expires is not None:
        yield f"        expires {f'{rule.expires}s' if rule.expires else 'epoch'};"
    yield "    }"


#: static_links → what nginx follows; multisite gets all other links, and follows those that lead inside
LINKS = {"none": "on", "inside": "on", "owner": "if_not_owner"}


def _each(folders: tuple[str, ...]) -> str:
    return " ".join(quoted(folder.rstrip("/"), "$1") for folder in folders)


def _pass(front: Front, direct: bool, where: str = "/") -> Iterator[str]:
    to = _dispatcher(front)
    yield f"    location {where} {{"
    if direct:
        folder = quoted(front.folders, "/$multisite_folder")
        socket = quoted(f"http://unix:{front.folders}", "/$multisite_folder/http.sock:")
        yield f'        set $multisite_to "{to}";'
        yield f"        if (-d {folder}) {{"
        yield f"            set $multisite_to {socket};"
        yield "        }"
        yield "        proxy_pass $multisite_to;"
    else:
        word = "uwsgi_pass" if front.upstream.protocol == "uwsgi" else "proxy_pass"
        yield f'        {word} "{to}";'
    yield "    }"


def _dispatcher(front: Front) -> str:
    """Return the address of the dispatcher, ready for double quotes."""
    upstream, scheme = front.upstream, "" if front.upstream.protocol == "uwsgi" else "http://"
    if front.nodes:
        return f"{scheme}{front.upstream_name}"
    if upstream.path:
        if upstream.path.startswith("\0") or ":" in upstream.path:
            raise Unwritable("nginx cannot connect to an abstract socket, or to one with a colon in its path")
        return f"{scheme}unix:{escaped(upstream.path)}{':' if scheme else ''}"
    return f"{scheme}{upstream.address}"
