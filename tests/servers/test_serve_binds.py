"""`multisite serve` without a front end: sockets of every kind, certificates by name, HTTP/2."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import PATIENCE, HomeDir, Server, debian_program, eventually, free_port, two_sites

pytestmark = pytest.mark.servers


def serve(home: HomeDir, port: int, *options: str) -> Server:
    argv = [sys.executable, "-m", "multisite", "serve", "--bind", f"127.0.0.1:{port}", "--workers", "1", *options]
    return Server(argv, port, home.path / "log" / "serve.log", home.environ())


def ask_unix(path: str, host: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(15)
        wire.connect(path)
        wire.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        answer = b""
        while block := wire.recv(65536):
            answer += block
    return answer


def test_tcp_unix_abstract_and_inherited_sockets_at_one_time(tmp_path: Path) -> None:
    """All are served, and at the end only what is ours is removed."""
    home, port = two_sites(tmp_path), free_port()
    path, given = home.runtime / "serve.sock", home.runtime / "given.sock"
    abstract = f"multisite-test-{os.getpid()}"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()  # as a server that was killed leaves it
    with socket.socket(socket.AF_UNIX) as inherited:
        inherited.bind(str(given))
        inherited.listen()
        binds = [f"unix:{path}", f"unix:@{abstract}", f"fd://{inherited.fileno()}"]
        server = serve(home, port, *(word for bind in binds for word in ("--bind", bind)))
        server.pass_fds = (inherited.fileno(),)
        with server:
            assert server.ask("a.test").text == "site a"
            for name in (str(path), f"\0{abstract}", str(given)):
                assert ask_unix(name, "b.test").endswith(b"site b"), name
        assert server.process.returncode == 0, server.log()
    assert given.exists()
    assert not path.exists()


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("fd://77", "bad file descriptor"),
        ("fd://x", "invalid literal"),
        ("fd://0", "non-socket"),
        ("unix:@" + "x" * 200, "AF_UNIX path too long"),
    ],
)
def test_a_socket_that_cannot_be_had_is_said_in_a_line(tmp_path: Path, bind: str, reason: str) -> None:
    home = two_sites(tmp_path)
    argv = [sys.executable, "-m", "multisite", "serve", "--bind", bind]
    done = subprocess.run(
        argv,
        env=home.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert reason.lower() in done.stderr.lower()
    assert f"--bind {bind}" in done.stderr
    assert "Traceback" not in done.stderr


# --- TLS ------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, domain: str, single: bool = False) -> bytes:
    """Make a certificate for `domain`, in one of the two forms; returns it in DER."""
    openssl = debian_program("openssl", "openssl")
    key, chain = folder / f"{domain}.key", folder / f"{domain}.crt"
    argv = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    argv += [
        "-keyout",
        str(key),
        "-out",
        str(chain),
        "-subj",
        f"/CN={domain}",
        "-addext",
        f"subjectAltName=DNS:{domain}",
    ]
    subprocess.run(argv, check=True, capture_output=True)
    text = chain.read_text()
    if single:
        chain.write_text(text + key.read_text())
        chain.replace(folder / f"{domain}.pem")
        key.unlink()
    else:
        (folder / domain).mkdir(exist_ok=True)
        key.replace(folder / domain / "privkey.pem")
        chain.replace(folder / domain / "fullchain.pem")
    return ssl.PEM_cert_to_DER_cert(text)


def shown(port: int, name: str | None, *protocols: str) -> tuple[bytes | None, str | None]:
    """Return the certificate that a client is shown who asks for `name`, and the protocol that was agreed upon."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as wire:
        with context.wrap_socket(wire, server_hostname=name) as secure:
            return secure.getpeercert(binary_form=True), secure.selected_alpn_protocol()


class Secure(Server):
    def answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return bool(shown(self.port, None))
        except OSError:
            return False


def secure(home: HomeDir, folder: Path, *options: str) -> Secure:
    server = serve(home, free_port(), "--tls", str(folder), *options)
    return Secure(server.argv, server.port, server.log_path, server.env)


def test_each_domain_is_shown_its_certificate_and_a_renewed_one_at_once(tmp_path: Path) -> None:
    home = two_sites(tmp_path)
    folder = tmp_path / "tls"
    folder.mkdir()
    made = {
        "a.test": certificate(folder, "a.test"),
        "b.test": certificate(folder, "b.test", single=True),
        "*.c.test": certificate(folder, "*.c.test"),
        "default": certificate(folder, "default"),
    }
    with secure(home, folder) as server:
        for name, domain in {
            "a.test": "a.test",
            "B.test": "b.test",
            "x.c.test": "*.c.test",
            "nobody.test": "default",
        }.items():
            assert shown(server.port, name)[0] == made[domain], name
        assert shown(server.port, "y.x.c.test")[0] == shown(server.port, None)[0] == made["default"]
        renewed = certificate(folder, "a.test")
        assert shown(server.port, "a.test")[0] == renewed != made["a.test"]
        (folder / "a.test" / "fullchain.pem").write_text("rubbish")
        assert shown(server.port, "a.test")[0] == made["default"]
        eventually(lambda: "cannot use the certificate for a.test" in server.log(), PATIENCE)
        late = certificate(folder, "late.test")
        assert shown(server.port, "late.test")[0] == late
        for hostile in ("b.test/x", "b.test/", "*.c.test", "b_.test"):
            assert shown(server.port, hostile)[0] in (made["default"], made["*.c.test"])
        assert shown(server.port, "b.test")[0] == made["b.test"]


