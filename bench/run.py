"""All measurements, as one table.

    python bench/run.py            prints the table
    python bench/run.py --write    also keeps it in bench/RESULTS.md

Exit code 1 when a target was missed.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import accesslog
import addsite
import budget
import coldstart
import density
import deploys
import direct
import dispatch
import placement
import relay
import router
import runner
import seen
import slow
import startup
import static
import status
import workdir
import zipf
from common import print_rows


def main() -> int:
    parts = (
        budget,
        dispatch,
        workdir,
        static,
        accesslog,
        seen,
        status,
        startup,
        addsite,
        runner,
        coldstart,
        density,
        direct,
        relay,
        router,
        slow,
        deploys,
        placement,
        zipf,
    )
    rows = [row for part in parts for row in part.measure()]
    table = print_rows(rows)
    if "--write" in sys.argv:
        import gunicorn

        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, gunicorn {gunicorn.__version__}"
        told = f"`make bench`, {datetime.date.today()}, {machine}. Medians of interleaved rounds."
        text = f"# Results\n\n{told}\n\n{table}\n"
        Path(__file__).with_name("RESULTS.md").write_text(text)
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
