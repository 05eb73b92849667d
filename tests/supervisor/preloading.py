"""Sites that are forked from a preloader, and what one may ask of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .harness import SupervisedHome, wait_until

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
