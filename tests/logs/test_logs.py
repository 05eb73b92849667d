"""Where the service's log goes, in both dialects of logging.ini, and a site's own error log."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import os
import re
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multisite.config.model import Home, Site
from multisite.logs import incidents, loggingini, servicelog
from multisite.logs.loggingplan import evaluate, make_plan
from multisite.logs.loghandlers import LocalSysLogHandler, ReopeningFileHandler

MOYA = """
# as Moya's service scaffolds it
[logger:root]
handlers=file

[logger:moya]
level=DEBUG
propagate=no
handlers=null

[handler:file]
class=moya.logtools.MoyaFileHandler
formatter=simple
args=("$LOGS/service.log",)

[handler:syslog]
formatter = simple
class = moya.logtools.MoyaSysLogHandler

[formatter:simple]
format=:%(name)s:%(levelname)s: %(message)s
datefmt=[%d/%b/%Y %H:%M:%S]
class=moya.logtools.MoyaServiceFormatter
"""

LIBRARY = """
[loggers]
keys = root, service

[handlers]
keys = file

[formatters]
keys = simple

[logger_root]
level = WARNING
handlers =

[logger_service]
qualname = multisite
level = DEBUG
handlers = file
propagate = 0

[handler_file]
class = FileHandler
formatter = simple
args = ('%(here)s/service.log', 'a')

[formatter_simple]
format = %(levelname)s (%(site)s) %(message)s
"""


@pytest.fixture(autouse=True)
def clean_logging(monkeypatch):
    """Logging as in a fresh interpreter, and everything put back afterwards."""
    root = logging.root
    handlers, level, factory = root.handlers[:], root.level, logging.getLogRecordFactory()
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    yield
    for name in list(servicelog._site_logs):
        servicelog.detach_site_log(name)
    servicelog._remove_installed()
    servicelog._quiet_default()
    servicelog._told.clear()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGS", str(tmp_path))
    return Home(str(tmp_path))


def configure(home: Home):
    """`logs.configure` without the handlers that pytest gives to the root logger."""
    logging.root.handlers[:] = [each for each in logging.root.handlers if "pytest" not in type(each).__module__]
    return servicelog.configure(home)


def write_ini(home: Home, text: str, name: str = "logging.ini") -> str:
    path = os.path.join(home.path, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def read_log(home: Home, name: str = "service.log") -> str:
    with open(os.path.join(home.path, name), encoding="utf-8") as file:
        return file.read()


def site(home: Home, name: str = "blog", log: str = "blog.log") -> Site:
    return Site(file=f"{home.path}/{name}.ini", name=name, error_log=os.path.join(home.path, log) if log else "")


# the default


def test_without_a_logging_ini_records_go_to_stderr_with_the_site(home, capsys):
    assert configure(home) == ()
    logging.getLogger("multisite.dispatcher").info("hello")
    servicelog.site_logger("blog").warning("oh")
    logging.getLogger("multisite").debug("unseen")
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"[-\d]+ [:,\d]+ INFO {20}hello", first)
    assert re.fullmatch(r"[-\d]+ [:,\d]+ WARNING  \(blog\)         oh", second)


def test_a_root_logger_that_the_server_configured_gets_each_record_once(home, capsys):
    server = logging.StreamHandler(sys.stderr)
    server.setFormatter(logging.Formatter("server: %(message)s"))
    logging.root.addHandler(server)
    configure(home)
    logging.getLogger("multisite").info("hello")
    assert capsys.readouterr().err == "server: hello\n"


def test_configuring_twice_writes_no_line_twice(home, capsys):
    configure(home)
    configure(home)
    logging.getLogger("multisite").info("hello")
    assert capsys.readouterr().err.count("hello") == 1


# the dialects


def test_moyas_dialect_works_without_moya(home):
    write_ini(home, MOYA)
    assert configure(home) == ()
    servicelog.site_logger("blog").info("hello")
    assert read_log(home) == "(blog)        :multisite.site.blog:INFO: hello\n"


def test_the_librarys_dialect_works(home):
    write_ini(home, LIBRARY)
    assert configure(home) == ()
    token = servicelog.current_site.set("shop")
    logging.getLogger("multisite.loader").debug("hello")
    servicelog.current_site.reset(token)
    assert read_log(home) == "DEBUG (shop) hello\n"


@pytest.mark.parametrize("text", [MOYA, LIBRARY])
def test_the_loggers_and_handlers_of_the_server_live_on(home, text):
    stream = logging.StreamHandler(sys.stderr)
    server = logging.getLogger("gunicorn.error")
    server.addHandler(stream)
    try:
        write_ini(home, text)
        configure(home)
        assert not server.disabled
        assert server.handlers == [stream]
        assert stream in [each() for each in logging._handlerList]  # not shut down either
    finally:
        server.removeHandler(stream)


def test_an_extended_file_gives_what_the_extending_one_leaves_out(home):
    write_ini(home, MOYA, "base.ini")
    write_ini(home, "extends = base.ini\n[formatter:simple]\nformat = short %(message)s\n")
    assert configure(home) == ()
    logging.getLogger("multisite").info("hello")
    assert read_log(home) == " " * 14 + "short hello\n"


def test_a_circle_of_extends_is_a_problem_of_the_last_file(home):
    write_ini(home, "extends = base.ini\n" + MOYA)
    base = write_ini(home, "extends = logging.ini\n", "base.ini")
    (problem,) = configure(home)
    assert (problem.file, problem.key, problem.reason) == (base, "extends", "extends itself")


def test_a_memory_handler_flushes_to_its_target(home):
    memory = "[handler:memory]\nclass=handlers.MemoryHandler\nargs=(100, ERROR)\ntarget=file\n"
    write_ini(home, MOYA.replace("handlers=file", "handlers=memory") + memory)
    assert configure(home) == ()
    logging.getLogger("multisite").info("first")
    assert not os.path.exists(f"{home.path}/service.log") or read_log(home) == ""
    logging.getLogger("multisite").error("second")
    assert [line.split()[-1] for line in read_log(home).splitlines()] == ["first", "second"]


def test_all_problems_are_found_at_once_and_the_default_is_used(home, capsys):
    path = write_ini(
        home,
        """
