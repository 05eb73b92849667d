"""Apache: virtual hosts that act as a proxy, or in which mod_wsgi runs multisite.

Apache takes the first virtual host that names a host, in the order of its files; https://httpd.apache.org/docs/2.4/vhosts/.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator

from multisite.cli.frontends.blocks import (
    CHALLENGES,
    UNDERSCORED,
    Block,
    Front,
    Listen,
    Static,
    Unwritable,
    comment,
    glob,
    has_control,
    has_label,
    path_expression,
    unsent,
)

HEAD = """\
# Save this file as sites-available/multisite.conf, then:
#     a2enmod {modules}
#     a2ensite multisite && apachectl configtest && systemctl reload apache2
# New sites work at once, without a reload; run the command again to give them their own rules.
"""
PROXY = """\
# Each connection to multisite carries one request and is then closed (disablereuse). This is fastest, since multisite
# can hand the connection over to the site. It is also safe: no site ever holds a connection that will carry a request
# for another site. retry=0: after a restart of multisite, the next request is tried at once.
"""
DIRECT = """\
# Requests go directly to a site whose own socket is open, with no Python in between. The socket is open while there is
# a folder with the name of the domain. Apache must be allowed to connect: put its user into the group of [supervisor]
# socket_group in moya.conf. All other requests go to multisite, which starts the sites, so no request is lost or sent
# twice.
"""
WSGI = """\
# mod_wsgi runs multisite in its own processes. {script} must contain:
#     import os
#     os.environ["MOYA_SERVICE_HOME"] = "{home}"
#     from multisite.service import application
# Create the virtualenv with the Python that mod_wsgi was built for.
WSGIDaemonProcess multisite user=www-data group=www-data processes=2 threads=8 python-home={prefix}
"""
LOG_FORMAT = r"%{Host}i %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\""

#: to HTTPS, with the path as it was sent; Apache adds the query. Certificate challenges are not redirected.
REDIRECT = (
    f'RewriteCond "%{{REQUEST_URI}}" "!^{path_expression(CHALLENGES)}"',
    'RewriteCond "%{THE_REQUEST}" "^[^ ]+ (?:[hH][tT][tT][pP][sS]?://[^/ ?]*)?(/[^ ?]*|)"',
    'RewriteRule "^" "https://%{SERVER_NAME}%1" [R=308,L,NE]',
)

_SPECIAL = re.compile(r'[\\"$%?*\[\]{}<>|]')


def render(front: Front) -> str:
    """Return the configuration, which consists of whole virtual hosts."""
    parts = [_head(front)]
    for block in front.blocks:
        parts += _hosts(block, front)
    if front.rest:
        rest = Block(
            "multisite",
            (),
            ("*",),
            timeout=front.timeout,
            log="multisite",
            direct=not front.blocks,
            sent=front.sent,
            app_send=front.app_send,
        )
        parts += [comment("All other hosts: sites that are newer than this file, and the page for unknown hosts.")]
        parts += _hosts(rest, front)
    return "\n".join(parts) + "\n"


def quoted(text: str) -> str:
    """Return `text` as one argument that every directive takes literally.

    Raises:
        Unwritable: Apache would give a part of it a special meaning.
    """
    if has_control(text) or _SPECIAL.search(text):
        raise Unwritable("it contains a character that has a special meaning for Apache")
    return f'"{text}"'


def _head(front: Front) -> str:
    uwsgi = front.upstream.protocol == "uwsgi"
    modules = "wsgi headers rewrite" if front.script else f"{'proxy_uwsgi' if uwsgi else 'proxy_http'} headers rewrite"
    modules += " ssl" if any(block.certificate for block in front.blocks) else ""
    text = comment(front.title) + "\n" + HEAD.format(modules=modules)
    if front.script:
        paths = {"script": front.script, "home": front.home, "prefix": quoted(sys.prefix)}
        text += "\n" + WSGI.format(**{key: comment(path)[2:] for key, path in paths.items()})
    else:
        text += "\n" + PROXY + ("\n" + DIRECT if front.folders else "")
    # Debian's ports.conf has the usual ports.
    listens = [f"Listen {_address(listen)}\n" for listen in front.listen if listen.port not in (80, 443)]
    return text + ("\n" + "".join(listens) if listens else "")


def _address(listen: Listen) -> str:
    if listen.path:
        raise Unwritable("Apache cannot listen on a unix socket")
    return listen.address.removeprefix("*:")


def _hosts(block: Block, front: Front) -> Iterator[str]:
    """Yield the virtual host of `block`, and a second one for TLS if there is a certificate."""
    plain = [listen.address for listen in front.listen] or ["*:80"]
    redirect = bool(front.redirect and block.certificate)
    ways: list[tuple[str, list[str], bool]] = [(" ".join(plain), [], redirect)]
    if block.certificate:
        chain, key = block.certificate
        tls = ["SSLEngine On", f"SSLCertificateFile {quoted(chain)}", f"SSLCertificateKeyFile {quoted(key)}"]
        ways.append(("*:443", tls, False))
    for addresses, tls, leads_away in ways:
        inside = _inside(block, front, leads_away)
        yield from map(comment, block.titles)
        yield f"<VirtualHost {addresses}>"
        yield from (f"    {line}" if line else "" for line in [*tls, *inside])
        yield "</VirtualHost>\n"


def _inside(block: Block, front: Front, leads_away: bool) -> Iterator[str]:
    globs = [glob(domain) for domain in block.domains]
    named = [each for each in globs if "*" not in each and ":" not in each]
    yield f"ServerName {named[0] if named else f'{block.log}.invalid'}"
    aliases = [each for each in globs if each not in named[:1]]
    for start in range(0, len(aliases), 50):  # a line holds some 8000 characters
        yield f"ServerAlias {' '.join(aliases[start : start + 50])}"
    yield f'CustomLog {quoted(f"{front.logs}/{block.log}.access.log")} "{LOG_FORMAT}"'
    yield f"LimitRequestBody {front.max_body}"
    # mod_proxy_uwsgi fails at a %2F; REQUEST_URI has the original path anyway.
    yield f"AllowEncodedSlashes {'On' if front.upstream.protocol == 'uwsgi' else 'NoDecode'}"
    yield "UseCanonicalName Off"
    yield "RewriteEngine On"
    if leads_away:
        yield from REDIRECT
    yield from (comment(reason) for reason in block.left)
    yield from _files(block, front)
    yield from _sending(block)
    yield from _wsgi(front) if front.script else _proxy(block, front)


def _files(block: Block, front: Front) -> Iterator[str]:
    if any(map(has_label, block.domains)):
        if block.static or block.check:
            yield comment(
                "multisite serves its files: an alias of Apache cannot express {name}, which is exactly one label."
            )
        return
    for rule in [*block.static, *([block.check] if block.check else [])]:
        path = path_expression(rule.prefix)
        if not rule.folders and not rule.file:
            yield f'RewriteRule "^{path}(?:/|$)" - [S={len(block.static)}]'
        try:
            yield from list(_static(rule, path))
        except Unwritable as error:
            yield comment(f"multisite serves {rule.prefix or '/'}: {error}.")


def _static(rule: Static, path: str) -> Iterator[str]:
    """Yield a rule for files that exist and that Apache itself would serve (-F), links included."""
    pairs = [(folder, "$1", f"^{path}({rule.rest})$") for folder in rule.folders]
    pairs += [(rule.file, "", f"^{path}$")] if rule.file else []
    for place, rest, pattern in pairs:
        to = quoted(place.rstrip("/"))[:-1] + rest + '"'
        yield 'RewriteCond "%{REQUEST_METHOD}" "^(GET|HEAD)$"'
        yield f"RewriteCond {to} -F"
        yield f'RewriteRule "{pattern}" {to} [L]'
        folder, file = (place, "") if rest else posixpath.split(place)
        yield from _allow(folder, rule, file)


#: static_links → what Apache follows; multisite gets all other links, and follows those that lead inside
LINKS = {"all": "FollowSymLinks", "owner": "SymLinksIfOwnerMatch"}


def _allow(folder: str, rule: Static, file: str = "") -> Iterator[str]:
    yield f"<Directory {quoted(folder)}>"
    yield "    AllowOverride None"
    yield f"    Options {LINKS.get(rule.links, 'None')}"
    indent = "    "
    if file:
        yield f"    <Files {quoted(file)}>"
        indent *= 2
    yield f"{indent}Require all granted"
    if rule.expires is not None:
        yield f'{indent}Header set Cache-Control "{f"max-age={rule.expires}" if rule.expires else "no-cache"}"'
    if file:
        yield "    </Files>"
    yield "</Directory>"


def _sending(block: Block) -> Iterator[str]:
    """Yield what multisite may ask Apache to send; only folders can be named, so a file's folder stands for it."""
    ours = [each for each in block.sent if each.header == "X-Sendfile"]
    yield from (comment(reason) for reason in unsent(block.sent, "Apache", "X-Sendfile"))
    if ours or block.app_send:
        yield comment("a2enmod xsendfile")
        yield "XSendFile On"
    for each in ours:
        try:
            yield f"XSendFilePath {quoted(each.folder)}"
        except Unwritable as error:
            yield comment(f"Apache cannot send {each.path}: {error}. Remove static_send.")


