"""Bad homes, site files and hosts: the workers live, the neighbour answers, the log says what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import PATIENCE, HomeDir, Server, eventually, find_program, gunicorn, not_tested, send_raw, two_sites

pytestmark = pytest.mark.servers


def one_worker(home: HomeDir) -> Server:
    return gunicorn(home, "gthread", "--workers", "1", "--threads", "4")


# --- homes ----------------------------------------------------------------------------------------------------------


def no_home(home: HomeDir) -> None:
    (home.path / "moya.conf").unlink()


def not_ini(home: HomeDir) -> None:
    home.conf("[projects\nread = = =\n\x00")


def a_directory(home: HomeDir) -> None:
    no_home(home)
    (home.path / "moya.conf").mkdir()


def binary(home: HomeDir) -> None:
    (home.path / "moya.conf").write_bytes(os.urandom(4096))


@pytest.mark.parametrize("spoil", [no_home, not_ini, a_directory, binary])
def test_a_home_that_cannot_be_read_costs_no_worker(tmp_path: Path, spoil: Callable[[HomeDir], None]) -> None:
    """The import of the service succeeds, every host gets 503, the log names the file, and a repair is noticed."""
    home = two_sites(tmp_path)
    good = (tmp_path / "moya.conf").read_text()
    spoil(home)
    with one_worker(home) as server:
        workers = server.workers()
        assert server.ask("a.test").status == 503
        assert any("moya.conf" in line for line in server.log().splitlines())
        if (tmp_path / "moya.conf").is_dir():
            (tmp_path / "moya.conf").rmdir()
        home.conf(good)
        eventually(lambda: server.ask("a.test").status == 200, PATIENCE, "the repaired home is served")
        assert server.workers() == workers


def test_a_home_that_is_not_there_costs_no_worker(tmp_path: Path) -> None:
    """`$MOYA_SERVICE_HOME` names nothing: the service starts and says so."""
    home = HomeDir(tmp_path).create()
    server = one_worker(home)
    server.env["MOYA_SERVICE_HOME"] = str(tmp_path / "nowhere")
    with server:
        assert server.ask("a.test").status == 503
        assert "nowhere" in server.log()


def test_an_unreadable_home_costs_no_worker(tmp_path: Path) -> None:
    """A `moya.conf` that the worker may not read."""
    home = two_sites(tmp_path)
    (tmp_path / "moya.conf").chmod(0)
    server = one_worker(home)
    if os.geteuid() == 0:  # root reads everything, unless it gave that power away
        setpriv = find_program("setpriv") or not_tested("an unreadable home, as root: setpriv (util-linux)")
        server.argv = [setpriv, "--bounding-set=-dac_override,-dac_read_search", *server.argv]
    with server:
        assert server.ask("a.test").status == 503
        assert any("moya.conf" in line for line in server.log().splitlines())


def test_an_empty_home_answers_404(tmp_path: Path) -> None:
    """A `moya.conf` that says nothing and no sites: a service with nothing to serve, which is no error."""
    home = HomeDir(tmp_path).create()
    home.conf("")
    with one_worker(home) as server:
        assert server.ask("a.test").status == 404


# --- site files -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> HomeDir:
    return two_sites(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def server(home: HomeDir) -> Iterator[Server]:
    with one_worker(home) as running:
        assert running.ask("a.test").text == "site a"
        yield running


@pytest.fixture
def unharmed(server: Server) -> Iterator[None]:
    """The same worker, and the good sites, before and after."""
    workers = server.workers()
    yield
    for name in ("a", "b"):
        assert server.ask(f"{name}.test").text == f"site {name}"
    assert server.workers() == workers


SITE_FILES: dict[str, bytes] = {
    "junk": bytes(range(256)) * 64,
    "longline": b"[service]\ndomains = " + b"x" * 10_000_000 + b"\n",
    "latin1": b"[service]\n# caf\xe9\ndomains = latin1.test\nlocation = /\napplication = x:y\n",
    "nothing": b"",
    "notini": b"[[[service\n===\n",
    "slip": b"[service]\ndomain = slip.test\nlocation = /\napplication = x:y\n",
    "badhost": b"[service]\ndomains = ../../etc, b\x01ad.test\nlocation = /\napplication = x:y\n",
}


@pytest.mark.parametrize("name", SITE_FILES)
def test_a_bad_site_file_is_named_in_the_log(server: Server, home: HomeDir, unharmed: None, name: str) -> None:
    """One line or a few for the file, and no more of them with every request."""
    home.ini(name, SITE_FILES[name])
    said = noticed(server, name)
    for _ in range(30):
        assert server.ask(f"{name}.test").status in (404, 500, 503)
    assert mentions(server, name) == said
    home.disable(name)


def mentions(server: Server, name: str) -> int:
    return sum(f"{name}.ini" in line for line in server.log().splitlines())


def noticed(server: Server, name: str) -> int:
    """Ask until the log names the file; how many lines do."""

    def told() -> int:
        server.ask("a.test")
        server.ask(f"{name}.test")
        return mentions(server, name)

    eventually(told, PATIENCE, f"the log names {name}.ini")
    return mentions(server, name)


def make_directory(link: Path) -> None:
    link.mkdir()


def make_fifo(link: Path) -> None:
    os.mkfifo(link)


def link_to_device(link: Path) -> None:
    link.symlink_to("/dev/zero")


def link_to_directory(link: Path) -> None:
    link.symlink_to("/etc")


def link_to_nothing(link: Path) -> None:
    link.symlink_to("../sites-available/was-deleted.ini")


def link_to_itself(link: Path) -> None:
    link.symlink_to(link.name)


ODD_ENTRIES = [make_directory, make_fifo, link_to_device, link_to_directory, link_to_nothing, link_to_itself]


@pytest.mark.parametrize("make", ODD_ENTRIES)
def test_an_entry_that_is_no_file_is_named_and_never_opened(
    server: Server, home: HomeDir, unharmed: None, make: Callable[[Path], None]
) -> None:
    """Directories, FIFOs, devices and links to nowhere in `sites-enabled` hang nothing and are told of."""
    name = make.__name__.replace("_", "-")
    make(home.link(name))
    noticed(server, name)
    link = home.link(name)
    if link.is_dir() and not link.is_symlink():
        link.rmdir()
    else:
        link.unlink()


def test_a_domain_claimed_twice_stays_with_the_site_that_has_it(server: Server, home: HomeDir, unharmed: None) -> None:
    """The later file is told, and both files are named."""
    home.site("thief", domains="a.test, thief.test")
    noticed(server, "thief")
    assert server.ask("a.test").text == "site a"
    assert any("thief.ini" in line and "a.ini" in line for line in server.log().splitlines())
    home.disable("thief")


def test_a_name_used_twice_stays_with_the_site_that_has_it(server: Server, home: HomeDir, unharmed: None) -> None:
    """A second file that calls itself `a` never takes the first one's place."""
    home.site("zz", name="a", domains="zz.test")
    noticed(server, "zz")
    assert server.ask("a.test").text == "site a"
    home.disable("zz")


