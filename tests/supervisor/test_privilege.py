"""Who a site runs as: real users, groups and files; never root by accident."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from multisite.cli import main
from multisite.config.model import Home, Site, SupervisorOptions
from multisite.config.policies import Refused
from multisite.errors import BackendUnavailable
from multisite.supervisor.process import commandlines, launch, privilege, reach
from multisite.supervisor.process.spec import Surroundings

from .harness import SERVER, SupervisedHome, as_user, supervised, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
SYSTEM_PYTHON = "/usr/bin/python3"
PLAIN, ALLOWED = SupervisorOptions(), SupervisorOptions(allow_root=True)


def who(options: SupervisorOptions = PLAIN, program: str = "", **keys: str) -> privilege.Identity:
    site = Site("a.ini", name="a", **keys)
    return privilege.identity(site, Home("/home", supervisor=options), program)[0]


@as_root
def test_a_site_runs_as_the_owner_of_its_location(open_path: Path) -> None:
    os.chown(open_path, 33, 33)
    found = who(location=str(open_path))
    assert (found.uid, found.gid, found.change) == (33, 33, True)


@as_root
def test_where_root_owns_the_location_it_is_the_default_user(open_path: Path) -> None:
    assert who(location=str(open_path)).name == "nobody"


@as_root
def test_a_default_user_who_cannot_reach_the_files_is_refused_or_with_allow_root_replaced(open_path: Path) -> None:
    hidden = open_path / "hidden"
    hidden.mkdir(mode=0o700)
    with pytest.raises(Refused, match=f"'nobody', who cannot reach {hidden}"):
        who(location=str(hidden))
    assert who(ALLOWED, location=str(hidden)).uid == 0


@as_root
def test_a_command_that_is_told_a_port_can_be_run_by_who_cannot_run_our_interpreter(
    open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay before it needs the standard library only."""
    hidden = open_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "python3").symlink_to(sys.executable)
    monkeypatch.setattr(commandlines.program, "own_interpreter", lambda: str(hidden / "python3"))
    monkeypatch.setattr(commandlines, "SOCKETPROXY", str(open_path / "socketproxy.py"))
    (open_path / "socketproxy.py").touch(mode=0o644)
    site = Site("a.ini", name="a", location=str(open_path), command=("/bin/true", "%PORT"))
    how = launch.plan(site, Home("/home"), Surroundings(os.environ, "", "/"))
    assert (how.identity.name, how.argv[0]) == ("nobody", shutil.which("python3", path=os.defpath))


@as_root
def test_files_of_ours_that_the_default_user_cannot_read_are_seen_before_a_start(open_path: Path) -> None:
    hidden = open_path / "hidden"
    hidden.mkdir(mode=0o700)
    site = Site("a.ini", name="a", location=str(open_path))
    with pytest.raises(Refused, match=f"'nobody', who cannot reach {hidden}"):
        privilege.identity(site, Home("/home", supervisor=PLAIN), "/bin/sh", (str(hidden),))


@pytest.mark.parametrize(
    ("key", "reason"),
    [("python", "it is not an executable program"), ("chroot", "there is no such directory")],
)
def test_what_would_fail_at_each_start_is_refused_before(tmp_path: Path, key: str, reason: str) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o644)
    site = Site("a.ini", name="a", application="app:app", **{key: str(file)})  # type: ignore[arg-type]
    refused = launch.obstacle(site, Home("/home"))
    assert refused and str(refused).startswith(f"{key} = {file}: {reason}")


@as_root
@pytest.mark.parametrize("user", ["root", "0"])
def test_root_is_refused_unless_it_is_allowed(open_path: Path, user: str) -> None:
    with pytest.raises(Refused, match="allow_root = yes"):
        who(location=str(open_path), user=user)
    assert who(ALLOWED, location=str(open_path), user=user).uid == 0


@as_root
def test_roots_group_is_refused_too(open_path: Path) -> None:
    with pytest.raises(Refused, match="allow_root"):
        who(location=str(open_path), user="nobody", group="root")


@as_root
def test_owner_is_never_root(open_path: Path) -> None:
    with pytest.raises(Refused, match="user = owner"):
        who(ALLOWED, location=str(open_path), user="owner")


