"""What is planned for front ends, and that no value of a site file can become a directive of one."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.cli.frontends import blocks, caddy, plan
from multisite.cli.frontends.blocks import Block, Front, Listen, Static, Unwritable
from multisite.config.domains import HostTable, check_pattern, compile_pattern, expression
from multisite.config.endpoint import Endpoint
from multisite.config.nodes import parse_machines
from multisite.config.site import Site
from multisite.dispatch.ask import PATH
from multisite.runner import requesthead

SERVERS = ("nginx", "apache", "lighttpd", "caddy", "haproxy")

# What could end a value, begin a directive, a comment, a variable or another line in one of the four grammars.
PIECES = [
    *"\"'`;{}$\\#<>%*?[]()|~@=,: \t\n\r\0\x1b\x85\u2028é語",
    "multisite_evil on",
    "multisite_evil",
    "${PATH}",
    "$host",
    "{env.HOME}",
    "{$HOME}",
    "%{HTTP_HOST}",
    "</VirtualHost>",
    "include",
    "import",
    "../",
    "a",
    "static",
    "/",
    '"; multisite_evil on; "',
    '"\nmultisite_evil on\n"',
    "` }\nmultisite_evil\n`",
    '" )\nmultisite_evil = ( "',
    "\\",
    '\\"',
]
hostile = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
domains = st.sampled_from(
    [
        "a.test",
        "b.test",
        "*.a.test",
        "{user}.test",
        "{*any}.b.test",
        "x*.test",
        "*",
        "[::1]",
        "é.test",
        "a" * 60 + ".test",
    ]
)
statics = st.dictionaries(
    hostile.map(lambda text: "/" + text) | st.sampled_from(["/s", "/", "/s/t", "check"]),
    st.lists(hostile.map(lambda text: "/" + text) | hostile, min_size=1, max_size=3).map(tuple),
    max_size=4,
)


def site(name: str, *domains: str, **more: object) -> Site:
    """A site of these domains, which are brought into their normal form."""
    return Site(f"/etc/moya/{name}.ini", name=name, domains=tuple(map(check_pattern, domains)), **more)  # type: ignore[arg-type]


def sites(*made: Site, files: tuple[str, ...] = ()) -> plan.Sites:
    claims: dict[tuple[str, str], str] = {}
    for each in made:
        for domain in each.domains:
            claims.setdefault((domain, each.mount), each.name)
    return plan.Sites(claims, {each.name: each for each in made}, is_file=files.__contains__)


def rendered(server: str, front: Front) -> str:
    text: str = importlib.import_module(f"multisite.cli.frontends.{server}").render(front)
    return text


@st.composite
def many(draw: st.DrawFn, least: int = 1) -> plan.Sites:
    """A handful of sites with everything in them that somebody could write."""
    made = [
        site(
            f"site{number}",
            *draw(st.lists(domains, min_size=1, max_size=3, unique=True)),
            mount=draw(st.sampled_from(["/", "/api", "/\"m;{$}'"])),
            static=draw(statics),
            redirect_to_canonical=draw(st.booleans()),
            static_send=draw(
                st.sampled_from(["", "x-sendfile", "x-accel-redirect /f", 'x-accel-redirect /"multisite_evil;{$}'])
            ),
        )
        for number in range(draw(st.integers(least, 6)))
    ]
    paths = [path for each in made for found in each.static.values() for path in found]
    return sites(*made, files=tuple(draw(st.lists(st.sampled_from(paths), max_size=3)) if paths else ()))


def front_of(planned: plan.Sites, **more: object) -> Front:
    return Front("test", plan.blocks(planned), listen=(Listen("127.0.0.1", 8080),), **more)  # type: ignore[arg-type]


@given(planned=many())
def test_a_value_stays_on_its_line_and_within_its_quotes(planned: plan.Sites) -> None:
    """Outside quotes and comments, nothing stands in the rules that a site's file said but its domains and name.

    The same sites give the same text, whenever it is made.
    """
    for server in SERVERS:
        text = rendered(server, front_of(planned))
        assert text == rendered(server, front_of(planned))
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)
        for line in text.split("\n"):
            bare = line.lstrip()
            if not bare.startswith("#"):
                assert "multisite_evil" not in outside_quotes(server, bare), (server, line)


def outside_quotes(server: str, line: str) -> str:
    """The parts of a line that the server does not take as text; the grammar's own escapes are honoured."""
    quote = {"caddy": "`", "haproxy": "'"}.get(server, '"')
    pattern = r'"(?:[^"\\]|\\.)*"' if quote == '"' else f"{quote}[^{quote}]*{quote}"
    rest = re.sub(pattern, "", line)
    assert quote not in rest, line
    return rest


