"""The rows of sites as CSV (RFC 4180) that a spreadsheet takes for text and numbers only (pure)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from multisite.errors import one_line

COLUMNS = (
    *("name", "domains", "enabled", "placement", "state", "service", "requests", "errors", "in_flight", "waiting"),
    *("starts", "cold_starts", "received", "sent", "cpu", "memory", "last_use", "incident"),
)
FORMULA = ("=", "+", "-", "@")  # what begins with one of these is a formula to a spreadsheet, unless it is a number


def sheet(rows: Iterable[dict[str, Any]], head: bool = True) -> str:
    """Return the rows of ``--json status``, with a line of headings if `head`."""
    out = io.StringIO()
    writer = csv.writer(out)
    if head:
        writer.writerow(COLUMNS)
    writer.writerows([cell(_value(row, column)) for column in COLUMNS] for row in rows)
    return out.getvalue()


def _value(row: dict[str, Any], column: str) -> Any:
    if column == "incident":
        return (row.get("failure") or {}).get("incident")
    return row.get(column)


def cell(value: Any) -> str | int | float:
    """Return a value for a cell: a figure as it is, and no text that could be taken for a formula."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return value
    text = one_line(" ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value or ""))
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
