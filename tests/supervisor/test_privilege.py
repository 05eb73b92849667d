"""Who a site runs as: real users, groups and files; never root by accident."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.model import Home, Site, SupervisorOptions
from multisite.supervisor import privilege
from multisite.supervisor.privilege import Refused

from .harness import SERVER, SupervisedHome, supervised

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
SYSTEM_PYTHON = "/usr/bin/python3"
PLAIN, ALLOWED = SupervisorOptions(), SupervisorOptions(allow_root=True)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that everybody can reach, as pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="multisite-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


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
    open_path.chmod(0o777)
    with pytest.raises(Refused, match="may be written by everybody"):
        who(location=str(open_path))


@as_root
def test_root_does_not_run_what_others_may_write(open_path: Path) -> None:
    os.chown(open_path, 33, 33)
    with pytest.raises(Refused, match="may be written by others than root"):
        who(ALLOWED, location=str(open_path), user="root")


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


def test_no_signal_is_ignored_because_the_supervisor_ignores_it(tmp_path: Path) -> None:
    """Python ignores SIGPIPE; a shell script that was started so would never end with its reader."""
    with supervised(tmp_path) as home:
        home.site("a", command=f"{shutil.which('grep')} SigIgn /proc/self/status")
        with pytest.raises(OSError):
            home.get("a")
        (line,) = home.wait_for("a", "backoff")["failure"]["output"]
        assert int(line.split()[1], 16) & 0x7FFFFFFF == 0  # 1 to 31; libc has the real-time ones


@as_root
def test_the_relay_and_a_private_socket_work_for_another_user(open_path: Path) -> None:
    if not os.access(sys.executable, os.X_OK) or os.path.realpath(sys.executable).startswith("/root/"):
        pytest.skip("this Python is hidden from other users, and it runs the relay")
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
        failure = home.wait_for("b", "backoff")["failure"]["failure"]
        assert f"run {SYSTEM_PYTHON}" in failure
