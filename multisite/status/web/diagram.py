"""The life of a process as a picture, with the present state marked (pure; from the table that the supervisor runs)."""

from __future__ import annotations

from multisite.status.web.markup import Html, tag
from multisite.supervisor.lifecycle import TABLE, Action, State

WIDTH, HEIGHT = 132, 38  # of a box
#: where the middle of each state stands
PLACES = {
    State.STOPPED: (80, 40),
    State.STARTING: (300, 40),
    State.RUNNING: (520, 40),
    State.BACKOFF: (300, 150),
    State.STOPPING: (80, 150),
    State.DRAINING: (520, 150),
    State.FATAL: (300, 250),
}
FAR = 300  # between two states with another one between them
SIZE = "0 -32 600 312"


def arrows() -> dict[tuple[State, State], list[str]]:
    """Return which events lead from one state to another; those that change nothing are left out."""
    found: dict[tuple[State, State], list[str]] = {}
    for state, cells in TABLE.items():
        for event, (target, action) in cells.items():
            if target is not state and action is not Action.NOTHING:
                found.setdefault((state, target), []).append(event.value)
    return found


def diagram(now: str) -> Html:
    """Draw the states of a process and how one follows another.

    Args:
        now: the present state by its word; another word marks none.
    """
    marked = next((state for state in State if state.value == now), None)
    lines = [_arrow(*ends) for ends in arrows()]
    boxes = [_box(state, state is marked) for state in State]
    said = f"The life of a process; now it is {now}." if marked else "The life of a process."
    tip = tag("path", d="M0 0L8 4L0 8z", class_="tip")
    marker = tag(
        "marker", tip, id="tip", viewBox="0 0 8 8", refX="8", refY="4", markerWidth="7", markerHeight="7", orient="auto"
    )
    drawn = tag("svg", tag("defs", marker), *lines, *boxes, viewBox=SIZE, class_="life", role="img", aria_label=said)
    listed = [
        tag(
            "li",
            tag("b", state.value),
            " → ",
            ", ".join(_steps(state)),
            aria_current="step" if state is marked else None,
        )
        for state in State
    ]
    return tag("div", drawn, tag("details", tag("summary", "As text"), tag("ul", *listed)))


def _steps(state: State) -> list[str]:
    return [f"{target.value} ({', '.join(events)})" for (source, target), events in arrows().items() if source is state]


def _box(state: State, is_now: bool) -> Html:
    x, y = PLACES[state]
    place = {"x": x - WIDTH // 2, "y": y - HEIGHT // 2, "width": WIDTH, "height": HEIGHT, "rx": 8}
    word = f"● {state.value}" if is_now else state.value
    label = tag("text", word, x=x, y=y + 5, text_anchor="middle")
    return tag("g", tag("rect", **place), label, class_="now" if is_now else None)


def _arrow(source: State, target: State) -> Html:
    """Draw a line from the edge of one box to that of another: aside where one leads back, around a box between."""
    (x1, y1), (x2, y2) = PLACES[source], PLACES[target]
    dx, dy = x2 - x1, y2 - y1
    if not dy and abs(dx) > FAR:
        edge, way = HEIGHT // 2, -1 if y1 < HEIGHT * 2 else 1
        d = f"M{x1} {y1 + way * edge}Q{x1 + dx // 2} {y1 + way * (edge + 70)} {x2} {y2 + way * edge}"
        return tag("path", d=d, class_="arrow", marker_end="url(#tip)")
    length = (dx * dx + dy * dy) ** 0.5
    aside = 7 if (target, source) in arrows() else 0
    x1, x2 = x1 - round(dy / length * aside), x2 - round(dy / length * aside)
    y1, y2 = y1 + round(dx / length * aside), y2 + round(dx / length * aside)
    edge_share = _edge(dx, dy)
    d = f"M{x1 + dx * edge_share:.0f} {y1 + dy * edge_share:.0f}L{x2 - dx * edge_share:.0f} {y2 - dy * edge_share:.0f}"
    return tag("path", d=d, class_="arrow", marker_end="url(#tip)")


def _edge(dx: float, dy: float) -> float:
    """Return which share of the way lies inside a box."""
    across = WIDTH / 2 / abs(dx) if dx else 1.0
    down = HEIGHT / 2 / abs(dy) if dy else 1.0
    return min(across, down)
