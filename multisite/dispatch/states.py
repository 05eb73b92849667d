"""A site in a worker: six states and one table, as the supervisor has one for a backend.

An import is not a state but an action: it happens under the site's lock, and its outcome is the next event. An empty
cell means that another thread was quicker, or, for the end of an import, a programming error.

Where the events come from: ``wanted`` is the first request; ``retry``, ``asked``, ``changed`` and ``new code`` come
from the look that is due every second; ``new code``, ``move in``, ``stay out`` and ``move out`` follow the supervisor.

``python -m multisite.dispatch.states`` prints the table.
"""

from __future__ import annotations

from enum import Enum


class SiteState(Enum):
    """What answers for a site."""

    UNUSED = "unused"  # the act of importing it
    HERE = "here"  # its newest application
    STALE = "stale"  # the one before, because its reload failed
    FAILED = "failed"  # the page that explains why
    AWAY = "away"  # its own process, or its upstreams
    CLOSED = "closed"  # nothing any more


class SiteEvent(Enum):
    """What can happen to a site."""

    WANTED = "wanted"
    RETRY = "retry"
    ASKED = "asked"
    CHANGED = "changed"
    NEW_CODE = "new code"
    MOVE_IN = "move in"
    STAY_OUT = "stay out"
    MOVE_OUT = "move out"
    IMPORTED = "imported"
    NOT_RENEWED = "not renewed"  # the old version keeps serving
    UNFIT = "unfit"  # to run here
    BROKEN = "broken"
    CLOSE = "close"


class SiteAction(Enum):
    """What entering a cell requires."""

    NOTHING = "nothing"
    AWAIT = "await"
    IMPORT = "import"
    EXAMINE = "examine"
    SERVE = "serve"
    KEEP = "keep"
    SHOW = "show"
    RELAY = "relay"
    LEAVE = "leave"
    DROP = "drop"


S, E, A = SiteState, SiteEvent, SiteAction
Cells = dict[SiteEvent, tuple[SiteState, SiteAction]]

#: the states in which an application of the site answers in this process
LIVES_HERE = frozenset({S.HERE, S.STALE})


def _serving(state: SiteState) -> Cells:
    """Return what happens while an application serves in `state`, whether it is the newest or not."""
    return {
        E.ASKED: (state, A.IMPORT),
        E.CHANGED: (state, A.IMPORT),
        E.NEW_CODE: (state, A.EXAMINE),
        E.MOVE_OUT: (S.AWAY, A.LEAVE),
        E.IMPORTED: (S.HERE, A.SERVE),
        E.NOT_RENEWED: (S.STALE, A.KEEP),
        E.UNFIT: (S.AWAY, A.RELAY),
        E.BROKEN: (S.FAILED, A.SHOW),
        E.CLOSE: (S.CLOSED, A.DROP),
    }


TABLE: dict[SiteState, Cells] = {
    S.UNUSED: {
        E.WANTED: (S.UNUSED, A.IMPORT),
        E.CHANGED: (S.UNUSED, A.AWAIT),
        E.MOVE_IN: (S.UNUSED, A.IMPORT),
        E.STAY_OUT: (S.AWAY, A.RELAY),
        E.IMPORTED: (S.HERE, A.SERVE),
        E.UNFIT: (S.AWAY, A.RELAY),
        E.BROKEN: (S.FAILED, A.SHOW),
        E.CLOSE: (S.CLOSED, A.DROP),
    },
    S.HERE: _serving(S.HERE),
    S.STALE: {**_serving(S.STALE), E.RETRY: (S.STALE, A.IMPORT)},
    S.FAILED: {
        E.RETRY: (S.UNUSED, A.AWAIT),
        E.CHANGED: (S.UNUSED, A.AWAIT),
        E.CLOSE: (S.CLOSED, A.DROP),
    },
    S.AWAY: {
        E.CHANGED: (S.UNUSED, A.AWAIT),
        E.MOVE_IN: (S.AWAY, A.IMPORT),
        E.STAY_OUT: (S.AWAY, A.NOTHING),
        E.IMPORTED: (S.HERE, A.SERVE),
        E.CLOSE: (S.CLOSED, A.DROP),
    },
    S.CLOSED: {},
}


def as_markdown() -> str:
    """Print the table for people: a row for each event, because there are more events than states."""
    rows = [f"| event | {' | '.join(state.name for state in S)} |", "|---" * (len(S) + 1) + "|"]
    rows += [f"| {event.value} | {' | '.join(_cell(state, event) for state in S)} |" for event in E]
    return "\n".join(rows)


def _cell(state: SiteState, event: SiteEvent) -> str:
    if event not in TABLE[state]:
        return ""
    target, action = TABLE[state][event]
    name = "stays" if target is state else target.name
    return name if action is A.NOTHING else f"{name}, {action.value}"


if __name__ == "__main__":
    print(as_markdown())
