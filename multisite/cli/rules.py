"""``multisite create-rules``: configurations for front ends."""

from __future__ import annotations

import importlib
import os
import shlex
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from multisite.cli import complete
from multisite.cli.group import fail, fenced
from multisite.cli.output import printable, say, say_json, waiting
from multisite.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from multisite.cli.frontends.blocks import Block, Front, Listen
    from multisite.cli.frontends.plan import Sites
    from multisite.config.endpoint import Endpoint
    from multisite.config.nodes import Machine

SERVERS = ("nginx", "apache", "lighttpd", "caddy", "haproxy")
LOGS = {server: f"/var/log/{server}" for server in SERVERS} | {"apache": "/var/log/apache2"}

UPSTREAM = "127.0.0.1:8000"
LONGEST_TITLE = 1000  # nginx reads no line, comments included, that is longer than 4,096 bytes
DISTRIBUTING = ("nginx", "haproxy", "caddy")
CHECKING = ("haproxy", "caddy")

CERTIFICATE = ("fullchain.pem", "privkey.pem")  # certbot's names for the chain and the key

EPILOG = """\b
Examples:
  multisite create-rules --nginx --check > /etc/nginx/conf.d/multisite.conf
  multisite create-rules --apache --output /etc/apache2/sites-available/multisite.conf
  multisite create-rules --nginx --direct --upstream unix:/run/multisite.sock
  multisite create-rules --nginx --tls /etc/letsencrypt/live --redirect
  multisite create-rules --caddy blog shop
  multisite create-rules --haproxy --output /etc/haproxy/multisite.cfg
  multisite create-rules --haproxy --nodes 10.0.0.1:8000,10.0.0.2:8000=2
"""


@click.command(
    "create-rules", epilog=EPILOG, short_help="Print a configuration for nginx, Apache, lighttpd, Caddy or HAProxy."
)
@click.option("--nginx", "-n", "server", flag_value="nginx", help="Print server blocks for nginx.")
@click.option("--apache", "-a", "server", flag_value="apache", help="Print virtual hosts for Apache.")
@click.option("--lighttpd", "-l", "server", flag_value="lighttpd", help="Print conditions for lighttpd.")
@click.option("--caddy", "server", flag_value="caddy", help="Print a Caddyfile.")
@click.option("--haproxy", "server", flag_value="haproxy", help="Print a proxy for HAProxy.")
@click.option(
    "--listen", multiple=True, metavar="ADDRESS", help="Where the server listens: PORT or HOST:PORT.  [default: 80]"
)
@click.option(
    "--upstream",
    metavar="ADDRESS",
    help=f"Where gunicorn listens: HOST:PORT or unix:/PATH.  [default: [cluster] nodes, or else {UPSTREAM}]",
)
@click.option(
    "--nodes",
    metavar="A:PORT,B:PORT[=WEIGHT],...",
    help="nginx, HAProxy, Caddy: distribute the hosts among these machines.  [default: [cluster] nodes of moya.conf]",
)
@click.option(
    "--bounded",
    type=click.FloatRange(1.01, 100),
    metavar="FACTOR",
    help="HAProxy: no node has more requests at once than FACTOR times the mean; the rest go to other nodes.",
)
@click.option("--generic", is_flag=True, help="Print one block for all domains, for present and future sites.")
@click.option("--direct", is_flag=True, help="Connect directly to sites that have their own processes.")
@click.option("--uwsgi", is_flag=True, help="Speak uwsgi with the upstream instead of HTTP.")
@click.option("--wsgi", is_flag=True, help="Apache: let mod_wsgi run multisite instead of an upstream.")
@click.option("--logs", metavar="DIR", help="Folder of the access logs.  [default: /var/log/nginx, …]")
@click.option("--max-body", default="100M", show_default=True, metavar="SIZE", help="Largest request; 0: no limit.")
@click.option(
    "--tls",
    metavar="DIR",
    help="Certificates: DIR/DOMAIN/fullchain.pem and privkey.pem; HAProxy: DIR/DOMAIN.pem.",
)
@click.option("--redirect", is_flag=True, help="With --tls: redirect visitors from port 80 to 443.")
@click.option("--check", is_flag=True, help="Let the server check the syntax; if it finds an error, print no rules.")
@click.option("--output", "-o", metavar="FILE", help="Replace FILE in one step instead of printing.")
@click.argument("names", metavar="[SITE]...", nargs=-1, shell_complete=complete.sites)
@pass_session
def create_rules(session: Session, /, server: str | None, *, check: bool, output: str | None, **asked: Any) -> None:
    """Print the configuration of a web server in front of multisite: one block for each group of domains.

    The web server serves static files itself and passes all other requests to multisite, which listens at --upstream.
    With SITE, the command prints only the blocks of these sites. Comments explain each part.
    """
    from multisite.cli.frontends.blocks import Unwritable

    if not server:
        raise click.UsageError(f"name the server: --{', --'.join(SERVERS)}")
    render: Callable[[Front], str] = importlib.import_module(f"multisite.cli.frontends.{server}").render
    try:
        asking = Asked(session, server, **asked)
        front = asking.front()
        text = render(front)
    except Unwritable as error:
        fail(f"no rules for {server}: {error}")
    lacking = [*asking.unpinned, *_without_certificate(server, front, asked["tls"])]
    for sentence in lacking:
        say(f"warning: {sentence}", err=True)
    checked = _check(server, front, render) if check else None
    action = _write(output, text) if output else ""
    if session.as_json:
        document = {"server": server, "rules": text, "checked": checked, "output": output, "action": action}
        return say_json({**document, "warnings": lacking})
    if output:
        say(f"{action} {output}")
    else:
        click.echo(text.encode(), nl=False)


