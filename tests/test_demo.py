"""The demonstration sites, each asked through webtest as a browser would ask it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from webtest import TestApp

from multisite.cli.session import Session
from multisite.service import Service
from multisite.status.report import SiteReport, judge
from tests.servers.harness import PATIENCE, eventually

pytestmark = pytest.mark.processes

CHECKOUT = Path(__file__).parent.parent


def process_state() -> tuple[str, dict[str, str]]:
    """What sites share: the working directory and the environment (pytest writes a variable of its own into it)."""
    return os.getcwd(), {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, own_django: None) -> Iterator[Service]:
    """A service on a copy of the demonstration, so that no test writes into the checkout."""
    copy = tmp_path_factory.mktemp("demonstration")
    for name in ("etc-moya", "sites-available", "sites-enabled"):
        ignored = shutil.ignore_patterns("var", "__pycache__")
        shutil.copytree(CHECKOUT / name, copy / name, symlinks=True, ignore=ignored)
    with (copy / "etc-moya" / "moya.conf").open("a") as conf:
        conf.write("share_import_time = 60s\n")  # below [supervisor]; this machine may have other things to do
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(copy / "state"))
        patch.setenv("XDG_RUNTIME_DIR", str(copy / "run"))
        before = process_state()
        yield Service(home=str(copy / "etc-moya"))
        assert process_state() == before, "serving the sites changed the working directory or the environment"


def client(service: Service, host: str) -> TestApp:
    return TestApp(service, extra_environ={"HTTP_HOST": f"{host}:8000", "SERVER_PORT": "8000"})


def test_hello_shows_the_request(service: Service) -> None:
    """The plain WSGI site tells the host it was asked for."""
    page = client(service, "hello.localhost").get("/some/path?a=b")
    assert "Hello from a plain WSGI application" in page
    assert "hello.localhost:8000" in page and "/some/path" in page and "a=b" in page


def test_flask_has_two_pages(service: Service) -> None:
    """Flask finds its templates, and its links lead to its own pages."""
    page = client(service, "flask.localhost").get("/").click("Be greeted")
    assert "Greetings, world!" in page


def test_flask_answers_its_own_404(service: Service) -> None:
    """A path that Flask does not know is Flask's business."""
    page = client(service, "flask.localhost").get("/nowhere", status=404)
    assert "The requested URL was not found on the server" in page


def test_django_admin_works(service: Service) -> None:
    """The admin's login page has its style sheet, and the user demo gets in."""
    browser = client(service, "django.localhost")
    login = browser.get("/admin/").follow()
    assert browser.get("/static/admin/css/base.css").content_type == "text/css"
    login.form["username"] = "demo"
    login.form["password"] = "demo"
    assert "Site administration" in login.form.submit().follow()


def test_django_makes_its_secret_once(service: Service) -> None:
    """A session signed at one request is known at the next."""
    browser = client(service, "django.localhost")
    form = browser.get("/admin/login/").form
    form["username"], form["password"] = "demo", "demo"
    form.submit()
    browser.get("/admin/auth/user/", status=200)


def test_script_is_served(service: Service) -> None:
    """A .wsgi file needs no module name."""
    assert "Hello from a .wsgi file" in client(service, "script.localhost").get("/")


def test_mounts_share_a_domain(service: Service) -> None:
    """Each of the two sites sees its own SCRIPT_NAME and PATH_INFO."""
    browser = client(service, "mounts.localhost")
    assert "<code>&#x27;/api&#x27;</code>" not in browser.get("/apiary")
    assert "<code>&#x27;/apiary&#x27;</code>" in browser.get("/apiary")
    answer = browser.get("/api/things/1").json
    assert answer == {"subject": "things", "SCRIPT_NAME": "/api", "PATH_INFO": "/things/1"}


def test_a_command_is_served(service: Service) -> None:
    """A program that is no WSGI application answers in a process of its own."""
    answer = client(service, "command.localhost").get("/")
    assert answer.text.startswith("Hello from process ") and str(os.getpid()) not in answer.text


def placed(service: Service, name: str) -> SiteReport:
    """Where a site runs, as ``explain`` says."""
    session = Session(service._live.home.path)
    return judge(session, session.catalogue.site(name))


def test_the_sites_show_all_placements(service: Service) -> None:
    """In the workers at the first request, in a process of its own and why, by a command, and moved when busy."""
    browser = client(service, "flask.localhost")

    def is_in_the_workers() -> bool:
        for _ in range(50):
            assert "Hello from Flask" in browser.get("/")
        return placed(service, "flask").placement == "in-process"

    eventually(is_in_the_workers, PATIENCE, "a busy site moves")
    found = {name: placed(service, name) for name in ("flask", "hello", "script", "mounts", "sessions", "command")}
    assert "it is clean (" in found["flask"].reason
    assert {name: (one.placement, one.reason) for name, one in found.items() if name != "flask"} == {
        **dict.fromkeys(("hello", "script", "mounts"), ("in-process", "its file says mode = in-process")),
        "sessions": ("spawned", "it has its own [env], and sites in one process share one environment"),
        "command": ("spawned", "it has its own command"),
    }


def test_broken_is_not_enabled(service: Service) -> None:
    """The site that shows mistakes is not in service: its host is unknown."""
    client(service, "broken.localhost").get("/", status=404)


def test_the_sites_do_not_mix(service: Service) -> None:
    """Asked in turns, the sites keep answering for themselves."""
    marks = {
        "hello.localhost": "Hello from a plain WSGI application",
        "flask.localhost": "Hello from Flask",
        "django.localhost": "Hello from Django",
        "script.localhost": "Hello from a .wsgi file",
        "mounts.localhost": "Hello from the site at /",
    }
    browsers = {host: client(service, host) for host in marks}
    for _ in range(20):
        for host, mark in marks.items():
            assert mark in browsers[host].get("/"), host


def test_django_is_made_once_by_many_workers(tmp_path: Path) -> None:
    """Workers that import a fresh checkout's project at the same moment agree on one secret key and one user."""
    project = tmp_path / "django"
    shutil.copytree(CHECKOUT / "sites-available/django", project, ignore=shutil.ignore_patterns("var", "__pycache__"))
    program = (
        "from demoproject.wsgi import application, settings\n"
        "from django.contrib.auth import get_user_model\n"
        "print(settings.SECRET_KEY, get_user_model().objects.count())\n"
    )
    argv = [sys.executable, "-c", program]
    workers = [subprocess.Popen(argv, cwd=project, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {worker.communicate(timeout=180)[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert len(answers) == 1 and answers.pop().endswith(" 1\n")
