"""What a lease survives: upgrades of the supervisor, and a stopped process that talks to the registry.

One node and one engine; a site that must not run twice. For each length of the lease the supervisor is upgraded, and
the process that talks to the engine is stopped (SIGSTOP), so many times, and the processes of the site are counted: one
means that the lease was kept each time. The last column is the least time that was left of the lease.

    python bench/leases.py [ROUNDS] [SECONDS…]
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from multisite.runner import leaseguard
from tests.cluster import programs
from tests.servers.cluster import Cluster, Node, cluster, eventually
from tests.supervisor.test_membership import agents


def main(rounds: int, leases: list[int]) -> None:
    """Print a row for each length of the lease."""
    print("lease  what          rounds  processes of the site  least seconds left until the guard's warning")
    for lease in leases:
        for what in (upgrade, stop_agent):
            folder = Path(tempfile.mkdtemp(prefix="leases-"))
            try:
                with (
                    programs.running("etcd", folder / "etcd") as engine,
                    cluster(folder / "nodes", "etcd://127.0.0.1:{}", engine.port, 1, lease) as made,
                ):
                    pids, left = survived(made, what, rounds, lease)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            print(f"{lease:3d} s  {what.__name__:12}  {rounds:6d}  {pids:21d}  {left:.2f}", flush=True)


def survived(made: Cluster, what: object, rounds: int, lease: int) -> tuple[int, float]:
    (node,) = made.nodes
    eventually(node.number)
    supervisor = node.status()["supervisor"]["pid"]
    margin = max(1.0, lease / 10)
    warning = min(2.0, (lease - margin) / 5)
    with least_left(supervisor) as left:
        for _ in range(rounds):
            what(node, supervisor)  # type: ignore[operator]
            eventually(node.number)
    return len({one.pid for one in made.runs()}), min(left, default=0.0) - warning


def upgrade(node: Node, _supervisor: int) -> None:
    node.home.multisite("reload", "--supervisor")


def stop_agent(node: Node, supervisor: int) -> None:
    former = agents(supervisor)
    os.kill(former[0], signal.SIGSTOP)
    eventually(lambda: agents(supervisor) not in ([], former) and former[0] not in agents(supervisor))
    eventually(lambda: node.status()["registry"]["state"] == "connected")


@contextlib.contextmanager
def least_left(supervisor: int) -> Iterator[list[float]]:
    """Look every 5 ms how many seconds of the lease are left, as its guards see it."""
    left: list[float] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.005):
            with contextlib.suppress(OSError, StopIteration):
                folder = f"/proc/{supervisor}/fd"
                fence = next(name for name in os.listdir(folder) if "memfd:fence" in os.readlink(f"{folder}/{name}"))
                until = int.from_bytes(Path(f"{folder}/{fence}").read_bytes(), sys.byteorder)
                left.append((until - leaseguard.now()) / 1e9)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield left
    finally:
        is_over.set()
        watching.join()


if __name__ == "__main__":
    print(f"{time.strftime('%F')}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    words = [int(word) for word in sys.argv[1:]] or [10]
    main(words[0], words[1:] or [3, 6, 15])
