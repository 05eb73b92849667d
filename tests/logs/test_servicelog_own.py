"""An in-process site's own records and lines, in its own error log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.config.model import Home, Site
from multisite.dispatch.environ import Completed
from multisite.logs import servicelog


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger without handlers, and the service's log in a file."""
    root = logging.root
    handlers, level, factory = root.handlers[:], root.level, logging.getLogRecordFactory()
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    yield root
    for name in list(servicelog._site_logs):
        servicelog.detach_site_log(name)
    assert servicelog.records not in root.handlers
    servicelog._remove_installed()
    servicelog._quiet_default()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


@pytest.fixture
def home(tmp_path: Path, root: logging.Logger) -> Home:
    """A home with the log of one site, and one that has none."""
    home = Home(str(tmp_path))
    assert not servicelog.attach_site_log(Site(file="blog.ini", name="blog", error_log=str(tmp_path / "blog.log")))
    return home


def configure(home: Home) -> None:
    """Set the service's log up, without the handlers that pytest gives to the root logger for each step of a test."""
    logging.root.handlers[:] = [servicelog.records]
    servicelog.configure(home)


def own(tmp_path: Path) -> str:
    return (tmp_path / "blog.log").read_text()


def say(site: str, text: str, logger: str = "shop.orders") -> None:
    token = servicelog.current_site.set(site)
    try:
        logging.getLogger(logger).warning(text)
    finally:
        servicelog.current_site.reset(token)


def test_what_a_site_logs_is_in_its_own_log(home: Home, tmp_path: Path) -> None:
    """Its own records, not its neighbours', wherever the loggers stand; each once."""
    configure(home)
    say("blog", "ours")
    say("wiki", "a neighbour's")
    say("blog", "about the service", "multisite.inprocess")
    servicelog.site_logger("blog").error("an incident")
    assert [line.split(" ", 3)[2:] for line in own(tmp_path).splitlines()] == [
        ["WARNING", "ours"],
        ["ERROR", "an incident"],
    ]


def test_a_record_that_no_handler_gets_is_in_the_services_log(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """`logging` would print the bare text of a neighbour's; here it has the time and the site, and comes once."""
    configure(home)
    say("wiki", "nobody's")
    told = capsys.readouterr().err
    assert told.count("nobody's") == 1
    assert "WARNING  (wiki)" in told
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("shop").addHandler(handler)
    try:
        say("wiki", "somebody's")
    finally:
        logging.getLogger("shop").removeHandler(handler)
    assert heard == ["somebody's"]
    assert "somebody's" not in capsys.readouterr().err


def test_an_import_that_empties_the_root_logger_changes_nothing(home: Home, root: logging.Logger) -> None:
    """As with the service's own handlers, what dictConfig took is put back."""
    root.handlers[:] = []
    assert "a log handler of root" in servicelog.restore()
    assert servicelog.records in root.handlers


def test_wsgi_errors_is_the_sites_own_log(home: Home, tmp_path: Path) -> None:
    """Text comes in pieces, and threads do not mix their lines."""
    log = servicelog.own_log("blog")
    assert log

    def app(environ: dict[str, object], start_response: object) -> list[bytes]:
        errors = environ["wsgi.errors"]
        assert isinstance(errors, servicelog.Errors)
        errors.write("Trace")
        other = threading.Thread(target=lambda: print("from a thread", file=errors))  # type: ignore[call-overload]
        other.start()
        other.join()
        errors.writelines(["back\n  File", " x\nend"])
        errors.flush()
        return []

    Completed(app, servicelog.Errors(log))({}, None)
    assert own(tmp_path) == "from a thread\nTraceback\n  File x\nend\n"
    assert servicelog.own_log("wiki") is None
