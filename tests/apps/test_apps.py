"""Applications of PyPI behave here as they do under plain gunicorn: the same visit, and the same answers.

They come from the package index, each into a virtualenv of its own that is kept; `make test-apps` runs these tests.
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import virtualenvs
from tests.servers.harness import HomeDir, Server, free_port, gunicorn, not_tested

from .applications import APPLICATIONS, Application
from .visitor import Visitor

pytestmark = pytest.mark.apps
CONF = "[projects]\nread = sites-enabled/*.ini\n[supervisor]\nallow_root = yes\n"


@pytest.fixture(scope="module", params=APPLICATIONS)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Application, Path, str]:
    """An application, a folder with a project of it, and the interpreter that has what it needs."""
    application = APPLICATIONS[request.param]
    try:
        python = virtualenvs.kept(sys.executable, "gunicorn", *application.packages)
    except subprocess.CalledProcessError as error:
        not_tested(f"{request.param}: it cannot be installed ({virtualenvs.reason(error)})")
    folder = tmp_path_factory.mktemp("made")
    application.make(folder, python)
    return application, folder, python


@pytest.fixture(scope="module")
def expected(
    project: tuple[Application, Path, str], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, object]]:
    """What a visitor of plain gunicorn notes."""
    application, made, python = project
    where = tmp_path_factory.mktemp("plain") / "app"
    shutil.copytree(made, where)
    port = free_port()
    argv = [python, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--no-control-socket", "--chdir", str(where)]
    argv += ["--worker-class", application.worker] if application.worker else ["--threads", "2"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GUNICORN_"))}
    argv.append(application.target)
    with Server(argv, port, where.parent / "log", environ | dict(application.env)) as server:
        return visited(application, server)


@pytest.mark.parametrize("hand_over", ["no", "yes"])
def test_the_same_visit_gets_the_same_answers(
    project: tuple[Application, Path, str], expected: list[tuple[str, object]], tmp_path: Path, hand_over: str
) -> None:
    """`python =` names the virtualenv; the requests are relayed, or the connections handed over."""
    application, made, python = project
    home = HomeDir(tmp_path).create()
    home.conf(f"{CONF}hand_over = {hand_over}\n")
    where = tmp_path / "sites" / "app"
    shutil.copytree(made, where)
    target = f"asgi:{application.target}" if application.worker else application.target
    lines = [
        f"application = {target}",
        "domains = app.test",
        f"location = {where}",
        f"python = {Path(python).parents[1]}",
    ]
    lines += ["[env]", *(f"{name} = {value}" for name, value in application.env)]
    home.ini("app", "[service]\n" + "\n".join(lines) + "\n")
    with gunicorn(home, "gthread", "--threads", "4") as server:
        seen = visited(application, server)
    for (what, ours), (_, plain) in zip(seen, expected, strict=True):
        assert ours == plain, "\n".join([what, *difflib.unified_diff(lines_of(plain), lines_of(ours), "plain", "here")])


def lines_of(heard: object) -> list[str]:
    """What one step heard, in lines that can be compared."""
    if isinstance(heard, dict):
        return [line for key, value in heard.items() for line in f"{key}: {value}".splitlines()]
    return [repr(heard)]


def visited(application: Application, server: Server) -> list[tuple[str, object]]:
    visitor = Visitor(server.port)
    application.visit(visitor)
    return visitor.notes
