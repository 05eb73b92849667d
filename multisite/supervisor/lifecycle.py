"""The life of a backend: seven states, nine events, one table.

A backend owns a process exactly in the states of `OWNS_PROCESS`, and a deadline exactly in those of `HAS_DEADLINE`; so
it needs one pid and one deadline. ``stop`` is harmless in every state, because both people and the planner send it. An
empty cell of the table is a programming error.

Where the events come from: ``ready`` and ``exited`` come from the process. ``failed`` replaces ``exited`` when its end
counts against the next start (`supervisor.site.exits`). ``deadline`` comes from the loop, and ``drained`` when nothing
is in flight any more. ``wanted`` and ``give-up`` come from the planner; ``stop`` and ``reset`` from the control socket,
a reload and the planner. Idle, evicted, reload and asked are neither states nor events: they are reasons for ``stop``.

``python -m multisite.supervisor.lifecycle`` prints the table, with ``--dot`` the diagram for Graphviz.
"""

from __future__ import annotations

import sys
from enum import Enum


class State(Enum):
    """Where a backend is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FATAL = "fatal"


class Event(Enum):
    """What can happen to a backend."""

    WANTED = "wanted"
    READY = "ready"
    STOP = "stop"
    DRAINED = "drained"
    EXITED = "exited"
    FAILED = "failed"
    DEADLINE = "deadline"
    GIVE_UP = "give-up"
    RESET = "reset"


class Action(Enum):
    """What entering a cell requires; setting the new state's deadline goes without saying."""

    NOTHING = "nothing"
    SPAWN = "spawn"
    SERVE = "serve"
    DRAIN = "drain"
    TERMINATE = "terminate"
    KILL = "kill"
    REAP = "reap"
    WAIT = "wait"
    REST = "rest"
    GIVE_UP = "give up"


OWNS_PROCESS = frozenset({State.STARTING, State.RUNNING, State.DRAINING, State.STOPPING})
HAS_DEADLINE = frozenset({State.STARTING, State.DRAINING, State.STOPPING, State.BACKOFF})

TABLE: dict[State, dict[Event, tuple[State, Action]]] = {
    State.STOPPED: {
        Event.WANTED: (State.STARTING, Action.SPAWN),
        Event.STOP: (State.STOPPED, Action.NOTHING),
    },
    State.STARTING: {
        Event.READY: (State.RUNNING, Action.SERVE),
        Event.STOP: (State.STOPPING, Action.TERMINATE),
        Event.EXITED: (State.STOPPED, Action.REAP),
        Event.FAILED: (State.BACKOFF, Action.WAIT),
        Event.DEADLINE: (State.STARTING, Action.KILL),
    },
    State.RUNNING: {
        Event.STOP: (State.DRAINING, Action.DRAIN),
        Event.EXITED: (State.STOPPED, Action.REAP),
        Event.FAILED: (State.BACKOFF, Action.WAIT),
    },
    State.DRAINING: {
        Event.STOP: (State.DRAINING, Action.NOTHING),
        Event.DRAINED: (State.STOPPING, Action.TERMINATE),
        Event.EXITED: (State.STOPPED, Action.REAP),
        Event.DEADLINE: (State.STOPPING, Action.TERMINATE),
    },
    State.STOPPING: {
        Event.STOP: (State.STOPPING, Action.NOTHING),
        Event.EXITED: (State.STOPPED, Action.REAP),
        Event.DEADLINE: (State.STOPPING, Action.KILL),
    },
    State.BACKOFF: {
        Event.STOP: (State.STOPPED, Action.REST),
        Event.DEADLINE: (State.STOPPED, Action.REST),
        Event.GIVE_UP: (State.FATAL, Action.GIVE_UP),
        Event.RESET: (State.STOPPED, Action.REST),
    },
    State.FATAL: {
        Event.STOP: (State.STOPPED, Action.REST),
        Event.RESET: (State.STOPPED, Action.REST),
    },
}


class ImpossibleEvent(AssertionError):
    """An event came in a state that has no cell for it: a bug in this program."""


def step(state: State, event: Event) -> tuple[State, Action]:
    """Return the state after `event` and the action that follows.

    Raises:
        ImpossibleEvent: the table has no such cell.
    """
    try:
        return TABLE[state][event]
    except KeyError:
        raise ImpossibleEvent(f"{event.value} in {state.name}") from None


def as_markdown() -> str:
    """Print the table for people."""
    rows = [f"| state | {' | '.join(event.value for event in Event)} |", "|---" * (len(Event) + 1) + "|"]
    rows += [f"| {state.name} | {' | '.join(_cell(state, event) for event in Event)} |" for state in State]
    return "\n".join(rows)


def _cell(state: State, event: Event) -> str:
    if event not in TABLE[state]:
        return ""
    target, action = TABLE[state][event]
    name = "stays" if target is state else target.name
    return name if action is Action.NOTHING else f"{name}, {action.value}"


def as_dot() -> str:
    """Print the diagram for Graphviz, without each ``stop`` that has no effect."""
    lines = ["digraph lifecycle {", "  rankdir=LR; node [shape=box, style=rounded, fontname=sans];"]
    lines += [f"  {state.name}{' [penwidth=2]' if state in OWNS_PROCESS else ''};" for state in State]
    lines += [
        f'  {state.name} -> {target.name} [label="{event.value}"];'
        for state, cells in TABLE.items()
        for event, (target, action) in cells.items()
        if action is not Action.NOTHING
    ]
    return "\n".join([*lines, "}"])


if __name__ == "__main__":
    print(as_dot() if "--dot" in sys.argv else as_markdown())
