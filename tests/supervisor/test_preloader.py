"""Processes forked from a preloader: as quick as that, and otherwise what a plain start gives."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multisite.supervisor import process
from multisite.supervisor.learned import Learned
from tests.runner.interpreters import interpreters

from .harness import SupervisedHome, ask, is_running, supervised, wait_until

MODULES = "decimal fractions http.client sqlite3 xml.dom.minidom"
APP = """
import json, os, sys
{imports}

def application(environ, start_response):
    body = json.dumps({{"pid": os.getpid(), "said": {said}}}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
INTROSPECTS = """
import decimal, fractions, gc, json, locale, logging, multiprocessing.process, os, random, resource, secrets, signal
import socket, subprocess, sys, threading, time

def limits():
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}

def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink("/proc/self/fd/" + name).partition("[")[0]
        except OSError:
            continue
        found[name] = "board" if "/board/" in kind else kind, os.get_inheritable(int(name))
    return found

def shell():
    return subprocess.run(["env"], stdout=subprocess.PIPE, close_fds=True).stdout.decode().split()

def status():
    wanted = "Umask: Uid: Gid: Groups: Threads: SigBlk: SigIgn: SigCgt: NoNewPrivs: Seccomp: CapEff: Name:".split()
    with open("/proc/self/status") as file:
        return {line.split()[0]: line.split()[1:] for line in file if line.split()[0] in wanted}

def same():
    stat = open("/proc/self/stat").read().rpartition(")")[2].split()
    return {
        "environ": sorted(name for name in os.environ if name != "MULTISITE_BACKEND"),
        "values": {name: value for name, value in os.environ.items() if name not in ("MULTISITE_BACKEND", "PWD")},
        "shell": sorted(shell()),
        "cwd": os.path.basename(os.getcwd()),
        "argv": sys.argv, "path": sys.path[1:], "first": os.path.basename(sys.path[0]),
        "flags": str(sys.flags), "executable": sys.executable, "prefix": sys.prefix,
        "handlers": [str(signal.getsignal(number)).partition(" at 0x")[0] for number in range(1, 65)],
        "wakeup": signal.set_wakeup_fd(-1) >= 0,
        "limits": limits(), "nice": os.nice(0), "descriptors": descriptors(), "status": status(),
        "leader": os.getsid(0) == os.getpid() == os.getpgrp(), "terminal": stat[4],
        "command": open("/proc/self/cmdline").read(), "name": open("/proc/self/comm").read(),
        "threads": [thread.name for thread in threading.enumerate()],
        "gc": [gc.isenabled(), gc.get_threshold()],
        "locale": locale.setlocale(locale.LC_ALL), "zone": time.tzname, "local": time.localtime(0).tm_hour,
        "logging": [str(logging.root.handlers), logging.root.level],
        "meta_path": [str(getattr(finder, "__name__", type(finder).__name__)) for finder in sys.meta_path],
        "main": sys.modules["__main__"].__file__,
        "stdin": os.readlink("/proc/self/fd/0"),
        "encoding": [sys.stdout.encoding, sys.stdout.errors, sys.stderr.encoding, sys.getfilesystemencoding()],
        "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(),
        "timer": signal.getitimer(signal.ITIMER_REAL), "cpus": len(os.sched_getaffinity(0)),
        "mark": open("/proc/self/environ").read().count("MULTISITE_BACKEND="),
    }

def depth():
    frame, count = sys._getframe(), 0
    while frame:
        frame, count = frame.f_back, count + 1
    return count

AT_IMPORT, DEPTH = same(), depth()

def application(environ, start_response):
    own = [random.random(), secrets.token_hex(), multiprocessing.process.current_process().authkey.hex()]
    told = {"import": AT_IMPORT, "depth": DEPTH, "request": same(), "own": own, "modules": sorted(sys.modules),
            "mark": os.environ["MULTISITE_BACKEND"], "kernel": open("/proc/self/environ").read()}
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[SupervisedHome]:
    with supervised(tmp_path) as home:
        yield home


def app(modules: str = MODULES, said: str = "0") -> str:
    return APP.format(imports="\n".join(f"import {name}" for name in modules.split()), said=said)


def said(home: SupervisedHome, name: str) -> Any:
    """What the app of `app()` answers."""
    return json.loads(home.get(name))


def way(home: SupervisedHome, name: str) -> str:
    """How the site's last process came about."""
    return str(home.state(name)["journey"]["way"])


def preloaders(home: SupervisedHome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.status()["preloaders"]
    return found


def preloader(home: SupervisedHome) -> dict[str, Any]:
    """The only one, once it is ready."""
    return dict(wait_until(lambda: next((one for one in preloaders(home) if one["state"] == "ready"), None), 60))


def warm_up(home: SupervisedHome, code: str = "", **keys: str) -> dict[str, Any]:
    """Two plain starts, after which there is a preloader."""
    for name in ("first", "second"):
        home.app(name, code or app(), **keys)
        home.get(name)
        assert way(home, name).startswith("plain start")
    return preloader(home)


def virtualenv(folder: Path, **modules: str) -> str:
    """An interpreter that has these modules installed, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install(folder, **modules)
    return str(folder / "bin/python")


def install(folder: Path, **modules: str) -> None:
    (packages,) = folder.glob("lib/python*/site-packages")
    for name, code in modules.items():
        (packages / f"{name}.py").write_text(code)


# Forking


def test_from_the_third_start_of_a_pair_on_processes_are_forked(home: SupervisedHome) -> None:
    found = warm_up(home)
    assert found["modules"] > 20
    assert found["interpreter"] == sys.executable
    assert found["memory"] > 0
    home.app("third", app())
    answer = said(home, "third")
    assert way(home, "third") == f"forked from process {found['pid']}"
    assert process.parent(answer["pid"]) == home.pid
    assert home.state("third")["pids"] == [answer["pid"]]
    (found,) = preloaders(home)
    assert (found["children"], found["forks"]) == (1, 1)


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


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
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


def test_an_app_that_cannot_be_imported_is_told_as_after_a_plain_start(home: SupervisedHome) -> None:
    warm_up(home)
    home.app("third", "import no_such_module")
    with contextlib.suppress(OSError):
        home.get("third")
    failure = home.wait_for("third", "backoff")["failure"]
    assert "No module named 'no_such_module'" in failure["failure"]
    assert any("Traceback" in line for line in failure["output"])
    assert failure["way"].startswith("forked")


def test_several_processes_of_a_site_are_forked_at_once(home: SupervisedHome) -> None:
    warm_up(home)
    home.app("many", app(), processes="4")
    home.get("many")
    pids = wait_until(lambda: len(found := home.state("many")["pids"]) == 4 and found)
    assert len({process.session(pid) for pid in pids}) == 4
    wait_until(lambda: preloaders(home)[0]["children"] == 4)


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


def test_what_is_learned_is_kept_for_the_next_supervisor(home: SupervisedHome) -> None:
    warm_up(home)
    wait_until(lambda: os.path.exists(Learned(home.home)._file.path))
    kept = json.loads(Path(Learned(home.home)._file.path).read_text())
    ((pair, known),) = kept.items()
    assert pair.startswith(sys.executable)
    assert "decimal" in known["modules"]
    assert os.stat(Learned(home.home)._file.path).st_mode & 0o777 == 0o600


# Where a plain start has to do


def plain_because(home: SupervisedHome, reason: str, more: str = "", code: str = "", **keys: str) -> None:
    home.app("third", code or app(), more=more, **keys)
    home.get("third")
    assert reason in way(home, "third")
    assert way(home, "third").startswith("plain start: ")


def test_it_can_be_switched_off(home: SupervisedHome) -> None:
    warm_up(home)
    plain_because(home, "preload = no", preload="no")


def test_with_preload_no_in_moya_conf_there_is_none(tmp_path: Path) -> None:
    with supervised(tmp_path, "preload = no") as home:
        for name in ("first", "second", "third"):
            home.app(name, app())
            home.get(name)
        assert way(home, "third") == "plain start: preload = no"
        assert preloaders(home) == []


@pytest.mark.parametrize("variable", ["PYTHONWARNINGS = ignore", "PYTHONHASHSEED = 1", "LANG = C", "LC_ALL = C"])
def test_variables_that_the_interpreter_reads_are_heeded(home: SupervisedHome, variable: str) -> None:
    warm_up(home)
    plain_because(home, variable.partition(" ")[0], more=f"[env]\n{variable}\n")


def test_a_variable_that_a_preloaded_module_has_read_is_heeded(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(tmp_path / "venv", coloured="import os\nCOLOUR = os.environ.get('COLOUR', 'none')")
    code = app("coloured decimal", "coloured.COLOUR")
    warm_up(home, code, python=python)
    home.app("third", code, more="[env]\nSHAPE = round\n", python=python)
    assert said(home, "third")["said"] == "none"
    assert way(home, "third").startswith("forked")
    home.app("fourth", code, more="[env]\nCOLOUR = blue\n", python=python)
    assert said(home, "fourth")["said"] == "blue"
    assert "COLOUR" in way(home, "fourth")


def test_a_site_with_a_module_of_the_same_name_gets_its_own(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(tmp_path / "venv", common="WHOSE = 'everybody'")
    code = app("common decimal", "common.WHOSE")
    warm_up(home, code, python=python)
    folder = home.app("third", code, python=python)
    (folder / "common.py").write_text("WHOSE = 'mine'")
    assert said(home, "third")["said"] == "mine"
    assert "'common' of its own" in way(home, "third")


def test_after_an_installation_the_next_start_has_what_is_new(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(tmp_path / "venv", common="VERSION = 1")
    code = app("common decimal", "common.VERSION")
    old = warm_up(home, code, python=python)
    install(tmp_path / "venv", common="VERSION = 22")
    home.app("third", code, python=python)
    assert said(home, "third")["said"] == 22
    assert "changed" in way(home, "third")
    wait_until(lambda: not is_running(old["pid"]))
    new = preloader(home)
    home.app("fourth", code, python=python)
    assert said(home, "fourth")["said"] == 22
    assert way(home, "fourth") == f"forked from process {new['pid']}"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone could be led astray")
def test_root_preloads_nothing_that_another_could_have_written(home: SupervisedHome, tmp_path: Path) -> None:
    python = virtualenv(tmp_path / "venv", common="VALUE = 1")
    (module,) = (tmp_path / "venv").glob("lib/python*/site-packages/common.py")
    os.chown(module, 33, 33)
    for name in ("first", "second", "third"):
        home.app(name, app("common"), python=python)
        home.get(name)
    home.app("fourth", app("common"), python=python)

    def refused() -> bool:
        home.client.ask({"do": "stop", "site": "fourth"})
        home.get("fourth")
        return "others than root may write" in way(home, "fourth")

    wait_until(refused, 30)
    assert preloaders(home) == []


def test_it_leaves_where_memory_is_short(tmp_path: Path) -> None:
    """Idle sites go for the sake of the budget, and then a preloader that nobody was forked from."""
    with supervised(tmp_path, "memory_budget = 1M\nidle_timeout = 1h") as home:
        found = warm_up(home)
        wait_until(lambda: not is_running(found["pid"]), 30)
        assert preloaders(home) == []


# A preloader runs code of the site's user, who may mean harm

WRAPPER = """#!/bin/sh
[ -z "$MULTISITE_PRELOAD" ] && exec {python} "$@"
exec {python} {script}
"""
HOSTILE = """
import json, os, socket
control = socket.socket(fileno=3)
{says}
control.send(json.dumps({{"ready": {{"modules": 1, "reads": [], "failed": []}}}}).encode())
while True:
    data, descriptors, flags, address = socket.recv_fds(control, 64, 5)
    if not data:
        break
    channel = socket.socket(fileno=descriptors[4])
    {does}
    channel.close()
    for one in descriptors[:4]:
        os.close(one)
"""


@pytest.mark.parametrize(
    ("says", "does"),
    [
        ("control.send(b'[' * 60000)", "pass"),
        ('control.send(b\'{"ready": {"reads": 5}}\')', "pass"),
        ("control.send(json.dumps({'spoilt': {'../x': 1}}).encode())", "pass"),
        ("", "channel.send(b'born')"),
        ("", "[channel.send(b'x' * 4000) for _ in range(9)]"),
    ],
)
def test_a_hostile_preloader_costs_a_plain_start_and_no_more(
    home: SupervisedHome, tmp_path: Path, says: str, does: str
) -> None:
    python = tmp_path / "python3"
    python.write_text(WRAPPER.format(python=sys.executable, script=tmp_path / "hostile.py"))
    (tmp_path / "hostile.py").write_text(HOSTILE.format(says=says, does=does))
    python.chmod(0o755)
    for name in ("first", "second"):
        home.app(name, app(), python=str(python))
        home.get(name)
    if not says:
        preloader(home)
    home.app("third", app(), python=str(python))
    assert said(home, "third")["pid"]
    assert way(home, "third").startswith("plain start")
    supervisor = home.pid
    wait_until(lambda: home.state("third")["state"] == "running")
    assert home.pid == supervisor


# kill -9 of each in turn


def test_killed_preloader_leaves_its_children_and_gets_a_successor(home: SupervisedHome) -> None:
    found = warm_up(home)
    home.app("third", app())
    child = said(home, "third")["pid"]
    os.kill(found["pid"], signal.SIGKILL)
    wait_until(lambda: not is_running(found["pid"]))
    assert said(home, "third")["pid"] == child
    home.app("fourth", app())
    home.get("fourth")
    assert way(home, "fourth").startswith("plain start")
    assert preloader(home)["pid"] != found["pid"]
    home.app("fifth", app())
    home.get("fifth")
    assert way(home, "fifth").startswith("forked")
    assert said(home, "third")["pid"] == child


def test_killed_child_is_noticed_at_once_and_forked_again(home: SupervisedHome) -> None:
    warm_up(home)
    home.app("third", app())
    child = said(home, "third")["pid"]
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not is_running(child))
    again = said(home, "third")["pid"]
    assert again != child
    assert way(home, "third").startswith("forked")
    wait_until(lambda: preloaders(home)[0]["children"] == 1)


@pytest.mark.parametrize("order", ["supervisor", "preloader supervisor", "child supervisor", "supervisor preloader"])
def test_nobody_is_left_when_the_supervisor_is_killed(home: SupervisedHome, order: str) -> None:
    """Its children die with it, forked or not, and the next supervisor begins anew."""
    found = warm_up(home)
    home.app("third", app())
    pids = {"supervisor": home.pid, "preloader": found["pid"], "child": said(home, "third")["pid"]}
    home.supervisors.discard(pids["supervisor"])
    for who in order.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[who], signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, pids.values())))
    wait_until(lambda: not home.left())
    assert said(home, "third")["pid"] not in pids.values()


def test_what_a_forked_process_daemonises_is_swept(home: SupervisedHome) -> None:
    """A helper that was forked and runs no program of its own bears the mark of its site, not of the preloader."""
    warm_up(home)
    helper = "os.fork() or (os.setsid(), os.fork() and os._exit(0), __import__('time').sleep(600))"
    home.app("third", app(said="0") + f"\n{helper}\n")
    child = said(home, "third")["pid"]
    mark = process.environment(child)[b"MULTISITE_BACKEND"]
    helpers = wait_until(
        lambda: [
            pid
            for pid in process.processes()
            if pid != child
            and process.environment(pid).get(b"MULTISITE_BACKEND") == mark
            and process.session(pid) != child
        ]
    )
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, helpers)))
    assert is_running(preloaders(home)[0]["pid"])


def test_a_preloader_that_does_not_answer_costs_a_plain_start(home: SupervisedHome) -> None:
    found = warm_up(home)
    os.kill(found["pid"], signal.SIGSTOP)
    home.app("third", app())
    assert said(home, "third")["pid"]
    assert way(home, "third").startswith("plain start: the preloader has not made it")
    wait_until(lambda: not is_running(found["pid"]))
    assert home.state("third")["starts"] == 1


def test_requests_that_wait_during_the_death_of_a_preloader_are_answered(home: SupervisedHome) -> None:
    """It is killed while it is asked for a process, stopped before so that the moment is certain."""
    found = warm_up(home)
    home.app("third", app())
    path = home.ensure("third")
    os.kill(found["pid"], signal.SIGSTOP)
    pid = os.fork()
    if pid == 0:
        try:
            ask(path)
            os._exit(0)
        finally:
            os._exit(1)
    wait_until(lambda: home.state("third")["state"] == "starting")
    os.kill(found["pid"], signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert way(home, "third").startswith("plain start")


def test_a_site_that_is_stopped_before_its_process_is_born_has_none(home: SupervisedHome) -> None:
    found = warm_up(home)
    home.app("third", app())
    path = home.ensure("third")
    os.kill(found["pid"], signal.SIGSTOP)
    with contextlib.ExitStack() as closed:
        waiting = closed.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(path)
        wait_until(lambda: home.state("third")["state"] == "starting")
    home.client.ask({"do": "stop", "site": "third"})
    os.kill(found["pid"], signal.SIGCONT)
    home.get("third")
    running = home.wait_for("third", "running", 20)
    assert running["starts"] == 2
    of_third = [pid for pid in home.left() if b":third:" in process.environment(pid)[b"MULTISITE_BACKEND"]]
    assert of_third == running["pids"]