BROKEN_APPLICATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "lost": ("", {"location": "/nowhere/at/all"}),
    "number": ("application = 42", {}),
    "nothere": ("", {}),
    "raises": ("1 / 0", {}),
    "exits": ("import sys; sys.exit(3)", {}),
    "missing": ("import a_module_that_is_nowhere", {}),
    "syntax": ("def application(:", {}),
}


@pytest.mark.parametrize("name", BROKEN_APPLICATIONS)
def test_a_broken_application_costs_that_site_only(server: Server, home: HomeDir, unharmed: None, name: str) -> None:
    """An error page that shows no code, a line in the log that names the site."""
    code, keys = BROKEN_APPLICATIONS[name]
    home.site(name, code, **keys)
    answer = server.ask(f"{name}.test")
    assert answer.status in (500, 503)
    assert "Traceback" not in answer.text
    assert any(name in line for line in server.log().splitlines())
    home.disable(name)


# --- hosts ----------------------------------------------------------------------------------------------------------

BAD_HOSTS = {
    "10 kB": b"x" * 10_000,
    "long labels": b".".join([b"y" * 63] * 10),
    "dots": b"../../etc/passwd",
    "slash": b"a.test/b.test",
    "two dots": b"a..test",
    "control": b"a\x01.test",
    "nul": b"a\x00.test",
    "space": b"a .test",
    "at": b"x@a.test",
    "no port": b"a.test:http",
    "big port": b"a.test:99999999",
    "bracket": b"[::1",
    "high bytes": b"\xff\xfe.test",
    "percent": b"a%00.test",
    "script": b"<script>alert(1)</script>",
}


@pytest.mark.parametrize("kind", BAD_HOSTS)
def test_a_bad_host_is_refused(server: Server, unharmed: None, kind: str) -> None:
    """400 (from gunicorn or from us) or 404, never a site's page, nothing of the host echoed as markup."""
    answer = send_raw(server.port, b"GET / HTTP/1.1\r\nHost: " + BAD_HOSTS[kind] + b"\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] in (b"400", b"404", b"431"), answer[:200]
    assert not answer.endswith(b"site a")
    assert b"<script>" not in answer


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//b.test/", "/%00", "/\x7f"])
def test_a_strange_path_stays_in_its_site(server: Server, unharmed: None, path: str) -> None:
    """Paths are the site's own affair and never choose another site."""
    answer = send_raw(server.port, f"GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".encode())
    assert b"root:" not in answer
    assert not answer.endswith(b"site b")
