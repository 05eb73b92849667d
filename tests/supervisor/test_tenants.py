"""Sites of different users below one supervisor that runs as root: what one of them may never do to another."""

from __future__ import annotations

import fcntl
import os
import pwd
import socket
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

import pytest

from multisite.runner.board import SIZE, Board
from multisite.supervisor.process import kernel
from multisite.supervisor.process.spec import SLOTS, Identity, Launch
from multisite.supervisor.site.costs import Scoreboard
from tests.processes import is_running

from .harness import SupervisedHome, supervised, wait_until
from .preloading import preloader

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to have sites of several users")
PYTHON = "/usr/bin/python3"
HELLO = """
import os
{early}

def application(environ, start_response):
    {late}
    start_response("200 OK", [])
    return [b"%d" % os.getuid()]
"""
# Leaves behind a process without our mark, which takes visitors from the socket that it has inherited.
THIEF = '''
os.set_inheritable(3, True)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.execve("/usr/bin/python3", ["python3", "-c", """
import os, socket, time
listener, end = socket.socket(fileno=3), time.time() + 60
while time.time() < end:
    if not os.path.exists("go"):
        time.sleep(0.01)
        continue
    try:
        taken = listener.accept()[0]
        taken.recv(65536)
        taken.sendall(b"HTTP/1.0 200 OK\\\\r\\\\n\\\\r\\\\nthief")
        taken.close()
    except OSError:
        pass
"""], {})
'''
DAEMON = """
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for descriptor in range(3, 64):
            try:
                os.close(descriptor)
            except OSError:
                pass
        os.execve("/bin/sleep", ["sleep", "{seconds}"], {{}})
"""


def uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


FIRST, SECOND = "www-data", "daemon"


@pytest.fixture
def tenants(open_path: Path) -> Iterator[SupervisedHome]:
    with supervised(open_path, "allow_root = no\n") as home:
        conf = open_path / "moya.conf"
        conf.write_text(conf.read_text().replace("allow_root = yes\n", "", 1))
        yield home


def site(home: SupervisedHome, name: str, owner: str, early: str = "", late: str = "pass", **keys: str) -> Path:
    code = HELLO.format(early=early, late=late.strip())
    folder = home.app(name, code, python=PYTHON, **keys)
    for path in (folder, *folder.iterdir()):
        os.chown(path, uid(owner), -1)
    return folder


def given_to(home: SupervisedHome, name: str, folder: Path, user: str, **keys: str) -> None:
    """Have the site be another user's, and its file say so."""
    site(home, name, user, **{"user": user, **keys})
    for path in folder.iterdir():
        os.chown(path, uid(user), -1)


def socket_of(home: SupervisedHome) -> tuple[int, int]:
    """Which one it is: a number may be given away again."""
    status = os.stat(home.ensure("shop"))
    return status.st_ino, status.st_ctime_ns


def test_what_another_user_has_left_of_a_site_takes_none_of_its_visitors(tenants: SupervisedHome) -> None:
    folder = site(tenants, "shop", FIRST, early=THIEF)
    site(tenants, "other", FIRST)
    assert tenants.get("shop") == str(uid(FIRST))
    assert tenants.get("other") == str(uid(FIRST))
    before = socket_of(tenants)
    given_to(tenants, "shop", folder, SECOND)
    wait_until(lambda: _answer(tenants) == str(uid(SECOND)))
    (folder / "go").touch()
    assert socket_of(tenants) != before
    assert {tenants.get("shop") for _ in range(30)} == {str(uid(SECOND))}
    state = tenants.state("shop")
    assert len(state["pids"]) == 1 and state["requests"] >= 32  # what was counted before counts on


def test_the_processes_of_another_user_end_although_the_new_ones_cannot_start(tenants: SupervisedHome) -> None:
    """A version that fails leaves the old one in service, but not where that is somebody else's."""
    folder = site(tenants, "shop", FIRST)
    tenants.get("shop")
    (old,) = tenants.state("shop")["pids"]
    tenants.app("shop", "raise SystemExit(3)", python=PYTHON, user=SECOND)
    os.chown(folder, uid(SECOND), -1)
    wait_until(lambda: not is_running(old))
    with pytest.raises(OSError):
        tenants.get("shop")


@pytest.mark.parametrize("key", [{"group": "daemon"}, {"umask": "0027"}], ids=["group", "umask"])
def test_a_group_is_an_identity_too_and_other_changes_keep_the_socket(
    tenants: SupervisedHome, key: dict[str, str]
) -> None:
    folder = site(tenants, "shop", FIRST)
    tenants.get("shop")
    before, (old,) = socket_of(tenants), tenants.state("shop")["pids"]
    given_to(tenants, "shop", folder, FIRST, **key)
    wait_until(lambda: not is_running(old))
    assert tenants.get("shop") == str(uid(FIRST))
    assert (socket_of(tenants) == before) == ("umask" in key)