[logger:root]
handlers = fiel
level = LOUD
propagate = perhaps
[handler:file]
class = NoSuchHandler
args = __import__("os").system("false")
formatter = simpel
[handler:other]
class = Formatter
colour = red
target = nobody
[formatter:simple]
format = %(message
[sites]
""",
    )
    problems = configure(home)
    found = {(each.section, each.key, each.severity) for each in problems}
    assert found == {
        ("sites", "", "error"),
        ("logger:root", "handlers", "error"),
        ("logger:root", "level", "error"),
        ("logger:root", "propagate", "error"),
        ("handler:file", "class", "error"),
        ("handler:file", "args", "error"),
        ("handler:file", "formatter", "error"),
        ("handler:other", "class", "error"),
        ("handler:other", "colour", "warning"),
        ("handler:other", "target", "error"),
        ("formatter:simple", "format", "error"),
    }
    assert all(each.file == path and each.reason and each.remedy for each in problems)
    assert "did you mean file?" in [each.remedy for each in problems]
    logging.getLogger("multisite").info("still heard")
    assert "still heard" in capsys.readouterr().err


def test_a_root_logger_is_required(home):
    write_ini(home, "[logger:multisite]\nlevel = INFO\n")
    (problem,) = configure(home)
    assert problem.reason == "has no root logger"


def test_a_key_without_its_section_is_a_problem_in_the_librarys_dialect(home):
    write_ini(home, LIBRARY.replace("keys = file", "keys = file, mail"))
    (problem,) = configure(home)
    assert (problem.section, problem.key, problem.value) == ("handlers", "keys", "mail")


def test_a_missing_log_directory_names_the_section_and_the_remedy(home):
    write_ini(home, MOYA.replace("$LOGS", "/nonexistent"))
    (problem,) = configure(home)
    assert (problem.section, problem.key) == ("handler:file", "args")
    assert "No such file" in problem.reason and "create the directory" in problem.remedy


def test_a_handler_that_nobody_uses_is_not_made(home):
    unused = '[handler:unused]\nclass=FileHandler\nargs=("/nonexistent/x.log",)\n'
    write_ini(home, MOYA + unused)
    assert configure(home) == ()


def test_moyas_syslog_handler_says_where_no_daemon_listens(monkeypatch):
    monkeypatch.setattr("multisite.logs.loghandlers.SYSLOG_SOCKETS", ("/nonexistent/log",))
    with pytest.raises(FileNotFoundError, match="no syslog daemon listens"):
        LocalSysLogHandler()


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\x00junk", b"x" * 2_000_000, b"key\n  more\n", b"[a]\n[a]\n", b"a=1\na=2\n"]
)
def test_a_file_that_is_no_ini_is_one_problem(home, junk):
    path = os.path.join(home.path, "logging.ini")
    with open(path, "wb") as file:
        file.write(junk)
    (problem,) = configure(home)
    assert problem.file == path and problem.remedy


def test_a_directory_and_a_fifo_are_refused_at_once(home):
    os.mkdir(f"{home.path}/logging.ini")
    assert configure(home)[0].reason == "is not a regular file"
    os.rmdir(f"{home.path}/logging.ini")
    os.mkfifo(f"{home.path}/logging.ini")
    assert configure(home)[0].reason == "is not a regular file"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("[]logerhandf:_=,%$()\n '1\"#\0é"), max_size=120), st.sampled_from([MOYA, LIBRARY, ""]))
def test_no_text_makes_reading_fail(tmp_path, text, rest):
    path = tmp_path / "logging.ini"
    path.write_text(text + "\n" + rest, encoding="utf-8")
    plan, problems = make_plan(loggingini.read(str(path), {}))
    assert plan or problems


# arguments


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("('a.log', 'w', -1, None)", ("a.log", "w", -1, None)),
        ("(sys.stdout,)", (sys.stdout,)),
        ("[('localhost', handlers.SYSLOG_UDP_PORT), handlers.SysLogHandler.LOG_USER]", [("localhost", 514), 1]),
        ("(10, logging.ERROR)", (10, logging.ERROR)),
        ("{'delay': True}", {"delay": True}),
    ],
)
def test_arguments_are_literals_and_names_of_logging(text, value):
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text", ["open('/etc/passwd')", "os.sep", "sys.path", "logging.os.sep", "().__class__", "x", "(", "1 if 1 else 2"]
)
def test_nothing_else_is_evaluated(text):
    with pytest.raises(ValueError):
        evaluate(text)


def test_an_argument_nested_without_end_is_refused():
    with pytest.raises(ValueError):
        evaluate("(" * 100_000)


# what a site's import may do to logging


def test_restore_puts_back_what_dictconfig_took(home, capsys):
    configure(home)
    logging.config.dictConfig({"version": 1, "root": {"handlers": []}})
    assert logging.getLogger("multisite").disabled
    assert "the logger multisite" in servicelog.restore()
    assert servicelog.restore() == ()
    logging.getLogger("multisite").info("hello")
    assert "hello" in capsys.readouterr().err


def test_restore_puts_back_root_handlers_and_the_record_factory(home):
    write_ini(home, MOYA)
    configure(home)
    logging.root.handlers.clear()
    logging.setLogRecordFactory(logging.LogRecord)
    assert set(servicelog.restore()) == {"a log handler of root", "the log record factory"}
    servicelog.site_logger("blog").info("hello")
    assert "(blog)" in read_log(home)


def test_a_record_factory_that_was_there_before_is_still_called(home):
    def stamped(*args, **kwargs):
        record = logging.LogRecord(*args, **kwargs)
        record.stamp = "x"
        return record

    logging.setLogRecordFactory(stamped)
    configure(home)
    record = logging.makeLogRecord({})
    assert (record.stamp, record.site) == ("x", "")


def test_each_thread_has_its_own_current_site(home):
    configure(home)
    sites = {}

    def serve(name):
        servicelog.current_site.set(name)
        barrier.wait(60)
        sites[name] = logging.makeLogRecord({}).site

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=serve, args=(name,)) for name in ("blog", "shop")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sites == {"blog": "blog", "shop": "shop"}


# a site's own error log


def test_a_sites_log_has_its_records_and_the_traceback_of_an_incident(home, capsys):
    configure(home)
    assert servicelog.attach_site_log(site(home)) == ()
    name = incidents.new()
    try:
        raise ImportError("no module named flask")
    except ImportError as fault:
        incidents.log_failure("MS230", "blog", name, "the application could not be imported", fault)
    servicelog.site_logger("shop").error("not ours")
    text = read_log(home, "blog.log")
    assert re.fullmatch("[0-9a-f]{8}", name)
    assert f"ERROR MS230 incident {name}: the application could not be imported\nTraceback" in text
    assert "ImportError: no module named flask" in text
    assert "not ours" not in text
    assert name in capsys.readouterr().err  # the service's log has it too


def test_a_site_whose_name_begins_with_anothers_keeps_its_records_to_itself(home):
    configure(home)
    servicelog.attach_site_log(site(home, "blog"))
    servicelog.site_logger("blog.eu").error("elsewhere")
    assert read_log(home, "blog.log") == ""


def test_a_renamed_log_is_opened_anew_with_a_narrow_mode(home):
    configure(home)
    servicelog.attach_site_log(site(home))
    servicelog.site_logger("blog").error("first")
    os.rename(f"{home.path}/blog.log", f"{home.path}/blog.log.1")
    servicelog.site_logger("blog").error("second")
    assert "first" in read_log(home, "blog.log.1") and "second" in read_log(home, "blog.log")
    assert os.stat(f"{home.path}/blog.log").st_mode & 0o137 == 0


def test_attaching_again_adds_nothing_and_follows_a_change(home):
    configure(home)
    logger = servicelog.site_logger("blog")
    servicelog.attach_site_log(site(home))
    (handler,) = logger.handlers
    servicelog.attach_site_log(site(home))
    assert logger.handlers == [handler]
    servicelog.attach_site_log(site(home, log="other.log"))
    assert [os.path.basename(each.baseFilename) for each in logger.handlers] == ["other.log"]
    servicelog.attach_site_log(site(home, log=""))
    assert logger.handlers == []


def test_a_log_that_cannot_be_opened_is_told_once(home, capsys):
    configure(home)
    broken = site(home, log="missing/blog.log")
    (problem,) = servicelog.attach_site_log(broken)
    assert (problem.section, problem.key) == ("logging", "error")
    assert problem.remedy == f"create the directory {home.path}/missing"
    assert servicelog.attach_site_log(broken) == (problem,)
    assert capsys.readouterr().err.count("create the directory") == 1
    os.mkdir(f"{home.path}/missing")
    assert servicelog.attach_site_log(broken) == ()


def test_a_fifo_that_nobody_reads_is_refused_at_once(home):
    os.mkfifo(f"{home.path}/blog.log")
    assert len(servicelog.attach_site_log(site(home))) == 1


def test_a_fault_while_writing_is_told_once_and_never_raised(home, capsys):
    os.mkdir(f"{home.path}/logs")
    handler = ReopeningFileHandler(f"{home.path}/logs/x.log")
    os.rename(f"{home.path}/logs", f"{home.path}/gone")
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "lost"}))
    assert capsys.readouterr().err.count("cannot write to the log") == 1
    os.mkdir(f"{home.path}/logs")
    handler.handle(logging.makeLogRecord({"msg": "kept"}))
    handler.close()
    assert read_log(home, "logs/x.log") == "kept\n"
