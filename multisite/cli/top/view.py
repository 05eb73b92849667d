"""What ``top`` shows, and what each key changes of that (pure; rich's texts are values)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from multisite.cli.output import STYLES, printable, shortened
from multisite.cli.top.trends import BARS, Trends, now, sparkline
from multisite.status.needs import needs, ordered, state_of

SORTS = {"n": "need", "m": "memory", "c": "cpu", "r": "requests", "e": "errors", "w": "waiting"}
ACTIONS = {"R": "restart", "S": "stop", "D": "dissite"}
KEYS = "up/down enter  m c r e w n sort  / filter  R restart  S stop  D disable  q quit"
KEYS_OF_ONE = "left: back  R restart  S stop  D disable  q quit"
MARK = ">"


@dataclass
class Detail:
    """What is shown of one site: facts by their labels, and the last lines of its log."""

    name: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


@dataclass
class TopView:
    """What is on the screen.

    Attributes:
        sort: a value of `SORTS`.
        filter: sites are shown whose name, state or need contains it.
        selected: the name of the row that is marked.
        typing: whether the filter is being typed.
        question: the site that is disabled after a yes, "" for none.
        detail: the name of the site that is shown alone, "" for the table.
        message: what the last action did.
        wanted: an action and a site, for whoever takes it and sets it to None.
    """

    trends: Trends
    summary: str = "looking; ..."
    sites: list[dict[str, Any]] = field(default_factory=list)
    sort: str = "need"
    filter: str = ""
    selected: str = ""
    typing: bool = False
    question: str = ""
    detail: str = ""
    message: str = ""
    shown: Detail = field(default_factory=lambda: Detail(""))
    wanted: tuple[str, str] | None = None
    is_over: bool = False
    bars: str = BARS
    page: int = 10  # rows that the last drawing had room for

    def rows(self) -> list[dict[str, Any]]:
        """Return the sites that are shown, in their order."""
        word = self.filter.lower()
        rows = [site for site in ordered(self.sites) if site["enabled"]]
        if word:
            rows = [site for site in rows if any(word in text.lower() for text in _texts(site))]
        if self.sort != "need":
            rows.sort(key=self._weight, reverse=True)
        return rows

    def _weight(self, site: dict[str, Any]) -> float:
        trend = self.trends.of(site["name"])
        weights: dict[str, Callable[[], float | None]] = {
            "memory": lambda: site.get("memory"),
            "cpu": lambda: now(trend.cpu),
            "requests": lambda: now(trend.rate),
            "errors": lambda: now(trend.errors),
            "waiting": lambda: site.get("waiting"),
        }
        return weights[self.sort]() or 0.0

    # Keys

    def press(self, key: str) -> None:
        """Do what a key says."""
        if self.question:
            self._answer(key)
        elif self.typing:
            self._type(key)
        elif key in ("q", "quit"):
            self.is_over = True
        elif key in ACTIONS:
            self._act(key)
        elif self.detail:
            self.detail = "" if key in ("escape", "left", "backspace") else self.detail
        elif key in SORTS:
            self.sort = SORTS[key]
        elif key == "/":
            self.typing = True
        elif key == "escape":
            self.filter = self.message = ""
        elif key in ("enter", "right"):
            self.detail = self._at()[0]
            self.shown = Detail(self.detail)
        else:
            self._move(key)

    def _act(self, key: str) -> None:
        name = self.detail or self._at()[0]
        if key == "D":
            self.question = name
        elif name:
            self.wanted = ACTIONS[key], name

    def _answer(self, key: str) -> None:
        if key in ("y", "Y"):
            self.wanted = ACTIONS["D"], self.question
        self.question = ""
        self.is_over = key == "quit"

    def _type(self, key: str) -> None:
        if key == "quit":
            self.is_over = True
        elif key == "enter":
            self.typing = False
        elif key == "escape":
            self.typing, self.filter = False, ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1:
            self.filter += key

    def _move(self, key: str) -> None:
        _, at, rows = self._where()
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self.page, "page down": self.page}
        steps |= {"home": -len(rows), "end": len(rows)}
        if key in steps and rows:
            self.selected = rows[min(len(rows) - 1, max(0, at + steps[key]))]["name"]

    def _at(self) -> tuple[str, int]:
        name, at, _ = self._where()
        return name, at

    def _where(self) -> tuple[str, int, list[dict[str, Any]]]:
        """Return the marked row: its name, its place, and all rows; the first one where the marked one is gone."""
        rows = self.rows()
        at = next((number for number, site in enumerate(rows) if site["name"] == self.selected), 0)
        return (rows[at]["name"] if rows else ""), at, rows

    # Drawing

    def draw(self, width: int, height: int) -> list[Text]:
        """Return the lines of the screen, none of them wider than it."""
        width, height = max(1, width), max(1, height)
        head = [_line(text, width, "bold") for text in packed(self.summary.split("; "), width)[: max(1, height // 6)]]
        room = height - len(head) - 1
        body = self._draw_one(width, room) if self.detail else self._draw_table(width, room)
        lines = [*head, *body][: max(1, height - 1)]
        lines += [Text("")] * (height - 1 - len(lines))
        return [*lines, _line(self._foot(), width, "bold" if self.question or self.typing else "dim")][:height]

    def _foot(self) -> str:
        if self.question:
            return f"Disable {self.question}? It gets a 404 page then. y/n"
        if self.typing:
            return f"filter: {self.filter}_  (enter: keep, escape: all)"
        return self.message or (KEYS_OF_ONE if self.detail else KEYS)

    def _draw_table(self, width: int, room: int) -> list[Text]:
        name, at, rows = self._where()
        self.selected = name
        filtered = f", filter {self.filter}" if self.filter else ""
        state = f"{len(rows)} of {sum(site['enabled'] for site in self.sites)} sites by {self.sort}{filtered}"
        columns = _columns(width)
        self.page = max(1, room - 2)
        first = max(0, min(at - self.page // 2, len(rows) - self.page))
        head = _joined([(heading, "left" if is_text else "right", size) for heading, size, is_text in columns])
        lines = [_line(state, width, "dim"), _line(f"  {head}", width, "underline")]
        for site in rows[first : first + self.page]:
            lines.append(self._row(site, columns, width, is_marked=site["name"] == name))
        return lines

    def _row(self, site: dict[str, Any], columns: list[tuple[str, int, bool]], width: int, is_marked: bool) -> Text:
        cells, trend = self._cells(site), self.trends.of(site["name"])
        texts = []
        for heading, size, is_text in columns:
            text = cells.get(heading, "")
            if heading in _CURVES:
                curve = getattr(trend, _CURVES[heading])
                text = sparkline(curve, size, self.bars, _LEAST[heading])
            texts.append((text, "left" if is_text else "right", size))
        line = _line(f"{MARK if is_marked else ' '} {_joined(texts)}", width, "reverse" if is_marked else "")
        style = STYLES.get(site["state"], "")
        if style and not is_marked:
            begin = 2 + columns[0][1] + 1
            line.stylize(style, begin, begin + columns[1][1])
        return line

    def _cells(self, site: dict[str, Any]) -> dict[str, str]:
        trend = self.trends.of(site["name"])
        memory = site.get("memory")
        kinds = list(dict.fromkeys(need.kind for need in needs(site)))
        return {
            "name": site["name"],
            "state": state_of(site),
            "needs": ", ".join(kinds),
            "r/min": _number(now(trend.rate)),
            "e/min": _number(now(trend.errors)),
            "MiB": f"{memory / 2**20:.0f}" if memory else "-",
            "cpu%": _number(now(trend.cpu)),
            "wait": str(site.get("waiting") or 0),
            "requests": "-" if site.get("requests") is None else str(site["requests"]),
        }

    def _draw_one(self, width: int, room: int) -> list[Text]:
        """Draw one site: its facts, its curves, and as many lines of its log as there is room for."""
        site = next((one for one in self.sites if one["name"] == self.detail), None)
        trend = self.trends.of(self.detail)
        lines = [_line(self.detail + (f": {state_of(site)}" if site else ": gone"), width, "reverse")]
        for need in needs(site) if site else ():
            incident = f", incident {need.incident}" if need.incident else ""
            lines.append(_line(f"{need.kind}{incident}: {need.cause}", width, "bold"))
            lines.append(_line(f"    {need.remedy}", width))
        span = max(1, width - 30)
        for label, curve, unit in (
            ("requests/min", trend.rate, 1.0),
            ("errors/min", trend.errors, 1.0),
            ("memory MiB", trend.memory, 2**20),
            ("cpu %", trend.cpu, 1.0),
        ):
            value = now(curve)
            told = _number(value / unit) if value is not None else "-"
            lines.append(_line(f"{label:12} {told:>8}  {sparkline(curve, min(span, 60), self.bars)}", width))
        if self.shown.name == self.detail:
            lines += [_line(f"{label:12} {text}", width) for label, text in self.shown.facts]
            left = room - len(lines) - 1
            if left > 0 and self.shown.log:
                lines.append(_line("log:", width, "dim"))
                lines += [_line(text, width) for text in self.shown.log[-left:]]
        return lines


_CURVES = {"rate ": "rate", "errs ": "errors", "mem ": "memory", "cpu ": "cpu"}  # headings, which no other has
_LEAST = {"rate ": 10.0, "errs ": 5.0, "mem ": 2.0**20, "cpu ": 10.0}


def _columns(width: int) -> list[tuple[str, int, bool]]:
    """Return the columns that there is room for: heading, width, and whether it is a text."""
    wide = width >= 140
    curve = 5 if width < 100 else min(16, 5 + (width - 100) // 8)
    fixed = [
        ("state", 24 if wide else 10, True, 9),
        ("needs", 30, True, 1 if wide else 0),
        ("r/min", 5, False, 8),
        ("rate ", curve, True, 6),
        ("e/min", 5, False, 5),
        ("errs ", curve, True, 4),
        ("MiB", 4, False, 8),
        ("mem ", curve, True, 4),
        ("cpu%", 4, False, 7),
        ("cpu ", curve, True, 4),
        ("wait", 4, False, 3),
        ("requests", 9, False, 2 if wide else 0),
    ]
    kept = [one for one in fixed if one[3] > 0]
    while kept and 2 + 12 + sum(size + 1 for _, size, _, _ in kept) > width:
        kept.remove(min(kept, key=lambda one: one[3]))
    name = max(1, min(40, width - 2 - sum(size + 1 for _, size, _, _ in kept)))
    return [("name", name, True), *((heading, size, is_text) for heading, size, is_text, _ in kept)]


def packed(parts: list[str], width: int) -> list[str]:
    """Return lines with as many parts each as there is room for."""
    lines = parts[:1]
    for part in parts[1:]:
        longer = f"{lines[-1]}; {part}"
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def _joined(cells: list[tuple[str, str, int]]) -> str:
    texts = []
    for text, side, size in cells:
        cut = shortened(printable(text), size)
        padded = set_cell_size(cut, size)
        texts.append(padded if side == "left" else cut.rjust(size))
    return " ".join(texts)


def _line(text: str, width: int, style: str = "") -> Text:
    """Return one line of the screen; nothing in it steers the terminal."""
    plain = printable(text)
    return Text(set_cell_size(plain, width) if style == "reverse" else shortened(plain, width), style, no_wrap=True)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 99_500:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _texts(site: dict[str, Any]) -> list[str]:
    return [site["name"], state_of(site), *site.get("domains", ()), *(need.kind for need in needs(site))]