#: what each server takes for something else, even within quotes; HAProxy serves no files
SPECIAL = {
    "nginx": "$",
    "apache": '\\"$%?*[]{}<>|',
    "caddy": "{`",
    "lighttpd": '\\"$%',
    "haproxy": "",
}  # HAProxy serves no files


@pytest.mark.parametrize(("server", "special"), [(server, each) for server in SERVERS for each in SPECIAL[server]])
def test_a_path_that_a_server_would_take_for_something_else_is_left_to_us(server: str, special: str) -> None:
    """In a folder and in a file; in the name of a site, too, which stands in comments alone."""
    odd = f"/srv/odd{special}1}}"
    static = {"/s": (odd,), "/f": (odd + "f",), "check": (odd,)}
    planned = sites(site(f"odd{special}1}}", "a.test", static=static, static_links="all"), files=(odd + "f",))
    lines = [line.lstrip() for line in rendered(server, front_of(planned)).split("\n")]
    assert not [line for line in lines if f"odd{special}" in line and not line.startswith("#")]
    left = [line for line in lines if "multisite" in line and line.startswith("#")]
    assert sum("multisite serves" in line for line in left) == 3, left
    assert "{$" not in "\n".join(lines) or server != "caddy"


def test_caddy_finds_no_variable_in_a_comment() -> None:
    assert "{$" not in caddy.comment("an odd {$HOME}")


@pytest.mark.parametrize("word", ["default", "hostnames", "include", "volatile"])
def test_a_domain_may_be_a_word_of_nginx_maps(word: str) -> None:
    """Which mean something there even in quotes."""
    front = Front("test", folders="/run/domains", indirect=(word, "other.test"))
    inside = rendered("nginx", front).partition("map $host $multisite_folder {")[2].partition("\n}")[0].split("\n")
    assert sum(line.split()[:1] == ["default"] for line in inside) == 1
    assert any(line.split()[:1] == ["other.test"] for line in inside)
    assert any(line.split()[:1] == [f'"~^{word}$"'] for line in inside)


# --- names ----------------------------------------------------------------------------------------------------------

hosts = st.from_regex(r"([a-c]{1,2}\.){0,3}(test|org)", fullmatch=True)
patterns = st.lists(
    st.sampled_from(["*.test", "*.a.test", "*.b.a.test", "{user}.test", "{*x}.a.test", "*a.test", "*", "*.org", "b.*"]),
    min_size=1,
    unique=True,
)


@given(domain=st.sampled_from(["*.test", "a.test", "{user}.a.test", "{*x}.a.test", "*a.test", "*", "b.*"]), host=hosts)
def test_expressions_match_the_hosts_of_their_domain(domain: str, host: str) -> None:
    """An expression of ours matches just what the dispatcher's does."""
    ours = re.fullmatch(expression(domain), host)
    assert bool(ours) == bool(compile_pattern(domain).match(host))


@given(registered=patterns, host=hosts)
def test_a_wildcard_is_one_that_nothing_later_overrules(registered: list[str], host: str) -> None:
    """As nginx looks it up (the longest wildcard, then the first expression), the pattern registered last wins."""
    native = blocks.undisputed(registered)
    wild = [pattern for pattern in native if host.endswith(pattern[1:])]
    expressions = [p for p in reversed(registered) if p not in native and compile_pattern(p).match(host)]
    chosen = max(wild, key=len) if wild else expressions[0] if expressions else ""
    found = HostTable([(pattern, None) for pattern in registered]).lookup(host)
    assert chosen == (found[0].domain if found else "")


def test_an_address_is_no_set_of_characters() -> None:
    assert expression("[::1]") == "[[]::1[]]"


# --- blocks ---------------------------------------------------------------------------------------------------------


def only(planned: plan.Sites) -> Block:
    (block,) = plan.blocks(planned)
    return block


