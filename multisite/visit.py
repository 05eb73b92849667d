"""One request on its way through a worker, from when it came until its answer has ended.

Who answers may be another thread, long after the worker's callable was left: the relay loop takes the connection over.
So the visit of a request that is relayed lies in its environ, and whoever ends the request says so with `ended`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multisite.access import Line
    from multisite.usage import Tally

#: who answers for a site: its app in this process, one elsewhere, a file, or a page of ours
IN_PROCESS, SPAWNED, PROXY, STATIC, PAGE = "in-process", "spawned", "proxy", "static", "page"

ELSEWHERE = (SPAWNED, PROXY)

KEY = "multisite.visit"


class Visit:
    """One request; `done` is called once, when it has ended.

    Attributes:
        how: who answers.
    """

    __slots__ = ("_began", "_line", "_tally", "how")

    def __init__(self, tally: Tally, line: Line | None, how: str) -> None:
        self._tally = tally
        self._line = line
        self._began = tally.begin()
        self.how = how

    def done(self, status: int, sent: int, cut: bool = False) -> None:
        """Count the request, and write its line.

        Args:
            status: of the answer; 0 where the client left before there was one.
            sent: bytes of the body that were passed on.
            cut: whether the answer did not arrive whole.
        """
        took = self._tally.end(self._began, status >= 500, sent)
        if self._line:
            self._line.write(status, sent, cut, took / 1e9, self.how)


def ended(environ: dict[str, Any], status: int, sent: int, cut: bool = False) -> None:
    """Say that a relayed request has ended (see `Visit.done`); once, and harmless where nobody wants to know."""
    visit: Visit | None = environ.pop(KEY, None)
    if visit:
        visit.done(status, sent, cut)
