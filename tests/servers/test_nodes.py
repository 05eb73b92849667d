"""Several machines behind the rules of `create-rules --nodes`: which gets a host, and what happens when one goes."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socketserver
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from multisite.cli.frontends import syntax
from multisite.cluster.rings import Caddy, Haproxy, Nginx, Ring
from multisite.config.nodes import parse_machines

from .harness import REPOSITORY, HomeDir, Server, ask, eventually, free_port, gunicorn
from .load import BREATH, Load
from .test_front_forms import ask_securely
from .test_frontends import FrontEnd, create_rules
from .test_serve_binds import certificate

pytestmark = pytest.mark.servers

KINDS = ("nginx", "haproxy", "caddy")
CONF = """[service]
status_domain = status.test
[defaults]
share = yes
[supervisor]
allow_root = yes
examine = no
"""
APP = """
import os, time

def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/until/"):
        folder = environ["PATH_INFO"][7:]
        open(os.path.join(folder, f"NODE-{environ['QUERY_STRING']}"), "a").close()
        while not os.path.exists(os.path.join(folder, "go")):
            time.sleep(0.01)
    if environ["PATH_INFO"] == "/die":
        open(os.path.join(environ["QUERY_STRING"], f"NODE-{time.monotonic_ns()}"), "a").close()
        os._exit(1)
    start_response("200 OK", [("Content-Length", "4")])
    return [b"NODE"]
