"""What a site's processes find in their environment."""

from __future__ import annotations

from pathlib import Path

from multisite.model import Home, Site
from multisite.supervisor import environment
from multisite.supervisor.process import Identity

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
    return environment.around(site, Home("/home", env=env or {}), SERVICE, WHO, python)


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
    found = environment.around(Site("a.ini", name="a"), Home("/home"), service, WHO, "", may_move=True)
    assert found["SECRET"] == "administrator's own" and found["HOME"] == "/var/www"
    assert not found.keys() & {"PYTHONPATH", "PYTHONHASHSEED", "LD_PRELOAD", "GUNICORN_PID", "NOTIFY_SOCKET"}
