"""One application behind every way in which a site is reached, and under plain gunicorn beside them."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .harness import PATIENCE, HomeDir, Server, free_port, gunicorn

CONF = "[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\nexamine = no\nhand_over = yes\n"
PLAIN, PLAIN_ASGI = "gunicorn", "gunicorn-asgi"
WSGI = (
    *("in-process-sync", "in-process-gthread", "relayed-sync", "relayed-gthread"),
    *("handed-sync", "handed-gthread", "own-socket"),
)
ASGI = (
    *("asgi-relayed-sync", "asgi-relayed-gthread", "asgi-handed-sync", "asgi-handed-gthread"),
    "asgi-own-socket",
)
_WORKERS = {"sync": ("--workers", "1"), "gthread": ("--workers", "1", "--threads", "8")}


@dataclass
class Reply:
    """What came back on one connection; `cut` where it ended before its end."""

    status: int = 0
    reason: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    cut: bool = False
    more: bytes = b""  # behind the answer

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


@dataclass
class Way:
    """How one site is asked: over a port or a path, saying that the request is the last or not."""

    name: str
    host: str
    port: int = 0
    path: str = ""
    says_close: bool = False
    log: Path = Path()  # the site's own, of ways that are ours
    home: HomeDir | None = None

    def send(self, *lines: str, body: bytes = b"") -> Reply:
        """A request of these lines, in which HOST is the site's, on a connection of its own."""
        more = ["Connection: close"] if self.says_close and not any("Connection:" in line for line in lines) else []
        head = "\r\n".join([*lines, *more, "", ""]).replace("HOST", self.host)
        with self.connect() as wire:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                wire.sendall(head.encode("latin-1") + body)
            return reply(wire, lines[0].partition(" ")[0])

    def connect(self) -> socket.socket:
        if not self.path:
            return socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        wire = socket.socket(socket.AF_UNIX)
        wire.settimeout(PATIENCE)
        wire.connect(self.path)
        return wire

    def head(self, target: str = "/", method: str = "GET", *fields: str, version: str = "1.1") -> bytes:
        lines = [f"{method} {target} HTTP/{version}", f"Host: {self.host}", *fields]
        return "\r\n".join([*lines, *(["Connection: close"] if self.says_close else []), "\r\n"]).encode("latin-1")

    def ask(
        self, target: str = "/", method: str = "GET", *fields: str, body: bytes = b"", version: str = "1.1"
    ) -> Reply:
        """One request on a connection of its own."""
        with self.connect() as wire:
            wire.sendall(self.head(target, method, *fields, version=version) + body)
            return reply(wire, method)


def received(wire: socket.socket) -> bytes:
    """All up to the end of a connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := wire.recv(65536):
            data += more
    return data


def reply(wire: socket.socket, method: str = "GET") -> Reply:
    """Read one answer, and what follows if the server closes."""
    found = Reply()
    response = http.client.HTTPResponse(wire, method=method)
    try:
        response.begin()
        found.status, found.reason, found.fields = response.status, response.reason, response.getheaders()
        found.body = response.read()
        if response.getheader("Connection", "").lower() == "close" and response.fp:
            found.more = response.fp.read()
    except http.client.IncompleteRead as error:
        found.body, found.cut = error.partial, True
    except (http.client.HTTPException, ConnectionResetError):
        found.cut = True
    finally:
        response.close()
    return found


@contextlib.contextmanager
def every_way(
    path: Path, wsgi: str = "", asgi: str = "", *, options: tuple[str, ...] = (), service: str = "", **files: bytes
) -> Iterator[dict[str, Way]]:
    """Serve the applications in every way.

    Args:
        path: of a directory that holds nothing.
        wsgi, asgi: the code of a module with `application`.
        options: of every gunicorn.
        service: lines of moya.conf's [service].
        files: written beside it, by names whose dots are double underscores.
    """
    home = HomeDir(path).create()
    home.conf(f"{CONF}[service]\n{service}\n")
    sites: list[tuple[str, str, str, str]] = []  # host, code, mode, application
    if wsgi:
        sites = [("in", wsgi, "in-process", "app_w:application"), ("out", wsgi, "spawned", "app_w:application")]
    if asgi:
        sites.append(("async", asgi, "spawned", "asgi:app_a:application"))
    for name, code, mode, application in sites:
        where = home.site(name, "", mode=mode, application=application)
        (where / f"{application.split(':')[-2]}.py").write_text(code)
        site = home.path / "sites-available" / f"{name}.ini"
        home.ini(name, f"{site.read_text()}[logging]\nerror = {home.path}/{name}.log\n")
        for stem, data in files.items():
            (where / stem.replace("__", ".")).write_bytes(data)
    ways: dict[str, Way] = {}
    with contextlib.ExitStack() as stack:
        for kind, of_kind in _WORKERS.items():
            server = stack.enter_context(gunicorn(home, kind, *of_kind, *options))
            for name in [name for name, *_ in sites]:
                server.ask(f"{name}.test", "/warm")  # so that what can be handed over is, from here on
            _add(ways, kind, server.port, bool(wsgi), bool(asgi))
        sockets = home.runtime / "multisite" / "sites"
        if wsgi:
            ways["own-socket"] = Way("own-socket", "out.test", path=str(sockets / "out.sock"), says_close=True)
            ways[PLAIN] = _plain(stack, home, "sync", "out", "app_w", options)
        if asgi:
            ways["asgi-own-socket"] = Way("asgi-own-socket", "async.test", path=str(sockets / "async.sock"))
            ways[PLAIN_ASGI] = _plain(stack, home, "asgi", "async", "app_a", options)
        for way in ways.values():
            way.home, way.log = home, home.path / f"{way.host.removesuffix('.test')}.log"
        yield ways


def _add(ways: dict[str, Way], kind: str, port: int, wsgi: bool, asgi: bool) -> None:
    if wsgi:
        ways[f"in-process-{kind}"] = Way(f"in-process-{kind}", "in.test", port)
    for host, prefix in (("out", ""), ("async", "asgi-")):
        if wsgi if host == "out" else asgi:
            ways[f"{prefix}relayed-{kind}"] = Way(f"{prefix}relayed-{kind}", f"{host}.test", port)
            ways[f"{prefix}handed-{kind}"] = Way(f"{prefix}handed-{kind}", f"{host}.test", port, says_close=True)


def _plain(
    stack: contextlib.ExitStack, home: HomeDir, kind: str, site: str, module: str, options: tuple[str, ...]
) -> Way:
    """gunicorn alone, with the same application; the reference."""
    port = free_port()
    argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", kind]
    argv += ["--no-control-socket", *options, "--chdir", str(home.path / "sites" / site), f"{module}:application"]
    stack.enter_context(Server(argv, port, home.path / "log" / f"plain-{kind}.log", home.environ()))
    return Way(kind, f"{site}.test", port, says_close=True)
