"""`multisite serve`: where it listens, what it refuses, and a server that is really started."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from multisite.cli import main
from multisite.cli.standalone import address_of, only_this_machine
from multisite.config.model import SiteFile
from multisite.sites.addresses import urls

REQUEST = re.compile(r"[\d:]{8} GET (\S+) (\S+) (\d{3}) [\d.]+ m?s (.+)\n")
APP = """\
def application(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("a secret of the code")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%s"]
"""


@pytest.mark.parametrize(
    ("bind", "address"),
    [
        ("127.0.0.1", "127.0.0.1:8000"),
        ("127.0.0.1:81", "127.0.0.1:81"),
        ("localhost", "localhost:8000"),
        ("::1", "[::1]:8000"),
        ("fe80::1:2", "[fe80::1:2]:8000"),
        ("[::1]", "[::1]:8000"),
        ("[::1]:81", "[::1]:81"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
    ],
)
def test_an_address_without_a_port_gets_the_port(bind: str, address: str) -> None:
    assert address_of(bind, 8000) == address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8000", True),
        ("127.9.9.9:1", True),
        ("[::1]:8000", True),
        ("localhost:8000", True),
        ("0.0.0.0:8000", False),
        ("[::]:8000", False),
        (":8000", False),
        ("10.0.0.1:80", False),
        ("example.com:80", False),
        ("unix:/run/x.sock", False),
        ("fd://3", False),
    ],
)
def test_only_loopback_addresses_are_loopback(address: str, expected: bool) -> None:
    assert only_this_machine(address) is expected


def test_urls_have_port_and_mount_and_patterns_stay_as_they_are() -> None:
    site = SiteFile("x.ini", domains=("a.localhost", "*.b.localhost"), mount="/api")
    assert urls(site, "8000") == ["http://a.localhost:8000/api/", "*.b.localhost"]
    assert urls(site, "80")[0] == "http://a.localhost/api/"


def test_debug_is_refused_where_strangers_could_connect(tmp_path: pathlib.Path) -> None:
    for bind in ("0.0.0.0", "unix:/tmp/never.sock"):
        result = CliRunner().invoke(main, ["--home", str(tmp_path), "serve", "--debug", "--bind", bind])
        assert result.exit_code == 2
        assert "loopback" in result.stderr


def multisite(home: pathlib.Path, *words: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        "from multisite.cli import main; main(prog_name='multisite')",
        "--home",
        str(home),
        *words,
    ]


@contextlib.contextmanager
def serving(home: pathlib.Path, *words: str) -> Iterator[tuple[int, list[str]]]:
    """Run `multisite serve` on a free port; yield the port and the lines it has said so far."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said: list[str] = []
    ready = threading.Event()
    process = subprocess.Popen(multisite(home, "serve", "--port", str(port), *words), stderr=subprocess.PIPE, text=True)

    def listen() -> None:
        assert process.stderr
        for line in process.stderr:
            said.append(line)
            if "Booting worker" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=listen)
    reader.start()
    try:
        assert ready.wait(60), said
        assert process.poll() is None, said
        yield port, said
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        reader.join(60)


def get(port: int, host: str, path: str = "/") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    home = tmp_path / "home"
    for folder in ("sites-available", "sites-enabled"):
        (home / folder).mkdir(parents=True)
    settings = (
        f"[service]\nstate_dir = {tmp_path}/state\nruntime_dir = {tmp_path}/run\n[supervisor]\nallow_root = yes\n"
    )
    (home / "moya.conf").write_text("[projects]\nread = sites-enabled/*.ini\n" + settings)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"app_{name}.py").write_text(APP % name)
        place = f"location = {tmp_path}/{name}\napplication = app_{name}:application\n"
        (home / f"sites-available/{name}.ini").write_text(f"[service]\ndomains = {name}.localhost\n{place}")
    os.symlink("../sites-available/one.ini", home / "sites-enabled/one.ini")
    return home