@as_root
def test_supplementary_groups_are_the_users_own(open_path: Path) -> None:
    entry = pwd.getpwnam("daemon")
    found = who(location=str(open_path), user="daemon", group="www-data")
    assert found.gid == 33
    assert set(found.groups) == {33, *os.getgrouplist("daemon", entry.pw_gid)}


@as_root
def test_code_that_everybody_may_write_is_refused(open_path: Path) -> None:
    """Whatever moya.conf allows."""
    open_path.chmod(0o777)
    for options in (PLAIN, ALLOWED):
        with pytest.raises(Refused, match="is writable by everybody; chmod o-w"):
            who(options, location=str(open_path))


@as_root
def test_root_does_not_run_what_others_may_write(open_path: Path) -> None:
    os.chown(open_path, 33, 33)
    with pytest.raises(Refused, match="is writable by users other than root"):
        who(ALLOWED, location=str(open_path), user="root")


@as_root
def test_root_does_not_run_what_a_group_may_write(open_path: Path) -> None:
    """The group of root itself is root."""
    code = open_path / "app.py"
    code.write_text("")
    keys = {"location": str(open_path), "user": "root", "application": "app:application"}
    for path in (open_path, code):
        path.chmod(0o775)
        assert who(ALLOWED, **keys).uid == 0
        os.chown(path, 0, 33)
        with pytest.raises(Refused, match=f"it runs as root and {path} is writable by users other than root"):
            who(ALLOWED, **keys)
        assert who(ALLOWED, **{**keys, "user": "www-data"}).uid == 33
        path.chmod(0o755)


