"""What holds for every way in which a site is reached: which site it is, what it is told, what its answers become."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .everyway import ASGI, WSGI, Way, every_way

pytestmark = pytest.mark.servers

WSGI_APP = """
import json


def application(environ, start_response):
    told = {key: value for key, value in environ.items() if isinstance(value, str)}
    told["path"] = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ASGI_APP = """
import json


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    told = {"HTTP_" + name.decode().upper().replace("-", "_"): value.decode() for name, value in scope["headers"]}
    told |= {"path": scope["path"], "raw_path": scope["raw_path"].decode(), "wsgi.url_scheme": scope["scheme"]}
    told["QUERY_STRING"] = scope["query_string"].decode()
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    with every_way(tmp_path_factory.mktemp("ways"), WSGI_APP, ASGI_APP) as found:
        yield found


@pytest.fixture
def way(ways: dict[str, Way], request: pytest.FixtureRequest) -> Way:
    return ways[request.param]


every = pytest.mark.parametrize("way", [*WSGI, *ASGI], indirect=True)
through_workers = pytest.mark.parametrize(
    "way", [name for name in (*WSGI, *ASGI) if not name.endswith("own-socket")], indirect=True
)


# --- the host -------------------------------------------------------------------------------------------------------


@every
def test_the_authority_of_an_absolute_target_is_the_host(way: Way) -> None:
    """RFC 9112 section 3.2.2: whatever Host says; and the site is told that name."""
    for scheme in ("http", "HTTPS"):
        answer = way.send(f"GET {scheme}://HOST/x?a=1 HTTP/1.1", "Host: nobody.test")
        told = json.loads(answer.body)
        assert (told["HTTP_HOST"], told["path"], told["QUERY_STRING"]) == (way.host, "/x", "a=1")
    told = json.loads(way.send("GET http://HOST:8000/ HTTP/1.0").body)
    assert told["HTTP_HOST"] == f"{way.host}:8000"


@through_workers
def test_an_absolute_target_is_never_for_the_site_that_host_names(way: Way) -> None:
    for authority, status in (("nobody.test", 404), ("user@HOST", 400), ("", 400)):
        answer = way.send(f"GET http://{authority}/ HTTP/1.1", "Host: HOST")
        assert answer.status == status, authority


@every
@pytest.mark.parametrize("query", ["", "?a=1", "?a=http://b.test/"])
def test_an_absolute_target_may_have_no_path(way: Way, query: str) -> None:
    told = json.loads(way.send(f"GET http://HOST{query} HTTP/1.1", "Host: HOST").body)
    assert (told["path"], told["QUERY_STRING"]) == ("/", query[1:])
    assert told.get("raw_path", "/") == "/"


@every
def test_a_path_with_a_scheme_in_it_is_none(way: Way) -> None:
    told = json.loads(way.ask("/http://nobody.test/x").body)
    assert (told["HTTP_HOST"], told["path"]) == (way.host, "/http://nobody.test/x")


@every
def test_http_1_1_names_its_host_once(way: Way) -> None:
    """RFC 9112 section 3.2; also where the target is an absolute one."""
    for lines in (
        ["GET / HTTP/1.1"],
        ["GET / HTTP/1.1", "Host:"],
        ["GET http://HOST/ HTTP/1.1"],
        ["GET / HTTP/1.1", "Host: HOST", "Host: HOST"],
    ):
        assert way.send(*lines).status == 400, lines


# --- what a client may say ------------------------------------------------------------------------------------------


@every
def test_no_site_is_told_of_a_proxy(way: Way) -> None:
    """HTTP_PROXY is what CGI-like programs send their own requests through."""
    for name in ("Proxy", "PROXY", "pRoXy"):
        assert "HTTP_PROXY" not in json.loads(way.ask("/", "GET", f"{name}: http://evil.test", "X-Odd!: x").body)
        assert "HTTP_PROXY" not in json.loads(way.ask("/", "GET", f"{name}: http://evil.test").body)


@every
def test_the_same_scheme_may_be_said_twice(way: Way) -> None:
    told = json.loads(way.ask("/", "GET", "X-Forwarded-Proto: https", "X-Forwarded-Proto: https").body)
    assert told["wsgi.url_scheme"] == "https"
    assert way.ask("/", "GET", "X-Forwarded-Proto: https", "X-Forwarded-Ssl: off").status == 400


@every
def test_the_trace_of_a_request_reaches_the_site_untouched(way: Way) -> None:
    """Byte for byte, be it well-formed or not (W3C Trace Context leaves that to who takes part)."""
    told = {"traceparent": TRACE, "tracestate": "a=1,b=2", "baggage": "user=%C3%A4", "b3": "1-2-d"}
    for fields in (told, {"TraceParent": f"  {TRACE.upper()}-more"}):
        seen = json.loads(way.ask("/", "GET", *(f"{name}: {value}" for name, value in fields.items())).body)
        names = {name: "HTTP_" + name.upper() for name in fields}
        assert {name: seen[names[name]] for name in fields} == {name: text.strip() for name, text in fields.items()}
    assert not any("TRACE" in name or "B3" in name for name in json.loads(way.ask("/").body)), "nothing is added"