class Asked:
    """The request of the command line."""

    def __init__(
        self,
        session: Session,
        server: str,
        *,
        names: Sequence[str],
        listen: Sequence[str],
        upstream: str | None,
        nodes: str | None,
        bounded: float | None,
        generic: bool,
        direct: bool,
        uwsgi: bool,
        wsgi: bool,
        logs: str | None,
        max_body: str,
        tls: str | None,
        redirect: bool,
    ) -> None:
        self._session = session
        self._server = server
        self._names = {session.enabled_site(name).name for name in names}
        self._listen, self._upstream, self._max_body = listen, upstream, max_body
        self._generic, self._direct, self._uwsgi, self._wsgi = generic, direct, uwsgi, wsgi
        self._logs, self._tls, self._redirect = logs, tls, redirect
        self._listed, self._bounded = nodes, bounded
        self._nodes = self._machines()
        self.unpinned: list[str] = []  # what is to be said of sites whose nodes the rules do not follow
        self._refuse_nonsense()
        self._refuse_nodes()

    def _refuse_nonsense(self) -> None:
        clashes = {
            "--generic is for all sites; omit either --generic or SITE": self._generic and self._names,
            "--direct bypasses the server that --uwsgi and --wsgi are for; omit one of them": self._direct
            and (self._uwsgi or self._wsgi),
            "--wsgi works only with Apache": self._wsgi and self._server != "apache",
            f"--direct: {self._server} cannot check whether a site's socket is there": self._direct
            and self._server in ("lighttpd", "haproxy"),
            "--logs: haproxy logs to syslog, as its global section says": self._logs and self._server == "haproxy",
            f"--uwsgi: {self._server} does not speak it": self._uwsgi
            and self._server in ("lighttpd", "caddy", "haproxy"),
            "--tls: these rules have no certificates for lighttpd; set ssl.pemfile in lighttpd.conf": self._tls
            and self._server == "lighttpd",
            f"--tls: {self._server} gets its certificates itself": self._tls and self._server == "caddy",
            f"--redirect: {self._server} redirects visitors to HTTPS by itself": self._redirect
            and self._server == "caddy",
            "--tls needs a block for each domain, but --generic has one for all; omit one of them": self._tls
            and self._generic,
            "--redirect leads to HTTPS; give the folder of the certificates with --tls": self._redirect
            and not self._tls
            and self._server in ("nginx", "apache", "haproxy"),
        }
        for sentence, wrong in clashes.items():
            if wrong:
                raise click.UsageError(sentence)

    def _machines(self) -> tuple[Machine, ...]:
        """Return the nodes of the command line or of moya.conf, () if there is one server."""
        from multisite.cluster.nodes import machines
        from multisite.config.nodes import parse_machines

        if self._listed is None:
            return () if self._upstream or self._wsgi else machines(self._session.home)
        try:
            return parse_machines(filter(None, map(str.strip, self._listed.split(","))))
        except ValueError as error:
            _usage("--nodes", self._listed, error)

    def _refuse_nodes(self) -> None:
        """Refuse what is impossible with several nodes, or without."""
        home = self._session.home
        whose = "--nodes" if self._listed is not None else f"{home.file}: [cluster] nodes"
        one = "name one server with --upstream" if self._listed is None else "omit --nodes"
        clashes = {
            "--upstream is one server, and --nodes are several; omit one of them": self._listed is not None
            and self._upstream,
            f"{whose}: these rules distribute hosts only with nginx, HAProxy and Caddy; use one of these, or {one}": (
                self._nodes and self._server not in DISTRIBUTING
            ),
            f"--direct leads to sockets of this machine, but {whose} are several; omit --direct, or {one}": self._nodes
            and self._direct,
            f"--bounded: {self._server} cannot limit the requests of a node; only HAProxy can": self._bounded
            and self._server != "haproxy",
            "--bounded limits the requests of nodes; list them with --nodes": self._bounded and not self._nodes,
            "--nodes: no node is listed": self._listed is not None and not self._nodes,
        }
        for sentence, wrong in clashes.items():
            if wrong:
                raise click.UsageError(sentence)
        if self._nodes and self._server in CHECKING and not home.service.status_domain:
            fail(
                f"no rules for {self._server}: it asks each node for /health, but {home.file}: [service] status_domain "
                "is not set; write status_domain = status.example.com there on each node"
            )

    def front(self) -> Front:
        """Return the view of the sites for the renderers."""
        from multisite.cli.frontends import plan, syntax
        from multisite.cli.frontends.blocks import Front

        session, home = self._session, self._session.home
        sites = self._sites()
        upstream = self._endpoint()
        direct = self._direct
        front = Front(
            title=self._title(),
            blocks=() if self._generic else plan.blocks(sites, self._names),
            rest=not self._names,
            listen=tuple(map(self._address, self._listen)),
            upstream=upstream,
            timeout=plan.timeout(sites.sites.values()),
            max_body=self._size(),
            logs=os.path.abspath(self._logs or LOGS[self._server]),
            folders=os.path.join(home.runtime_dir, "domains") if direct else "",
            indirect=plan.indirect(sites) if direct and self._generic else (),
            host_header=home.service.host_header,
            script=os.path.join(session.home.path, "multisite.wsgi") if self._wsgi else "",
            home=home.path,
            ask=self._ask(upstream),
            sent=plan.sent(sites, sites.sites),
            app_send=any(site.app_send for site in sites.sites.values()),
            redirect=self._redirect,
            certificates=os.path.abspath(self._tls) if self._tls else "",
            caddy=syntax.version_of_caddy() if self._server == "caddy" else (),
            nodes=self._nodes,
            status_host=home.service.status_domain,
            bounded=self._bounded or 0.0,
        )
        self.unpinned = _unpinned(sites, front, self._names) if self._nodes else []
        return front

    def _ask(self, upstream: Endpoint) -> str:
        """Return the address at which the dispatcher answers whether a host is ours, "" if it has none."""
        from multisite.dispatch import ask

        if self._nodes:
            return ""
        host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
        if host not in ask.LOOPBACK or self._session.catalogue.claims(host):
            return ""
        return f"http://{host}:{upstream.port}{ask.PATH}"

    def _sites(self) -> Sites:
        from multisite.cli.frontends.plan import Sites
        from multisite.config.model import Site
        from multisite.dispatch.statushost import domain_of

        session, catalogue = self._session, self._session.catalogue
        broken = {name for name, entry in catalogue.entries.items() if entry.broken}

        def without_rules(name: str, reason: str) -> Site:
            say(f"multisite: no rules for the site {name}: {reason}", err=True)
            broken.add(name)
            return Site(catalogue.sites[name].path, name)

        sites = {
            name: fenced(session, name, partial(catalogue.site, name), partial(without_rules, name))
            for name in catalogue.entries
        }
        return Sites(
            catalogue.owners, sites, broken, os.path.isfile, self._certificate, self._nodes, domain_of(catalogue.home)
        )

    def _certificate(self, domain: str) -> tuple[str, str] | None:
        if not self._tls:
            return None
        chain, key = _certificate_files(self._server, self._tls, domain)
        return (chain, key) if os.path.isfile(chain) and os.path.isfile(key) else None

    def _endpoint(self) -> Endpoint:
        from multisite.config.endpoint import Endpoint

        text = (self._upstream or UPSTREAM).replace(
            "localhost:", "127.0.0.1:", 1
        )  # the name has two addresses, and we listen on one
        try:
            return Endpoint.parse(text, "uwsgi" if self._uwsgi else "http")
        except ValueError as error:
            _usage("--upstream", text, error)

    def _address(self, text: str) -> Listen:
        from multisite.cli.frontends.blocks import Listen

        try:
            return Listen.parse(text)
        except ValueError as error:
            _usage("--listen", text, error)

    def _size(self) -> int:
        from multisite.config.values import size

        try:
            return int(size(self._max_body))
        except ValueError as error:
            _usage("--max-body", self._max_body, error)

    def _title(self) -> str:
        """Return the command line that prints the same rules again, cut where nginx could not read its line."""
        title = f"multisite {shlex.join(['--home', self._session.home.path])} create-rules {shlex.join(self._words())}"
        return title if len(title) <= LONGEST_TITLE else f"{title[:LONGEST_TITLE]}..."

    def _words(self) -> list[str]:
        """Return the arguments that differ from the defaults."""
        flags = {
            "--generic": self._generic,
            "--direct": self._direct,
            "--uwsgi": self._uwsgi,
            "--wsgi": self._wsgi,
            "--redirect": self._redirect,
        }
        values = [("--listen", text) for text in self._listen]
        values += [("--upstream", self._upstream or ""), ("--nodes", self._listed or "")]
        values += [("--bounded", f"{self._bounded or ''}"), ("--max-body", self._max_body)]
        values += [("--logs", self._logs or ""), ("--tls", self._tls or "")]
        defaults = {"", UPSTREAM, "100M"}
        given = [word for pair in values if pair[1] not in defaults for word in pair]
        return [f"--{self._server}", *(flag for flag, on in flags.items() if on), *given, *sorted(self._names)]


