"""What a start went through: its steps, how long each took, and the last that the process said."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

MOST_LINES = 40
LONGEST_LINE = 1000  # characters of a line that are kept


@dataclass
class Tail:
    """The last lines of what a process printed, bounded whatever it prints."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LINES))
    _open: str = ""

    def feed(self, data: bytes) -> list[str]:
        """Take more output; return the lines that it completes."""
        *whole, rest = (self._open + data.decode("utf-8", "backslashreplace")).split("\n")
        done = [line.rstrip("\r")[:LONGEST_LINE] for line in whole]
        if len(rest) > LONGEST_LINE:
            done.append(rest[:LONGEST_LINE])
            rest = ""
        self._open = rest
        self.lines.extend(done)
        return done

    def flush(self) -> list[str]:
        """Take an unfinished line for finished."""
        return self.feed(b"\n") if self._open else []


@dataclass
class Journey:
    """The steps of one start, in order, each with its duration in seconds once it is over.

    Attributes:
        way: forked or plain, and why.
    """

    begun: float
    steps: list[tuple[str, float]] = field(default_factory=list)
    tail: Tail = field(default_factory=Tail)
    way: str = ""
    failure: str = ""
    incident: str = ""
    _since: float = 0.0
    _step: str = ""

    def enter(self, step: str, now: float) -> None:
        """Begin a step; the one before is over."""
        self.leave(now)
        self._step, self._since = step, now

    def leave(self, now: float) -> None:
        """End the current step."""
        if self._step:
            self.steps.append((self._step, now - self._since))
            self._step = ""

    def fail(self, reason: str, incident: str, now: float) -> None:
        """End the journey where it is."""
        step = self._step
        self.leave(now)
        self.failure = f"{step}: {reason}" if step else reason
        self.incident = incident

    @property
    def duration(self) -> float:
        """Seconds that all finished steps took."""
        return sum(seconds for _, seconds in self.steps)

    def pack(self) -> dict[str, Any]:
        """Return what `taken_over` takes."""
        tail = [list(self.tail.lines), self.tail._open]
        return {**vars(self), "tail": tail}

    @classmethod
    def taken_over(cls, state: dict[str, Any]) -> Journey:
        """Return the journey that another program packed."""
        lines, rest = state["tail"]
        steps = [(str(step), float(seconds)) for step, seconds in state["steps"]]
        return cls(**{**state, "steps": steps, "tail": Tail(deque(lines, MOST_LINES), rest)})

    def as_dict(self) -> dict[str, object]:
        """Describe it for ``status``."""
        return {
            "steps": [{"step": step, "seconds": round(seconds, 4)} for step, seconds in self.steps],
            "way": self.way,
            "failure": self.failure,
            "incident": self.incident,
            "output": list(self.tail.lines),
        }

    @property
    def headline(self) -> str:
        """One line with all steps."""
        steps = ", ".join(f"{step} {seconds * 1000:.0f} ms" for step, seconds in self.steps)
        return (self.failure or "started") + (f" ({steps})" if steps else "")

    def __str__(self) -> str:
        """The headline, and a line for each of the last lines of output."""
        return "\n".join([self.headline, *(f"    {line}" for line in self.tail.lines)])