"""


@dataclass
class Nodes(FrontEnd):
    """A front end in front of nodes."""

    listed: tuple[str, ...] = ()

    def rules(self, port: int, behind: int, *options: str) -> str:
        logs = [] if self.kind == "haproxy" else ["--logs", str(self.home.path / "log")]
        (self.home.path / "log").mkdir(exist_ok=True)
        listen = ["--listen", f"127.0.0.1:{port}"]
        return create_rules(self.home, f"--{self.kind}", *listen, "--nodes", ",".join(self.listed), *logs, *options)

    def ring(self) -> Ring:
        machines = parse_machines(self.listed)
        if self.kind == "caddy":
            return Caddy(machines, syntax.version_of_caddy())
        return Nginx(machines) if self.kind == "nginx" else Haproxy(machines)


@dataclass
class SecuredNodes(Nodes):
    """The same with TLS: nginx and HAProxy have certificates, and Caddy makes its own."""

    secure: int = field(default_factory=free_port)

    def rules(self, port: int, behind: int, *options: str) -> str:
        if self.kind == "caddy":
            return create_rules(self.home, "--caddy", "--nodes", ",".join(self.listed), "--logs", str(self.home.path))
        rules = super().rules(port, behind, "--tls", str(self.home.path / "certificates"), *options)
        return re.sub(r"\b443\b", str(self.secure), rules)  # that port may be taken

    def started(self, behind: int, *options: str) -> Server:
        front = super().started(behind, *options)
        if self.kind == "caddy":
            settings = Path(front.argv[-1])
            own = f"admin off\n    http_port {front.port}\n    https_port {self.secure}\n    local_certs\n"
            settings.write_text(settings.read_text().replace("admin off\n", f"{own}    skip_install_trust\n"))
        return front

    def authority(self, front: Server, domain: str) -> Path:
        """Return the certificate that a client has to believe."""
        if self.kind == "caddy":
            root = Path(front.argv[-1]).parent / "caddy" / "pki" / "authorities" / "local" / "root.crt"
            eventually(root.exists)
            return root
        folder = self.home.path / "certificates"
        return folder / f"{domain}.pem" if self.kind == "haproxy" else folder / domain / "fullchain.pem"


class Echo(socketserver.StreamRequestHandler):
    """Answers with the address at which it was reached, as a node that is always ready; /held when it is told to."""

    server: EchoServer

    def handle(self) -> None:
        first = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        if b"/held" in first:
            with self.server.lock:
                self.server.held += 1
            self.server.go.wait()
        text = self.connection.getsockname()[0].encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    held = 0

    def __init__(self, port: int) -> None:
        super().__init__(("0.0.0.0", port), Echo)
        self.lock, self.go = threading.Lock(), threading.Event()


@pytest.fixture(scope="module")
def echoing() -> Iterator[EchoServer]:
    """A server on all addresses of the loopback interface."""
    with EchoServer(free_port()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def echo(echoing: EchoServer) -> int:
    """Its port."""
    return int(echoing.server_address[1])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> HomeDir:
    """A home without sites."""
    home = HomeDir(tmp_path_factory.mktemp("plain")).create()
    home.conf(CONF)
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_the_rings_are_those_of_the_real_programs(kind: str, plain: HomeDir, echo: int) -> None:
    """Each host is on the node that our picture of the front end says, however it is written."""
    weight = "" if kind == "caddy" else "=3"
    listed = (f"127.0.0.2:{echo}", f"127.0.0.3:{echo}{weight}", f"127.0.0.4:{echo}", f"127.0.0.5:{echo}")
    both: list[dict[str, str]] = []
    for nodes in (Nodes(kind, plain, listed), Nodes(kind, plain, listed[:3])):
        ring, found = nodes.ring(), {}
        with nodes.started(echo) as front:
            for number in range(200):
                host = f"site{number}.test"
                written = (host, f"Site{number}.TEST", f"{host}:8080", f"{host}.")[number % 4]
                found[host] = front.ask(written).text
        assert found == {host: ring.choose(host).host for host in found}
        both.append(found)
    before, after = both
    assert {before[host] for host in before if before[host] != after[host]} == {"127.0.0.5"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_hosts_of_a_site_go_to_its_nodes_only(kind: str, tmp_path: Path, echo: int) -> None:
    """Those of a pattern too, but not the hosts that another site has of it."""
    home = HomeDir(tmp_path).create()
    home.conf(CONF)
    own = {"one": (5,), "some": (3, 4), "any": ()}
    domains = {"one": "one.test", "some": "*.some.test", "any": "any.some.test"}
    for name, numbers in own.items():
        nodes = {"nodes": ", ".join(f"127.0.0.{number}:{echo}" for number in numbers)} if numbers else {}
        home.site(name, APP, domains=domains[name], **nodes)
    every = tuple(f"127.0.0.{number}:{echo}" for number in (2, 3, 4, 5))
    fronting, some = Nodes(kind, home, every), Nodes(kind, home, every[1:3])
    with fronting.started(echo, "--check") as front:
        assert front.ask("one.test").text == "127.0.0.5"
        hosts = [f"web{number}.some.test" for number in range(8)]
        assert [front.ask(host).text for host in hosts] == [some.ring().choose(host).host for host in hosts]
        for host in ("any.some.test", "unknown.test"):
            assert front.ask(host).text == fronting.ring().choose(host).host


@pytest.mark.parametrize("kind", KINDS)
def test_the_hosts_of_a_site_stay_on_its_nodes_over_tls_and_beyond_the_bound(
    kind: str, tmp_path: Path, echoing: EchoServer
) -> None:
    """HAProxy's bounded load spreads many requests at once over the nodes of the site, and over no others."""
    home, echo = HomeDir(tmp_path).create(), echoing.server_address[1]
    home.conf(CONF)
    own = {"one.test": (5,), "some.test": (3, 4), "any.test": ()}
    (tmp_path / "certificates").mkdir()
    for host, numbers in own.items():
        nodes = {"nodes": ", ".join(f"127.0.0.{number}:{echo}" for number in numbers)} if numbers else {}
        home.site(host.removesuffix(".test"), APP, domains=host, **nodes)
        if kind != "caddy":
            certificate(tmp_path / "certificates", host, single=kind == "haproxy")
    every = tuple(f"127.0.0.{number}:{echo}" for number in (2, 3, 4, 5))
    fronting, some = SecuredNodes(kind, home, every), Nodes(kind, home, every[1:3])
    expected = {
        "one.test": "127.0.0.5",
        "some.test": some.ring().choose("some.test").host,
        "any.test": fronting.ring().choose("any.test").host,
    }
    with fronting.started(echo, *(("--bounded", "1.5") if kind == "haproxy" else ())) as front:
        found = {}
        for host in own:
            authority = fronting.authority(front, host)
            eventually(lambda host=host, authority=authority: is_served(fronting.secure, authority, host))  # type: ignore[misc]
            found[host] = ask_securely(fronting.secure, authority, host).text
        assert found == expected
        if kind == "haproxy":
            assert held(front, echoing, "one.test", 8) == {"127.0.0.5": 8}
            spread = held(front, echoing, "some.test", 8)
            assert set(spread) == {"127.0.0.3", "127.0.0.4"} and max(spread.values()) <= 1.5 * 8 / 2


def is_served(port: int, authority: Path, host: str) -> bool:
    """Tell whether there is a certificate for a host yet: Caddy makes it when it has started."""
    with contextlib.suppress(OSError):
        return ask_securely(port, authority, host).status == 200
    return False


def held(front: Server, echoing: EchoServer, host: str, count: int) -> Counter[str]:
    """Ask `count` times at the same moment; returns how many each node has got."""
    texts: list[str] = []
    asking = [
        threading.Thread(target=lambda: texts.append(front.ask(host, "/held").text), daemon=True) for _ in range(count)
    ]
    before = echoing.held
    echoing.go.clear()
    for thread in asking:
        thread.start()
    eventually(lambda: echoing.held == before + count)
    echoing.go.set()
    for thread in asking:
        thread.join()
    return Counter(texts)


