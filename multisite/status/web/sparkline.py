"""Small curves as inline SVG, which read as a sentence where they cannot be seen (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multisite.status.web.markup import Html, tag

WIDTH, HEIGHT = 100, 20
MOST_POINTS = 40


def sparkline(requests: Sequence[float], errors: Sequence[float] = (), what: str = "") -> Html:
    """Draw requests as a line and errors as bars below it; empty where nothing happened.

    Args:
        requests: points, oldest first, equally far apart.
        errors: of the same spans.
        what: the time that they cover, for the sentence: ``the last hour``.
    """
    curve, bars = _thinned(requests), _thinned(errors)
    top = max([*curve, *bars], default=0.0)
    if top <= 0:
        return Html("")
    total, wrong = f"{sum(requests):.0f}", f"{sum(errors):.0f}"
    said = f"{total} requests, {wrong} errors in {what}" if what else f"{total} requests, {wrong} errors"
    line = tag("polyline", points=_points(curve, top), class_="rate")
    step = WIDTH / max(1, len(bars) - 1)
    marks = [
        f"M{number * step:.0f} {HEIGHT}V{HEIGHT - max(2.0, HEIGHT * bar / top):.0f}"
        for number, bar in enumerate(bars)
        if bar > 0
    ]
    wrongs = tag("path", d="".join(marks), class_="errors") if marks else Html("")
    box = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", line, wrongs, viewBox=box, class_="spark", role="img", aria_label=said)


def level(sizes: Sequence[float], said: str) -> Html:
    """Draw something that is a level rather than a sum, such as memory; empty where it was never known.

    Args:
        sizes: points, oldest first, equally far apart; 0 where nobody has measured it, which leaves a gap.
        said: the sentence for those who cannot see it.
    """
    curve = _thinned(sizes, max)
    top = max(curve, default=0.0)
    if top <= 0:
        return Html("")
    places = zip(_points(curve, top).split(), curve, (0.0, *curve), strict=False)
    strokes = [f"L{at}" if before else f"M{at}h0" for at, point, before in places if point]
    line = tag("path", d="".join(strokes), class_="level")
    return tag("svg", line, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="spark", role="img", aria_label=said)


def _points(curve: Sequence[float], top: float) -> str:
    step = WIDTH / max(1, len(curve) - 1)
    return " ".join(f"{number * step:.0f},{HEIGHT - HEIGHT * point / top:.0f}" for number, point in enumerate(curve))


def _thinned(points: Sequence[float], joined: Callable[[Sequence[float]], float] = sum) -> list[float]:
    """Return at most `MOST_POINTS` points, each of several neighbours."""
    width = -(-len(points) // MOST_POINTS) or 1
    return [joined(points[at : at + width]) for at in range(0, len(points), width)]
