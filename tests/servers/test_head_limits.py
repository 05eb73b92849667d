"""How large the head of a request may be is the administrator's word to gunicorn, in every way a site is reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .everyway import ASGI, PLAIN, WSGI, Way, every_way

pytestmark = pytest.mark.servers

WSGI_APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
ASGI_APP = """
async def application(scope, receive, send):
    if scope["type"] != "lifespan":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
LIMITS = {
    "usual": (4094, 100, 8190),
    "raised": (8100, 300, 20_000),
    "lowered": (500, 12, 700),
}


@pytest.fixture(scope="module", params=LIMITS)
def limited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Way], tuple[int, int, int]]]:
    line, fields, size = limits = LIMITS[request.param]
    options = ("--limit-request-line", str(line), "--limit-request-fields", str(fields))
    options += ("--limit-request-field_size", str(size))
    given = options if request.param != "usual" else ()
    with every_way(tmp_path_factory.mktemp("ways"), WSGI_APP, ASGI_APP, options=given) as found:
        yield found, limits


@pytest.mark.parametrize("name", [PLAIN, *WSGI, *ASGI])
def test_the_limits_hold(limited: tuple[dict[str, Way], tuple[int, int, int]], name: str) -> None:
    """What is just within them is answered, and what is just above is not."""
    ways, (line, fields, size) = limited
    way = ways[name]
    around = len("GET /? HTTP/1.1")
    assert way.ask("/?" + "q" * (line - around)).status == 200
    assert way.ask("/?" + "q" * (line - around + 1)).status == 414
    cookie = len("Cookie: \r\n")
    assert way.ask("/", "GET", "Cookie: " + "c" * (size - cookie)).status == 200
    assert way.ask("/", "GET", "Cookie: " + "c" * (size - cookie + 1)).status == 431
    ours = 1 + way.says_close  # Host, Connection
    assert way.ask("/", "GET", *(f"X-{number}: x" for number in range(fields - ours))).status == 200
    assert way.ask("/", "GET", *(f"X-{number}: x" for number in range(fields - ours + 1))).status == 431
