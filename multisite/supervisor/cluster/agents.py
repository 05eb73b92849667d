"""Which process talks to the registry's engine, and what it has been asked: questions outlive a process that is stuck.

One process is asked at a time. It may stop answering: because it is stopped, or because it hangs in something for which
no library has a time limit. Then another one takes its place, and is asked the same again. After an upgrade of the
supervisor there are two for a moment: that of the program before answers until our own, which has the new code, is
ready. So a lease can be renewed at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from multisite.cluster.registry import ANSWERS_WITHIN, Address
from multisite.supervisor.cluster.agentprocess import AgentProcess, Message
from multisite.supervisor.loop import Loop
from multisite.supervisor.reexec import Handed, Keeper, kept
from multisite.supervisor.reexec import State as Packed

MOST_ASKED = 2  # processes that are asked the same
STUCK = "the process that talks to the engine does not answer"

Done = Callable[[Any, str], None]  # the result, and why there is none


@dataclass
class _Question:
    """What is asked.

    Attributes:
        agent: which has been asked last, None: none yet.
        asked_at: monotonic seconds.
        asked: how many processes have been asked.
    """

    message: Message
    done: Done
    agent: AgentProcess | None = None
    asked_at: float = 0.0
    asked: int = 0


class Agents(Handed):
    """The process that talks to the engine, and the one before it as long as that has to answer.

    Args:
        heard: is called with what the process says unasked.

    Attributes:
        url: of the engine that they talk to.
    """

    KEPT = kept("url _number")
    BY_HAND = ("_former",)
    ANEW = ("_loop", "_heard", "_current", "_questions")

    def __init__(self, loop: Loop, heard: Callable[[Message], None]) -> None:
        self._loop, self._heard = loop, heard
        self._current: AgentProcess | None = None
        self._former: AgentProcess | None = None
        self._questions: dict[int, _Question] = {}
        self._number, self.url = 0, ""

    def pack(self, keep: Keeper) -> Packed:
        """Return what `take_over` accepts: the process that answers, and which answers are not for our successor."""
        agent = self._asked
        return {**super().pack(keep), "agent": agent.pack(keep) if agent else None}

    def take_over(self, state: Packed) -> None:
        """Continue with the process of another program until there is our own."""
        super().take_over(state)
        if state.get("agent"):
            self._former = AgentProcess.taken_over(state["agent"], self._loop, self._heard_former)

    @property
    def is_current(self) -> bool:
        """Whether our own process is there, so that it can be told what to announce."""
        return bool(self._current and self._current.is_open)

    @property
    def _asked(self) -> AgentProcess | None:
        """The process that is asked."""
        found = (self._former, self._current)
        return next((one for one in found if one and one.is_open), None)

    @property
    def is_open(self) -> bool:
        """Whether there is a process that can be asked."""
        return self._asked is not None

    @property
    def pids(self) -> set[int]:
        """Their numbers."""
        return {one.pid for one in (self._former, self._current) if one}

    def start(self, first: Message) -> None:
        """Start our own.

        Raises:
            OSError: it cannot be started.
        """
        self.url = first["url"]
        self._current = AgentProcess.started(first, self._loop, self._heard_current)
        self._ask_again()

    def say(self, message: Message) -> None:
        """Tell our own process something."""
        if self._current:
            self._current.write(message)

    # Questions

    def ask(self, message: Message, done: Done) -> None:
        """Ask, now or as soon as there is a process; `done` gets the answer later, or why there is none."""
        self._number += 1
        self._questions[self._number] = question = _Question({"ask": self._number, **message}, done)
        self._put(question)

    def _put(self, question: _Question) -> None:
        agent = self._asked
        if agent:
            question.agent, question.asked_at, question.asked = agent, self._loop.now(), question.asked + 1
            agent.write(question.message)

    def _ask_again(self) -> None:
        """Ask what nobody will answer who has been asked; in the same order, since that counts."""
        for number, question in list(self._questions.items()):
            if question.agent and question.agent.is_open:
                continue
            if question.asked >= MOST_ASKED:
                del self._questions[number]
                question.done(None, STUCK)
            else:
                self._put(question)

    def fail(self, reason: str) -> None:
        """Answer all that has been asked: nobody can."""
        asked, self._questions = self._questions, {}
        for question in asked.values():
            question.done(None, reason)

    # What they say

    def _heard_former(self, message: Message) -> None:
        if "answer" in message:
            self._answered(message)

    def _heard_current(self, message: Message) -> None:
        if "answer" in message:
            return self._answered(message)
        if "state" in message and self._former:
            self._replace_former()
        return self._heard(message)

    def _answered(self, message: Message) -> None:
        question = self._questions.pop(message["answer"], None)  # None: another program has asked
        if question:
            question.done(message.get("result"), message.get("error", ""))

    # Their ends

    def tick(self, now: float) -> bool:
        """End those that are stuck, or that have closed their socket; tells whether our own was stuck."""
        if self._former and not (self._former.is_open and self._works(self._former, now)):
            self._replace_former()
        current = self._current
        if not current or (current.is_open and self._works(current, now)):
            return False
        was_open, self._current = current.is_open, None
        current.kill()
        return was_open

    def _works(self, agent: AgentProcess, now: float) -> bool:
        if not agent.beats(now):
            return False
        since = agent.alive_since
        asked = [each.asked_at for each in self._questions.values() if each.agent is agent]
        return not asked or since is None or now - max(min(asked), since) <= answers_within(self.url)

    def _replace_former(self) -> None:
        if self._former:
            self._former.kill()
            self._former = None
            self._ask_again()

    def ended(self, pid: int) -> bool:
        """Handle the end of a process; False if it is none of ours."""
        if self._former and pid == self._former.pid:
            former, self._former = self._former, None
            former.ended()
            self._ask_again()
            return True
        if self._current and pid == self._current.pid:
            current, self._current = self._current, None
            current.ended()
            return True
        return False

    def leave(self, within: float = 0.0) -> None:
        """Let our own do what has been asked, withdraw what it announced, and end; wait so many seconds for that."""
        if self._current:
            self._replace_former()
        agent, self._current, self._former = self._current or self._former, None, None
        if agent:
            agent.leave(within)


def answers_within(url: str) -> float:
    """Return the seconds that may pass until the engine's answer.

    The question before it and a look may each try all members of the engine in vain; then it gets the reason at once.
    """
    try:
        members = len(Address.parse(url).hosts)
    except ValueError:
        members = 1
    return 2 * members * ANSWERS_WITHIN + 1.0