def _unpinned(sites: Sites, front: Front, names: Collection[str]) -> list[str]:
    """Return a sentence for each site that runs only on some nodes, but whose requests go to all."""
    why = "none of these is among the nodes of the rules, or they are not those of another site on the same domain"
    why = why if front.blocks else "omit --generic"
    every = {str(node) for node in front.nodes}
    followed = {name for block in front.blocks if block.nodes for _, name in block.sites}
    return [
        f"{name}: the site runs on {', '.join(site.nodes)}, but its requests go to every node: {why}"
        for name, site in sites.sites.items()
        if site.nodes and not every <= set(site.nodes) and name not in followed and (not names or name in names)
    ]


def _certificate_files(server: str, folder: str, domain: str) -> tuple[str, str]:
    """Return the paths of a domain's chain and key; HAProxy reads both from one file."""
    folder = os.path.abspath(folder)
    if server == "haproxy":
        return os.path.join(folder, f"{domain}.pem"), os.path.join(folder, f"{domain}.pem")
    return os.path.join(folder, domain, CERTIFICATE[0]), os.path.join(folder, domain, CERTIFICATE[1])


def _without_certificate(server: str, front: Front, folder: str | None) -> list[str]:
    """Return a sentence for each group of domains without a certificate in the folder of --tls."""
    lacking = [block for block in front.blocks if not block.certificate] if folder else []
    return [_lack(block, _certificate_files(server, folder or "", block.domains[0])) for block in lacking]