@pytest.mark.parametrize("mode", ["in-process", "spawned"])
def test_sites_are_served_over_tls_and_know_it(tmp_path: Path, mode: str) -> None:
    home = HomeDir(tmp_path).create()
    told = "def application(environ, start_response):\n    start_response('200 OK', [])\n"
    home.site("a", told + "    return [environ['wsgi.url_scheme'].encode()]\n", mode=mode)
    folder = tmp_path / "tls"
    folder.mkdir()
    certificate(folder, "a.test")
    with secure(home, folder) as server:
        context = ssl.create_default_context(cafile=str(folder / "a.test" / "fullchain.pem"))
        wire = context.wrap_socket(socket.create_connection(("127.0.0.1", server.port)), server_hostname="a.test")
        connection = http.client.HTTPConnection("a.test", timeout=PATIENCE)
        connection.sock = wire
        for _ in range(3):
            connection.request("GET", "/", headers={"Host": "a.test"})
            assert connection.getresponse().read() == b"https"
        if mode == "spawned":  # nobody but gunicorn can read what comes through the connection
            handshake = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            connection.request("GET", "/", headers={"Host": "a.test", "Sec-WebSocket-Key": "eA==", **handshake})
            answer = connection.getresponse()
            assert answer.status == 501
            assert b"does not pass WebSockets on" in answer.read()
        connection.close()
        assert re.search(rf"^a: https://a.localhost:{server.port}/", server.log(), re.MULTILINE)


@pytest.mark.parametrize("options", [(), ("--threads", "1"), ("--http2",)])
def test_a_plain_request_at_a_port_of_tls_is_told_so(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As nginx does, whatever the method; a body that comes with it does not cost the answer."""
    home = two_sites(tmp_path)
    folder = tmp_path / "tls"
    folder.mkdir()
    certificate(folder, "a.test")
    with secure(home, folder, *options) as server:
        where = f"https://a.test:{server.port}/"
        for method, body in (("GET", b""), ("POST", b"x" * 200_000), ("OPTIONS", b""), ("DELETE", b""), ("HEAD", b"")):
            head = f"{method} / HTTP/1.1\r\nHost: a.test:80\r\nContent-Length: {len(body)}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as wire:
                wire.sendall(head.encode())
                with contextlib.suppress(ConnectionError):
                    wire.sendall(body)
                answer = http.client.HTTPResponse(wire, method=method)
                answer.begin()
                assert (answer.status, answer.getheader("Connection")) == (400, "close"), method
                assert method == "HEAD" or where in answer.read().decode()
        for line in ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: <script>\r\n\r\n", "GARBAGE\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as wire:
                wire.sendall(line.encode())
                answer = http.client.HTTPResponse(wire)
                answer.begin()
                told = answer.read().decode()
                assert (answer.status, "speaks HTTPS" in told, "script" in told) == (400, True, False)
        assert shown(server.port, "a.test")[0]
        assert "Traceback" not in server.log()


def test_http2_is_spoken_to_who_asks_for_it(tmp_path: Path) -> None:
    """With curl, over each of two certificates."""
    curl = debian_program("curl", "curl")
    home = two_sites(tmp_path)
    home.site("apart", mode="spawned")
    folder = tmp_path / "tls"
    folder.mkdir()
    for name in ("a.test", "b.test", "apart.test"):
        certificate(folder, name)
    with secure(home, folder, "--http2") as server:
        assert shown(server.port, "b.test", "h2", "http/1.1")[1] == "h2"
        assert shown(server.port, "b.test", "http/1.1")[1] == "http/1.1"
        for name in ("a", "b", "apart"):
            host = f"{name}.test"
            argv = [curl, "-sS", "--http2", "--cacert", str(folder / host / "fullchain.pem"), "-w", " %{http_version}"]
            argv += ["--resolve", f"{host}:{server.port}:127.0.0.1", f"https://{host}:{server.port}/", "-d", "posted"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert done.stdout == f"site {name} posted 2", done.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--tls", "nowhere"), "--tls nowhere: no such file or directory"),
        (("--tls", "."), "--tls .: no certificate found (DOMAIN/fullchain.pem"),
        (("--http2",), "--http2 needs --tls"),
    ],
)
def test_tls_that_cannot_be_had_is_said_in_a_line(tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    home = two_sites(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    argv = [sys.executable, "-m", "multisite", "serve", *options]
    done = subprocess.run(
        argv, cwd=empty, env=home.environ(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert reason in done.stderr
