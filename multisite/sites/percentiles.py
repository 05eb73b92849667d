"""How long requests take, as the table that load testers print (pure)."""

from __future__ import annotations

from collections.abc import Sequence

#: shares in per cent: those of ApacheBench's table, and what the slowest in a thousand see
SHARES = (50.0, 66.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.9)


def percentiles(bounds: Sequence[float], counts: Sequence[int]) -> dict[float, float | None]:
    """Return within how many seconds each share of the requests was answered.

    Args:
        bounds: upper bounds of the buckets in seconds, rising.
        counts: requests in each bucket, and in the one above the last bound, of which no more is known.

    Returns:
        share in per cent → seconds, between the bounds of its bucket as if its requests were spread evenly; None
        where there were no requests, or infinity above the last bound.
    """
    total = sum(counts)
    return {share: _at(bounds, counts, total * share / 100) if total else None for share in SHARES}


def _at(bounds: Sequence[float], counts: Sequence[int], wanted: float) -> float:
    below = 0
    for number, count in enumerate(counts):
        if count and below + count >= wanted:
            if number == len(bounds):
                break
            lower = bounds[number - 1] if number else 0.0
            return lower + (bounds[number] - lower) * (wanted - below) / count
        below += count
    return float("inf")
