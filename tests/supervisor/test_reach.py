"""Who can get at what is to be executed: links, #! lines and virtualenvs included; the user and the place are named."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from multisite.config.model import Home, Site, SupervisorOptions
from multisite.supervisor.process import launch, reach
from multisite.supervisor.process.spec import Identity, Surroundings

from .harness import supervised

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
NOBODY = Identity(65534, 65534, (65534,), "nobody", "/", change=True)
SERVER = """#!{interpreter}
import socket
listener = socket.socket(fileno=3)
while True:
    client = listener.accept()[0]
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
    client.close()
"""
SYSTEM_PYTHON = "/usr/bin/python3"


def program(path: Path, interpreter: str = SYSTEM_PYTHON) -> Path:
    """Write a server that everybody may run, as far as the file goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SERVER.format(interpreter=interpreter))
    path.chmod(0o755)
    return path


def _itself(shop: Path, hidden: Path) -> str:
    return str(program(hidden / "server"))


def _by_a_link_to_the_file(shop: Path, hidden: Path) -> str:
    (shop / "server").symlink_to(program(hidden / "server"))
    return "./server"


def _by_a_link_to_its_folder(shop: Path, hidden: Path) -> str:
    program(hidden / "server")
    (shop / "bin").symlink_to("../hidden")
    return "bin/server"


def _by_a_link_within(shop: Path, hidden: Path) -> str:
    """It leads through the folder, and out of it again."""
    program(shop / "real")
    (hidden / "out").symlink_to(shop)
    return str(hidden / "out" / "real")


def _its_interpreter(shop: Path, hidden: Path) -> str:
    (hidden / "python3").symlink_to(SYSTEM_PYTHON)
    return str(program(shop / "server", str(hidden / "python3")))


def _the_interpreter_of_its_interpreter(shop: Path, hidden: Path) -> str:
    (hidden / "sh").symlink_to("/bin/sh")
    inner = shop / "inner"
    inner.write_text(f'#!{hidden}/sh\nexec {SYSTEM_PYTHON} "$@"\n')
    inner.chmod(0o755)
    return str(program(shop / "server", str(inner)))


KINDS: tuple[Callable[[Path, Path], str], ...] = (
    _itself,
    _by_a_link_to_the_file,
    _by_a_link_to_its_folder,
    _by_a_link_within,
    _its_interpreter,
    _the_interpreter_of_its_interpreter,
)


def folders(path: Path) -> tuple[Path, Path]:
    shop, hidden = path / "shop", path / "hidden"
    shop.mkdir()
    hidden.mkdir(mode=0o700)
    return shop, hidden


@as_root
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_what_a_command_executes_is_what_has_to_be_reached(open_path: Path, kind: Callable[[Path, Path], str]) -> None:
    """The default user is refused or, with allow_root, replaced; a user that the file names is refused."""
    shop, hidden = folders(open_path)
    site = Site("a.ini", name="a", location=str(shop), command=(kind(shop, hidden),))
    around = Surroundings(os.environ, "", "/")
    plain, allowed = Home("/home"), Home("/home", supervisor=SupervisorOptions(allow_root=True))
    told = str(launch.obstacle(site, plain))
    assert "'nobody', who cannot reach " in told and f": {hidden} is closed to that user" in told
    assert launch.plan(site, allowed, around).identity.uid == 0
    named = Site("a.ini", name="a", location=str(shop), command=site.command, user="nobody")
    for home in (plain, allowed):
        told = str(launch.obstacle(named, home))
        assert "it runs as 'nobody', who cannot reach " in told and f": {hidden} is closed to that user" in told
    hidden.chmod(0o755)
    assert launch.plan(site, plain, around).identity.name == "nobody"
    assert launch.plan(named, plain, around).identity.name == "nobody"


@as_root
def test_the_program_that_path_leads_to_counts(open_path: Path) -> None:
    """A name without a slash, and one that env looks up."""
    shop, hidden = folders(open_path)
    program(hidden / "serve")
    program(shop / "by-env", "/usr/bin/env -S serve")
    for command in ("serve", str(shop / "by-env")):
        site = Site("a.ini", name="a", location=str(shop), command=(command,), env={"PATH": f"{hidden}:/usr/bin:/bin"})
        assert f": {hidden} is closed" in str(launch.obstacle(site, Home("/home"))), command
    search = f"{hidden}:/usr/bin:/bin"
    assert list(reach.executed(str(shop / "by-env"), search))[1:3] == ["/usr/bin/env", str(hidden / "serve")]


