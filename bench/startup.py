"""How long a worker takes until it answers with 5,000 site files, and what it keeps of each.

    python bench/startup.py

Targets: first start at most 1.0 s, next start (from the cache) at most 0.15 s, at most 10 KiB a site before it is used.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HomeDir, Row, fill, median, new_home, print_rows

SITES = 5_000
ROUNDS = 5

# Import, then the first answer (404, so that no site is imported): seconds, and PSS in KiB.
CHILD = """
import gc, json, re, time
from wsgiref.util import setup_testing_defaults
start = time.perf_counter()
from multisite.service import application
imported = time.perf_counter()
environ = {"HTTP_HOST": "unknown.test"}
setup_testing_defaults(environ)
statuses = []
list(application(environ, lambda status, headers, exc_info=None: statuses.append(status)))
answered = time.perf_counter()
assert statuses == ["404 Not Found"], statuses
gc.collect()
pss = int(re.search(r"Pss: +([0-9]+)", open("/proc/self/smaps_rollup").read())[1])
print(json.dumps({"import": imported - start, "start": answered - start, "pss": pss}))
"""


def start(home: HomeDir, *, fresh: bool) -> dict[str, float]:
    """Start once in a new process, without the cache if `fresh`."""
    if fresh:
        shutil.rmtree(home.path / "state", ignore_errors=True)
        shutil.rmtree(home.path / "run", ignore_errors=True)
    environ = home.environ()
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=environ, capture_output=True, text=True, cwd=home.path, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure() -> list[Row]:
    with new_home() as small, new_home() as large:
        fill(small, 1)
        fill(large, SITES)
        start(small, fresh=True)  # which writes the byte code
        first = [start(large, fresh=True) for _ in range(ROUNDS)]
        after = [start(large, fresh=False) for _ in range(ROUNDS)]
        start(small, fresh=True)
        alone = [start(small, fresh=False) for _ in range(ROUNDS)]
    seconds = {
        name: median(one["start"] for one in runs) for name, runs in (("first", first), ("next", after), ("1", alone))
    }
    imports = median(one["import"] for one in after)
    kib = {
        name: (median(one["pss"] for one in runs) - median(one["pss"] for one in alone)) / (SITES - 1)
        for name, runs in (("first", first), ("next", after))
    }
    worst = max(kib.values())
    first_figure = f"{seconds['first']:.2f} s"
    next_figure = f"{seconds['next']:.3f} s (imports {imports:.3f} s; with one site {seconds['1']:.3f} s)"
    memory = f"{kib['first']:.1f} KiB after a first start, {kib['next']:.1f} after a next one"
    return [
        Row(f"first start with {SITES:,} site files", first_figure, "≤ 1.0 s", seconds["first"] <= 1.0),
        Row(f"next start with {SITES:,} site files", next_figure, "≤ 0.15 s", seconds["next"] <= 0.15),
        Row("memory a site and worker before its first use (PSS)", memory, "≤ 10 KiB", worst <= 10),
    ]


if __name__ == "__main__":
    print_rows(measure())
