"""The first page: what needs somebody, then a table of the sites, filtered, sorted and paged by its address (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from multisite.status.needs import FAILED, Need, of_all, ordered
from multisite.status.summary import summed
from multisite.status.web import markup
from multisite.status.web.markup import Html, Part, count, incident_link, site_path, tag

Row = dict[str, Any]
PAGE = 100  # rows of one page: what 150 KiB hold
MOST_NEEDS = 6  # that are told on the first page
LONGEST_QUERY = 100
REFRESH = 10  # seconds
#: parts of the table that can be asked for: word -> which sites are in it
KINDS: dict[str, tuple[str, Callable[[Row], bool]]] = {
    "all": ("All", lambda row: True),
    "enabled": ("Enabled", lambda row: bool(row["enabled"])),
    "failed": ("Failed", lambda row: bool(row["enabled"]) and row["state"] in FAILED),
    "running": ("With processes", lambda row: bool(row.get("pids"))),
    "stopped": ("Stopped", lambda row: bool(row["enabled"]) and row["state"] == "stopped"),
    "in-process": ("In the workers", lambda row: row["state"] == "in-process"),
    "out": ("Out of service", lambda row: bool(row.get("service"))),
    "disabled": ("Not enabled", lambda row: not row["enabled"]),
}
#: columns: key of the address -> heading, and what they are sorted by
COLUMNS: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "name": ("Site", lambda row: row["name"].casefold()),
    "state": ("State", lambda row: row["state"]),
    "requests": ("Requests", lambda row: row.get("requests") or 0),
    "errors": ("Errors", lambda row: row.get("errors") or 0),
    "waiting": ("In flight", lambda row: (row.get("waiting") or 0) + (row.get("in_flight") or 0)),
    "memory": ("Memory", lambda row: row.get("memory") or 0),
    "cpu": ("CPU", lambda row: row.get("cpu") or 0.0),
    "used": ("Last use", lambda row: row.get("last_use") or 0.0),
}
NUMBERS = ("requests", "errors", "waiting", "memory", "cpu", "used")
#: signs before the word of a state, for those who do not tell colours apart
SIGNS = {"broken": "✖", "fatal": "✖", "backoff": "▲", "running": "●", "in-process": "●", "starting": "◐"}


@dataclass(frozen=True)
class View:
    """Which part of the table is asked for, as the address says it.

    Attributes:
        find: part of a name or domain.
        kind: one of `KINDS`.
        sort: one of `COLUMNS`, or "need".
        down: largest first.
        page: from 1.
    """

    find: str = ""
    kind: str = "all"
    sort: str = "need"
    down: bool = False
    page: int = 1

    @classmethod
    def of(cls, query: str) -> View:
        """Read the query of an address; what is not known counts as not given."""
        given = parse_qs(query, max_num_fields=20, errors="replace") if len(query) < 2000 else {}
        one = {key: values[0] for key, values in given.items()}
        kind, sort, page = one.get("kind", ""), one.get("sort", ""), one.get("page", "")
        down, sort = sort.startswith("-"), sort.removeprefix("-")
        return cls(
            one.get("q", "")[:LONGEST_QUERY],
            kind if kind in KINDS else "all",
            sort if sort in COLUMNS else "need",
            down and sort in COLUMNS,
            int(page) if page.isascii() and page.isdigit() and len(page) < 7 and int(page) else 1,
        )

    @property
    def query(self) -> str:
        """The address of this view, behind its path: "" for the usual one."""
        sort = ("-" if self.down else "") + self.sort
        told = {"q": self.find, "kind": self.kind, "sort": sort, "page": str(self.page)}
        usual = {"q": "", "kind": "all", "sort": "need", "page": "1"}
        query = urlencode({key: value for key, value in told.items() if value != usual[key]})
        return f"?{query}" if query else ""

    def chosen(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows of all pages, in order."""
        is_in, wanted = KINDS[self.kind][1], self.find.casefold()
        found = [row for row in rows if is_in(row) and _has(row, wanted)]
        if self.sort == "need":
            return ordered(found)
        key = COLUMNS[self.sort][1]
        return sorted(sorted(found, key=COLUMNS["name"][1]), key=key, reverse=self.down)

    def cut(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows of this page."""
        return rows[(self.page - 1) * PAGE : self.page * PAGE]


def _has(row: Row, wanted: str) -> bool:
    return not wanted or any(wanted in str(one).casefold() for one in (row["name"], *row["domains"]))


def overview(
    document: dict[str, Any],
    view: View,
    *,
    now: float,
    curves: Callable[[Row], Html] = lambda row: Html(""),
    buttons: Part = None,
    notice: Part = None,
) -> str:
    """Return the first page.

    Args:
        document: of ``--json status``.
        view: what is asked for.
        now: Unix seconds.
        curves: draws what a site did lately.
        buttons: for whoever may change something.
        notice: what has just been done.
    """
    rows = document["sites"]
    chosen = view.chosen(rows)
    found = of_all(document)
    home = str((document.get("supervisor") or {}).get("home") or document.get("home") or "")
    body = [
        tag("h1", "Sites"),
        notice,
        _summary(document, home),
        _needs(found),
        buttons,
        _filter(view, rows),
        _table(view, chosen, now, curves),
        _pages(view, len(chosen)),
        _elsewhere(view),
    ]
    return markup.page("Sites", body, refresh=REFRESH, home=home, live="/events")


def _summary(document: dict[str, Any], home: str) -> Html:
    """The same line as ``multisite status`` has, and what ends a drain."""
    parts = summed(document, home).parts()
    parts += [] if document.get("supervisor") else ["no supervisor is running"]
    parts += ["this machine is draining; multisite drain --undo ends that"] if document.get("draining") else []
    parts += [document["hidden"]] if document.get("hidden") else []
    return tag("p", " · ".join(parts), class_="summary")


def _needs(found: Sequence[Need]) -> Html:
    if not found:
        return markup.section("Needs you", tag("p", "✔ Nothing needs you.", class_="fine"))
    items = [need_item(need) for need in found[:MOST_NEEDS]]
    rest = len(found) - MOST_NEEDS
    more = tag("p", tag("a", f"and {rest} more", href="/?kind=failed")) if rest > 0 else None
    listed = tag("ul", *items, class_="needs")
    return tag("div", markup.section(f"Needs you ({len(found)})", listed, more), class_="attention")


def need_item(need: Need, linked: bool = True) -> Html:
    """Return one thing that is the matter, with cause and remedy."""
    site = tag("a", need.name, href=site_path(need.name)) if linked else Html("")
    what = need.kind.capitalize()
    head = tag("p", tag("strong", f"✖ {what}: " if linked else f"✖ {what}"), site)
    remedy = tag("p", "Remedy: ", tag("code", need.remedy)) if need.remedy else None
    incident = tag("p", "Incident ", incident_link(need.incident)) if need.incident else None
    return tag("li", head, tag("p", need.cause), remedy, incident)


def _filter(view: View, rows: Sequence[Row]) -> Html:
    """A form whose answer is an address."""
    numbers = {word: sum(map(is_in, rows)) for word, (_, is_in) in KINDS.items()}
    options = [
        tag("option", f"{label} ({numbers[word]})", value=word, selected=word == view.kind)
        for word, (label, _) in KINDS.items()
        if numbers[word] or word == view.kind
    ]
    sort = ("-" if view.down else "") + view.sort
    return tag(
        "form",
        tag("label", "Find ", tag("input", type="search", name="q", value=view.find, maxlength=LONGEST_QUERY)),
        tag("label", "Show ", tag("select", *options, name="kind")),
        tag("input", type="hidden", name="sort", value=sort) if view.sort != "need" else None,
        tag("button", "Filter", type="submit"),
        tag("a", "All", href="/") if view.query else None,
        method="get",
        action="/",
        role="search",
        class_="filter",
    )


def _table(view: View, chosen: Sequence[Row], now: float, curves: Callable[[Row], Html]) -> Html:
    shown = view.cut(chosen)
    if not shown:
        return tag("p", "No site is in this part of the table." if chosen or view.query else "This home has no sites.")
    heads = [_head(view, key) for key in COLUMNS]
    heads.insert(2, tag("th", "Lately", scope="col", class_="lately"))
    body = [_row(row, now, curves(row)) for row in shown]
    caption = tag("caption", _counted(view, len(chosen)))
    inner = tag("table", caption, tag("thead", tag("tr", *heads)), tag("tbody", *body), class_="sites")
    return tag("div", inner, class_="scrolls", tabindex="0", role="region", aria_label="Sites")


def _counted(view: View, number: int) -> str:
    if number <= PAGE:
        return f"{number} site{'' if number == 1 else 's'}"
    first = (view.page - 1) * PAGE
    return f"Sites {first + 1} to {min(first + PAGE, number)} of {number}"


def _head(view: View, key: str) -> Html:
    is_sorted, down = view.sort == key, view.down if view.sort == key else key not in NUMBERS
    turned = replace(view, sort=key, down=not down, page=1)
    sorts = ("descending" if view.down else "ascending") if is_sorted else None
    sign = (" ▼" if view.down else " ▲") if is_sorted else ""
    link = tag("a", COLUMNS[key][0], tag("span", sign, aria_hidden="true"), href=f"/{turned.query}")
    return tag("th", link, scope="col", aria_sort=sorts, class_=f"{_class(key)}".strip() or None)


def _class(key: str) -> str:
    return f"number c-{key}" if key in NUMBERS else ""


def _row(row: Row, now: float, curve: Html) -> Html:
    domain = row["domains"][0] if row["domains"] else ""
    name = tag("a", row["name"], href=site_path(row["name"]))
    values = cells(row, now)
    site = tag("th", name, tag("small", domain) if domain else None, scope="row")
    return tag(
        "tr",
        site,
        tag("td", state(row), data_k="state"),
        tag("td", curve, class_="lately"),
        *(tag("td", values[key], class_=_class(key), data_k=key) for key in NUMBERS),
        data_site=row["name"],
    )


def cells(row: Row, now: float) -> dict[str, str]:
    """Return the texts of the columns that change while somebody looks."""
    waiting = f" +{row['waiting']} waiting" if row.get("waiting") else ""
    used = row.get("last_use")
    return {
        "requests": count(row.get("requests")),
        "errors": count(row.get("errors")),
        "waiting": count(row.get("in_flight")) + waiting,
        "memory": markup.size(row.get("memory")),
        "cpu": "-" if row.get("cpu") is None else f"{row['cpu']:.1f}s",
        "used": f"{markup.duration(max(0.0, now - used))} ago" if used else "-",
    }


def state_word(row: Mapping[str, Any]) -> str:
    """Return the state as the page shows it: a sign, the word, and why the site is out of service."""
    word = str(row["state"]) if row["enabled"] else "not enabled"
    service = f", {row['service']}" if row.get("service") else ""
    old = " (old version)" if (row.get("failure") or {}).get("serving") else ""
    return f"{SIGNS.get(word, '○')} {word}{service}{old}"


def state(row: Mapping[str, Any]) -> Html:
    """Return the state as a badge."""
    kind = "bad" if row["enabled"] and row["state"] in FAILED else "odd" if row.get("service") else "good"
    return tag("span", state_word(row), class_=f"state {kind}")


def _pages(view: View, number: int) -> Html:
    last = -(-number // PAGE)
    if last < 2:
        return Html("")
    near = sorted({1, *range(max(1, view.page - 2), min(last, view.page + 2) + 1), last})
    links = [
        tag("a", str(one), href=f"/{replace(view, page=one).query}", aria_current="page" if one == view.page else None)
        for one in near
    ]
    return tag("nav", *links, aria_label="Pages", class_="pages")


def _elsewhere(view: View) -> Html:
    same = replace(view, page=1).query
    links = [("JSON", f"/status.json{same}"), ("CSV", f"/status.csv{same}"), ("Metrics", "/metrics")]
    return tag("footer", tag("p", "The same as ", markup.join((tag("a", name, href=to) for name, to in links), " · ")))