@as_root
def test_the_python_that_a_virtualenv_was_made_of_counts(open_path: Path) -> None:
    """One with a copy of the interpreter still needs the library of the original."""
    shop, hidden = folders(open_path)
    venv = shop / "venv"
    (venv / "bin").mkdir(parents=True)
    program(venv / "bin" / "python", SYSTEM_PYTHON)
    (venv / "pyvenv.cfg").write_text(f"home = {hidden}\nversion = 3.11.2\n")
    site = Site("a.ini", name="a", location=str(shop), application="app:app", python=str(venv), user="nobody")
    assert f": {hidden} is closed to that user" in str(launch.obstacle(site, Home("/home")))


@as_root
def test_a_site_whose_command_only_root_reaches_is_served(open_path: Path) -> None:
    """As the page on the supervisor promises for allow_root = yes."""
    with supervised(open_path) as home:
        folder = home.site("a", command="bin/server")
        hidden = open_path / "hidden"
        hidden.mkdir(mode=0o700)
        program(hidden / "server")
        (folder / "bin").symlink_to(hidden)
        assert home.get("a").endswith("ok")


@as_root
def test_what_the_kernel_denies_is_told_with_user_and_place(open_path: Path) -> None:
    """Even if nobody could see it before, as within its own root directory."""
    with supervised(open_path) as home:
        folder = home.site("a", command="/hidden/server", user="nobody", chroot="/")
        hidden = Path(folder) / "hidden"
        hidden.mkdir(mode=0o700)
        program(hidden / "server")
        home.site("a", command=f"{hidden}/server", user="nobody", chroot="/")
        with pytest.raises(OSError):
            home.get("a")
        failure = home.failed("a")["failure"]["failure"]
        assert f"Permission denied for the user 'nobody' at {hidden}" in failure


@as_root
@pytest.mark.parametrize(
    ("mode", "owner", "expected"),
    [(0o700, 0, True), (0o701, 0, False), (0o710, 0, True), (0o077, 65534, True), (0o100, 65534, False)],
)
def test_the_first_class_of_bits_that_fits_decides(open_path: Path, mode: int, owner: int, expected: bool) -> None:
    """As the kernel has it: an owner without a right has none as one of the others."""
    folder = open_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    os.chown(folder, owner, 0)
    folder.chmod(mode)
    assert reach.closed_to(NOBODY, str(folder / "file")) == (str(folder) if expected else "")


def test_a_file_has_to_be_readable_and_a_loop_ends(open_path: Path) -> None:
    file, loop = open_path / "file", open_path / "loop"
    file.touch(mode=0o600)
    os.chown(file, os.geteuid(), -1)
    if os.geteuid() == 0:
        assert reach.closed_to(NOBODY, str(file)) == str(file)
    loop.symlink_to("loop")
    assert reach.closed_to(NOBODY, str(loop)) == str(loop)
    assert reach.closed(str(file)) == ""
    (open_path / "script").write_text(f"#!{open_path}/script\n")
    assert len(list(reach.executed(str(open_path / "script")))) == reach.MOST_SCRIPTS
    assert list(reach.executed(sys.executable)) == [sys.executable]


@pytest.mark.parametrize(
    ("lines", "name", "refused"),
    [
        ("version = 3.6.9\n", "python", "it is Python 3.6, and sites need 3.9 or newer"),
        ("version_info = 2.7.18.final.0\n", "python", "it is Python 2.7"),
        ("version = 3.8.20\n", "python", "it is Python 3.8"),
        ("", "python3.7", "it is Python 3.7"),
        ("", "python2.7", "it is Python 2.7"),
        ("version = 3.9.2\n", "python", ""),
        ("version = 3.13.0\n", "python3.8", ""),
        ("", "python3.10", ""),
        ("", "python3", ""),
        ("version = what\n", "python", ""),
    ],
)
def test_an_interpreter_that_is_too_old_is_seen_before_a_start(
    open_path: Path, lines: str, name: str, refused: str
) -> None:
    """By its virtualenv, or by the name that it goes by; it is not run."""
    program(open_path / "venv" / "bin" / name)
    if name != "python":
        (open_path / "venv" / "bin" / "python").symlink_to(name)
    if lines:
        (open_path / "venv" / "pyvenv.cfg").write_text(f"home = /usr/bin\n{lines}")
    os.chown(open_path, os.geteuid(), -1)
    for python in (open_path / "venv", open_path / "venv" / "bin" / "python"):
        site = Site("a.ini", name="a", location=str(open_path), application="app:app", python=str(python))
        told = str(launch.obstacle(site, Home("/home", supervisor=SupervisorOptions(allow_root=True))) or "")
        assert told.startswith(f"python = {open_path}/venv/bin/python: {refused}" if refused else ""), told
        assert bool(refused) is bool(told)
