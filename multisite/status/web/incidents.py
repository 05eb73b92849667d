"""The page of one incident: what is known of it (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from multisite.status.web import markup
from multisite.status.web.markup import Html, facts, moment, site_path, tag

Row = dict[str, Any]


def find(rows: Iterable[Row], incident: str) -> Row | None:
    """Return the row of the site whose last failure has this id, None where no site's has."""
    return next((row for row in rows if incident and (row.get("failure") or {}).get("incident") == incident), None)


def page(incident: str, row: Row | None) -> str:
    """Return the page of an incident."""
    body = [tag("p", tag("a", "← All sites", href="/")), tag("h1", "Incident ", incident[:40])]
    if not row:
        hint = tag(
            "p", "No site's last failure has this id. The log may still have it: ", tag("code", "multisite logs")
        )
        return markup.page("Incident", [*body, hint])
    failure = row["failure"]
    steps = ", ".join(f"{one['step']} {one['seconds'] * 1000:.0f} ms" for one in failure.get("steps") or ())
    output = Html("\n".join(map(markup.text, failure.get("output") or ())))
    known = facts(
        [
            ("Site", tag("a", row["name"], href=site_path(row["name"]))),
            ("When", moment(failure.get("at"))),
            ("State now", row["state"]),
            ("Since then", "an older version serves" if failure.get("serving") else None),
        ]
    )
    remedy = tag("p", "Remedy: ", tag("code", failure["remedy"])) if failure.get("remedy") else None
    cause = markup.section("Cause", tag("p", failure.get("failure") or "not known"), remedy)
    start = markup.section("Start", tag("p", steps)) if steps else None
    printed = (
        markup.section("Output", tag("pre", output, tabindex="0", role="region", aria_label="Output"))
        if output
        else None
    )
    return markup.page("Incident", [*body, known, cause, start, printed])
