"""Names that users have in their files: each goes on to be found where it always was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, *arguments: str, path: str = "") -> str:
    """What an interpreter that has loaded nothing of ours prints."""
    argv = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(argv, env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("service", "application", "service"),
        ("loghandlers", "ReopeningFileHandler", "logs.loghandlers"),
        ("loghandlers", "LocalSysLogHandler", "logs.loghandlers"),
        ("loghandlers", "SitePrefixFormatter", "logs.loghandlers"),
        ("model", "Site", "config.site"),
        ("model", "SiteFile", "config.model"),
        ("model", "Home", "config.model"),
        ("policies", "Refused", "config.policies"),
        ("policies", "directory", "config.policies"),
    ],
)
def test_a_name_is_found_first_of_all(module: str, name: str, home: str) -> None:
    """It is the very object that the program itself uses, whatever was imported before."""
    code = f"from multisite.{module} import {name} as one; from multisite.{home} import {name} as other"
    assert run(f"{code}; print(one is other)") == "True\n"


@pytest.mark.parametrize(
    "text",
    [
        "[logger:root]\nhandlers = file\nlevel = INFO\n\n[handler:file]\nclass = {name}\nargs = ({path!r},)\n",
        "[loggers]\nkeys = root\n[handlers]\nkeys = file\n[formatters]\nkeys =\n"
        "[logger_root]\nhandlers = file\nlevel = INFO\n[handler_file]\nclass = {name}\nargs = ({path!r},)\n",
    ],
    ids=["Moya", "fileConfig"],
)
def test_logging_ini_names_a_handler(tmp_path: Path, text: str) -> None:
    """Both dialects take its class by the name that the documentation has."""
    (tmp_path / "moya.conf").write_text("[projects]\n")
    path = tmp_path / "service.log"
    (tmp_path / "logging.ini").write_text(
        text.format(name="multisite.loghandlers.ReopeningFileHandler", path=str(path))
    )
    code = (
        "import logging, sys; from multisite.config.read import read_home; from multisite.logs import servicelog; "
        "problems = servicelog.configure(read_home(sys.argv[1])); print(*problems, sep='\\n', end=''); "
        "logging.getLogger('multisite').info('it stands here')"
    )
    assert run(code, str(tmp_path)) == ""
    assert "it stands here" in path.read_text()


def test_a_loader_of_others_imports_the_model(tmp_path: Path) -> None:
    """It may do so when it is imported, and is given a site of that class."""
    (tmp_path / "others.py").write_text(
        "from multisite.model import Site\n\n\ndef load(rest, site):\n"
        "    return lambda *_: [isinstance(site, Site), rest]\n"
    )
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[multisite.loaders]\ntheirs = others:load\n")
    code = (
        "import sys; from multisite.config.site import Site; from multisite.inprocess import loader; "
        "site = Site('/blog.ini', name='blog', location=sys.argv[1], application='theirs:/rest'); "
        "print(loader.load(site)(None, None))"
    )
    assert run(code, str(tmp_path), path=str(tmp_path)) == "[True, '/rest']\n"
