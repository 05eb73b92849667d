"""No room on the disk, no descriptors, nothing that may be written: a clear error for that site, and it passes."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.config.read import read_home
from multisite.errors import BackendUnavailable
from multisite.sites.failures import of_starts
from multisite.supervisor.process import descriptors

from .harness import WITHIN, Patient, SupervisedHome, ask, supervised, wait_until

HELLO = """
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'hello']
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
Disk = Callable[[Path, str], None]


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Mounts small disks, and takes them away."""
    mounted: list[Path] = []

    def mount(path: Path, options: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"mode=0711,{options}", "tmpfs", str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NOT TESTED: no disk can be mounted here: {done.stderr}")
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A folder that cannot be written for a while, though files in it are in use."""
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def available(home: SupervisedHome, name: str) -> str:
    """The answer of a site, or why there is none."""
    try:
        return home.get(name)
    except BackendUnavailable as error:
        return error.reason
    except OSError:
        return ""


# A full disk


@as_root
def test_a_full_state_dir_costs_notes_alone(tmp_path: Path, disk: Disk) -> None:
    disk(tmp_path / "state", "size=8k")
    fill(tmp_path / "state" / "ballast")
    with supervised(tmp_path) as home:
        home.site("bad", "raise SystemExit(3)")
        home.site("good")
        assert home.get("good")
        with pytest.raises(OSError):
            home.get("bad")
        home.wait_for("bad", "stopped")
        assert of_starts(home.home).all() == {}
        assert home.get("good")
        (tmp_path / "state" / "ballast").unlink()
        available(home, "bad")
        wait_until(lambda: "bad" in of_starts(home.home).all())


@as_root
def test_a_full_runtime_dir_costs_no_figures(tmp_path: Path, disk: Disk) -> None:
    """Scoreboards take none of its room."""
    disk(tmp_path / "run", "size=32k")
    with supervised(tmp_path) as home:
        home.app("before", HELLO)
        assert home.get("before") == "hello"
        fill(tmp_path / "run" / "ballast")
        home.app("after", HELLO)
        assert home.get("after") == "hello"
        assert home.get("before") == "hello"
        wait_until(lambda: [home.state(name)["requests"] for name in ("before", "after")] == [2, 1])
        (tmp_path / "run" / "ballast").unlink()


@as_root
def test_a_runtime_dir_without_room_for_a_socket_is_said_for_that_site_alone(tmp_path: Path, disk: Disk) -> None:
    disk(tmp_path / "run", "size=1M,nr_inodes=20")
    with supervised(tmp_path) as home:
        home.site("before")
        first = home.get("before")
        number = 0
        with contextlib.suppress(OSError):
            for number in range(100):
                (tmp_path / "run" / f"ballast{number}").touch()
        home.site("after")
        with pytest.raises(BackendUnavailable, match="No space left on device") as caught:
            home.ensure("after")
        assert caught.value.retry_after
        assert home.get("before") == first
        for ballast in (tmp_path / "run").glob("ballast*"):
            ballast.unlink()
        assert home.get("after")


@as_root
def test_a_runtime_dir_without_any_room_is_said(tmp_path: Path, disk: Disk) -> None:
    disk(tmp_path / "run", "size=4k,nr_inodes=2")
    with supervised(tmp_path) as home:
        home.site("blog")
        with pytest.raises(BackendUnavailable, match=r"no space left on device.*runtime_dir"):
            home.client.ensure("blog")


@as_root
def test_a_log_on_a_full_disk_costs_its_lines_and_is_told_once(
    tmp_path: Path, disk: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    disk(tmp_path / "logs", "size=8k")
    fill(tmp_path / "logs" / "ballast")
    log = tmp_path / "logs" / "blog.log"
    with supervised(tmp_path) as home:
        code = HELLO.replace("    start_resp", "    print(environ['PATH_INFO'], flush=True)\n    start_resp")
        home.app("blog", code, more=f"[logging]\nerror = {log}\n")
        for number in range(20):
            assert home.get("blog", f"/before{number}") == "hello"
        wait_until(lambda: "/before19" in home.client.ask({"do": "logs", "site": "blog"})["lines"])
        (tmp_path / "logs" / "ballast").unlink()
        home.get("blog", "/after")
        wait_until(lambda: log.exists() and "/after\n" in log.read_text())
    assert capfd.readouterr().err.count("cannot be written: No space left on device") == 1


# Nothing that may be written


@as_root
def test_a_read_only_runtime_dir_is_said_for_that_site_alone(tmp_path: Path, disk: Disk) -> None:
    disk(tmp_path / "run", "size=1M")
    with supervised(tmp_path) as home:
        home.site("before")
        first = home.get("before")
        with read_only(tmp_path / "run" / "sites"):
            home.site("after")
            with pytest.raises(BackendUnavailable, match="Read-only file system"):
                home.ensure("after")
            assert ask(home.rundir.socket("before")) == first
            home.site("before", more="[env]\nGREETING = moin\n")
            wait_until(lambda: ask(home.rundir.socket("before")).endswith("moin"))
        assert home.get("after")


@as_root
def test_a_supervisor_does_not_start_in_a_read_only_runtime_dir_and_says_so(tmp_path: Path, disk: Disk) -> None:
    disk(tmp_path / "run", "size=1M,ro")
    with supervised(tmp_path) as home:
        home.site("blog")
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match=r"read-only file system.*runtime_dir"):
                home.client.ensure("blog")


