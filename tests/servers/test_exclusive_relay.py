"""What a node relays to the one that runs a site: everything passes as if the client had asked that node itself."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import programs
from tests.runner.websocket import ACCEPT, FIELDS, WebSocket

from .cluster import PATIENCE, Cluster, Node, cluster
from .harness import eventually

pytestmark = pytest.mark.servers

APP = '''
import base64, hashlib, os, time

BODY = b"what does not change" * 100


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)


def upload(environ, start_response):
    """The size and the hash of a body that is read in pieces."""
    size, digest = 0, hashlib.sha256()
    while data := environ["wsgi.input"].read(65536):
        size, _ = size + len(data), digest.update(data)
    answer = f"{size} {digest.hexdigest()}".encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


def events(environ, start_response):
    """Events, each of which comes when a file of its number is there."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])

    def each():
        for number in range(3):
            while not os.path.exists(os.path.join(environ["QUERY_STRING"], str(number))):
                time.sleep(0.005)
            yield f"data: {number}\\n\\n".encode()

    return each()


def same(environ, start_response):
    fields = [("ETag", '"one"'), ("Cache-Control", "max-age=60"), ("X-Two", "1"), ("X-Two", "2")]
    if environ.get("HTTP_IF_NONE_MATCH") == '"one"':
        start_response("304 Not Modified", fields)
        return []
    start_response("200 OK", [*fields, ("Content-Type", "text/x-odd"), ("Content-Length", str(len(BODY)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [BODY]


def fails(environ, start_response):
    raise RuntimeError("the application's own mistake")


def dies(environ, start_response):
    os._exit(3)


def breaks(environ, start_response):
    """An answer that ends before its end."""
    start_response("200 OK", [("Content-Length", "1000")])
    yield b"only this"
    os._exit(3)


def talk(environ, start_response):
    """A WebSocket that says what it hears, until it hears "end"."""
    connection = environ["gunicorn.socket"]
    key = environ["HTTP_SEC_WEBSOCKET_KEY"].encode()
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    head = "HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    connection.sendall(f"{head}Sec-WebSocket-Accept: {accept}\\r\\n\\r\\n".encode())
    file = connection.makefile("rb")
    while True:
        length = file.read(2)[1] & 127
        mask = file.read(4)
        data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(file.read(length)))
        if data == b"end":
            break
        connection.sendall(bytes([0x81, len(data) + 6]) + b"heard " + data)
    raise StopIteration
'''

HOSTED = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {os.environ['MULTISITE_FENCE']}".encode()]
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, of which the first one runs the site."""
    folder = tmp_path_factory.mktemp("relay")
    (folder / "hosted" / "a.hosted.test").mkdir(parents=True)
    (folder / "hosted" / "a.hosted.test" / "wsgi.py").write_text(HOSTED)
    with programs.running("etcd", folder / "etcd") as engine:
        with cluster(folder / "nodes", "etcd://127.0.0.1:{}", engine.port, lease=600) as made:
            for node in made.nodes:
                node.home.site("ways", APP, exclusive="yes", threads="8")
                hosting = f"domains = *.hosted.test\nlocation = {folder}/hosted/%HOST\nexclusive = yes\n"
                node.home.ini("hosted", f"[service]\n{hosting}")
            eventually(lambda: made.nodes[0].server.ask("ways.test", "/same").status == 200)
            yield made


@pytest.fixture
def here(pair: Cluster) -> Node:
    """The node that runs the site."""
    return pair.nodes[0]


@pytest.fixture
def there(pair: Cluster) -> Iterator[Node]:
    """The other one, which never does."""
    yield pair.nodes[1]
    assert not pair.nodes[1].home.processes(backends=True)


def asked(node: Node, path: str, method: str = "GET", **fields: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Ask once; returns the status, the fields but those of the moment, and the body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", node.server.port, timeout=PATIENCE)) as wire:
        wire.request(method, path, None, {"Host": "ways.test", **{k.replace("_", "-"): v for k, v in fields.items()}})
        answer = wire.getresponse()
        told = [(name.lower(), value) for name, value in answer.getheaders()]
        return answer.status, [one for one in told if one[0] not in ("date", "connection")], answer.read()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("fields", [{}, {"If_None_Match": '"one"'}, {"Connection": "close"}], ids=str)
def test_an_answer_is_the_same(here: Node, there: Node, method: str, fields: dict[str, str]) -> None:
    """With its fields in their order; one to HEAD and one of 304 have no body. One that was waited for is the last
    on its connection, here or there."""
    relayed = asked(there, "/same", method, **fields)
    assert relayed == asked(here, "/same", method, **fields)
    assert relayed[0] == (304 if "If_None_Match" in fields else 200)
    assert bool(relayed[2]) == (method == "GET" and relayed[0] == 200)


def test_a_connection_is_kept_for_the_next_request(there: Node) -> None:
    """As everywhere, unless an answer had to be waited for, which says that it is the last."""

    def is_kept() -> bool:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", there.server.port, timeout=PATIENCE)) as wire:
            wire.connect()
            first = wire.sock
            for _ in range(3):
                wire.request("GET", "/same", None, {"Host": "ways.test"})
                answer = wire.getresponse()
                assert (answer.status, bool(answer.read())) == (200, True)
                assert (wire.sock is None) == (answer.getheader("Connection") == "close")
                if wire.sock is not first:
                    return False
            return True

    eventually(is_kept)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_large_upload_arrives_whole(there: Node, is_chunked: bool) -> None:
    piece, count = os.urandom(65536), 256
    whole = hashlib.sha256(piece * count).hexdigest()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", there.server.port, timeout=PATIENCE)) as wire:
        fields = {"Host": "ways.test"} | ({} if is_chunked else {"Content-Length": str(len(piece) * count)})
        wire.request("POST", "/upload", (piece for _ in range(count)), fields, encode_chunked=is_chunked)
        answer = wire.getresponse()
        assert (answer.status, answer.read().decode()) == (200, f"{len(piece) * count} {whole}")


def test_events_arrive_one_by_one(there: Node, tmp_path: Path) -> None:
    """Each before the next one has been made."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", there.server.port, timeout=PATIENCE)) as wire:
        wire.request("GET", f"/events?{tmp_path}", None, {"Host": "ways.test"})
        (tmp_path / "0").touch()
        answer = wire.getresponse()
        assert answer.getheader("Content-Type") == "text/event-stream"
        for number in range(3):
            (tmp_path / str(number)).touch()
            assert answer.readline() + answer.readline() == f"data: {number}\n\n".encode()
        assert answer.read() == b""


def test_a_websocket_passes(there: Node) -> None:
    with socket.create_connection(("127.0.0.1", there.server.port), timeout=PATIENCE) as wire:
        fields = "".join(f"{name}: {value}\r\n" for name, value in FIELDS.items())
        wire.sendall(f"GET /talk HTTP/1.1\r\nHost: ways.test\r\n{fields}\r\n".encode())
        talk = WebSocket(wire)
        assert talk.head.startswith("HTTP/1.1 101 ") and ACCEPT in talk.head
        for text in ("one", "two"):
            talk.send(text)
            assert talk.receive() == (1, f"heard {text}".encode())
        talk.send("end")
        assert wire.recv(1) == b""


INCIDENT = re.compile(rb"\b[0-9a-f]{8}\b")


@pytest.mark.parametrize(("path", "status"), [("/fails", 500), ("/dies", 502)])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_an_error_page_is_that_of_the_node_that_runs_it(
    here: Node, there: Node, path: str, status: int, accept: str
) -> None:
    """With the incident by which that node's log can be searched; the other one has nothing to add."""
    direct, relayed = asked(here, path, Accept=accept), asked(there, path, Accept=accept)
    assert direct[0] == relayed[0] == status
    assert [INCIDENT.sub(b"id", one[2]) for one in (direct, relayed)] == [INCIDENT.sub(b"id", direct[2])] * 2
    [incident] = set(INCIDENT.findall(relayed[2]))
    # The supervisor learns of it from the process, which has answered before.
    eventually(lambda: "ways" in here.home.typed("incident", incident.decode()).stdout)
    assert dict(relayed[1])["content-type"] == dict(direct[1])["content-type"]


def test_an_answer_that_is_cut_short_stays_so(there: Node) -> None:
    with pytest.raises(http.client.IncompleteRead, match="9 bytes read"):
        asked(there, "/breaks")


def test_each_folder_of_a_hosting_site_has_its_own_lease(here: Node, pair: Cluster) -> None:
    answers = {node.server.ask("a.hosted.test").text for node in (here, *pair.nodes)}
    assert len(answers) == 1
    assert here.server.ask("b.hosted.test").status == 404


def test_all_nodes_know_how_many_requests_there_were(here: Node, there: Node) -> None:
    """Also those that the workers count, which relay them to the site's process."""
    assert asked(there, "/same")[0] == 200

    def counted() -> list[int]:
        (own,) = json.loads(here.home.multisite("--json", "status", "ways"))["sites"]
        rows = json.loads(there.home.multisite("--json", "status", "--cluster"))["sites"]
        return [own["requests"], *(row["requests"] for row in rows if row["name"] == "ways")]

    assert counted()[0] >= 2
    eventually(lambda: counted()[1:] == counted()[:1])
