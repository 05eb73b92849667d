"""The other forms of `multisite create-rules`, live: uwsgi towards uWSGI, Apache's mod_wsgi, and TLS."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .harness import PACKAGE_ROOT, Answer, HomeDir, Server, debian_program, free_port, gunicorn
from .system_python import system_virtualenv
from .tell import TELL
from .test_access import ANN, INSIDE, OUTSIDE, SHA, ask, closed
from .test_frontends import APACHE, ARGUMENTS, MODULES, PROGRAMS, FrontEnd, create_rules, three_sites, told, write
from .test_modwsgi import apache_with_mod_wsgi, user_and_group
from .test_serve_binds import certificate
from .test_uwsgi import uwsgi_and_virtualenv

pytestmark = pytest.mark.servers


@pytest.fixture
def home(public_path: Path) -> HomeDir:
    """Three sites, one of them in the workers; and one that is not for everybody."""
    home = three_sites(public_path)
    home.site("closed", TELL, mode="in-process")
    (home.path / "users").write_text(f"ann:{SHA}\n")
    closed(home, "closed", f"htpasswd = {home.path}/users\nallow = 127.0.0.2\n")
    return home


@contextmanager
def more_modules(*names: str) -> Iterator[None]:
    """Have Apache load these too."""
    MODULES.extend(names)
    try:
        yield
    finally:
        del MODULES[-len(names) :]


def assert_as_over_http(server: Server) -> None:
    """Each site is told what it would be told over HTTP, and its files are served."""
    for name in ("shared", "warm"):
        host = f"{name}.test:{server.port}"
        said = told(server.ask(host, "/caf%C3%A9/a%20b?x=%2F&y", method="POST", body=b"posted"))
        assert said["PATH_INFO"] == "/café/a b".encode().decode("latin-1")
        assert (said["QUERY_STRING"], said["body"], said.get("SCRIPT_NAME", "")) == ("x=%2F&y", "posted", "")
        assert (said["REQUEST_METHOD"], said["HTTP_HOST"]) == ("POST", host)
        assert said["REMOTE_ADDR"] == "127.0.0.1"
        assert said["wsgi.url_scheme"] == "http"
        assert server.ask(host, "/static/hello.css").text == f"/* {name} */"
    assert told(server.ask("warm.test", "/a%2Fb"))["PATH_INFO"] in ("/a/b", "/a%2Fb")  # Apache's
    assert told(server.ask("cold.test", method="POST", body=b"first"))["body"] == "first"
    assert server.ask("unknown.test").status == 404
    for path in ("/", "/static/hello.css"):
        assert ask(server.port, "closed.test", path, ANN, OUTSIDE, X_Forwarded_For=INSIDE).status == 403
        assert ask(server.port, "closed.test", path, source=INSIDE).status == 401
        assert ask(server.port, "closed.test", path, ANN, source=INSIDE).status == 200


@pytest.mark.parametrize("kind", ["nginx", "apache"])
def test_uwsgi_in_front(home: HomeDir, kind: str) -> None:
    """--uwsgi, with multisite in a real uWSGI."""
    program, virtualenv, options = uwsgi_and_virtualenv()
    port, seen_at = free_port(), free_port()
    argv = [program, *options, "--master", "--single-interpreter", "--enable-threads", "--die-on-term"]
    argv += ["--processes", "1", "--threads", "4", "--virtualenv", virtualenv]
    argv += [
        "--socket",
        f"127.0.0.1:{port}",
        "--http-socket",
        f"127.0.0.1:{seen_at}",
    ]  # over HTTP it says that it is up
    argv += ["--module", "multisite.service:application"]
    uwsgi = Server(argv, seen_at, home.path / "log" / "uwsgi.log", home.environ())
    with more_modules("proxy_uwsgi"), uwsgi, FrontEnd(kind, home).started(port, "--uwsgi") as server:
        assert_as_over_http(server)


def test_apache_runs_multisite_itself(home: HomeDir) -> None:
    """--wsgi, with the file that the rules ask for, in a daemon process that is not root's."""
    apache = apache_with_mod_wsgi()
    root, port, virtualenv = home.path, free_port(), system_virtualenv()
    shutil.copytree(PACKAGE_ROOT / "multisite", root / "package" / "multisite")
    for path in (home.runtime, root / "run", root / "state"):
        path.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(path, user_and_group()[0])
    (root / "log").mkdir()
    rules = create_rules(home, "--apache", "--wsgi", "--listen", f"127.0.0.1:{port}", "--logs", str(root / "log"))
    script = re.search(r"must contain:\n((?:#     .*\n)+)", rules)
    assert script
    (root / "multisite.wsgi").write_text(script[1].replace("#     ", ""))
    # The virtualenv of the command is that of the tests; mod_wsgi wants one of the system's Python.
    rules, changed = re.subn(
        r'user=www-data group=www-data (.*) python-home="[^"]*"',
        rf'{_daemon_user()}\1 python-path={root}/package python-home="{virtualenv}"',
        rules,
    )
    assert changed == 1
    (root / "rules").write_text(f"WSGISocketPrefix {root}/wsgi\n{rules}")
    with more_modules("wsgi"):
        modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in MODULES)
    user, group = user_and_group()
    user_lines = f"User {user}\nGroup {group}" if group else ""
    argv = [apache, "-f", write(home, APACHE.format(root=root, modules=modules, user=user_lines)), "-D", "FOREGROUND"]
    environ = home.environ()
    del environ["PYTHONPATH"]
    with Server(argv, port, root / "log" / "apache.log", environ) as server:
        assert_as_over_http(server)