# No descriptors


@pytest.fixture
def few(tmp_path: Path) -> Iterator[SupervisedHome]:
    """A supervisor that may open 96 descriptors."""
    address = str(tmp_path / "notify")
    with supervised(tmp_path) as home, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(address)
        notify.settimeout(WITHIN)
        argv = [sys.executable, "-m", "multisite", "--home", str(home.path), "supervise"]
        limit = f"import os, resource, sys; resource.setrlimit({resource.RLIMIT_NOFILE}, (96, 96)); "
        argv = [sys.executable, "-c", limit + "os.execv(sys.argv[1], sys.argv[1:])", *argv]
        with subprocess.Popen(argv, env={**os.environ, "NOTIFY_SOCKET": address}) as process:
            try:
                assert notify.recv(100) == b"READY=1"
                yield home
            finally:
                process.terminate()


def asked_at_once(home: SupervisedHome, names: list[str]) -> list[dict[str, Any]]:
    """Ask for sites in one breath, so that nothing is put away in between; returns the answers."""
    asked = [json.dumps({"do": "ensure", "site": name, "home": str(home.path)}) + "\n" for name in names]
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(WITHIN)
        asking.connect(home.rundir.control)
        asking.sendall("".join(asked).encode())
        with asking.makefile("rb") as answers:
            return [json.loads(answers.readline()) for _ in names]


def test_sites_beyond_the_descriptors_get_the_reason_and_are_served_later(few: SupervisedHome) -> None:
    """Sockets of sites that rest are put away for others; a site that runs is left alone."""
    names = [f"s{number}" for number in range(90)]
    for name in names:
        few.site(name)
    few.site("runs")
    first = few.get("runs")
    refused = [answer for answer in asked_at_once(few, names) if "error" in answer]
    assert refused
    assert all("no descriptors left" in answer["error"] and answer["retry_after"] for answer in refused)
    assert few.get("runs") == first
    assert few.status()["supervisor"]["backends"] >= 1
    wait_until(lambda: "1" <= available(few, names[-1])[:1] <= "9")  # the pid of who answers
    assert ask(few.client.ensure(names[-1]))
    assert few.get("runs") == first


def test_a_process_that_could_not_be_made_holds_nothing(few: SupervisedHome) -> None:
    """Every attempt makes its channels first: with those of failed ones kept, no site would ever start again."""
    names = [f"s{number}" for number in range(24)]
    for name in names:
        few.app(name, HELLO, preload="no")
    refused = [name for name in names if available(few, name) != "hello"]
    assert refused
    assert any(noted.reason.startswith("fork and run: ") for noted in of_starts(few.home).all().values())
    channels = Path(few.rundir.path) / "notify"
    wait_until(lambda: len(os.listdir(channels)) == sum(map(bool, pids_of(few).values())))
    first = next(name for name, pids in pids_of(few).items() if pids)
    few.client.ask({"do": "stop", "site": first})
    wait_until(lambda: available(few, first) == "hello")


def pids_of(home: SupervisedHome) -> dict[str, list[int]]:
    return {name: site["pids"] for name, site in home.status()["sites"].items()}


def test_connections_that_take_all_descriptors_are_turned_away_and_hurt_nobody(few: SupervisedHome) -> None:
    few.site("blog")
    first = few.get("blog")
    with contextlib.ExitStack() as held:

        def connect() -> None:
            held.enter_context(socket.socket(socket.AF_UNIX)).connect(few.rundir.control)

        def is_refused() -> bool:
            """One connection more each time: what the start of a site has used is given back when nobody waits."""
            connect()
            try:
                few.client.ensure("blog")
            except BackendUnavailable as error:
                return "no descriptors left" in str(error)
            return False

        for _ in range(120):
            connect()
        assert ask(few.rundir.socket("blog")) == first
        wait_until(is_refused)
    wait_until(lambda: available(few, "blog") == first)


def test_descriptors_that_are_left_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps among them count too, and an older kernel is asked for their names."""
    before = descriptors.left()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    os.close(opened.pop(3))
    assert descriptors.left() == before - 9
    with monkeypatch.context() as old:
        old.setattr(descriptors.os, "stat", lambda _path: os.stat_result([0] * 10))
        assert descriptors.left() == before - 9
    for descriptor in opened:
        os.close(descriptor)
    assert descriptors.left() == before


def test_a_path_that_is_too_long_and_an_interpreter_that_is_missing_cost_their_sites_alone(tmp_path: Path) -> None:
    with supervised(tmp_path) as home:
        conf = home.path / "moya.conf"
        deep = "d" * (107 - len(f"{tmp_path}//sites/good.sock"))
        conf.write_text(conf.read_text().replace("runtime_dir = run", f"runtime_dir = {deep}"))
        client = Patient(read_home(str(tmp_path)))
        home.client = client
        for name in ("good", "far-too-long"):
            home.site(name)
        home.app("homeless", HELLO, python="/no/such/venv")
        assert home.get("good")
        with pytest.raises(BackendUnavailable, match="longer than 107 bytes"):
            client.ensure("far-too-long")
        with pytest.raises(BackendUnavailable, match="/no/such/venv"):
            client.ensure("homeless")
        assert home.get("good")