def test_domains_served_alike_share_a_block() -> None:
    """Mounts, patterns and redirects part them; exact ones stand before patterns, the last pattern first."""
    blog = site("blog", "blog.test", "www.blog.test", "*.blog.test")
    api = site("api", "blog.test", "{user}.test", mount="/api")
    found = [(block.domains, block.sites) for block in plan.blocks(sites(blog, api))]
    assert found == [
        (("blog.test",), (("/api", "api"), ("/", "blog"))),
        (("www.blog.test",), (("/", "blog"),)),
        (("{user}.test",), (("/api", "api"),)),
        (("*.blog.test",), (("/", "blog"),)),
    ]
    assert [block.name for block in plan.blocks(sites(blog, api), {"api"})] == ["blog", "api"]


def test_redirected_domains_have_no_files() -> None:
    """The dispatcher redirects their static paths too."""
    canonical, other = plan.blocks(
        sites(site("blog", "blog.test", "www.test", static={"/s": ("/srv/s",)}, redirect_to_canonical=True))
    )
    assert (canonical.domains, other.domains) == (("blog.test",), ("www.test",))
    assert canonical.static and not other.static
    assert canonical.direct and not other.direct


STATIC: Mapping[str, tuple[str, ...]] = {"/s": ("/srv/s",)}


@pytest.mark.parametrize(
    ("mount", "rules", "left"),
    [
        ("/s", 0, 0),  # the other site has it all
        ("/s/t", 0, 1),  # the other site is beneath it
        ("/t", 1, 0),
        ("/st", 1, 0),
    ],
)
def test_another_mount_takes_what_is_its_own(mount: str, rules: int, left: int) -> None:
    """A rule is made only where no other site could answer."""
    block = only(sites(site("a", "a.test", static=STATIC), site("b", "a.test", mount=mount)))
    assert (sum(bool(rule.folders) for rule in block.static), len(block.left)) == (rules, left)
    assert not block.direct


@pytest.mark.parametrize("prefix", ["/a b", "/é", "/a//b", "/a/../b", "/a\n", "/$x", '/"', "/a;b", "/%61"])
def test_a_prefix_that_is_not_plain_is_left_to_us(prefix: str) -> None:
    block = only(sites(site("a", "a.test", static={prefix: ("/srv/s",)})))
    assert not block.static and len(block.left) == 1
    assert not block.direct


@pytest.mark.parametrize(
    "more",
    [{"static_types": (".md text/plain",)}, {"static_send": "x-sendfile"}, {"static_expires": ("*.css 1d", "5m")}],
)
def test_what_only_we_can_do_is_left_to_us(more: dict[str, object]) -> None:
    block = only(sites(site("a", "a.test", static={**STATIC, "check": ("/srv/p",)}, **more)))
    assert [rule.folders for rule in block.static] == [()] and block.check is None
    assert len(block.left) == 2


def test_a_hosting_site_has_no_rules() -> None:
    """Its paths are other ones for each host."""
    block = only(sites(site("a", "a.test", location="/srv/%HOST", static={"/s": ("/srv/%HOST/s",), "check": ("/p",)})))
    assert not block.static and not block.check and len(block.left) == 1
    assert not block.direct


def test_a_prefix_in_two_spellings_is_one() -> None:
    block = only(sites(site("a", "a.test", static={"/s": ("/srv/1",), "/s/": ("/srv/2",)}, static_expires=("5m",))))
    assert [(rule.prefix, rule.folders, rule.expires) for rule in block.static] == [("/s", ("/srv/1", "/srv/2"), 300)]


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize(
    ("path", "plain"),
    [
        *[("/a.css", 1), ("/a/b", 1), ("/.git/x", 0), ("/a/.x", 0), ("/..x/...", 0), ("", 2), ("/", 2), ("/a/", 2)],
        *[("//a", 2), ("/..", 2), ("/.", 2), ("/../a", 2), ("/a/../b", 2), ("/a/./b", 2), ("/a/..", 2)],
    ],
)
def test_a_rule_is_for_plain_paths(hidden: bool, path: str, plain: int) -> None:
    """Names that begin with a dot are served where the site says so; folders are ours."""
    rule = Static("/s", ("/srv/s",), hidden=hidden)
    assert bool(re.fullmatch(rule.rest, path)) == (plain == 1 or (plain == 0 and hidden))


