"""The access log of a site, from the request to the line."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multisite.config import logformat
from multisite.config.model import Home, Site
from multisite.config.read import read_site
from multisite.logs import accesslog, logfiles, requests
from multisite.logs.accesslog import AccessLog
from multisite.logs.logfiles import LogFile, open_append
from multisite.logs.loghandlers import SyslogLines
from multisite.logs.requests import RequestRecord
from multisite.runner import board
from multisite.sites.usage import Counts
from tests.homes import TestHome, ask

COMBINED = re.compile(
    r'(?P<remote>\S+) - (?P<user>\S+) \[(?P<time>[^]]+)\] "(?P<method>\S*) (?P<uri>\S*) (?P<protocol>\S*)" '
    r'(?P<status>\d+) (?P<bytes>\d+) "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)" '
    r"(?P<site>\S+) (?P<seconds>\d+\.\d{6}) (?P<how>\S+)"
)
TIME = re.compile(r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]")
APP = """
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("the app's own")
    if path == "/later":
        return late(start_response)
    if path == "/cut":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return cut()
    if path == "/write":
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written")
        return [b" and more"]
    environ["PATH_INFO"] = environ["SCRIPT_NAME"] = environ["REQUEST_METHOD"] = environ["REMOTE_ADDR"] = "changed"
    status = "500 Own Error" if path == "/500" else "200 OK"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]

def late(start_response):
    start_response("202 Accepted", [("Content-Type", "text/plain")])
    yield b"one"
    yield b"two"

def cut():
    yield b"begun"
    raise OSError("cut short")
