"""The rings of the front ends: our picture of them against the real programs, balance, and what moves.

    python bench/nodes.py [--hosts 1000000] [--seconds 60]

The picture (`multisite.cluster.rings`) is asked for all hosts, with a machine and without it. The real programs
have the rules of `multisite create-rules --nodes` and answer for as many hosts as they can in the time. Behind them,
one HAProxy listens on every address of the loopback interface and answers with the one at which it was reached.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, Server, free_port, new_home, print_rows

from multisite.cli.frontends import syntax
from multisite.cluster.rings import Caddy, Haproxy, Nginx, Ring
from multisite.config.nodes import Machine, parse_machines
from tests.servers.harness import debian_program, eventually
from tests.servers.test_frontends import FrontEnd, create_rules

CONF = "[service]\nstatus_domain = status.test\n"
BEHIND = """\
global
    log stdout format raw local0 crit
defaults
    mode http
    timeout client 60s
    timeout connect 5s
    timeout server 60s
frontend nodes
    maxconn 20000
    backlog 16000
    bind 0.0.0.0:{port}
    http-request return status 200 content-type text/plain lf-string "<%[dst]>"
"""
BATCH = 200  # requests on a connection
MOST_HASHES = 2_000_000  # of Caddy's, each of which is computed for one host and one machine
MOST_PICTURED = 50  # nodes of our picture of Caddy: with more, those hashes suffice for a host or two of each
MOST_CHECKED = 300  # nodes of the real Caddy: of more, it may not check each every second beside what it is asked
SAMPLE = 100_000  # hosts of a picture whose figures need no more


@dataclass
class Nodes(FrontEnd):
    """A front end in front of nodes."""

    listed: Sequence[str] = ()

    def rules(self, port: int, behind: int, *options: str) -> str:
        """Return what the command writes."""
        logs = [] if self.kind == "haproxy" else ["--logs", str(self.home.path / "log")]
        (self.home.path / "log").mkdir(exist_ok=True)
        listen = ["--listen", f"127.0.0.1:{port}"]
        return create_rules(self.home, f"--{self.kind}", *listen, "--nodes", ",".join(self.listed), *logs, *options)


def ring_of(kind: str, machines: Sequence[Machine]) -> Ring:
    """Return our picture of a front end."""
    if kind == "caddy":
        return Caddy(machines, syntax.version_of_caddy())
    return Nginx(machines) if kind == "nginx" else Haproxy(machines)


def host(number: int) -> str:
    """Return a host as customers have them."""
    return f"customer{number}.example.com"


def addresses(count: int, port: int) -> list[str]:
    """Return addresses of the loopback interface."""
    return [f"127.1.{number >> 8}.{number & 255}:{port}" for number in range(1, count + 1)]


def picture(kind: str, count: int, hosts: int) -> list[Row]:
    """Measure balance and what moves, without the program."""
    if kind == "caddy":
        hosts = min(hosts, MOST_HASHES // (2 * count))
    listed = parse_machines(addresses(count, 8000))
    whole, without = ring_of(kind, listed), ring_of(kind, listed[:-1])
    began = time.process_time()
    before = [whole.choose(host(number)) for number in range(hosts)]
    spent = time.process_time() - began
    moves = [(one, other) for number, one in enumerate(before) if (other := without.choose(host(number))) != one]
    strays = sum(one != listed[-1] for one, _ in moves)
    counts = Counter(before)
    mean, least, most = hosts / count, min(counts[one] for one in listed), max(counts.values())
    what = f"{kind}, {count:,} nodes, {hosts:,} hosts"
    share, allowed = len(moves) / hosts, 1 / count + 0.05
    return [
        Row(f"{what}: hosts of a node over the mean", f"{least / mean:.2f} to {most / mean:.2f}"),
        Row(f"{what}: moved as a node leaves or joins", f"{share:.2%}", f"≤ {allowed:.2%}", share <= allowed),
        Row(f"{what}: moved between nodes that stay", f"{strays}", "0", strays == 0),
        Row(f"{what}: processor time of the picture for a host", f"{spent / hosts * 1e6:.1f} µs"),
    ]


def real(kind: str, home: HomeDir, count: int, port: int, seconds: float, hosts: int) -> Row:
    """Compare the picture with the program for as many hosts as it answers for in the time."""
    listed = addresses(count, port)
    ring = ring_of(kind, parse_machines(listed))
    asked = same = 0
    with Nodes(kind, home, listed).started(port) as front:
        end = time.monotonic() + seconds
        for number, address in answers(front.port, hosts, lambda: time.monotonic() < end):
            asked += 1
            same += ring.choose(host(number)).host == address
    return Row(
        f"{kind}, {count:,} nodes: hosts on the node of the picture", f"{same:,} of {asked:,}", "all", same == asked > 0
    )


def answers(port: int, hosts: int, more: Callable[[], bool]) -> Iterator[tuple[int, str]]:
    """Yield host and address, with a connection for each `BATCH` requests, which are all sent at once."""
    for first in range(0, hosts, BATCH):
        if not more():
            return
        batch = range(first, first + BATCH)
        with socket.create_connection(("127.0.0.1", port)) as wire:
            wire.sendall(b"".join(f"GET / HTTP/1.1\r\nHost: {host(number)}\r\n\r\n".encode() for number in batch))
            text, found = b"", list[bytes]()
            while len(found) < BATCH:
                block = wire.recv(1 << 16)
                if not block:
                    raise ConnectionError(f"closed after {len(found)} answers: {text[-300:]!r}")
                text += block
                found = re.findall(rb"<([0-9.]+)>", text)
        yield from zip(batch, (address.decode() for address in found), strict=True)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each program")
    parser.add_argument("--nodes", type=int, default=1000)
    asked = parser.parse_args()
    rows = []
    for kind in ("nginx", "haproxy", "caddy"):
        for count in (3, 10):
            rows += picture(kind, count, min(asked.hosts, SAMPLE))
        rows += picture(kind, min(asked.nodes, MOST_PICTURED) if kind == "caddy" else asked.nodes, asked.hosts)
        print(*rows[-12:], sep="\n", file=sys.stderr, flush=True)
    with new_home() as home:
        home.conf(CONF)
        port, log = free_port(), home.path / "log"
        settings = home.path / "behind.cfg"
        settings.write_text(BEHIND.format(port=port))
        argv = [debian_program("haproxy", "haproxy"), "-db", "-f", str(settings)]
        with Server(argv, port, log / "behind.log", home.environ()) as behind:
            eventually(behind.answers)
            for kind in ("nginx", "haproxy", "caddy"):
                count = min(asked.nodes, MOST_CHECKED) if kind == "caddy" else asked.nodes
                rows.append(real(kind, home, count, port, asked.seconds, asked.hosts))
                print(rows[-1], file=sys.stderr, flush=True)
    print_rows(rows)


if __name__ == "__main__":
    main()
