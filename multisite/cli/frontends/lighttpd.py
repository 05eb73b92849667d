"""lighttpd: conditions on the host. lighttpd merges all that match, and the last one wins, as our last pattern does.

https://redmine.lighttpd.net/projects/lighttpd/wiki/Docs_Configuration
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

from multisite.cli.frontends.blocks import (
    CHALLENGES,
    UNDERSCORED,
    Block,
    Front,
    Static,
    Unwritable,
    comment,
    has_control,
    path_expression,
    unsent,
    without_check,
)
from multisite.config.domains import expression

HEAD = """\
# Save this file and include it in lighttpd.conf, or let lighttpd run the command at each start:
#     include_shell "{command}"
# then: lighttpd -tt -f /etc/lighttpd/lighttpd.conf && systemctl restart lighttpd
# New sites work at once, without a restart; run the command again to give them their own rules.
"""
MODULES = ("mod_alias", "mod_setenv", "mod_accesslog", "mod_proxy")
#: to HTTPS, for which lighttpd.conf has the certificates; certificate challenges are not redirected
REDIRECT = f"""\
    $HTTP["scheme"] == "http" {{
        $HTTP["url"] !~ "^{path_expression(CHALLENGES)}" {{
            $HTTP["host"] =~ "^([^:/]+|[[][0-9a-f:]+[]])(:[0-9]+)?$" {{
                url.redirect = ( "" => "https://%1${{url.path}}${{qsa}}" )
                url.redirect-code = 308
            }}
        }}
    }}
"""


def render(front: Front) -> str:
    """Return the configuration, which consists of whole conditions."""
    parts = [[comment(front.title) + "\n" + HEAD.format(command=comment(front.title)[2:].replace('"', "'"))]]
    parts.append(list(_everywhere(front)))
    parts += [list(_host(block, front)) for block in reversed(front.blocks)]
    if front.redirect:
        domains = ("*",) if front.rest else [domain for block in front.blocks for domain in block.domains]
        parts.append([_if_host(domains), *REDIRECT.splitlines(), "}"])
    return "\n".join("".join(f"{line}\n" for line in part).rstrip("\n") + "\n" for part in parts)


def quoted(text: str) -> str:
    """Return `text` as one string.

    Raises:
        Unwritable: lighttpd would give a part of it a special meaning.
    """
    if has_control(text) or re.search(r'[\\"$%]', text):
        raise Unwritable("it contains a character that has a special meaning for lighttpd")
    return f'"{text}"'


def _everywhere(front: Front) -> Iterator[str]:
    modules = (*MODULES, "mod_redirect") if front.redirect else MODULES
    yield "server.modules += ( " + ", ".join(f'"{name}"' for name in modules) + " )"
    for listen in front.listen:
        address = f"unix:{listen.path}" if listen.path else listen.address.replace("*", "0.0.0.0")
        yield f'$SERVER["socket"] == {quoted(address)} {{ }}'
    if front.rest:
        yield from _proxy(front)
    else:
        yield _if_host(domain for block in front.blocks for domain in block.domains)
        yield from (f"    {line}" for line in _proxy(front))
        yield "}"


def _if_host(domains: Iterable[str]) -> str:
    return f'$HTTP["host"] =~ "^({"|".join(map(expression, domains))})(:[0-9]+)?$" {{'


def _proxy(front: Front) -> Iterator[str]:
    yield f"server.max-request-size = {front.max_body // 1024}"
    yield f"accesslog.filename = {quoted(f'{front.logs}/multisite.access.log')}"
    yield comment("Forwarding headers sent by a client are removed: an empty field is not passed on.")
    yield "setenv.set-request-header = ("
    yield from (f'    "{name}" => "",' for name in ("X-Forwarded-For", "X-Forwarded-Port", *front.claims, *UNDERSCORED))
    yield ")"
    yield comment(
        "Each connection to multisite carries one request and is then closed. This is fastest, since multisite"
    )
    yield comment(
        "can hand the connection over to the site. It is also safe: no site ever holds a connection that will"
    )
    yield comment("carry a request for another site. The timeouts leave multisite time to send the page that explains")
    yield comment("why a site does not answer.")
    yield 'proxy.header = ( "upgrade" => "enable" )'
    timeouts = f'"connect-timeout" => 5, "read-timeout" => {front.timeout}, "disable-time" => 0'
    yield from (comment(reason) for reason in unsent(front.sent, "lighttpd", "X-Sendfile"))
    yield f'proxy.server = ( "" => ( ( {_upstream(front)}, {timeouts}{_sending(front)} ) ) )'


def _sending(front: Front) -> str:
    """Return the options with which multisite may ask lighttpd to send files from these folders."""
    folders = []
    for each in front.sent:
        if each.header == "X-Sendfile":
            with contextlib.suppress(Unwritable):
                folders.append(quoted(each.folder))
    return f', "x-sendfile" => "enable", "x-sendfile-docroot" => ( {", ".join(folders)} )' if folders else ""


def _upstream(front: Front) -> str:
    upstream = front.upstream
    if upstream.path:
        if upstream.path.startswith("\0"):
            raise Unwritable("lighttpd cannot connect to an abstract socket")
        return f'"socket" => {quoted(upstream.path)}'
    return f'"host" => "{upstream.host}", "port" => {upstream.port}'


def _host(block: Block, front: Front) -> Iterator[str]:
    yield from map(comment, block.titles)
    yield _if_host(block.domains)
    yield f"    accesslog.filename = {quoted(f'{front.logs}/{block.log}.access.log')}"
    if block.streams:
        yield "    server.stream-response-body = 1  # events arrive as they happen"
    yield from (comment(reason, "    ") for reason in block.left)
    if block.check:
        yield comment(
            "multisite serves the folders of check: lighttpd cannot pass a missing file on to the application.", "    "
        )
    rules = []
    for rule in block.static:
        try:
            rules += [_alias(rule, block)] if rule.folders or rule.file else []
        except Unwritable as error:
            yield comment(f"multisite serves {rule.prefix or '/'}: {error}.", "    ")
    yield "    alias.url = ("
    yield from (f"        {line}," for line, _ in rules)
    yield "    )"
    if rules:
        yield f'    $HTTP["url"] =~ "^({"|".join(path for _, path in rules)})$" {{'
        yield '        $HTTP["request-method"] =~ "^(GET|HEAD)$" {'
        yield "            proxy.server = ()"
        yield "        }"
        yield "    }"
    yield "}"


def _alias(rule: Static, block: Block) -> tuple[str, str]:
    """Return the alias, and the expression for its paths."""
    path = path_expression(rule.prefix)
    if rule.links != "all":
        raise Unwritable(without_check("lighttpd"))
    if any(other.prefix.startswith(f"{rule.prefix}/") and not other.folders for other in block.static):
        raise Unwritable("it serves a prefix below it")
    if len(rule.folders) > 1 or rule.expires is not None:
        raise Unwritable("it has several folders, or static_expires")
    if rule.file:
        return f'"{rule.prefix}" => {quoted(rule.file)}', path
    folder = rule.folders[0].rstrip("/") + "/"
    return f'"{rule.prefix}/" => {quoted(folder)}', f"{path}{rule.rest}"
