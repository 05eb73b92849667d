"""Requests above a site's bound go elsewhere, and places are given back however a request ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from multisite.dispatch.middleware import ConcurrencyLimit

HERE, ELSEWHERE = [b"here"], [b"elsewhere"]


def bounded(app: Any, most: int, overflow: Any) -> Any:
    return ConcurrencyLimit(most, overflow).around(app)


def elsewhere(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return ELSEWHERE


def ask(app: Any, environ: dict[str, Any] | None = None) -> Any:
    return app(environ or {}, None)


def test_what_is_above_the_bound_goes_elsewhere() -> None:
    """Requests that are in it when another comes are made by calling it from inside."""
    depths: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        depths.append(ask(limited) if len(depths) < 4 else None)
        return HERE

    limited = bounded(app, 2, elsewhere)
    assert ask(limited) is HERE
    assert depths == [ELSEWHERE, HERE]
    assert ask(limited) is HERE


def test_an_answer_in_parts_counts_until_it_is_closed() -> None:
    closed = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        try:
            yield from (b"one", b"two")
        finally:
            closed.append(True)

    limited = bounded(app, 1, elsewhere)
    body = ask(limited)
    assert ask(limited) is ELSEWHERE
    assert next(iter(body)) == b"one"
    body.close()
    body.close()
    assert closed == [True]
    assert list(ask(limited)) == [b"one", b"two"]  # and is forgotten, not closed
    assert list(ask(limited)) == [b"one", b"two"]


def test_an_app_that_raises_gives_its_place_back() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise SystemExit

    limited = bounded(app, 1, elsewhere)
    for _ in range(3):
        with pytest.raises(SystemExit):
            ask(limited)


def test_a_body_whose_close_raises_gives_its_place_back() -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter(HERE)

        def close(self) -> None:
            raise RuntimeError

    limited = bounded(lambda environ, start_response: Body(), 1, elsewhere)
    for _ in range(3):
        body = ask(limited)
        with pytest.raises(RuntimeError):
            body.close()


def test_a_file_that_the_server_sends_stays_one() -> None:
    class Wrapper(list[bytes]):
        pass

    class File:
        def __iter__(self) -> Iterator[bytes]:
            return iter(HERE)

    assert type(ask(bounded(lambda environ, start_response: Wrapper(HERE), 1, elsewhere))) is Wrapper
    limited = bounded(lambda environ, start_response: File(), 1, elsewhere)
    first, second = (ask(limited, {"wsgi.file_wrapper": File}) for _ in range(2))
    assert type(first) is type(second) is File