"""


class LoggedHome(TestHome):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.code("a", app=APP)
        (path / "log").mkdir()
        self.log("access = ../../log/access.log")

    def log(self, logging_section: str, more: str = "", **keys: str) -> None:
        lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
        service = f"[service]\ndomains = a.test\nlocation = {self.path}/sites/a\napplication = app:application\n{lines}"
        self.ini("a", f"{service}[logging]\n{logging_section}\n{more}\n")
        self.later()

    @property
    def lines(self) -> list[str]:
        path = self.path / "log" / "access.log"
        logfiles.flush()
        return path.read_text().splitlines() if path.exists() else []

    @property
    def last(self) -> dict[str, str]:
        found = COMBINED.fullmatch(self.lines[-1])
        assert found, self.lines[-1]
        return found.groupdict()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[LoggedHome]:
    yield LoggedHome(tmp_path)


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_line_says_what_was_asked_and_answered_and_by_whom(home: LoggedHome) -> None:
    agent, referer = "curl/8", "http://b.test/"
    home.get("a.test", "/x y", QUERY_STRING="q=1", HTTP_USER_AGENT=agent, HTTP_REFERER=referer, REMOTE_USER="ann")
    said = home.last
    assert said["remote"] == "127.0.0.1"
    assert (said["method"], said["uri"]) == ("GET", "/x%20y?q=1")
    assert (said["status"], said["bytes"], said["how"]) == ("200", "5", "in-process")
    assert (said["site"], said["user"], said["agent"], said["referer"]) == ("a", "ann", agent, referer)
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}", said["time"])
    assert float(said["seconds"]) < 60
    assert oct((home.path / "log" / "access.log").stat().st_mode)[-3:] == "640"


@pytest.mark.parametrize(
    ("path", "status", "size", "how"),
    [
        ("/later", "202", "6", "in-process"),
        ("/write", "200", "16", "in-process"),
        ("/500", "500", "5", "in-process"),
    ],
)
def test_every_way_to_answer_is_counted(home: LoggedHome, path: str, status: str, size: str, how: str) -> None:
    home.get("a.test", path)
    assert (home.last["status"], home.last["bytes"], home.last["how"]) == (status, size, how)


def test_our_own_pages_for_a_site_are_in_its_log(home: LoggedHome, caplog: pytest.LogCaptureFixture) -> None:
    got = home.get("a.test", "/raise")
    assert (home.last["status"], home.last["how"]) == ("500", "page")
    assert home.last["bytes"] == str(len(got.body))
    assert len([record for record in caplog.records if "incident" in record.getMessage()]) == 1
    home.code("a", app="raise RuntimeError('at import')")
    (home.path / "sites" / "a" / "tmp").mkdir()
    home.ini("b", f"[service]\ndomains = b.test\nlocation = {home.path}/sites/a\napplication = app:application\n"
             "[logging]\naccess = ../../log/access.log\n")  # fmt: skip
    home.later()
    home.get("b.test", "/")
    assert (home.last["site"], home.last["status"], home.last["how"]) == ("b", "500", "page")


def test_static_files_are_in_the_log(home: LoggedHome) -> None:
    (home.path / "sites" / "a" / "hello.css").write_text("hello css")
    home.log("access = ../../log/access.log", "[static]\n/static = .")
    home.get("a.test", "/static/hello.css")
    assert (home.last["status"], home.last["bytes"], home.last["how"]) == ("200", "9", "static")
    home.get("a.test", "/static/none")
    assert (home.last["status"], home.last["how"]) == ("404", "static")
    home.get("a.test", "/else")
    assert home.last["how"] == "in-process"


def test_an_answer_that_breaks_off_is_seen(home: LoggedHome) -> None:
    with pytest.raises(OSError, match="cut short"):
        home.get("a.test", "/cut")
    assert (home.last["status"], home.last["bytes"], home.last["how"]) == ("200", "5", "in-process,cut")


def test_a_client_that_leaves_is_seen(home: LoggedHome) -> None:
    body = request(home, "/later")
    assert next(iter(body)) == b"one"
    body.close()
    assert (home.last["bytes"], home.last["how"]) == ("3", "in-process,cut")
    body.close()
    assert len(home.lines) == 1


def request(home: TestHome, path: str, **more: Any) -> Any:
    environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "a.test", "REMOTE_ADDR": "127.0.0.1", **more}
    setup_testing_defaults(environ)
    return home.service(environ, lambda *_: lambda data: None)


def test_the_client_behind_a_trusted_proxy_is_named_and_nobody_else_is_believed(home: LoggedHome) -> None:
    for peer, told, client in (
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("", "6.6.6.6, 1.2.3.4, 127.0.0.1", "1.2.3.4"),
        ("9.9.9.9", "1.2.3.4", "9.9.9.9"),
        ("127.0.0.1", " , ", "127.0.0.1"),
        ("", "", "-"),
    ):
        home.get("a.test", "/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=told)
        assert home.last["remote"] == client, (peer, told)


def test_json_is_one_object_a_line(home: LoggedHome) -> None:
    home.log("access = ../../log/access.log\naccess_format = json")
    home.get("a.test", "/", HTTP_USER_AGENT='a "quoted"\nb\xc3\xbc')
    said = json.loads(home.lines[-1])
    assert said["agent"] == 'a "quoted"\nbü'
    assert (said["status"], said["bytes"], said["site"], said["host"]) == (200, 5, "a", "a.test")
    assert isinstance(said["seconds"], float)


def test_a_format_may_be_ones_own(home: LoggedHome) -> None:
    home.log("access = ../../log/access.log\naccess_format = 100% {iso} {host} {http_x_id} {scheme} {peer} {pid} {{}}")
    home.get("a.test", "/", HTTP_X_ID='1"\n2')
    iso, rest = home.lines[-1].removeprefix("100% ").split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", iso)
    assert rest == f'a.test 1\\"\\x0a2 http 127.0.0.1 {os.getpid()} {{}}'


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("access_format", "{nothing}"),
        ("access_format", "{status"),
        ("access_format", "{status!r}"),
        ("access_format", "{status.__class__}"),
        ("access", "syslog:local9"),
        ("access", "syslog:@host:port"),
        ("error", "syslog:x"),
    ],
)
def test_a_wrong_format_or_target_is_a_problem_of_its_key(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "s.ini"
    path.write_text(f"[service]\ndomains = a.test\napplication = a:b\n[logging]\n{key} = {value}\n")
    assert [problem.key for problem in read_site(str(path), str(tmp_path)).problems] == [key]


HOSTILE = st.text(st.characters(max_codepoint=255), max_size=40)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_value_can_end_a_line_or_leave_its_quotes(method: str, uri: str, agent: str, referer: str) -> None:
    values = dict.fromkeys(logformat.FIELDS, "0")
    values |= {"time": "now", "seconds": "0.000001", "site": "a", "how": "x", "user": "-"}
    hostile = {"method": method, "uri": uri, "agent": agent, "referer": referer}
    line = logformat.line_of("combined")(values | {name: logformat.plain(text) for name, text in hostile.items()})
    assert line.isascii()
    assert line.isprintable()
    plain = re.sub(r"\\.", "", line)
    assert plain.count('"') == 6
    text = logformat.line_of("json")(values | {name: logformat.decoded(text) for name, text in hostile.items()})
    assert "\n" not in text
    assert set(json.loads(text)) > {"uri", "agent"}


# --- where it goes --------------------------------------------------------------------------------------------------


def test_a_log_that_was_renamed_is_opened_anew_within_a_second(tmp_path: Path) -> None:
    now = [0.0]
    log = LogFile(str(tmp_path / "log"), clock=lambda: now[0])
    log.write("one")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.write("two")
    now[0] = 1.0
    log.write("three")
    assert (tmp_path / "log.1").read_text() == "one\ntwo\n"
    assert (tmp_path / "log").read_text() == "three\n"
    (tmp_path / "log").unlink()
    now[0] = 2.0
    log.write("four")
    assert (tmp_path / "log").read_text() == "four\n"


@pytest.mark.parametrize("form", ["combined", "json", "{uri}"])
def test_a_sites_log_is_looked_for_in_each_second(home: LoggedHome, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Whatever its format is."""
    home.log("access = ../../log/access.log", f"access_format = {form}")
    home.get("a.test", "/one")
    (home.path / "log" / "access.log").rename(home.path / "log" / "access.log.1")
    monkeypatch.setattr(accesslog.now, "known", (-1, "", ""))  # as when a second is over
    home.get("a.test", "/two")
    assert "/one" in (home.path / "log" / "access.log.1").read_text()
    assert len(home.lines) == 1 and "/two" in home.lines[0]


