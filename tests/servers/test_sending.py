"""nginx, Apache and lighttpd send the files that multisite names, and no file that a site names without leave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .harness import Answer, HomeDir, Server, debian_install, gunicorn, not_tested, remove
from .test_frontends import MODULES, FrontEnd

pytestmark = pytest.mark.servers

SENDERS = {"nginx": "x-accel-redirect /files", "apache": "x-sendfile", "lighttpd": "x-sendfile"}

# Names whatever file it is asked for, in every way that a front end knows.
NAMES = """
from urllib.parse import quote, unquote

def application(environ, start_response):
    path = environ["PATH_INFO"]
    headers = [("X-Accel-Redirect", "/files" + quote(path)), ("X-Sendfile", path), ("X-LIGHTTPD-send-file", path)]
    start_response("200 OK", [*headers, ("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"app"]
"""


@dataclass
class Sending:
    """A front end that sends files, and what is behind it."""

    kind: str
    home: HomeDir
    front: Server
    behind: Server

    @property
    def static(self) -> Path:
        return (self.home.path / "sites" / "files" / "static").resolve()

    @property
    def secret(self) -> Path:
        return (self.home.path / "secret").resolve()

    def ask(self, name: str, path: str, **more: object) -> Answer:
        return self.front.ask(f"{name}.test:{self.front.port}", path, **more)


@pytest.fixture(scope="module", params=list(SENDERS))
def sending(request: pytest.FixtureRequest) -> Iterator[Sending]:
    """A site with files, and sites whose applications name files: by leave, without, and in the workers."""
    kind = request.param
    if kind == "apache" and not debian_install("libapache2-mod-xsendfile"):
        not_tested("Apache's mod_xsendfile: not installed (apt-get install libapache2-mod-xsendfile)")
    path = Path(tempfile.mkdtemp(prefix="multisite-test-"))  # pytest's own is private, and Apache changes its user
    path.chmod(0o755)
    home = HomeDir(path).create()
    (path / "secret").write_text("not for you")
    (path / "secret").chmod(0o644)
    where = home.site("files", NAMES, mode="spawned")
    (where / "static").mkdir()
    (where / "static" / "a b.css").write_text("/* sent */" * 100)
    (where / "static" / "out.css").symlink_to(path / "secret")
    ini = path / "sites-available" / "files.ini"
    static = f"static_send = {SENDERS[kind]}\nstatic_expires = 1h\n[static]\n/static = static\n"
    home.ini("files", ini.read_text() + static)
    home.site("hostile", NAMES, mode="spawned")
    home.site("leave", NAMES, mode="spawned", app_send="yes")
    home.site("shared", NAMES, mode="in-process")
    home.conf((path / "moya.conf").read_text() + "[defaults]\nstatic_send = " + SENDERS[kind] + "\n")
    # All hosts but that of the files share the block that every host may come to, and may name what is sent there.
    front = FrontEnd(kind, home)
    if kind == "apache":
        MODULES.append("xsendfile")
    try:
        with gunicorn(home) as behind, front.started(behind.port, "--generic") as server:
            yield Sending(kind, home, server, behind)
    finally:
        if kind == "apache":
            MODULES.remove("xsendfile")
        remove(path)


def test_the_front_end_sends_what_multisite_names(sending: Sending) -> None:
    """The worker sends no byte of the file; ranges and conditions are the front end's."""
    path = "/static/a%20b.css"
    named = sending.behind.ask("files.test", path)
    assert (named.status, named.body, named.headers["content-length"]) == (200, b"", "0")
    found = sending.ask("files", path)
    assert (found.status, found.text) == (200, "/* sent */" * 100)
    assert found.headers["content-type"].startswith("text/css")
    assert "max-age=3600" in found.headers["cache-control"]
    assert not [name for name in found.headers if name.startswith(("x-accel", "x-sendfile"))]
    (sending.static / "50%.css").write_text("half")
    (sending.static / "link.css").symlink_to("a b.css")
    assert sending.ask("files", "/static/50%25.css").text == "half"
    assert sending.ask("files", "/static/link.css").text == "/* sent */" * 100
    assert sending.ask("files", "/static/out.css").status in (403, 404)
    assert sending.ask("files", "/static/none.css").status == 404


def test_no_application_names_a_file_without_leave(sending: Sending) -> None:
    """Not even one that everybody may see: the header ends at the dispatcher."""
    for path in (sending.secret, sending.static / "a b.css"):
        answer = sending.ask("hostile", str(path).replace(" ", "%20"))
        assert (answer.status, answer.text) == (200, "app")
        assert not [name for name in answer.headers if "send" in name or "accel" in name], answer.headers


@pytest.mark.parametrize("name", ["leave", "shared"])
def test_who_may_name_files_names_none_beyond_the_folders(sending: Sending, name: str) -> None:
    """What the front end sends by name is what multisite may name: the folders of sites that have static_send."""
    found = sending.ask(name, f"{sending.static}/a%20b.css")
    assert (found.status, found.text) == (200, "/* sent */" * 100)
    tries = [sending.secret, f"{sending.static}/../../../secret", f"{sending.static}/out.css", "/etc/passwd"]
    if sending.kind != "nginx":  # it alone is told to follow no link
        tries.remove(f"{sending.static}/out.css")
    for path in map(str, tries):
        answer = sending.ask(name, path.replace("..", "%2e%2e"))
        assert "not for you" not in answer.text
        assert "root:" not in answer.text
        assert answer.status in (403, 404, 500) or answer.text in ("", "app"), (path, answer)
