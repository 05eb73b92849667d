"""One application, behind every way in which a site is reached: in a worker, relayed, handed over, on its own socket.

Each way is there with sync and gthread workers where workers matter, and for ASGI as well.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .harness import PATIENCE, HomeDir, Server, eventually, gunicorn

WORKERS = ("sync", "gthread")
LOCAL = [f"{worker}-in-process" for worker in WORKERS]
WSGI = [*LOCAL, *(f"{worker}-{how}" for worker in WORKERS for how in ("relayed", "handed")), "direct"]
ASGI = [*(f"asgi-{worker}-{how}" for worker in WORKERS for how in ("relayed", "handed")), "asgi-direct"]
EVERY = [*WSGI, *ASGI]
THROUGH_WORKERS = [way for way in EVERY if not way.endswith("direct")]

CONF = """
[projects]
read = sites-enabled/*.ini
[supervisor]
allow_root = yes
examine = no
hand_over = {hand_over}
"""


@dataclass
class Reply:
    """What came back on one connection, up to its end."""

    data: bytes

    @property
    def status(self) -> int:
        return int(self.data[9:12] or 0)

    @property
    def lines(self) -> list[str]:
        """The header lines of the first answer."""
        return self.data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]

    @property
    def body(self) -> bytes:
        body = self.data.partition(b"\r\n\r\n")[2]
        return _unchunked(body) if "Transfer-Encoding: chunked" in self.lines else body

    def header(self, name: str) -> str:
        """The values of a field, "" for none."""
        pairs = (line.partition(":") for line in self.lines)
        return ", ".join(value.strip() for key, _, value in pairs if key.lower() == name.lower())


def _unchunked(data: bytes) -> bytes:
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        content, data = content + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return content


@dataclass
class Way:
    """One way to the site."""

    name: str
    host: str
    home: HomeDir
    server: Server

    @property
    def is_asgi(self) -> bool:
        return self.name.startswith("asgi")

    @property
    def log(self) -> Path:
        """The site's own log."""
        return self.home.path / f"{self.host}.log"

    def connect(self) -> socket.socket:
        if not self.name.endswith("direct"):
            return socket.create_connection(("127.0.0.1", self.server.port), PATIENCE)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.home.runtime / "multisite" / "sites" / f"{self.host.removesuffix('.test')}.sock"))
        return connection

    def send(self, *lines: str, body: bytes = b"") -> Reply:
        """A request of these lines, of which HOST is the site's, and all that comes back until the end."""
        head = "\r\n".join([*lines, "", ""]).replace("HOST", self.host)
        with self.connect() as wire:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                wire.sendall(head.encode("latin-1") + body)
            return Reply(received(wire))

    def get(self, target: str = "/", *lines: str) -> Reply:
        """A plain request, the last on its connection."""
        return self.send(f"GET {target} HTTP/1.1", "Host: HOST", "Connection: close", *lines)


def received(wire: socket.socket) -> bytes:
    """All up to the end of a connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := wire.recv(65536):
            data += more
    return data


@contextlib.contextmanager
def reached(path: Path, wsgi: str, asgi: str, *options: str) -> Iterator[dict[str, Way]]:
    """Every way, by its name, to an application; `options` are gunicorn's."""
    with contextlib.ExitStack() as stack:
        ways: dict[str, Way] = {}
        for how in ("relayed", "handed"):
            (path / how).mkdir()
            home = _home(path / how, wsgi, asgi, how)
            for worker in WORKERS:
                more = ("--threads", "4") if worker == "gthread" else ()
                server = stack.enter_context(gunicorn(home, worker, "--workers", "1", *more, *options))
                ways |= {f"{worker}-{how}": Way(f"{worker}-{how}", "w.test", home, server)}
                ways |= {f"asgi-{worker}-{how}": Way(f"asgi-{worker}-{how}", "a.test", home, server)}
                if how == "relayed":
                    ways[f"{worker}-in-process"] = Way(f"{worker}-in-process", "i.test", home, server)
            if how == "relayed":
                ways |= {
                    name: Way(name, host, home, server)
                    for name, host in (("direct", "w.test"), ("asgi-direct", "a.test"))
                }
            for host in ("i.test", "w.test", "a.test"):
                eventually(lambda host=host, server=server: server.ask(host).status == 200, PATIENCE, host)  # type: ignore[misc]
        yield ways


def _home(path: Path, wsgi: str, asgi: str, how: str) -> HomeDir:
    home = HomeDir(path).create()
    home.conf(CONF.format(hand_over="yes" if how == "handed" else "no"))
    for name, code, mode in (("i", wsgi, "in-process"), ("w", wsgi, "spawned"), ("a", asgi, "spawned")):
        where = home.path / "sites" / name
        where.mkdir()
        (where / f"{name}_app.py").write_text(code)
        kind = "asgi:" if name == "a" else ""
        home.ini(
            name,
            f"[service]\ndomains = {name}.test\nlocation = {where}\napplication = {kind}{name}_app:application\n"
            f"mode = {mode}\n[logging]\nerror = {home.path}/{name}.test.log\n",
        )
    return home
