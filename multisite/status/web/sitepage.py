"""The page of one site: what it does, what has been done to it, what is set, and why it runs where it runs (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multisite.logs.past import FAILED, SLOW, Past
from multisite.runner.board import LATENCIES
from multisite.sites.tally import percentiles
from multisite.status.needs import needs
from multisite.status.web import markup
from multisite.status.web.diagram import diagram
from multisite.status.web.markup import Html, Part, count, duration, facts, incident_link, moment, section, size, tag
from multisite.status.web.overview import REFRESH, need_item, state

Row = dict[str, Any]
SHARES = (50.0, 90.0, 99.0)  # per cent of the requests
LONGEST_LINE = 500  # characters of a line of the log


def sitepage(row: Row, detail: Mapping[str, Any], *, now: float, buttons: Part = None, notice: Part = None) -> str:
    """Return the page of a site.

    Args:
        row: of ``--json status``.
        detail: what is not in it: ``settings`` (key, value, origin), ``lines`` of its log, ``past``
            (`multisite.logs.past.Past`), ``incidents``, ``bill``, ``curves`` (title and picture), ``started`` (how the
            last process was made) and ``home``.
        now: Unix seconds.
        buttons: for whoever may change something.
        notice: what has just been done.
    """
    found, past = needs(row), detail.get("past") or Past()
    needed = tag("ul", *(need_item(need, linked=False) for need in found), class_="needs")
    body = [
        tag("p", tag("a", "← All sites", href="/")),
        tag("h1", row["name"], " ", state(row)),
        notice,
        tag("div", section("Needs you", needed), class_="attention") if found else None,
        buttons,
        section("What it does", _figures(row, now), _curves(detail)),
        section("Life of a process", diagram(row["state"])) if row.get("placement") != "proxy" else None,
        section("Processes", _processes(row)),
        section("Last starts", _starts(row, past)),
        section("Incidents", _incidents(detail.get("incidents") or ())),
        section("Requests in flight", _in_flight(row)),
        section("Slow requests", _slow(past), _times(row)),
        section("Deploys", _deploys(row, past)),
        section("Log", _log(row, detail.get("lines"))),
        section("Why it runs where it runs", _why(row, detail)),
        section("Bill", _bill(row, detail.get("bill"))),
        section("Configuration", _settings(detail.get("settings") or ())),
    ]
    return markup.page(row["name"], body, refresh=REFRESH, home=str(detail.get("home") or ""))


def _none(what: str) -> Html:
    return tag("p", what, class_="none")


def _figures(row: Row, now: float) -> Html:
    used, up = row.get("last_use"), row.get("up_since")
    statuses = row.get("statuses") or {}
    by_class = ", ".join(f"{count(number)} of {kind}" for kind, number in statuses.items() if number)
    return facts(
        [
            ("Domains", markup.join([tag("code", one) for one in row["domains"]], " ") if row["domains"] else None),
            ("Up", f"{duration(max(0.0, now - up))}" if up else None),
            ("Last use", moment(used) if used else None),
            ("Requests", count(row.get("requests"))),
            ("By status", by_class),
            ("Errors", count(row.get("errors"))),
            ("In flight", count(row.get("in_flight"))),
            ("Waiting", count(row["waiting"]) if row.get("waiting") is not None else None),
            ("Memory", size(row.get("memory"))),
            ("Processor", None if row.get("cpu") is None else f"{row['cpu']:.2f} s"),
            ("Out of service", row.get("service")),
        ]
    )


def _curves(detail: Mapping[str, Any]) -> Html:
    drawn = [
        tag("figure", picture, tag("figcaption", title)) for title, picture in detail.get("curves") or () if picture
    ]
    return tag("div", *drawn, class_="curves") if drawn else Html("")


def _processes(row: Row) -> Html:
    backends = row.get("backends") or ()
    if not backends:
        where = {"in-process": "It runs in the workers.", "proxy": "Other servers run it."}
        return _none(where.get(row.get("placement") or "", "No process runs."))
    rows = [(str(one["pid"]), one["state"], duration(one["seconds"]), one["reason"] or "-") for one in backends]
    return markup.table(("Process", "State", "For", "Reason"), rows, "Processes")


def _starts(row: Row, past: Past) -> Html:
    """The last starts with their steps, and what the last one printed if it failed."""
    journey = row.get("journey") or {}
    if not past.starts and not journey.get("failure"):
        return _none("Nothing is known of a start.")
    rows = [_start(one) for one in past.starts]
    heads = ("When", "Kind", "Outcome", "Took", "Steps")
    output = journey.get("output") if journey.get("failure") else ()
    printed = tag("pre", Html("\n".join(map(markup.text, output))), tabindex="0") if output else None
    said = tag("p", "The last one printed:") if printed else None
    return tag("div", markup.table(heads, rows, "The last starts") if rows else None, said, printed)


def _start(one: Row) -> tuple[Part, ...]:
    steps = ", ".join(f"{step['step']} {duration(step['seconds'])}" for step in one["steps"])
    cells = moment(one["at"]), one["kind"], _outcome(one), duration(one["seconds"])
    return (*cells, tag("span", steps or "-", tag("small", one["way"]) if one["way"] else None, class_="long"))


def _outcome(one: Row) -> Part:
    """Return whether a start or a deploy succeeded, and why not."""
    if one["outcome"] != FAILED:
        return f"✔ {one['outcome']}"
    incident = [" incident ", incident_link(one["incident"])] if one["incident"] else []
    return tag("span", "✖ failed: ", one["failure"], *incident, class_="long")


def _incidents(found: Iterable[Mapping[str, Any]]) -> Html:
    rows = [(incident_link(str(one["incident"])), moment(one["at"]), str(one["cause"] or "-")) for one in found]
    return markup.table(("Incident", "When", "Cause"), rows, "Last incidents") if rows else _none("None is known.")


def _in_flight(row: Row) -> Html:
    flying = row.get("requests_in_flight")
    if not flying:
        number = row.get("in_flight") or 0
        return _none(f"{number} in flight." if number else "None.")
    rows = [
        (str(one.get("method")), tag("span", str(one.get("path")), class_="long"), duration(one.get("age")))
        for one in flying
    ]
    return markup.table(("Method", "Path", "For"), rows, "Requests in flight")


def _slow(past: Past) -> Html:
    """The slowest and the last of the slow requests, and where their time went."""
    if not past.slow:
        return _none(f"No answer of which it is known took {SLOW:.0f} second or more to begin.")
    rows = [
        (
            moment(one["at"]),
            one["method"],
            one["path"],
            str(one["status"] or "-"),
            duration(one["seconds"]),
            _split(one),
        )
        for one in past.slow
    ]
    return markup.table(("When", "Method", "Path", "Status", "Took", "Of that"), rows, "Slow requests")


def _split(one: Row) -> str:
    parts = [f"{name} {duration(seconds)}" for name, seconds in one["split"].items() if seconds is not None]
    return ", ".join(parts) or "-"


def _times(row: Row) -> Html:
    """How long most requests take, and where the time goes."""
    parts: list[Part] = []
    counts = row.get("latencies") or ()
    if len(counts) == len(LATENCIES) + 1 and sum(counts):
        told = percentiles(LATENCIES, counts)
        above = f"more than {duration(LATENCIES[-1])}"
        rows = [(f"{share:g} %", above if told[share] == float("inf") else duration(told[share])) for share in SHARES]
        parts.append(markup.table(("Of the requests", "Answered within"), rows, "How long requests take"))
    phases = [
        (phase, duration(one["seconds"] / one["count"]), count(one["count"]))
        for phase, one in (row.get("latency") or {}).items()
        if one and one.get("count")
    ]
    if phases:
        parts.append(markup.table(("Phase", "On average", "Requests"), phases, "Where the time goes"))
    return tag("div", *parts, class_="tables") if parts else _none("No request has been measured.")


def _deploys(row: Row, past: Past) -> Html:
    deploy = row.get("deploy") or {}
    trying = tag("p", f"◐ A {deploy['cause']} is under way.") if deploy.get("state") == "trying" else None
    if not past.deploys:
        return tag("div", trying or _none("No new version has replaced a running one."))
    rows = [(moment(one["at"]), one["cause"], _outcome(one), duration(one["seconds"])) for one in past.deploys]
    return tag("div", trying, markup.table(("When", "Cause", "Outcome", "Took"), rows, "The last deploys"))


def _log(row: Row, lines: Sequence[str] | None) -> Html:
    command = tag("p", "All of it: ", tag("code", f"multisite logs {row['name']}"))
    if not lines:
        return tag("div", _none("Nothing has been logged, or this server may not read it."), command)
    shown = Html("\n".join(markup.text(line, LONGEST_LINE) for line in lines))
    return tag("div", tag("pre", shown, tabindex="0", role="region", aria_label="Last lines of the log"), command)


def _why(row: Row, detail: Mapping[str, Any]) -> Html:
    saving = row.get("saving")
    return facts(
        [
            ("Runs", row.get("placement") or "not"),
            ("Because", row.get("reason")),
            ("Started", detail.get("started")),
            ("Mode", row.get("mode")),
            ("Sharing", "share = yes" if row.get("share") else "share = no"),
            ("It could share", f"that would save {size(saving.get('memory'))}" if isinstance(saving, dict) else None),
            ("File", tag("code", row["file"])),
            ("Location", tag("code", row["location"]) if row.get("location") else None),
            (
                "Problems",
                markup.join([tag("p", _problem(one)) for one in row["problems"]]) if row["problems"] else None,
            ),
        ]
    )


def _problem(problem: Mapping[str, Any]) -> str:
    remedy = f"; {problem['remedy']}" if problem.get("remedy") else ""
    return f"{problem.get('severity', 'error')}: {problem.get('reason')}{remedy}"


def _bill(row: Row, bill: Mapping[str, Any] | None) -> Html:
    """What the site has used in the last 30 days, by day; else, since it was first counted."""
    if bill:
        days = [*reversed(bill["days"])]
        rows = [_charge("All", bill), *(_charge(str(one["day"]), one) for one in days)]
        return markup.table(CHARGES, rows, "What it has used in the last 30 days")
    known = facts(
        [
            ("Since", moment(row["first_start"]) if row.get("first_start") else None),
            ("Processor", None if row.get("cpu") is None else f"{row['cpu']:.1f} s"),
            ("Requests", count(row["requests"]) if row.get("requests") is not None else None),
            ("Received", size(row["received"]) if row.get("received") else None),
            ("Sent", size(row["sent"]) if row.get("sent") else None),
            ("Starts", count(row["starts"]) if row.get("starts") is not None else None),
        ]
    )
    return known or _none("Nothing has been counted yet.")


CHARGES = ("Day", "Processor", "Memory x time", "Requests", "Received", "Sent", "Starts")


def _charge(day: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    memory = f"{one['memory'] / 1024 / 3600:.3f} GiB h"
    counts = count(one["requests"]), size(one["received"]), size(one["sent"]), count(one["starts"])
    return (day, f"{one['cpu']:.1f} s", memory, *counts)


def _settings(settings: Iterable[tuple[str, str, str]]) -> Html:
    rows = [(tag("code", key), value or "-", origin) for key, value, origin in settings]
    if not rows:
        return _none("Its file cannot be read.")
    return markup.table(("Option", "Value", "From"), rows, "Effective configuration")