def _wsgi(front: Front) -> Iterator[str]:
    yield "WSGIPassAuthorization On"
    yield f"WSGIScriptAlias / {quoted(front.script)} process-group=multisite application-group=%{{GLOBAL}}"
    yield f"<Directory {quoted(posixpath.dirname(front.script))}>"
    yield f"    <Files {quoted(posixpath.basename(front.script))}>"
    yield "        Require all granted"
    yield "    </Files>"
    yield "</Directory>"


def _proxy(block: Block, front: Front) -> Iterator[str]:
    yield "ProxyPreserveHost On"
    yield comment(
        "request_timeout plus start_timeout and a margin, so that multisite can send the page that explains it"
    )
    yield f"ProxyTimeout {block.timeout}"
    yield comment("Forwarding headers sent by a client are removed; mod_proxy sets X-Forwarded-For and -Host.")
    gone = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Server", *front.claims, *UNDERSCORED)
    yield from (f"RequestHeader unset {name}" for name in gone)
    yield 'RequestHeader set X-Forwarded-Proto "expr=%{REQUEST_SCHEME}"'
    yield 'RequestHeader set X-Forwarded-Port "expr=%{SERVER_PORT}"'
    if front.folders and block.direct:
        socket = f'"unix:{quoted(front.folders)[1:-1]}/%{{SERVER_NAME}}/http.sock|http://%{{SERVER_NAME}}/$1"'
        yield 'RewriteCond "%{SERVER_NAME}" "^[a-z0-9_-][a-z0-9_.-]*$"'
        yield from (f'RewriteCond "%{{SERVER_NAME}}" "!=={domain}"' for domain in front.indirect)
        yield f'RewriteCond {quoted(front.folders)[:-1]}/%{{SERVER_NAME}}" -d'
        yield f'RewriteRule "^/(.*)$" {socket} [P,L]'
    # mod_proxy_uwsgi decodes its input; with nocanon that would include the query.
    uwsgi = front.upstream.protocol == "uwsgi"
    options = "retry=0 disablereuse=On" if uwsgi else "nocanon retry=0 disablereuse=On upgrade=websocket"
    if block.streams:
        yield comment("flushpackets: events arrive as they happen")
        options += " flushpackets=on"
    yield f'ProxyPass "/" "{_upstream(front)}" {options}'


def _upstream(front: Front) -> str:
    upstream = front.upstream
    if upstream.path:
        if upstream.path.startswith("\0"):
            raise Unwritable("Apache cannot connect to an abstract socket")
        return f"unix:{quoted(upstream.path)[1:-1]}|{upstream.protocol}://multisite/"
    return f"{upstream}/"