def test_a_location_that_is_given_away_is_an_identity_too(tenants: SupervisedHome) -> None:
    """Nothing in the site's file says so: it shows with the next start."""
    folder = site(tenants, "shop", FIRST, late="os._exit(1) if environ['PATH_INFO'] == '/die' else None")
    assert tenants.get("shop") == str(uid(FIRST))
    before = socket_of(tenants)
    for path in (folder, *folder.iterdir()):
        if path.is_file() or path == folder:
            os.chown(path, uid(SECOND), -1)
    tenants.client.ask({"do": "stop", "site": "shop"})
    tenants.wait_for("shop", "stopped")
    wait_until(lambda: _answer(tenants) == str(uid(SECOND)))
    assert socket_of(tenants) != before


def _answer(home: SupervisedHome) -> str:
    try:
        return home.get("shop")
    except OSError:
        return ""  # it waited at the socket that was put away, and was told to come again


def test_an_upgrade_does_not_forget_whose_the_socket_is(tenants: SupervisedHome) -> None:
    folder = site(tenants, "shop", FIRST)
    tenants.get("shop")
    before = socket_of(tenants)
    tenants.client.ask({"do": "upgrade"}, within=90)
    given_to(tenants, "shop", folder, SECOND)
    wait_until(lambda: _answer(tenants) == str(uid(SECOND)))
    assert socket_of(tenants) != before


def test_a_folder_for_a_socket_is_emptied_for_another_user(tenants: SupervisedHome) -> None:
    tenants.rundir.make()
    tenants.rundir.give("shop", uid(FIRST), 33)
    folder = Path(tenants.rundir.private("shop"))
    (folder / "0.sock").mkdir()
    os.chown(folder / "0.sock", uid(FIRST), -1)
    tenants.rundir.give("shop", uid(FIRST), 33)
    assert (folder / "0.sock").exists()
    tenants.rundir.give("shop", uid(SECOND), 1)
    assert os.listdir(folder) == [] and folder.stat().st_uid == uid(SECOND)


def sleepers(seconds: str) -> list[int]:
    wanted = b"sleep\0" + seconds.encode() + b"\0"
    return [pid for pid in kernel.pids() if _command(pid) == wanted]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_daemon_ends_with_the_last_process_of_its_user_and_a_preloader_is_none(tenants: SupervisedHome) -> None:
    seconds = str(10_000 + os.getpid())
    names = ("x", "y", "z")
    for name in names:
        site(
            tenants, name, FIRST, early="import decimal", late=DAEMON.format(seconds=seconds) if name == "x" else "pass"
        )
    for name in names[1:]:
        tenants.get(name)
    made = preloader(tenants)
    tenants.get("x")
    (daemon,) = wait_until(lambda: sleepers(seconds))
    for name in names[:2]:
        tenants.client.ask({"do": "stop", "site": name})
        tenants.wait_for(name, "stopped")
    assert is_running(daemon)
    tenants.client.ask({"do": "stop", "site": "z"})
    wait_until(lambda: not is_running(daemon))
    assert is_running(made["pid"])


# Scoreboards

FILLS = """
    told = []
    for name in os.listdir("/proc/self/fd"):
        path = "/proc/self/fd/" + name
        if os.path.lexists(path) and "memfd:board" in os.readlink(path):
            file = int(name)
            for attempt in (
                lambda: os.ftruncate(file, 1 << 30),
                lambda: os.ftruncate(file, 0),
                lambda: os.pwrite(file, b"x", 1 << 20),
                lambda: os.posix_fallocate(file, 0, 1 << 20),
            ):
                try:
                    told.append(attempt())
                except OSError as error:
                    told.append(type(error).__name__)
    open("told", "w").write(repr(told))
"""


def test_a_site_can_neither_fill_nor_cut_its_scoreboard(tenants: SupervisedHome) -> None:
    """Nothing of it is in the runtime directory but a link, which an upgrade leaves as it is."""
    folder = site(tenants, "a", FIRST, late=FILLS)
    assert tenants.get("a") == str(uid(FIRST))
    assert set(literal_eval((folder / "told").read_text())) == {"PermissionError"}
    link = Path(tenants.rundir.path) / "board" / "a"
    for _ in range(2):
        assert link.is_symlink() and link.stat().st_size == SLOTS * SIZE
        assert link.stat().st_blocks * 512 <= SLOTS * SIZE
        tenants.client.ask({"do": "upgrade"}, within=90)
    assert tenants.get("a")
    wait_until(lambda: tenants.state("a")["requests"] == 2)


