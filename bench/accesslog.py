"""What an access log costs.

    python bench/accesslog.py

Target: at most 5 % of the throughput of hello, at 8 connections.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import HELLO, Row, new_home, print_rows
from static import compare, server_of


def beside_a_log(worker_class: str, form: str, target: float | None) -> list[Row]:
    """hello of a site with an access log over hello of one without, in the same worker."""
    with new_home() as home:
        home.site("plain", HELLO)
        home.site("logged", HELLO)
        ini = home.path / "sites-available" / "logged.ini"
        log = home.path / "access.log"
        home.ini("logged", f"{ini.read_text()}[logging]\naccess = {log}\naccess_format = {form}\n")
        with server_of(home, worker_class, "multisite.service:application") as ours:
            what = f"hello with an access log ({form}) over one without, gunicorn {worker_class}"
            rows = compare(what, ours, ours, "plain.test", "logged.test", path="/", target=target)
        assert log.read_bytes().count(b"\n") > 1000
    return rows


def measure() -> list[Row]:
    return [
        *beside_a_log("sync", "combined", 0.95),
        *beside_a_log("gthread", "combined", 0.95),
        *beside_a_log("gthread", "json", None),
    ]


if __name__ == "__main__":
    print_rows(measure())