@settings(max_examples=40, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_the_quick_way_makes_what_the_careful_one_makes(method: str, uri: str, agent: str, user: str) -> None:
    """Or leaves it to that; in both formats."""
    with tempfile.TemporaryDirectory() as folder:
        for form in ("combined", "json"):
            path = Path(folder) / form
            log = AccessLog(Site("a.ini", name="a", access_log=str(path), access_format=form), Home(folder))
            environ = {"REQUEST_METHOD": method, "RAW_URI": uri, "HTTP_USER_AGENT": agent, "REMOTE_USER": user}
            this = RequestRecord(Counts(memoryview(bytearray(board.SIZE)).cast("Q")), log, environ, None, "page")
            records: list[Any] = []
            log._take = records.append
            log.write(this, 200, 5, 0.25, "page")
            quick, careful = log.line(records[0]).decode(), log.careful(records[0]).decode()
            assert (quick.count("\n"), quick[-1]) == (1, "\n")
            if form == "json":
                assert {**json.loads(quick), "iso": ""} == {**json.loads(careful), "iso": ""}
            else:
                assert TIME.sub("", quick) == TIME.sub("", careful)


def test_a_log_that_goes_away_costs_no_request_and_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    now = [0.0]
    log = LogFile(str(folder / "log"), clock=lambda: now[0])
    folder.rename(tmp_path / "elsewhere")
    for second in (1.0, 2.0, 3.0):
        now[0] = second
        log.write("line")
    assert capsys.readouterr().err.count("cannot write") == 1
    folder.mkdir()
    now[0] = 4.0
    log.write("again")
    assert (folder / "log").read_text() == "again\n"


WRITER = """
import sys, threading
from multisite.logs.logfiles import LogFile
log = LogFile(sys.argv[1])
def write(letter):
    for _ in range(300):
        log.write(letter * 5000)
threads = [threading.Thread(target=write, args=(letter,)) for letter in sys.argv[2]]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    """Three processes with three threads each append to one file."""
    path = tmp_path / "log"
    argv = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*argv, letters]) for letters in ("abc", "def", "ghi")]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 9 * 300
    assert all(len(line) == 5000 and len(set(line)) == 1 for line in lines)


def test_a_log_that_cannot_be_opened_is_a_problem_and_the_site_is_served(
    home: LoggedHome, caplog: pytest.LogCaptureFixture
) -> None:
    home.log("access = ../../none/access.log")
    for _ in range(3):
        assert home.get("a.test", "/").status == 200
    (told,) = [record.getMessage() for record in caplog.records if "access" in record.getMessage()]
    assert "create the directory" in told


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@ROOT
def test_root_writes_through_no_link_that_a_user_made(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    folder = tmp_path / "users"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    (folder / "link").symlink_to(victim)
    os.lchown(folder / "link", 12345, 12345)
    os.link(victim, folder / "hard")
    os.mkfifo(folder / "fifo")
    (folder / "way").symlink_to(tmp_path)
    os.lchown(folder / "way", 12345, 12345)
    for name in ("link", "hard", "fifo", "way/new"):
        with pytest.raises(OSError, match=r"link|owner|plain file|belongs|No such device"):
            open_append(str(folder / name))
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "new").exists()
    os.close(open_append(str(folder / "log")))
    os.close(open_append(str(folder / "log")))


@ROOT
@pytest.mark.parametrize("whose", [0, 12345], ids=["root's", "a user's"])
def test_root_follows_no_link_to_a_file_that_has_no_other_name(tmp_path: Path, whose: int) -> None:
    """Nothing about the file tells that somebody else has led us there: the link alone does."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    folder = tmp_path / "users"
    folder.mkdir()
    (folder / "log").symlink_to(victim)
    for path in (folder, folder / "log"):
        os.lchown(path, whose, whose)
    with pytest.raises(OSError, match="it is a link, and root does not follow links"):
        open_append(str(folder / "log"))
    assert victim.read_text() == "untouched"


def test_what_is_no_root_may_log_through_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.close(open_append(str(tmp_path / "link"), root=False))
    assert (tmp_path / "real").exists()


@pytest.fixture
def syslog() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(60)
        yield daemon


def test_lines_go_to_syslog(home: LoggedHome, syslog: socket.socket) -> None:
    home.log(f"access = syslog:local3@127.0.0.1:{syslog.getsockname()[1]}")
    home.get("a.test", "/x")
    message = syslog.recv(4096).rstrip(b"\0").decode()
    assert message.startswith(f"<{19 * 8 + 6}>multisite: ")  # local3, info
    assert COMBINED.fullmatch(message.partition("multisite: ")[2])


def test_error_logs_go_to_syslog_with_their_site(home: LoggedHome, syslog: socket.socket) -> None:
    home.log(f"error = syslog:@127.0.0.1:{syslog.getsockname()[1]}")
    home.get("a.test", "/raise")
    message = syslog.recv(65536).decode()
    assert message.startswith("<27>multisite: a: MS324 incident ")  # daemon, error
    assert "#012" in message
    assert "\n" not in message


def test_the_output_of_a_spawned_site_goes_to_syslog(home: LoggedHome, syslog: socket.socket) -> None:
    from multisite.config.read import make_site, read_home
    from multisite.supervisor.process.sitelog import SiteLog

    home.log(f"error = syslog:local0@127.0.0.1:{syslog.getsockname()[1]}")
    settled = read_home(str(home.path))
    log = SiteLog(make_site(read_site(str(home.path / "sites-enabled" / "a.ini"), settled.path), settled))
    log.write(["printed", "twice"], 1.0)
    assert syslog.recv(4096).rstrip(b"\0") == b"<134>multisite: a: printed"
    assert syslog.recv(4096).rstrip(b"\0") == b"<134>multisite: a: twice"
    log.close()


def test_a_syslog_that_does_not_keep_up_loses_lines_and_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "s"))
        monkeypatch.setattr("multisite.logs.loghandlers.SYSLOG_SOCKETS", (str(tmp_path / "s"),))
        lines = SyslogLines(logformat.Syslog("daemon"), "multisite")
        for _ in range(5000):
            lines.write("x" * 1000)
        lines.close()
    assert capsys.readouterr().err.count("cannot write to syslog") == 1


