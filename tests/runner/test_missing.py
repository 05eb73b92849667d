"""What is not there is reported in the same words by a site's process, by a worker, and by `multisite check`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from multisite.config import application
from multisite.config.model import Site
from multisite.errors import AppLoadError
from multisite.inprocess import loader
from multisite.runner import missing
from multisite.status.project.faults import application_fault

from .harness import backend, spec

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
#: what is written in the file → what is reported of it, and the commands that would help
KINDS = {
    "one": ("there is no module 'one' in {folder}", "multisite set site application=MODULE:application"),
    "one:/srv/x": (
        "there is neither a module nor a loader named 'one'",
        "multisite set site application=MODULE:CALLABLE",
    ),
    "one:app": (
        "there is no module 'one' in {folder}, nor does {python} have one",
        "multisite set site application=MODULE:app",
    ),
    "only.app": (
        "there is no module 'only.app' in {folder}, nor does {python} have one; write MODULE:CALLABLE, with a colon",
        "multisite set site application=only:app",
    ),
    "pkg.inner.app": ("there is no module 'pkg.inner.app'", "multisite set site application=pkg.inner:app"),
    "pkg.made": ("there is no module 'pkg.made'", "multisite set site application=pkg:made"),
    "onyl:app": ("did you mean 'only'?", "multisite set site application=only:app"),
    "pkg.iner:app": ("did you mean 'pkg.inner'?", "multisite set site application=pkg.inner:app"),
    "gone.wsgi": ("and no file {folder}/gone.wsgi", "multisite set site application="),
    "far.away:app": ("there is no module 'far' in {folder}", "pip install far"),
    "./gone.wsgi": ("there is no file {folder}/gone.wsgi", "multisite set site application=./FILE.wsgi"),
    "onyl.py": ("there is no file {folder}/onyl.py; did you mean 'only.py'?", "multisite set site application=only.py"),
    "needy:app": (
        "it needs the module 'no_such_framework', which {python} does not have ({folder}/needy.py, line 2)",
        "/pip install no_such_framework, or multisite set site python=VIRTUALENV",
    ),
    "by_name:app": ("it needs the module 'corsheaders'", "pip install django-cors-headers"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("from pkg.inner import app as made\n")
    (tmp_path / "pkg/inner.py").write_text(APP)
    (tmp_path / "only.py").write_text(APP)
    (tmp_path / "needy.py").write_text(f"import json\nimport no_such_framework\n{APP}")
    (tmp_path / "by_name.py").write_text(f"import corsheaders.of_nobody\n{APP}")
    return tmp_path


@pytest.mark.parametrize("written", KINDS)
def test_cause_place_and_commands_are_the_same_for_all_who_report_it(folder: Path, written: str) -> None:
    parsed = application.parse(written)
    more: dict[str, object] = {"spec": spec(parsed.target, parsed.attribute, parsed.kind)}
    more |= {"file": "site.ini", "application": written}
    with backend(folder, site={"name": "site", "application": written}, wait=False, **more) as process:
        assert process.exit() == 3
        said = {sys.executable: process.log}
    site = Site("site.ini", name="site", location=str(folder), application=written)
    said["check"] = str(application_fault(site))
    with pytest.raises(AppLoadError) as caught:
        loader.load(site)
    said["worker"] = caught.value.reason
    for who, text in said.items():
        same = text.replace(f"{sys.prefix}/bin/python3", sys.executable)
        same = same.replace(f" (site.ini: [service] application = {written})", "")
        assert who == "check" or f"site.ini: [service] application = {written}" in text, (who, text)
        for part in KINDS[written]:
            assert part.format(folder=folder, python=sys.executable) in same, (who, text)


def test_a_virtualenv_beside_the_code_is_proposed(folder: Path) -> None:
    """Not the one that was searched."""
    (folder / "venv").mkdir()
    (folder / "venv/pyvenv.cfg").touch()
    remedy = missing.lacking("site", "flask", str(folder), "/usr/bin/python3").remedy
    assert remedy.startswith("multisite set site python=venv, or /usr/bin/")
    assert "pip install flask" in remedy
    remedy = missing.lacking("site", "flask", str(folder), f"{folder}/venv/bin/python").remedy
    assert remedy == f"{folder}/venv/bin/python -m pip install flask, or multisite set site python=VIRTUALENV"


def test_an_interpreter_that_is_the_systems_gets_no_packages(folder: Path) -> None:
    """PEP 668: pip would refuse; a virtualenv is made, and the site uses it."""
    (folder / "usr/lib/python3.13").mkdir(parents=True)
    (folder / "usr/lib/python3.13/EXTERNALLY-MANAGED").touch()
    remedy = missing.lacking("site", "yaml", "/srv/x", f"{folder}/usr/bin/python3").remedy
    assert remedy == (
        f"{folder}/usr/bin/python3 -m venv /srv/x/.venv && /srv/x/.venv/bin/pip install PyYAML && "
        "multisite set site python=.venv"
    )
