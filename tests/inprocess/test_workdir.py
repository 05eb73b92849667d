"""What a thread has to itself, in processes that nothing else happens in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAD = """
import os, sys, threading
from pathlib import Path
from multisite.inprocess import workdir
from multisite.errors import BrokenSite
from multisite.inprocess.workdir import WorkDir

a, b = Path("a").absolute(), Path("b").absolute()
before = os.getcwd(), os.umask(0o022)

def in_a_thread(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def app(environ, start_response):
    return [os.getcwd().encode()]
"""


def run(folder: Path, code: str) -> None:
    for name in "ab":
        (folder / name).mkdir()
    done = subprocess.run([sys.executable, "-c", HEAD + code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_server_has_what_it_had_after_each_call(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
assert workdir.obstacle() == ""
one, two = WorkDir(str(a), 0o077).calling(app), WorkDir(str(b), None).calling(app)
for _ in range(3):
    assert one({}, None) == [os.fsencode(a)] and two({}, None) == [os.fsencode(b)]
    assert os.getcwd() == before[0] and in_a_thread(os.getcwd) == before[0]
""",
    )


def test_a_thread_has_it_alone(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
place = WorkDir(str(a), 0o027)
def enter():
    place.enter()
    return os.getcwd(), os.umask(0o027)
assert in_a_thread(enter) == (str(a), 0o027)
assert os.getcwd() == before[0] and os.umask(0o022) == 0o022
""",
    )


def test_no_more_directories_are_kept_open_than_a_bound(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
workdir.MOST_KEPT = 8
places = []
for number in range(40):
    Path(f"site{number}").mkdir()
    places.append(WorkDir(os.path.abspath(f"site{number}"), None))
count = descriptors()
for _ in range(3):
    for number, place in enumerate(places):
        place.enter()
        assert os.getcwd().endswith(f"/site{number}")
assert descriptors() <= count + 9, (descriptors(), count)
for place in places:
    place.close()
workdir.go_back()
assert descriptors() <= count + 1
held = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
assert not any(os.get_inheritable(one) for one in held if os.path.exists(f"/proc/self/fd/{one}"))
""",
    )


def test_one_that_is_gone_is_told_and_leaves_the_thread_in_no_neighbours_place(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
first, second = WorkDir(str(a), None), WorkDir(str(b), None)
first.enter()
b.rmdir()
try:
    second.enter()
except BrokenSite as error:
    assert str(b) in error.reason
else:
    raise AssertionError
""",
    )


def test_where_the_kernel_refuses_that_is_the_obstacle(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
import errno
def refuse(flags):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
workdir._call = refuse
assert workdir.obstacle() == "the kernel refuses unshare(2) here: Operation not permitted"
""",
    )


def test_a_relative_entry_of_the_import_path_stays_the_servers(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text("")
    run(
        tmp_path,
        """
import importlib
(a / "theirs.py").write_text("")
sys.path[:0] = ["", "."]
WorkDir(str(a), None).enter()
importlib.invalidate_caches()
import ours
assert importlib.util.find_spec("theirs") is None
""",
    )


# What is opened when all modules are empty already: sys goes last of all.
LATE = """
import os, sys
from types import SimpleNamespace
from multisite.sites import relativepaths

class Late:
    def __del__(self, open=os.open, write=os.write, null=os.devnull, failed=BaseException, text=repr):
        try:
            open(null, 0)
            write(1, b"opened")
        except failed as error:
            write(2, text(error).encode())

relativepaths.watch(SimpleNamespace(name="blog"), None, "why")
sys.late = relativepaths, Late()
"""


def test_who_is_told_of_relative_paths_is_in_nobodys_way_at_the_interpreters_end() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("opened", "")