def _daemon_user() -> str:
    user, group = user_and_group()
    return f"user={user} group={group} " if group else ""


@pytest.mark.parametrize("kind", ["nginx", "apache", "haproxy"])
def test_tls_in_front(home: HomeDir, kind: str) -> None:
    """--tls: whoever has a certificate is served over both, and told which; others over HTTP alone."""
    folder = home.path / "certificates"
    folder.mkdir()
    certificate(folder, "warm.test", single=kind == "haproxy")
    debian_program(*PROGRAMS[kind])
    port, secure, root = free_port(), free_port(), home.path
    with gunicorn(home) as behind, more_modules("ssl", "socache_shmcb"):
        rules = FrontEnd(kind, home).rules(port, behind.port, "--tls", str(folder))
        assert "443" in rules
        rules = re.sub(r"\b443\b", str(secure), rules)  # that port may be taken
        listen = f"Listen 127.0.0.1:{secure}\n" if kind == "apache" else ""
        (root / "rules").write_text(listen + rules)
        argv = [debian_program(*PROGRAMS[kind]), *ARGUMENTS[kind](home, port, ())]
        with Server(argv, port, root / "log" / f"{kind}.log", home.environ() | {"HOME": str(root)}) as server:
            assert told(server.ask("warm.test"))["wsgi.url_scheme"] == "http"
            assert told(server.ask("shared.test"))["wsgi.url_scheme"] == "http"
            said = told(ask_securely(secure, authority(folder), "warm.test"))
            assert (said["wsgi.url_scheme"], said["HTTP_X_FORWARDED_PORT"]) == ("https", str(secure))


@pytest.mark.parametrize("kind", ["nginx", "apache", "lighttpd", "haproxy"])
def test_plain_http_leads_to_https(home: HomeDir, kind: str) -> None:
    """--redirect: with the target as it was sent; a challenge is answered, and so is who has no certificate."""
    folder, root, port, secure = home.path / "certificates", home.path, free_port(), free_port()
    folder.mkdir()
    certificate(folder, "warm.test", single=kind == "haproxy")
    challenge = home.path / "sites" / "warm" / "challenges"
    challenge.mkdir()
    (challenge / "a-token").write_text("a token")
    text = (root / "sites-available" / "warm.ini").read_text()
    home.ini("warm", f"{text}/.well-known/acme-challenge = {challenge}\n")
    tls = () if kind == "lighttpd" else ("--tls", str(folder))
    with gunicorn(home) as behind, more_modules("ssl", "socache_shmcb"):
        rules = FrontEnd(kind, home).rules(port, behind.port, *tls, "--redirect")
        rules = re.sub(r"\b443\b", str(secure), rules)  # that port may be taken
        listen = f"Listen 127.0.0.1:{secure}\n" if kind == "apache" else ""
        (root / "rules").write_text(listen + rules)
        argv = [debian_program(*PROGRAMS[kind]), *ARGUMENTS[kind](home, port, ())]
        with Server(argv, port, root / "log" / f"{kind}.log", home.environ() | {"HOME": str(root)}) as server:
            for target in ("/", "/a%2Fb%20c/?x=1&y=%26", "/static/hello.css", "/.well-known/acme", "/?next=http://x/y"):
                for method in ("GET", "POST"):
                    answer = server.ask(f"warm.test:{port}", target, method=method, body=b"x" * (method == "POST"))
                    assert (answer.status, answer.headers.get("location")) == (308, f"https://warm.test{target}"), (
                        target
                    )
            answer = server.ask("warm.test", "/.well-known/acme-challenge/a-token")
            assert (answer.status, answer.text) == (200, "a token")
            assert server.ask("warm.test", "/.well-known/acme-challenge/none").status == 404
            if tls:
                assert told(server.ask("shared.test"))["wsgi.url_scheme"] == "http"
                said = told(ask_securely(secure, authority(folder), "warm.test"))
                assert said["wsgi.url_scheme"] == "https"


def authority(folder: Path) -> Path:
    """The certificate of `warm.test`, in one of its two forms."""
    single = folder / "warm.test.pem"
    return single if single.exists() else folder / "warm.test" / "fullchain.pem"


def ask_securely(port: int, authority: Path, host: str) -> Answer:
    """Ask over TLS, believing one certificate only."""
    context = ssl.create_default_context(cafile=str(authority))
    with socket.create_connection(("127.0.0.1", port), timeout=15) as wire:
        with context.wrap_socket(wire, server_hostname=host) as secure:
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(secure)
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())