def test_a_node_ends_a_site_that_moves_to_others_and_answers_421(tmp_path: Path) -> None:
    home, here = HomeDir(tmp_path).create(), "192.0.2.1:8000"
    home.conf(f"{CONF}[cluster]\nnodes = {here}, 192.0.2.2:8000\nnode = {here}\n")
    home.site("own", APP, mode="spawned", nodes=here)
    with gunicorn(home) as server:
        assert server.ask("own.test").status == 200
        home.site("own", APP, mode="spawned", nodes="192.0.2.2:8000")
        eventually(lambda: server.ask("own.test").status == 421)
        eventually(lambda: not home.processes(backends=True))
        assert "MS328" in server.log() and "the site runs on 192.0.2.2:8000" in server.log()
        home.site("own", APP, mode="spawned", nodes=f"{here}, 192.0.2.2:8000")
        eventually(lambda: server.ask("own.test").status == 200)


class Node:
    """A home and a server of it on an address of its own, that can end, die and start again."""

    def __init__(self, root: Path, number: int, port: int) -> None:
        self.address = f"127.0.0.{number + 2}"
        self.text = f"no.{number}"
        self.home = HomeDir(root / f"node{number}").create()
        self.home.conf(CONF)
        for name in (*NAMES, "dies"):
            how = {"mode": "spawned", "threads": "16"} if name == "own" else {"mode": "in-process"}
            self.home.site(name, APP.replace("NODE", self.text), **how)
        bind = ("--bind", f"{self.address}:{port}", "--graceful-timeout", "60")
        self.server = gunicorn(self.home, "gthread", "--threads", "16", *bind)
        self.running = ExitStack()

    def start(self) -> None:
        self.running.enter_context(self.server)

    def stop(self) -> None:
        self.running.close()

    def kill(self) -> None:
        """End all its processes at the same time: none of them sees another one die."""
        everything = self.home.processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in everything:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.server.process.wait()
        eventually(lambda: not self.home.processes())
        self.running.close()


NAMES = ("own", *(f"web{number}" for number in range(7)))


@dataclass
class Cluster:
    """Three nodes."""

    port: int
    nodes: list[Node] = field(default_factory=list)

    @property
    def listed(self) -> tuple[str, ...]:
        return tuple(f"{node.address}:{self.port}" for node in self.nodes)

    def of(self, front: Nodes, host: str) -> Node:
        """The node to which a host belongs."""
        address = front.ring().choose(host).host
        return next(node for node in self.nodes if node.address == address)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    root, made = tmp_path_factory.mktemp("nodes"), Cluster(free_port())
    made.nodes = [Node(root, number, made.port) for number in range(3)]
    for node in made.nodes:
        node.start()
    yield made
    for node in made.nodes:
        node.stop()


class Clients(Load):
    """Threads that ask one site, and after a failure wait until `gone`: they count what was in flight."""

    def __init__(self, port: int, host: str, threads: int = 1, method: str = "GET") -> None:
        super().__init__(port, host, "", threads)
        self.gone, self._method = threading.Event(), method
        self.texts: Counter[str] = Counter()

    def _ask(self) -> None:
        while not self._stop.wait(10 * BREATH):
            try:
                answer = ask(self.port, self.host, method=self._method)
                right, text = answer.status == 200, answer.text
            except (OSError, http.client.HTTPException) as error:
                right, text = False, repr(error)
            with self._lock:
                self.asked += 1
                self.texts[text] += 1
                self.failures += [] if right else [text]
            if not right:
                self.gone.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_is_killed_loses_what_is_in_flight_and_no_more(kind: str, plain: HomeDir, cluster: Cluster) -> None:
    """Its sites are answered elsewhere at once, and those of the others stay where they are."""
    fronting = Nodes(kind, plain, cluster.listed)
    victim = cluster.of(fronting, "own.test")
    other = next(f"{name}.test" for name in NAMES if cluster.of(fronting, f"{name}.test") is not victim)
    with fronting.started(0) as front, Clients(front.port, "own.test", 4) as hit, Clients(front.port, other) as spared:
        eventually(lambda: hit.texts[victim.text] > 20 and spared.asked > 20)
        victim.kill()
        hit.gone.set()
        eventually(lambda: sum(hit.texts[node.text] for node in cluster.nodes if node is not victim) > 20)
        victim.start()
        before = hit.texts[victim.text]
        eventually(lambda: hit.texts[victim.text] > before + 10)
    assert len(hit.failures) <= hit.threads, hit.failures
    assert spared.failures == [] and set(spared.texts) == {cluster.of(fronting, other).text}


