"""Requests that wait before anybody is asked: who goes on, who is answered, and that only one of it happens."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from multisite.errors import ConnectFailed, SiteBusy, StillStarting
from multisite.proxy.destination import Destination, NotNow
from multisite.proxy.waiting.coldstarts import wants_page
from multisite.proxy.waiting.held import Held, WaitingRoom
from tests.backends import PATIENCE


class Reached(Destination):
    """A destination that counts who comes, and has no answer for anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def begin(self, environ: Any, upload: Any, hurry: bool) -> Any:
        self.asked += 1
        raise ConnectFailed("reached")


def held(patience: float = PATIENCE) -> tuple[Held, Reached]:
    of = Reached()
    return Held(of, patience, StillStarting), of


def test_who_is_let_go_reaches_the_site_and_who_is_late_does_not() -> None:
    one, of = held()
    with pytest.raises(NotNow):
        one.begin({}, None, True)  # type: ignore[arg-type]
    assert 0 < one.delay(lambda: None) <= PATIENCE
    one.settle()
    assert one.delay(lambda: None) == 0.0
    with pytest.raises(ConnectFailed):
        one.begin({}, None, True)  # type: ignore[arg-type]
    late, never = held(0.01)
    with pytest.raises(StillStarting):
        late.begin({}, None, False)  # type: ignore[arg-type]
    assert (of.asked, never.asked) == (1, 0)


def test_the_first_word_counts() -> None:
    one, of = held()
    calls: list[int] = []
    one.delay(lambda: calls.append(1))
    one.settle(SiteBusy("no"))
    one.settle()
    with pytest.raises(SiteBusy):
        one.begin({}, None, False)  # type: ignore[arg-type]
    assert (calls, of.asked) == ([1], 0)


def test_a_room_is_looked_after_while_somebody_waits_and_holds_no_more_than_it_may() -> None:
    looked: list[int] = []
    is_up = threading.Event()

    def look(those: list[Held]) -> None:
        looked.append(len(those))
        for one in those if is_up.is_set() else ():
            one.settle()

    room: WaitingRoom[Held] = WaitingRoom(2, look)
    first, second, third = (held()[0] for _ in range(3))
    room.enter(first)
    room.enter(second)
    with pytest.raises(SiteBusy):
        room.enter(third)
    is_up.set()
    for one in (first, second):
        assert one._settled.wait(PATIENCE)
    room.enter(third)
    assert third._settled.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while room._is_kept and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not room._is_kept, "the thread stays although nobody waits"


def test_a_look_that_fails_costs_nobody_his_place() -> None:
    fails = [True]

    def look(those: list[Held]) -> None:
        if fails.pop() if fails else False:
            raise RuntimeError("not now")
        for one in those:
            one.settle()

    one, _ = held()
    room: WaitingRoom[Held] = WaitingRoom(1, look)
    room.enter(one)
    assert one._settled.wait(PATIENCE)


PAGE = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/html,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        (PAGE, True),
        ({**PAGE, "HTTP_ACCEPT": "application/xml;q=0.9, TEXT/HTML ; q=0.5"}, True),
        ({**PAGE, "HTTP_SEC_FETCH_DEST": "document", "HTTP_SEC_FETCH_MODE": "navigate"}, True),
        ({**PAGE, "HTTP_SEC_FETCH_DEST": "iframe"}, True),
        ({**PAGE, "CONTENT_LENGTH": "0"}, True),
        ({**PAGE, "HTTP_ACCEPT": "*/*"}, False),
        ({**PAGE, "HTTP_ACCEPT": "text/*"}, False),
        ({**PAGE, "HTTP_ACCEPT": "text/html;q=0.0, */*"}, False),
        ({"REQUEST_METHOD": "GET"}, False),
        ({**PAGE, "HTTP_SEC_FETCH_DEST": "image"}, False),
        ({**PAGE, "HTTP_SEC_FETCH_MODE": "cors"}, False),
        ({**PAGE, "CONTENT_LENGTH": "5"}, False),
        ({**PAGE, "HTTP_TRANSFER_ENCODING": "chunked"}, False),
        ({**PAGE, "HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}, False),
        *(({**PAGE, "REQUEST_METHOD": method}, False) for method in ("HEAD", "POST", "OPTIONS")),
    ],
)
def test_a_browser_that_asks_for_a_page_is_known_by_what_it_sends(environ: dict[str, str], wanted: bool) -> None:
    assert wants_page(environ) is wanted