@as_root
def test_a_location_that_is_replaced_between_two_looks_is_refused(
    open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner was to run it; what is there now is root's, who would never have been chosen."""
    location = open_path / "site"
    location.mkdir()
    os.chown(location, 33, 33)
    look = reach.way

    def replaced(path: str) -> object:
        location.rmdir()
        location.mkdir()
        return look(path)

    monkeypatch.setattr(reach, "way", replaced)
    with pytest.raises(Refused, match="it has just been replaced; try again"):
        who(location=str(location))


def test_users_and_groups_that_do_not_exist_are_named(open_path: Path) -> None:
    with pytest.raises(Refused, match="no user 'nobody-at-all'"):
        who(location=str(open_path), user="nobody-at-all")
    with pytest.raises(Refused, match="no group 'nobody-at-all'"):
        who(location=str(open_path), user=pwd.getpwuid(os.geteuid()).pw_name, group="nobody-at-all")


REPORT = """
import os, resource, socket, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
facts = {
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": sorted(os.getgroups()), "cwd": os.getcwd(),
    "umask": status["Umask"].strip(), "new": status["NoNewPrivs"].strip(), "nice": os.nice(0),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0], "session": os.getsid(0) == os.getpid(),
    "open": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "env": dict(os.environ),
}
listener = socket.socket(fileno=3)
while True:
    connected, _ = listener.accept()
    connected.recv(1000)
    connected.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + repr(facts).encode())
    connected.close()
"""


def facts_of(home: SupervisedHome, name: str) -> dict[str, object]:
    import ast

    return dict(ast.literal_eval(home.get(name)))


@as_root
def test_a_process_gets_what_its_file_says_and_nothing_else(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GUNICORN_CMD_ARGS", "LISTEN_FDS", "WEB_CONCURRENCY", "SECRET_OF_THE_ADMINISTRATOR", "PYTHONPATH"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with supervised(open_path) as home:
        keys = {"user": "www-data", "umask": "0027", "nice": "3", "nofile": "256"}
        folder = home.site("a", REPORT, more="[env]\nMOOD = good\n", command=f"{SYSTEM_PYTHON} srv.py", **keys)
        facts = facts_of(home, "a")
        env = facts.pop("env")
        assert facts == {
            "uid": (33, 33, 33),
            "gid": (33, 33, 33),
            "groups": [33],
            "cwd": str(folder),
            "umask": "0027",
            "new": "1",
            "nice": 3 + os.nice(0),
            "nofile": 256,
            "session": True,
            "open": [0, 1, 2, 3],
        }
        assert isinstance(env, dict)
        assert env["MOOD"] == "good"
        assert env["USER"] == env["LOGNAME"] == "www-data"
        assert env["HOME"] == pwd.getpwnam("www-data").pw_dir
        known = {"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SHELL", "HOME", "USER", "LOGNAME", "MOOD"}
        known |= {"MULTISITE_BACKEND", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"}
        extra = {"SSL_CERT_FILE", "SSL_CERT_DIR"}
        assert {name for name in set(env) - known - extra if not name.startswith("LC_")} == set()
        assert env["LISTEN_FDS"] == "1"


@pytest.fixture
def ignored_signals() -> Iterator[None]:
    """Signals that nohup(1), or a shell that starts something in the background, has processes ignore."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGQUIT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("ignored_signals")
def test_no_signal_is_ignored_because_the_supervisor_ignores_it(tmp_path: Path) -> None:
    """Python ignores SIGPIPE; a shell script that was started so would never end with its reader."""
    with supervised(tmp_path) as home:
        home.site("a", command=f"{shutil.which('grep')} SigIgn /proc/self/status")
        with pytest.raises(OSError):
            home.get("a")
        (line,) = home.failed("a")["failure"]["output"]
        assert int(line.split()[1], 16) & 0x7FFFFFFF == 0  # 1 to 31; libc has the real-time ones


@as_root
def test_the_relay_and_a_private_socket_work_for_another_user(open_path: Path) -> None:
    if reach.closed_to(who(user="www-data", location="/"), commandlines.SOCKETPROXY):
        pytest.skip("this checkout is hidden from other users, and the relay is in it")
    with supervised(open_path) as home:
        home.site("a", SERVER, command=f"{SYSTEM_PYTHON} -m http.server --bind 127.0.0.1 %PORT", user="www-data")
        assert home.get("a")


@as_root
def test_chroot_changes_the_root(open_path: Path) -> None:
    """A static program would be all that a jail needs; here it is the whole system, mounted nowhere else."""
    with supervised(open_path) as home:
        home.site("a", REPORT, command=f"{SYSTEM_PYTHON} srv.py", user="www-data", chroot="/")
        assert facts_of(home, "a")["uid"] == (33, 33, 33)
        home.site("b", REPORT, command=f"{SYSTEM_PYTHON} srv.py", user="www-data", chroot=str(open_path))
        with pytest.raises(Exception, match=r"."):
            home.get("b")
        failure = home.failed("b")["failure"]["failure"]
        assert f"run {SYSTEM_PYTHON}" in failure


# What strangers could change


@as_root
def test_a_user_in_roots_group_does_not_get_it(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda _name, gid: [gid, 0, 4])
    assert who(location=str(open_path), user="www-data").groups == (33, 4)
    assert who(ALLOWED, location=str(open_path), user="www-data").groups == (33, 0, 4)


@as_root
@pytest.mark.parametrize(
    ("name", "mode", "application"),
    [
        ("app.py", 0o666, "app:application"),
        ("blog", 0o777, "blog.wsgi:application"),
        ("blog/wsgi.py", 0o666, "blog.wsgi:application"),
        ("site.wsgi", 0o666, "site.wsgi"),
        (".venv", 0o777, "app:application"),
        (".venv/lib/python3.9/site-packages", 0o777, "app:application"),
    ],
)
def test_the_file_that_is_loaded_and_the_virtualenv_count_too(
    open_path: Path, name: str, mode: int, application: str
) -> None:
    for folder in ("blog", ".venv/bin", ".venv/lib/python3.9/site-packages"):
        (open_path / folder).mkdir(parents=True)
    for file in ("app.py", "site.wsgi", "blog/wsgi.py", ".venv/pyvenv.cfg"):
        (open_path / file).touch()
    python = open_path / ".venv/bin/python"
    python.symlink_to(SYSTEM_PYTHON)
    keys = {"program": str(python), "location": str(open_path), "application": application}
    assert who(**keys).name == "nobody"
    (open_path / name).chmod(mode)
    with pytest.raises(Refused, match=f"{open_path / name} is writable by everybody"):
        who(**keys)


@as_root
def test_a_folder_above_that_everybody_may_write_is_refused(open_path: Path) -> None:
    """A user who may write to it could replace the location, unless its sticky bit is set."""
    location = open_path / "shared" / "site"
    location.mkdir(parents=True)
    location.parent.chmod(0o777)
    with pytest.raises(
        Refused, match=f"{location.parent} is writable by everybody, so anyone could replace {location}"
    ):
        who(location=str(location), user="www-data")
    location.parent.chmod(0o1777)
    assert who(location=str(location), user="www-data").uid == 33


@as_root
def test_a_link_to_somebody_elses_site_is_refused(open_path: Path) -> None:
    """Its owner could lead it anywhere; root's links, the owner's and the site's own user's are as good as a path."""
    target, link = open_path / "theirs", open_path / "link"
    target.mkdir()
    os.chown(target, 33, 33)
    link.symlink_to(target)
    assert who(location=str(link)).uid == 33
    os.chown(link, 1, 1, follow_symlinks=False)
    for keys in ({}, {"user": "www-data"}):
        with pytest.raises(Refused, match=f"{link} is a link whose owner"):
            who(location=str(link), **keys)
    assert who(location=str(link), user="daemon").uid == 1
    os.chown(link, 33, 33, follow_symlinks=False)
    assert who(location=str(link)).uid == 33


@as_root
def test_a_chroot_that_everybody_may_write_is_refused(open_path: Path) -> None:
    jail = open_path / "jail"
    (jail / "srv").mkdir(parents=True)
    jail.chmod(0o777)
    with pytest.raises(Refused, match=f"{jail} is writable by everybody"):
        who(location=str(jail / "srv"), chroot=str(jail), user="www-data")


# What is reported beforehand


def told(home: SupervisedHome, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["--home", str(home.path), *words])
    return result.exit_code, result.output


@as_root
def test_check_and_explain_tell_root_what_would_be_refused(open_path: Path) -> None:
    with supervised(open_path) as home:
        home.site("bad", user="no-such-user")
        home.site("good", user="www-data", command="/usr/bin/python3 srv.py")
        for words, code in ((("check",), 1), (("explain", "bad.test"), 1), (("explain", "good.test"), 0)):
            found, output = told(home, *words)
            assert found == code
            assert ("there is no user 'no-such-user'" in output) == (code == 1)


@as_root
@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"user": "www-data"}, "user = www-data needs root, and the supervisor runs as 'nobody'"),
        ({"user": "owner"}, "user = owner needs root"),
        ({"group": "www-data"}, "group = www-data needs root or membership"),
        ({"chroot": "/srv"}, "chroot needs root"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_who_is_not_root_is_told_what_only_root_could_do(open_path: Path, keys: dict[str, str], reason: str) -> None:
    """A warning, as the service may run as root; the same sentence that a supervisor of theirs would say."""
    with supervised(open_path) as home:
        home.site("blog", command="/usr/bin/python3 srv.py", **keys)
        for words in (("check",), ("explain", "blog.test")):
            told(home, *words)  # imports what the next line cannot, where this Python is hidden from others
            code, output = as_user(65534, 65534, lambda words=words: told(home, *words))
            warnings = [line for line in output.splitlines() if "warning: " in line]
            ours = [line for line in warnings if "runtime_dir" not in line]  # which is the supervisor's, and closed
            assert (code, len(ours)) == (0, 1), output
            assert reason in ours[0]
            assert "error:" not in output


@as_root
def test_what_moya_conf_allows_meanwhile_is_not_refused_any_more(tmp_path: Path) -> None:
    """That is known before anybody asks for the site again."""
    with supervised(tmp_path) as home:
        conf = tmp_path / "moya.conf"
        allowed = conf.read_text()
        conf.write_text(allowed.replace("allow_root = yes", "allow_root = no"))
        home.site("blog", user="root")
        with pytest.raises(BackendUnavailable, match="allow_root"):
            home.ensure("blog")
        assert home.state("blog")["state"] == "fatal"
        conf.write_text(allowed)
        wait_until(lambda: home.status()["sites"].get("blog", {}).get("state") != "fatal", 30)
        assert home.get("blog")
