"""What a site's processes find in their environment."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from multisite.config.model import Home, Site
from multisite.supervisor.process import launch
from multisite.supervisor.process.spec import Identity

from .harness import supervised

WHO = Identity(33, 33, (33,), "www-data", "/var/www")
SERVICE = {
    "PATH": "/usr/bin",
    "LANG": "de_DE.UTF-8",
    "LC_TIME": "C",
    "SECRET": "administrator's own",
    "AWS_KEY": "k",
    "AWS_REGION": "r",
    "PYTHONPATH": "/ours",
    "GUNICORN_PID": "7",
    "NOTIFY_SOCKET": "@x",
    "MULTISITE_JOB": "4",
}


def around(python: str = "", env: dict[str, str] | None = None, **keys: object) -> dict[str, str]:
    site = Site("a.ini", name="a", **keys)  # type: ignore[arg-type]
    return launch.site_environment(site, Home("/home", env=env or {}), SERVICE, WHO, python)


def test_a_site_gets_what_every_process_needs_and_nothing_of_the_administrators() -> None:
    """PATH, language, and who it runs as; then what moya.conf says."""
    found = around(env={"TZ": "UTC", "LANG": "C"})
    assert found == {
        "PATH": "/usr/bin",
        "LANG": "C",
        "LC_TIME": "C",
        "TZ": "UTC",
        "HOME": "/var/www",
        "USER": "www-data",
        "LOGNAME": "www-data",
        "SHELL": "/bin/sh",
    }


def test_replace_leaves_nothing_but_what_the_files_say(tmp_path: Path) -> None:
    """Not even the virtualenv, and nothing at all where they say nothing (Luisito's ENV = {})."""
    venv = tmp_path / "bin"
    venv.mkdir()
    (tmp_path / "pyvenv.cfg").write_text("")
    assert around(env={"A": "b"}, env_mode="replace", python=str(venv / "python")) == {"A": "b"}
    assert around(env_mode="replace") == {}


def test_variables_of_the_service_are_passed_on_by_name_or_pattern() -> None:
    """Never those of the server, of multisite, or the PYTHONPATH that leads to us."""
    assert around(env_mode="replace", pass_env=("AWS_*", "LANG")) == {
        "AWS_KEY": "k",
        "AWS_REGION": "r",
        "LANG": "de_DE.UTF-8",
    }
    everything = around(env_mode="replace", pass_env=("*",))
    assert set(SERVICE) - set(everything) == {"PYTHONPATH", "GUNICORN_PID", "NOTIFY_SOCKET", "MULTISITE_JOB"}


def test_a_virtualenv_comes_first_in_the_path(tmp_path: Path) -> None:
    """Also before a PATH that moya.conf sets for all."""
    venv = tmp_path / "bin"
    venv.mkdir()
    python = str(venv / "python")
    assert "VIRTUAL_ENV" not in around(python)
    (tmp_path / "pyvenv.cfg").write_text("")
    found = around(python, env={"PATH": "/opt/bin"})
    assert (found["PATH"], found["VIRTUAL_ENV"]) == (f"{venv}:/opt/bin", str(tmp_path))


def test_a_site_that_may_move_finds_the_services_variables() -> None:
    """It would find them in the workers; never what is the server's, ours, or the interpreter's."""
    service = {**SERVICE, "PYTHONHASHSEED": "0", "LD_PRELOAD": "x.so"}
    found = launch.site_environment(Site("a.ini", name="a"), Home("/home"), service, WHO, "", may_move=True)
    assert found["SECRET"] == "administrator's own" and found["HOME"] == "/var/www"
    assert not found.keys() & {"PYTHONPATH", "PYTHONHASHSEED", "LD_PRELOAD", "GUNICORN_PID", "NOTIFY_SOCKET"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a process is to be protected")
@pytest.mark.parametrize(("ours", "theirs"), [("-500", "0"), ("300", "300")])
def test_a_site_is_not_protected_where_memory_lacks(tmp_path: Path, ours: str, theirs: str) -> None:
    """As the supervisor may be; a higher score stays higher. Forked or started, it is the same."""
    mine = Path("/proc/self/oom_score_adj")
    before = mine.read_text()
    try:
        try:
            mine.write_text(ours)
        except PermissionError:
            pytest.skip("needs CAP_SYS_RESOURCE: a process is to be protected")
        with supervised(tmp_path) as home:
            for name in ("one", "two"):
                home.app(name, """
                    def application(environ, start_response):
                        start_response("200 OK", [])
                        return [open("/proc/self/oom_score_adj").read().strip().encode()]
                """)  # fmt: skip
            assert [home.get(name) for name in ("one", "two", "one")] == [theirs] * 3
            assert Path(f"/proc/{home.pid}/oom_score_adj").read_text().strip() == ours
    finally:
        mine.write_text(before)


def test_a_site_has_the_descriptors_that_the_supervisor_was_given_not_those_it_took(tmp_path: Path) -> None:
    """The supervisor raises its own limit for its sockets; programs that close all that they may have would feel it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = min(900, before[1])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
        with supervised(tmp_path) as home:
            for name in ("one", "two"):
                home.app(name, """
                    import resource

                    def application(environ, start_response):
                        start_response("200 OK", [])
                        return [repr(resource.getrlimit(resource.RLIMIT_NOFILE)).encode()]
                """)  # fmt: skip
            assert [home.get(name) for name in ("one", "two", "one")] == [repr((soft, before[1]))] * 3
            assert resource.prlimit(home.pid, resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