def test_prefixes_are_ordered_and_carry_their_mount() -> None:
    static = {"/s": ("/srv/s",), "/s/big/": ("/srv/b",), "/": ("/srv/all",), "/x.ico": ("/srv/x.ico",)}
    block = only(sites(site("a", "a.test", mount="/api", static=static), files=("/srv/x.ico",)))
    assert [rule.prefix for rule in block.static] == ["/api/s/big", "/api/x.ico", "/api/s", "/api"]
    assert block.static[1].file == "/srv/x.ico"


def test_the_front_end_waits_longer_than_we() -> None:
    """So the page that says what went wrong is ours; a site without a limit is waited for all day."""
    assert only(sites(site("a", "a.test", request_timeout=60.0, start_timeout=30.0))).timeout == 95
    assert only(sites(site("a", "a.test", request_timeout=0.0))).timeout > 86400


def test_who_may_be_had_directly() -> None:
    """A site that answers everything of an exact domain over HTTP, its folders aside."""
    made = sites(
        site("plain", "plain.test", "*.plain.test"),
        site("check", "check.test", static={"check": ("/srv/p",)}),
        site("files", "files.test", static=STATIC),
        site("uwsgi", "uwsgi.test", protocol="uwsgi"),
    )
    assert [block.name for block in plan.blocks(made) if block.direct] == ["plain", "files"]
    assert plan.indirect(made) == ("check.test", "files.test", "uwsgi.test")


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [("80", "*:80"), (":80", "*:80"), ("*:80", "*:80"), ("127.0.0.1:8080", "127.0.0.1:8080"), ("[::1]:80", "[::1]:80")],
)
def test_listen(text: str, address: str) -> None:
    assert Listen.parse(text).address == address


@pytest.mark.parametrize("text", ["", "x", "80;", "127.0.0.1", "1:2:3", "unix:x", "70000", "a b:80", "80\n", "*"])
def test_listen_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        Listen.parse(text)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["/run/a b.sock", "/run/multisite.sock"])
def test_an_upstream_may_be_a_unix_socket(server: str, path: str) -> None:
    assert path in rendered(server, Front("test", upstream=Endpoint("http", path=path)))


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["/run/$x", '/run/"`', "/run/\n", "\0abstract"])
def test_an_upstream_that_cannot_be_written_is_refused(server: str, path: str) -> None:
    if (server, path) in {("caddy", "/run/$x"), ("nginx", '/run/"`'), ("haproxy", '/run/"`')}:
        assert "/run/" in rendered(server, Front("test", upstream=Endpoint("http", path=path)))
        return
    with pytest.raises(Unwritable):
        rendered(server, Front("test", upstream=Endpoint("http", path=path)))


@pytest.mark.parametrize("server", SERVERS)
def test_only_some_sites(server: str) -> None:
    """Without the rest, no other host is touched."""
    planned = sites(site("a", "a.test"), site("b", "b.test"))
    text = rendered(server, replace(Front("test"), blocks=plan.blocks(planned, {"b"}), rest=False))
    assert "b.test" in text or "b[.]test" in text
    assert "a.test" not in text and "a[.]test" not in text
    assert "All other hosts" not in text


@pytest.mark.parametrize("server", SERVERS)
def test_the_status_pages_have_rules_whatever_site_claims_their_domain(server: str) -> None:
    planned = replace(sites(site("a", "a.test", "status.test"), site("b", "*.test")), status="status.test")
    status, *others = plan.blocks(planned)
    assert (status.domains, status.static, status.direct) == (("status.test",), (), False)
    assert [each.domains for each in others] == [("a.test",), ("*.test",)]
    assert "the status pages" in rendered(server, front_of(planned))
    assert plan.indirect(planned)[0] == "status.test"
    assert not [each for each in plan.blocks(planned, {"a"}) if each.streams]


# --- the documentation ----------------------------------------------------------------------------------------------

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"


