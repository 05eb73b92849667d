"""The page of one incident: what failed at which request, and what has been done since (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from multisite.status.web import markup
from multisite.status.web.markup import Html, facts, moment, section, site_path, tag


def of_rows(rows: Iterable[dict[str, Any]], incident: str) -> dict[str, Any] | None:
    """Return what a site's row says of its last failure, if that has this id; None where no site's has."""
    for row in rows:
        failure = row.get("failure") or {}
        if incident and failure.get("incident") == incident:
            told = {"cause": failure.get("failure"), "remedy": failure.get("remedy"), "output": failure.get("output")}
            return {"incident": incident, "at": failure.get("at"), "name": row["name"], **told}
    return None


def incidentpage(incident: str, found: Mapping[str, Any] | None) -> str:
    """Return the page of an id, with an `Incident` as a dict; None where nothing is known of it."""
    body = [tag("p", tag("a", "← All sites", href="/")), tag("h1", "Incident ", incident[:40])]
    if not found:
        hint = tag("p", "Nothing is known of this id. The log may have it: ", tag("code", "multisite logs"))
        return markup.page("Incident", [*body, hint])
    site, request = found.get("name"), found.get("request") or {}
    asked = " ".join(filter(None, (request.get("method"), f"{request.get('host', '')}{request.get('path', '')}")))
    known = facts(
        [
            ("Site", tag("a", site, href=site_path(site)) if site else "the service itself"),
            ("When", moment(found.get("at"))),
            ("Request", tag("code", asked) if asked else None),
        ]
    )
    remedy = tag("p", "Remedy: ", tag("code", found["remedy"])) if found.get("remedy") else None
    since = [(moment(one["at"]), str(one["did"]), str(one["text"])) for one in found.get("since") or ()]
    parts = [
        known,
        section("Cause", tag("p", found.get("cause") or "not known"), remedy),
        section("Since then", markup.table(("When", "What", "More"), since, "What has been done")) if since else None,
        _lines("Traceback", found.get("traceback")),
        _lines("Output", found.get("output")),
    ]
    return markup.page("Incident", [*body, *parts])


def _lines(title: str, lines: Iterable[str] | None) -> Html | None:
    if not lines:
        return None
    shown = Html("\n".join(map(markup.text, lines)))
    return section(title, tag("pre", shown, tabindex="0", role="region", aria_label=f"Lines of the {title.lower()}"))