def told_nginx(line: int, cluster: Cluster, node: Node, front: Server) -> None:
    """Do what docs/nodes.md says: its first or second line that changes nginx's rules, and a reload."""
    page = (REPOSITORY / "docs" / "nodes.md").read_text()
    command = [text.removeprefix("$ ") for text in page.splitlines() if text.startswith("$ sed ")][line]
    rules = next(plain_rules for plain_rules in front.argv if plain_rules.endswith("frontend.conf"))
    here = {
        "10.0.0.2:8000": f"{node.address}:{cluster.port}",
        "/etc/nginx/conf.d/multisite.conf": str(Path(rules).parent / "rules"),
        "nginx -s reload": f"kill -HUP {front.process.pid}",
    }
    for example, real in here.items():
        assert example in command
        command = command.replace(example, real)
    subprocess.run(["sh", "-c", command], check=True)


def test_each_node_in_turn_is_drained_and_returns_without_a_failed_request(plain: HomeDir, cluster: Cluster) -> None:
    """Behind each kind of front end: those that check the health learn of it by themselves, and nginx is told."""
    with ExitStack() as stack:
        fronting = {kind: Nodes(kind, plain, cluster.listed) for kind in KINDS}
        fronts = {kind: stack.enter_context(nodes.started(0)) for kind, nodes in fronting.items()}
        asking = [
            (cluster.of(fronting[kind], f"{name}.test"), Clients(fronts[kind].port, f"{name}.test", method=method))
            for kind in KINDS
            for name, method in zip(NAMES[:4], ("GET", "POST", "POST", "GET"), strict=True)
        ]
        for _, load in asking:
            stack.enter_context(load)
        for node in cluster.nodes:
            told_nginx(0, cluster, node, fronts["nginx"])
            done = node.home.typed("drain", "--wait")
            assert done.exit_code == 0, done.stderr
            node.stop()
            node.start()
            told_nginx(1, cluster, node, fronts["nginx"])
            for load in [load for owner, load in asking if owner is node]:
                before = load.texts[node.text]
                eventually(lambda load=load, node=node, before=before: load.texts[node.text] > before)  # type: ignore[misc]
        asked = [load.asked for _, load in asking]
    assert all(asked) and not [load.failures for _, load in asking if load.failures]


def test_behind_nginx_a_node_that_stops_costs_no_get(plain: HomeDir, cluster: Cluster) -> None:
    """Even if nobody has told nginx: what the node has taken it answers, and the next one gets the rest."""
    fronting = Nodes("nginx", plain, cluster.listed)
    victim = cluster.of(fronting, "own.test")
    with fronting.started(0) as front, Clients(front.port, "own.test", 8) as load:
        eventually(lambda: load.texts[victim.text] > 20)
        victim.stop()
        eventually(lambda: sum(load.texts[node.text] for node in cluster.nodes if node is not victim) > 20)
        victim.start()
        before = load.texts[victim.text]
        eventually(lambda: load.texts[victim.text] > before + 10)
    assert not load.failures


@pytest.mark.parametrize("kind", KINDS)
def test_a_post_reaches_one_node_and_a_site_whose_answers_die_moves_no_other(
    kind: str, plain: HomeDir, cluster: Cluster, tmp_path: Path
) -> None:
    """It ends the worker of the server before it answers, and notes each request that reached it."""
    fronting = Nodes(kind, plain, cluster.listed)
    dying = cluster.of(fronting, "dies.test")
    with fronting.started(0) as front:
        for number in range(1, 4):
            assert front.ask("dies.test", f"/die?{tmp_path}", method="POST", body=b"x").status == 502
            assert Counter(path.name.partition("-")[0] for path in tmp_path.iterdir()) == {dying.text: number}
            eventually(dying.server.answers)
        for name in NAMES:
            assert front.ask(f"{name}.test").text == cluster.of(fronting, f"{name}.test").text


def test_no_node_has_more_than_its_bound_of_a_hot_site(plain: HomeDir, cluster: Cluster, tmp_path: Path) -> None:
    """HAProxy's bounded load: of 12 requests at once, none of three nodes has more than 1.5 times the mean."""
    fronting, go = Nodes("haproxy", plain, cluster.listed), tmp_path / "go"

    def begun() -> Counter[str]:
        return Counter(path.name.partition("-")[0] for path in tmp_path.iterdir())

    with fronting.started(0, "--bounded", "1.5") as front:
        asked = [
            threading.Thread(target=ask, args=(front.port, "own.test", f"/until/{tmp_path}?{number}"), daemon=True)
            for number in range(12)
        ]
        for thread in asked:
            thread.start()
        eventually(lambda: begun().total() == 12)
        counts = begun()
        go.touch()
        for thread in asked:
            thread.join()
    assert max(counts.values()) <= 1.5 * 12 / 3, counts
    assert len(counts) >= 2
