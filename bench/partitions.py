"""Cut the node off that runs an exclusive site, again and again: do two nodes ever run it at the same time?

Each round cuts the holder's way to etcd, or freezes or kills its supervisor, and lasts until another node answers. Each
process of the site writes a line every 10 ms with its lease's number, so the file shows for how long it lived.

    python bench/partitions.py [ROUNDS]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.cluster import programs
from tests.servers.cluster import cluster, eventually, overlaps

WAYS = ("cut", "freeze", "kill")


def main(rounds: int) -> int:
    """Print what came of it; returns 1 if two processes ran at the same time."""
    folder = Path(tempfile.mkdtemp(prefix="partitions-"))
    try:
        with (
            programs.running("etcd", folder / "etcd") as engine,
            cluster(folder / "nodes", "etcd://127.0.0.1:{}", engine.port) as made,
        ):
            eventually(lambda: made.nodes[0].ask().status == 200)
            for number in range(rounds):
                made.partition(WAYS[number % len(WAYS)])
                print(f"{number + 1} {WAYS[number % len(WAYS)]}", flush=True)
            runs = made.runs()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    gaps = [(other.first - one.last) / 1e9 for one, other in pairwise(runs)]
    wrong = overlaps(runs)
    print(f"{rounds} partitions, {len(runs)} processes of the site, {len(wrong)} pairs at the same time")
    print(f"nothing ran for {min(gaps):.2f} s at least, {median(gaps):.2f} s in the middle, {max(gaps):.2f} s at most")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
