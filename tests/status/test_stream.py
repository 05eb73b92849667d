"""Events: what is told, how often, and that no thread is held where none can be spared."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from multisite.status.web.happenings import happenings
from multisite.status.web.stream import MOST, Streams

from .rows import HOSTILE, document, failure, row

BEFORE = row("blog", deploy={"number": 1, "state": "done"})


def of(after: dict[str, Any]) -> list[str]:
    return [kind for kind, _, _ in happenings({"blog": BEFORE}, [after])]


def test_what_happens_is_told_by_its_kind() -> None:
    assert of(BEFORE) == []
    assert of({**BEFORE, "state": "running"}) == ["start"]
    assert of({**BEFORE, "deploy": {"number": 2, "state": "trying"}}) == ["deploy"]
    assert of({**BEFORE, "failure": failure(), "state": "backoff"}) == ["failure", "incident", "stop"]
    assert list(happenings({}, [BEFORE])) == []


class Watched:
    def __init__(self) -> None:
        self.told = document(BEFORE)
        self.sleeps = 0
        self.streams = Streams(lambda: self.told, self.sleep)

    def sleep(self, _seconds: float) -> None:
        self.sleeps += 1
        self.told = document({**BEFORE, "state": "running", "requests": self.sleeps})

    def ask(self, last: str = "", multithread: bool = False) -> Any:
        environ = {"wsgi.multithread": multithread, "HTTP_LAST_EVENT_ID": last}
        return self.streams.answer(environ, lambda status, headers: None, [])


def test_without_a_thread_to_spare_the_answer_ends_at_once() -> None:
    watched = Watched()
    first = b"".join(watched.ask()).decode()
    assert "retry:" in first and "event:" not in first and watched.sleeps == 0
    watched.sleep(1)
    number = re.findall(r"^id: (.*)$", first, re.MULTILINE)[0]
    second = b"".join(watched.ask(number)).decode()
    assert "event: start\n" in second and "event: row\n" in second
    assert "event:" not in b"".join(watched.ask("an id of another worker")).decode()


def test_few_threads_are_held_and_each_comes_back() -> None:
    watched = Watched()
    held = [watched.ask(multithread=True) for _ in range(MOST + 3)]
    streams = [one for one in held if not isinstance(one, list)]
    assert 0 < len(streams) <= MOST
    pieces = iter(streams[0])
    next(pieces)
    assert b"event: start" in next(pieces)
    for one in streams:
        one.close()
        one.close()
    again = [watched.ask(multithread=True) for _ in range(MOST + 3)]
    assert len([one for one in again if not isinstance(one, list)]) == len(streams)


@pytest.mark.parametrize("text", [HOSTILE, "a\n\nevent: row\ndata: {}\n\n", "\r\rid: 1"])
def test_no_text_begins_another_event(text: str) -> None:
    watched = Watched()
    number = re.findall(r"id: (.*)", b"".join(watched.ask()).decode())[0]
    watched.told = document({**BEFORE, "state": "backoff", "failure": failure(text, incident=text)})
    lines = b"".join(watched.ask(number)).decode().split("\n")
    assert {line.partition(":")[0] for line in lines} <= {"", "retry", "event", "data", "id"}
    assert all(json.loads(line[6:]) for line in lines if line.startswith("data: "))
    assert sum(line.startswith("id:") for line in lines) == 1