def test_a_scoreboard_can_be_neither_grown_nor_cut_nor_unsealed() -> None:
    scores = Scoreboard()
    file = scores.make(0)
    for size in (0, SLOTS * SIZE - 1, SLOTS * SIZE + 1, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(file, size)
    with pytest.raises(PermissionError):
        os.pwrite(file, b"x", SLOTS * SIZE)
    with pytest.raises(PermissionError):
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    scores.close()


def test_more_processes_than_one_file_has_slots_for_are_counted_too(tmp_path: Path) -> None:
    scores = Scoreboard(str(tmp_path / "board"))
    for slot in (0, SLOTS - 1, SLOTS, 2 * SLOTS + 5):
        writer = Board(scores.make(slot), slot % SLOTS, 1000 + slot)
        writer.end(writer.begin(), failed=False)
    figures = scores.read([1000])
    assert figures.requests == 4
    assert [scores.answered(slot) for slot in (0, 1, SLOTS, 5 * SLOTS)] == [1, 0, 1, 0]
    scores.close()
    assert not os.path.lexists(tmp_path / "board")
    assert scores.read([]).requests is None


# A preloader that lies

LIES = r"""#!{python}
import json, os, socket, sys, time
REAL = "/usr/bin/python3"
if "MULTISITE_PRELOAD" not in os.environ:
    os.execv(REAL, [REAL, *sys.argv[1:]])
control = socket.socket(fileno=3)
control.send(json.dumps({{"ready": {{"modules": 1, "reads": [], "failed": []}}}}).encode())
given = []
while len(given) < 2:
    data, descriptors, _, _ = socket.recv_fds(control, 100, 10)
    if not data:
        sys.exit()
    given.append(descriptors)
between = os.fork()
if between == 0:
    if os.fork():
        os._exit(0)
    os.setsid()
    while os.getppid() == between:
        pass
    for descriptors in given:
        socket.socket(fileno=descriptors[4]).send(b"born")
        try:
            os.write(descriptors[5], b"READY=1\n\n")
        except OSError:
            pass
    with open({told!r}, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
os.waitpid(between, 0)
for descriptors in given:
    for descriptor in descriptors:
        os.close(descriptor)
time.sleep(600)
"""


def test_one_process_does_not_stand_for_two_sites(tenants: SupervisedHome, open_path: Path) -> None:
    """A preloader of the site's user announces one process on two channels: one site has it, the other its own."""
    python, told = open_path / "venv" / "bin" / "python", open_path / "told"
    python.parent.mkdir(parents=True)
    told.touch()
    os.chown(told, uid(FIRST), -1)
    python.write_text(LIES.format(python=PYTHON, told=str(told)))
    python.chmod(0o755)
    for number in range(4):
        folder = tenants.app(f"s{number}", HELLO.format(early="import decimal", late="pass"), python=str(python))
        os.chown(folder, uid(FIRST), -1)
    for name in ("s0", "s1"):
        assert tenants.get(name) == str(uid(FIRST))
    preloader(tenants)
    for name in ("s2", "s3"):
        tenants.client.ask({"do": "ensure", "site": name})
    paths = [tenants.ensure(name) for name in ("s2", "s3")]
    waiting = [socket.socket(socket.AF_UNIX) for _ in paths]
    for one, path in zip(waiting, paths, strict=True):
        one.connect(path)
    liar = int(wait_until(told.read_text))
    wait_until(lambda: [tenants.state(name)["state"] for name in ("s2", "s3")] == ["running"] * 2)
    pids = [tenants.state(name)["pids"] for name in ("s2", "s3")]
    assert sorted(map(len, pids)) == [1, 1]
    assert sum(liar in found for found in pids) == 1
    os.kill(liar, 9)
    wait_until(lambda: not [name for name in ("s2", "s3") if liar in tenants.state(name)["pids"]])
    for one in waiting:
        one.close()


def test_who_takes_the_place_of_another_is_who_its_file_says() -> None:
    """What makes an identity: user, groups and root folder, and not what they are called."""

    def owner(uid: int = 1, gid: int = 1, groups: tuple[int, ...] = (1,), name: str = "a", chroot: str = "") -> str:
        return Launch((), {}, "/", Identity(uid, gid, groups, name), chroot=chroot).owner

    assert owner() == owner()
    others = [owner(uid=2), owner(gid=2), owner(groups=(1, 2)), owner(chroot="/srv")]
    assert len({owner(), *others}) == 5
