"""HTML that is safe by construction: whatever is not marked as HTML is escaped where it is shown.

Names, paths and log lines come from sites and their visitors. They are text to this module, and so is everything that
it does not make itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from multisite.errors import one_line

LONGEST = 400  # characters of a text that are shown


class Html(str):
    """Markup of ours, which is not escaped again."""

    __slots__ = ()


Part = str | None  # of an element: markup of ours, or text; nothing of None


def text(value: object, longest: int = LONGEST) -> Html:
    """Return a value as HTML text in one line, without characters that control a terminal or the direction."""
    shown = one_line(str(value).encode("utf-8", "backslashreplace").decode())
    return Html(escape(shown if len(shown) <= longest else shown[:longest] + "…"))


def join(parts: Iterable[Part], between: str = "") -> Html:
    """Return parts one after another; text is escaped."""
    return Html(between.join(part if isinstance(part, Html) else text(part) for part in parts if part is not None))


def tag(name: str, /, *parts: Part, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: of the element.
        parts: what is inside, markup or text.
        attributes: by name, ``_`` for ``-`` (``class_`` for class); True for one without a value, None for none.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value not in (None, False))
    inside = join(parts)
    return Html(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{inside}</{name}>")


_VOID = ("input", "meta", "link", "br")


def _attribute(key: str, value: object) -> str:
    name = key.strip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value, 4000)}"'


def site_path(name: str) -> str:
    """Return the path of a site's page."""
    return f"/site/{_quoted(name)}"


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogateescape")


def incident_link(incident: str) -> Html:
    """Return a link to what is known of an incident; nothing where there is none."""
    return tag("a", incident, href=f"/incident/{_quoted(incident)}") if incident else Html("")


def moment(at: float | None) -> Html:
    """Return a time (Unix seconds) for people and for machines; a dash where there is none."""
    if not at or not 0 < at < 2**40:
        return Html("-")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    return tag("time", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)), datetime=stamp)


def duration(seconds: float | None) -> str:
    """Return a time in its largest whole unit: ``42s``, ``7m``, ``3h``, ``2d``; a dash where there is none."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s" if seconds >= 1 else f"{seconds * 1000:.0f}ms"


def size(number: float | None) -> str:
    """Return bytes as KiB, MiB or GiB; a dash where there are none."""
    if not number:
        return "-"
    unit, divisor = next(((u, d) for u, d in (("GiB", 2**30), ("MiB", 2**20)) if number >= d), ("KiB", 2**10))
    return f"{number / divisor:.1f} {unit}"


def count(number: float | None) -> str:
    """Return a number with its thousands apart; a dash where nobody counts."""
    return "-" if number is None else f"{number:,.0f}"


def table(heads: Iterable[str], rows: Iterable[Iterable[Part]], caption: str) -> Html:
    """Return a plain table; its caption is for those who do not see what stands above it."""
    head = tag("tr", *(tag("th", one, scope="col") for one in heads))
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    inner = tag("table", tag("caption", caption, class_="unseen"), tag("thead", head), tag("tbody", *body))
    return tag("div", inner, class_="scrolls", tabindex="0", role="region", aria_label=caption)


def facts(pairs: Iterable[tuple[str, Part]]) -> Html:
    """Return a list of names and values; what has no value is left out."""
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value]
    return tag("dl", *items) if items else Html("")


def section(title: str, *parts: Part) -> Html:
    """Return a part of a page under a heading of its own."""
    anchor = "".join(char if char.isalnum() else "-" for char in title.lower())
    return tag("section", tag("h2", title, id=anchor), *parts, aria_labelledby=anchor)


def page(title: str, body: Iterable[Part], *, refresh: int = 0, home: str = "", live: str = "") -> str:
    """Return a whole document.

    Args:
        title: of the page.
        body: what is on it.
        refresh: seconds after which a browser without the script loads it again; 0: never.
        home: name of the home, shown at the top.
        live: address of the stream that the script listens to, "" for none.
    """
    again = tag("noscript", tag("meta", http_equiv="refresh", content=refresh)) if refresh else Html("")
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            again,
            tag("title", f"{title} | multisite"),
            tag("link", rel="icon", href="data:,"),
            tag("link", rel="stylesheet", href="/status.css"),
            tag("script", src="/status.js", defer=True),
        ]
    )
    top = tag("header", tag("a", "multisite", href="/", class_="brand"), tag("span", home, class_="home"))
    skip = tag("a", "Skip to the content", href="#content", class_="skip")
    main = tag("main", *body, id="content", data_live=live or None)
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{skip}{top}{main}</body>\n</html>\n'