def test_no_syslog_is_a_problem_of_the_key(
    home: LoggedHome, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("multisite.logs.loghandlers.SYSLOG_SOCKETS", ("/none",))
    home.log("access = syslog:\nerror = syslog:")
    assert home.get("a.test", "/").status == 200
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len([text for text in told if "start a syslog daemon" in text]) == 2


# --- the body on its way --------------------------------------------------------------------------------------------


class Told:
    def __init__(self) -> None:
        self.calls: list[tuple[int, int, bool]] = []

    def write(self, visit: RequestRecord, status: int, sent: int, seconds: float, how: str) -> None:
        self.calls.append((status, sent, how.endswith(",cut")))


def visited(told: Told, **environ: Any) -> RequestRecord:
    asked = {"REQUEST_METHOD": "GET", "RAW_URI": "/", **environ}
    return RequestRecord(
        Counts(memoryview(bytearray(board.SIZE)).cast("Q")), told, asked, lambda *_: lambda data: None, "page"
    )  # type: ignore[arg-type]


def recorded(body: Any, told: Told, headers: list[tuple[str, str]] | None = None, **environ: Any) -> Any:
    this = visited(told, **environ)
    this.start("200 OK", headers or [])
    return this.around(body)


@pytest.mark.parametrize("kind", [list, tuple, iter])
@pytest.mark.parametrize(
    ("said", "environ", "status", "is_cut"),
    [
        ("10", {}, "200 OK", False),
        ("11", {}, "200 OK", True),
        ("9", {}, "200 OK", False),
        ("11", {"REQUEST_METHOD": "HEAD"}, "200 OK", False),
        ("11", {}, "304 Not Modified", False),
    ],
)
def test_an_answer_that_is_shorter_than_it_says_is_cut(
    kind: Any, said: str, environ: dict[str, str], status: str, is_cut: bool
) -> None:
    told = Told()
    this = visited(told, **environ)
    this.start(status, [("Content-Length", said)])
    body: Any = this.around(kind([b"12345", b"67890"]))
    assert b"".join(body) == b"1234567890"
    if hasattr(body, "close"):
        body.close()
    assert told.calls == [(int(status[:3]), 10, is_cut)]


def test_a_file_that_the_server_sends_stays_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    file, told = (tmp_path / "f").open("rb"), Told()
    wrapped = FileWrapper(file)
    body = recorded(wrapped, told, [("Content-Length", "5")], **{"wsgi.file_wrapper": FileWrapper})
    assert body is wrapped
    assert told.calls == []
    body.close()
    assert file.closed
    assert told.calls == [(200, 5, False)]


def test_a_file_of_a_server_whose_wrapper_is_no_class_stays_itself(tmp_path: Path) -> None:
    """uWSGI's wrapper is a function that returns the file itself, and knows it again."""
    (tmp_path / "f").write_bytes(b"12345")
    told = Told()
    with open(tmp_path / "f", "rb", buffering=0) as file:
        body = recorded(file, told, [("Content-Length", "5")], **{"wsgi.file_wrapper": len})
        assert body is file
        body.close()
        assert told.calls == [(200, 5, False)]
    assert file.closed


def test_a_list_stays_what_it_is_and_is_as_good_as_sent() -> None:
    told, answer = Told(), [b"one", b"two"]
    assert recorded(answer, told) is answer
    assert told.calls == [(200, 6, False)]


def test_what_an_app_put_into_its_environ_costs_no_line(home: LoggedHome) -> None:
    """What is no text is told by its type."""
    home.code("a", app=APP.replace('    status = "500', '    environ["REMOTE_USER"] = b"me"\n    status = "500'))
    home.later()
    home.get("a.test")
    assert home.last["user"] == "<bytes>"


def test_a_server_that_stops_when_all_was_sent_cuts_nothing() -> None:
    told = Told()
    body = recorded(iter([b"12345", b"more"]), told, [("Content-Length", "5")])
    next(body)
    body.close()
    assert told.calls == [(200, 5, False)]


def test_an_answer_without_a_status_is_the_clients_leave_or_a_failure() -> None:
    told = Told()
    visited(told).end()
    assert told.calls == [(0, 0, True)]


def test_the_close_of_the_app_is_called_once_and_its_error_is_the_servers() -> None:
    class Body:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            Body.closed += 1
            raise RuntimeError("in close")

    told = Told()
    body = recorded(Body(), told)
    assert list(body) == [b"x"]
    with pytest.raises(RuntimeError):
        body.close()
    assert (Body.closed, told.calls) == (1, [(200, 1, False)])


def test_a_visit_that_was_taken_over_is_ended_by_who_took_it() -> None:
    class Taken:
        done_with: tuple[Any, ...] = ()

        def done(self, *what: Any) -> None:
            self.done_with = what

    environ: dict[str, Any] = {requests.KEY: (taken := Taken())}
    requests.ended(environ, 200, 10)
    requests.ended(environ, 500, 0)
    assert taken.done_with == (200, 10, False)
    assert environ == {}


def test_a_connection_that_was_taken_over_writes_its_line_when_it_has_ended(home: LoggedHome) -> None:
    from multisite.proxy.downstream import Ended

    kept: list[dict[str, Any]] = []

    def elsewhere(environ: dict[str, Any], start_response: Any) -> Any:
        kept.append(environ)
        raise Ended

    home.service._elsewhere = lambda site, home: elsewhere
    home.log("access = ../../log/access.log", mode="spawned")
    for number in (1, 2):  # the first finds out that the site is spawned
        with pytest.raises(StopIteration):
            request(home, "/x")
        assert len(home.lines) == number - 1
        requests.ended(kept[-1], 201, 17)
        assert (home.last["status"], home.last["bytes"], home.last["how"]) == ("201", "17", "spawned")


def test_an_in_process_app_finds_nothing_of_ours_in_its_environ(home: LoggedHome) -> None:
    home.code("a", app="""
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [" ".join(key for key in environ if key.startswith("multisite")).encode()]
        """)  # fmt: skip
    assert [home.get("a.test", "/").text for _ in range(3)] == ["", "", ""]


def test_ask_checks_both_sides_of_the_logged_service(home: LoggedHome) -> None:
    """`ask` runs wsgiref.validate around the service; here with HEAD, which has no body."""
    assert ask(home.service, "a.test", "/", REQUEST_METHOD="HEAD").status == 200
    assert not home.last["how"].endswith("cut")