def _lack(block: Block, paths: tuple[str, str]) -> str:
    """Return which file is missing for the domains of `block`, and the remedy."""
    from multisite.config.domains import is_pattern

    domain, others = block.domains[0], len(block.domains) - 1
    reason = f"there is no certificate {next((path for path in paths if not os.path.isfile(path)), paths[0])}"
    remedy = "put one there" if is_pattern(domain) else f"get one (certbot certonly -d {shlex.quote(domain)})"
    if paths[0] == paths[1]:
        remedy += " and write its chain and its key to this file"
    try:
        os.stat(paths[0])
    except PermissionError:
        reason, remedy = f"this user may not see the certificate {paths[0]}", "use sudo"
    except OSError:
        pass
    what = f"{domain} and {others} more domain{'s' if others > 1 else ''} are" if others else f"{domain} is"
    return f"{block.name}: {reason}, so {what} served without TLS; {remedy} and run the command again"


def _usage(option: str, value: str, error: ValueError) -> NoReturn:
    raise click.UsageError(f"{option} {value!r}: {error}")


def _check(server: str, front: Front, render: Callable[[Front], str]) -> bool | None:
    from multisite.cli.frontends import syntax

    with waiting(f"waiting for {server} to check the rules"):
        program, fault = syntax.check(server, front, render)
    if not program:
        say(f"{server} is not installed here, so the rules were not checked", err=True)
        return None
    if fault:
        for line in fault.splitlines():
            click.echo(printable(line), err=True)
        fail(f"{program} rejects the rules; nothing was written")
    say(f"{program} accepts the rules", err=True)
    return True


def _write(path: str, text: str) -> str:
    """Replace the file at `path`, or the target of a link there; return the action."""
    from multisite.cli.scaffold import write_new

    target = os.path.realpath(path)
    try:
        with open(target, encoding="utf-8", errors="replace") as file:
            if file.read() == text:
                return "unchanged:"
    except FileNotFoundError:
        pass
    write_new(target, text, force=True)
    return "wrote"