@pytest.mark.servers
def test_serve_answers_its_sites_and_those_enabled_later(home: pathlib.Path) -> None:
    with serving(home) as (port, said):
        assert f"one: http://one.localhost:{port}/\n" in said
        assert get(port, f"one.localhost:{port}") == (200, "one")
        assert get(port, "two.localhost")[0] == 404
        subprocess.run(multisite(home, "ensite", "two"), check=True, capture_output=True)
        assert get(port, "two.localhost") == (200, "two")


@pytest.mark.servers
def test_serve_prints_a_line_for_each_request_and_names_sites_with_problems(home: pathlib.Path) -> None:
    """One for a page of ours, for a site in the worker, and for one whose process takes the connection over."""
    (home / "sites-enabled/bad.ini").write_text("[service]\ndomains = bad.localhost\nthraeds = 4\n")
    shared = (home / "sites-available/one.ini").read_text() + "mode = in-process\n"
    (home / "sites-enabled/here.ini").write_text(shared.replace("one.localhost", "here.localhost"))
    with serving(home) as (port, said):
        assert any(re.fullmatch(r"bad: http://bad.localhost:\d+/ \(broken: .*\)\n", text) for text in said), said
        for host, path in (("one", "/a"), ("here", "/b"), ("nobody", "/c"), ("bad", "/d"), ("one", "/fail")):
            page = get(port, f"{host}.localhost:{port}", path)[1]
            assert (f'<a href="http://one.localhost:{port}/">' in page) is (host == "nobody")
        with socket.create_connection(("127.0.0.1", port)) as hostile:
            hostile.sendall(b"GET /\x1b[31mred\x9b HTTP/1.1\r\nHost: one.localhost\r\nConnection: close\r\n\r\n")
            while hostile.recv(65536):
                pass
    lines = [match.group(1, 2, 3, 4) for text in said if (match := REQUEST.fullmatch(text))]
    assert sorted(lines[:5], key=lambda found: found[1]) == [
        (f"one.localhost:{port}", "/a", "200", "one"),
        (f"here.localhost:{port}", "/b", "200", "here"),
        (f"nobody.localhost:{port}", "/c", "404", "-"),
        (f"bad.localhost:{port}", "/d", "500", "bad"),
        (f"one.localhost:{port}", "/fail", "500", "one"),
    ]
    assert not any("\x1b" in text or "\x9b" in text for text in said)


@pytest.mark.servers
def test_quiet_prints_no_lines(home: pathlib.Path) -> None:
    with serving(home, "--quiet") as (port, said):
        assert get(port, "one.localhost")[0] == 200
        assert get(port, "nobody.localhost")[0] == 404
    assert not any(REQUEST.fullmatch(text) for text in said)


@pytest.mark.servers
def test_the_status_pages_may_show_invented_sites(home: pathlib.Path) -> None:
    conf = home / "moya.conf"
    refused = CliRunner().invoke(main, ["--home", str(home), "serve", "--simulate", "12"])
    assert (
        refused.exit_code == 1 and f"write status_domain = status.localhost into [service] of {conf}" in refused.stderr
    )
    conf.write_text(conf.read_text().replace("[service]\n", "[service]\nstatus_domain = status.localhost\n"))
    with serving(home, "--simulate", "12") as (port, _):
        assert get(port, "one.localhost")[0] == 200
        status, page = get(port, "status.localhost")
        assert status == 200 and "12 sites (" in page


@pytest.mark.servers
@pytest.mark.parametrize(("words", "shown"), [((), False), (("--debug",), True)])
def test_tracebacks_are_shown_with_debug_alone(home: pathlib.Path, words: tuple[str, ...], shown: bool) -> None:
    with serving(home, *words) as (port, _):
        status, body = get(port, "one.localhost", "/fail")
        assert status == 500
        assert ("a secret of the code" in body) is shown
