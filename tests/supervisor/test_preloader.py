"""Processes forked from a preloader: as quick as that, and otherwise what a plain start gives."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from multisite.supervisor.process import kernel
from multisite.supervisor.process.preloaders import Learned
from tests.runner.interpreters import interpreters

from .harness import SupervisedHome, supervised, wait_until
from .preloading import INTROSPECTS, app, preloader, preloaders, said, virtualenv, warm_up, way

# Forking


def test_from_the_third_start_of_a_pair_on_processes_are_forked(warm: SupervisedHome) -> None:
    (before,) = preloaders(warm)
    assert before["modules"] > 20
    assert before["interpreter"] == sys.executable
    assert before["memory"] > 0
    warm.app("third", app())
    answer = said(warm, "third")
    assert way(warm, "third") == f"forked from process {before['pid']}"
    assert kernel.parent(answer["pid"]) == warm.pid
    assert warm.state("third")["pids"] == [answer["pid"]]
    (found,) = preloaders(warm)
    assert (found["children"], found["forks"]) == (before["children"] + 1, before["forks"] + 1)


def test_a_site_that_starts_again_is_forked_too(home: SupervisedHome) -> None:
    """Its own first start is the first of the pair; idle or stopped, it comes back quickly."""
    home.app("only", app())
    for _ in range(2):
        home.get("only")
        home.client.ask({"do": "stop", "site": "only"})
        home.wait_for("only", "stopped")
    preloader(home)
    home.get("only")
    assert way(home, "only").startswith("forked")


@pytest.mark.parametrize("version", sorted(interpreters()))
def test_every_interpreter_of_this_machine_forks(home: SupervisedHome, version: str) -> None:
    python = interpreters()[version]
    warm_up(home, python=python)
    home.app("third", app(said="list(sys.version_info[:2])"), python=python)
    assert ".".join(map(str, said(home, "third")["said"])) == version
    assert way(home, "third").startswith("forked")


def test_what_a_site_sees_is_what_a_plain_start_gives(home: SupervisedHome) -> None:
    """Everything that one may find out about a process, when the site is imported and when it answers."""
    keys = {"nice": "3", "nofile": "200", "umask": "0027"}
    more = "[env]\nGREETING = hello\nTZ = Asia/Kolkata\n"
    warm_up(home, INTROSPECTS)
    answers = {}
    for name, preload in (("forked", "auto"), ("again", "auto"), ("plain", "no")):
        folder = home.app(name, INTROSPECTS, preload=preload, more=more, **keys)
        shutil.copytree(folder, folder.parent / "site", dirs_exist_ok=True)
        answers[name] = json.loads(home.get(name).replace(name, "NAME"))
        assert way(home, name).startswith("plain" if preload == "no" else "forked"), way(home, name)
    forked, again, plain = answers["forked"], answers["again"], answers["plain"]
    for answer in answers.values():
        del answer["request"]["status"]["Threads:"]  # the watchdog's second may be there yet, or not
        for when in ("import", "request"):
            answer[when]["shell"] = [line for line in answer[when]["shell"] if not line.startswith(VARYING)]
            answer[when]["values"] = {k: v for k, v in answer[when]["values"].items() if not k.startswith(VARYING)}
    for when in ("import", "request"):
        differs = {k: (v, plain[when][k]) for k, v in forked[when].items() if v != plain[when][k]}
        assert not differs, json.dumps(differs)
    assert forked["depth"] == plain["depth"]
    assert not set(plain["modules"]) - set(forked["modules"])
    assert all(one != other for one, other in zip(forked["own"], again["own"], strict=True))
    assert f"MULTISITE_BACKEND={forked['mark']}\0" in forked["kernel"]


VARYING = ("MULTISITE_BACKEND", "NOTIFY_SOCKET", "PWD", "LISTEN_PID", "_")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to become somebody else")
def test_it_is_a_process_of_the_sites_user() -> None:
    path = Path(tempfile.mkdtemp(prefix="multisite-"))
    path.chmod(0o755)
    try:
        with supervised(path) as home:
            found = warm_up(home, python="/usr/bin/python3", user="www-data")
            assert found["user"] == "www-data"
            assert os.stat(f"/proc/{found['pid']}").st_uid == 33
            ids = "[os.getresuid(), os.getresgid(), os.getgroups()]"
            home.app("third", app(said=ids), python="/usr/bin/python3", user="www-data")
            home.app("plain", app(said=ids), python="/usr/bin/python3", user="www-data", preload="no")
            home.app("other", app(), python="/usr/bin/python3", user="nobody")
            assert said(home, "third")["said"] == said(home, "plain")["said"]
            assert way(home, "third").startswith("forked")
            home.get("other")
            assert way(home, "other") == "plain start: there is no preloader yet"
    finally:
        shutil.rmtree(path)


def test_an_app_that_cannot_be_imported_is_told_as_after_a_plain_start(warm: SupervisedHome) -> None:
    warm.app("bad", "import no_such_module")
    with contextlib.suppress(OSError):
        warm.get("bad")
    failure = warm.failed("bad")["failure"]
    assert "it needs the module 'no_such_module'" in failure["failure"]
    assert any("Traceback" in line for line in failure["output"])
    assert failure["way"].startswith("forked")


def test_several_processes_of_a_site_are_forked_at_once(warm: SupervisedHome) -> None:
    before = preloaders(warm)[0]["children"]
    warm.app("many", app(), processes="4")
    warm.get("many")
    pids = wait_until(lambda: len(found := warm.state("many")["pids"]) == 4 and found)
    assert len({kernel.session(pid) for pid in pids}) == 4
    wait_until(lambda: preloaders(warm)[0]["children"] == before + 4)


# What is imported beforehand


def test_modules_are_left_out_whose_import_no_fork_may_inherit(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(
        tmp_path / "venv",
        harmless="VALUE = 1",
        threads="import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        opens="FILE = open(__file__)",
        moves="import os\nos.chdir('/tmp')",
        handles="import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)",
        writes="import os\nos.environ['WRITTEN'] = '1'",
        logs="import logging\nlogging.basicConfig()",
        leaves="import os\nif not os.getcwd().endswith('d'): raise SystemExit",
        reads="import os\nEVERYTHING = os.environ.copy()",
    )
    spoilt = "threads opens moves handles writes logs reads"
    home.app("first", app(f"harmless decimal {spoilt}"), python=python)
    home.app("second", app("harmless decimal"), python=python)
    home.get("first")
    home.get("second")
    wait_until(lambda: any(one["state"] == "ready" for one in preloaders(home)), 120)
    (found,) = preloaders(home)
    assert set(found["denied"]) == set(spoilt.split()), found["denied"]
    assert found["denied"]["threads"] == "starts threads"
    home.app("third", app("harmless", "[m in sys.modules for m in ('harmless', 'threads')]"), python=python)
    assert said(home, "third")["said"] == [True, False]
    assert way(home, "third").startswith("forked")
    home.app("fourth", app(f"harmless {spoilt}", "os.getcwd()"), python=python)
    assert said(home, "fourth")["said"] == "/tmp"


def test_django_is_preloaded_without_settings_and_each_site_has_its_own(home: SupervisedHome) -> None:
    """Models and the like ask for settings when they are imported; they are left to the sites."""
    django = """
        import os
        os.environ["DJANGO_SETTINGS_MODULE"] = "settings_of_{name}"
        from django.core.wsgi import get_wsgi_application
        application = get_wsgi_application()
    """
    settings = """
        SECRET_KEY = "{name}"
        ALLOWED_HOSTS = ["*"]
        ROOT_URLCONF = "settings_of_{name}"
        INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
        DATABASES = {{}}
        urlpatterns = []
        def urls():
            from django.http import HttpResponse
            from django.urls import path
            from django.conf import settings
            from django.contrib.auth.models import User
            return [path("", lambda request: HttpResponse(settings.SECRET_KEY + User._meta.db_table))]
        class Lazy(list):
            def __iter__(self):
                return iter(urls())
            def __reversed__(self):
                return iter(urls()[::-1])
        urlpatterns = Lazy()
    """
    for name in ("first", "second", "third", "fourth"):
        folder = home.app(name, django.format(name=name))
        (folder / f"settings_of_{name}.py").write_text(
            "\n".join(line[8:] for line in settings.format(name=name).splitlines())
        )
        assert home.get(name) == f"{name}auth_user"
        if name == "second":
            found = preloader(home)
            assert "django.contrib.auth.models" in found["denied"]
    assert way(home, "fourth").startswith("forked")


def test_what_is_learned_is_kept_for_the_next_supervisor(warm: SupervisedHome) -> None:
    wait_until(lambda: os.path.exists(Learned(warm.home)._file.path))
    kept = json.loads(Path(Learned(warm.home)._file.path).read_text())
    ((pair, known),) = kept.items()
    assert pair.startswith(sys.executable)
    assert "decimal" in known["modules"]
    assert os.stat(Learned(warm.home)._file.path).st_mode & 0o777 == 0o600