def example(server: str) -> str:
    """What the pages show: one site, of the home /etc/moya."""
    blog = site("blog", "blog.example.com", "www.example.com", static={"/static": ("/srv/blog/static",)})
    logs = {"apache": "/var/log/apache2"}.get(server, f"/var/log/{server}")
    title = f"multisite --home /etc/moya create-rules --{server}"
    front = Front(title, plan.blocks(sites(blog)), max_body=100 * 2**20, logs=logs, ask="http://127.0.0.1:8000" + PATH)
    return rendered(server, front)


@pytest.mark.parametrize("server", SERVERS)
def test_the_pages_show_what_the_command_prints(server: str) -> None:
    """The example of docs/deploy/SERVER.md is the command's own; when it changes, paste it there again."""
    page = (DEPLOY / f"{server}.md").read_text()
    assert example(server).strip() in page, f"docs/deploy/{server}.md should show:\n\n{example(server)}"


@pytest.mark.parametrize(
    ("version", "says", "not_known"),
    [
        ((), "request_buffers 1MiB", "buffer_requests"),
        ((2, 10, 0), "request_buffers 1MiB", "buffer_requests"),
        ((2, 6, 2), "max_buffer_size 1048576", "request_buffers"),
    ],
)
def test_caddy_waits_for_slow_clients_in_the_words_of_its_version(
    version: tuple[int, ...], says: str, not_known: str
) -> None:
    text = rendered("caddy", replace(front_of(sites(site("blog", "blog.test"))), caddy=version))
    assert says in text
    assert not_known not in text


@pytest.mark.parametrize(("version", "handlers"), [((), 2), ((2, 7, 0), 2), ((2, 6, 2), 8)])
def test_sites_share_the_health_checks_of_caddy(version: tuple[int, ...], handlers: int) -> None:
    """Each handler has its own, and versions before 2.7 need one for each place that passes a request on."""
    made = [site(f"site{number}", f"site{number}.test") for number in range(6)]
    made.append(site("slow", "slow.test", request_timeout=500.0))
    text = rendered("caddy", front_of(sites(*made), caddy=version, nodes=parse_machines(["10.0.0.1:1"])))
    assert text.count("import multisite ") == handlers
    assert text.count("invoke multisite-") == (8 if handlers == 2 else 0)


SENDING = {"nginx": "x-accel-redirect /files", "apache": "x-sendfile", "lighttpd": "x-sendfile"}
NAMED = {
    "nginx": 'location ^~ "/files/srv/blog/static/" {',
    "apache": 'XSendFilePath "/srv/blog/static"',
    "lighttpd": '"x-sendfile-docroot" => ( "/srv/blog/static" )',
}


@pytest.mark.parametrize("server", SENDING)
def test_a_front_end_may_send_from_the_folders_that_are_named(server: str) -> None:
    """Those of sites with static_send, in their own blocks and in the one for all hosts; no other site names files."""
    blog = site("blog", "blog.test", static={"/static": ("/srv/blog/static/",)}, static_send=SENDING[server])
    planned = sites(blog, site("wiki", "wiki.test"))
    text = rendered(server, replace(front_of(planned), sent=plan.sent(planned, planned.sites)))
    assert text.count(NAMED[server]) == (1 if server == "lighttpd" else 2)
    if server == "nginx":
        assert text.count("proxy_ignore_headers X-Accel-Redirect;") == 1
        obeys = sites(site("wiki", "wiki.test", app_send=True))
        assert rendered(server, front_of(obeys)).count("proxy_ignore_headers X-Accel-Redirect;") == 1  # all other hosts


@pytest.mark.parametrize(
    ("server", "header"), [("nginx", "x-sendfile"), ("apache", "x-accel-redirect /f"), ("caddy", "x-sendfile")]
)
def test_a_header_that_the_server_does_not_know_is_named(server: str, header: str) -> None:
    """Else the site's files would come empty without a reason."""
    blog = site("blog", "blog.test", static={"/static": ("/srv/blog/static",)}, static_send=header)
    assert "does not support" in rendered(server, front_of(sites(blog)))


def test_front_ends_take_away_every_field_that_only_a_trusted_peer_may_send() -> None:
    """The runner's list is the one; here is how each field is spelled."""
    written = {"HTTP_" + name.upper().replace("-", "_") for name in (*blocks.CLAIMS, *blocks.UNDERSCORED)}
    family = {key for key in written if key.startswith(requesthead.FAMILY)}
    assert written - family == requesthead.CLAIMS | {requesthead.PROXY}
