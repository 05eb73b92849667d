"""Sites of all kinds with ``mode = auto``, each of which answers what is right for it alone."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.servers.harness import HomeDir

WSGI = """
import json, os, signal
{top}

def application(environ, start_response):
    {view}
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [f"{name}: {{{says}}}".encode()]
"""
FLASK = """
import os
from flask import Flask, url_for

application = Flask(__name__)

@application.route("/")
def answer():
    return "flask: " + url_for("answer"), {"X-Worker": str(os.getpid())}
"""
DJANGO = """
import os
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{name}_settings")
application = get_wsgi_application()
"""
SETTINGS = """
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "{name}_urls"
TITLE = "the title of {name}"
TIME_ZONE = {zone!r}
USE_TZ = {zone!r} is not None
"""
URLS = """
import os, time
from django.conf import settings
from django.http import HttpResponse
from django.urls import path, reverse

def answer(request):
    hours = {zone!r} and time.localtime(0).tm_hour
    text = f"{name}: {{settings.TITLE}} {{reverse('{name}')}} {{hours}}"
    return HttpResponse(text, headers={{"X-Worker": str(os.getpid())}})

urlpatterns = [path("", answer, name="{name}")]
"""
CLASHES = "clashes with the 'helper' of site"
SECOND_DJANGO = "it is a second Django project"


@dataclass(frozen=True)
class Kind:
    """A site.

    Attributes:
        right: what it answers.
        why_not: a part of the reason for which it may not live in the workers; "" if it may.
        either: of its kind one may, whichever is the first.
    """

    right: str
    files: dict[str, str]
    why_not: str = ""
    either: bool = False
    application: str = "app:application"

    def is_explained(self, placement: str, reason: str) -> bool:
        """Tell whether it lives where it should, and the reason is the true one."""
        inside = placement == "in-process" and "it is clean (" in reason
        outside = placement == "spawned" and bool(self.why_not) and self.why_not in reason
        return inside or outside if self.either else outside if self.why_not else inside


def _wsgi(name: str, says: str, right: str, top: str = "", why_not: str = "", view: str = "pass") -> Kind:
    code = WSGI.format(name=name, top=textwrap.dedent(top), view=view, says=says)
    return Kind(f"{name}: {right}", {"app.py": code}, why_not)


def _helped(name: str) -> Kind:
    code = WSGI.format(name=name, top="import helper", view="pass", says="helper.whose()")
    files = {"app.py": code, "helper.py": f"def whose():\n    return 'the helper of {name}'\n"}
    return Kind(f"{name}: the helper of {name}", files, CLASHES, either=True)


def _django(name: str, zone: str | None = None, hour: int | None = None) -> Kind:
    files = {f"{name}_wsgi.py": DJANGO, f"{name}_settings.py": SETTINGS, f"{name}_urls.py": URLS}
    files = {path: text.format(name=name, zone=zone) for path, text in files.items()}
    why_not = "changed the time zone of the process" if zone else SECOND_DJANGO
    right = f"{name}: the title of {name} / {hour}"
    return Kind(right, files, why_not, either=not zone, application=f"{name}_wsgi:application")


def _of_all_kinds() -> Iterator[tuple[str, Kind]]:
    for name, number in (("one", 1), ("two", 2)):
        yield name, _wsgi(name, "json.loads(TEXT)", f"[{number}]", f"TEXT = '[{number}]'")
        yield f"helped-{name}", _helped(f"helped-{name}")
        handler = f"def handler_{name}(*_):\n    pass\n\nsignal.signal(signal.SIGUSR2, handler_{name})"
        says = "signal.getsignal(signal.SIGUSR2).__name__"
        yield (
            f"signal-{name}",
            _wsgi(f"signal-{name}", says, f"handler_{name}", handler, "changed the handler of SIGUSR2"),
        )
        patch = f"json.loads = lambda *_: 'patched by {name}'"
        why_not = "patched the standard library: json.loads"
        yield f"patch-{name}", _wsgi(f"patch-{name}", "json.loads('[0]')", f"patched by {name}", patch, why_not)
    read = "open('mine.txt').read()"
    inside = "os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'data'))"
    yield "chdir", _wsgi("chdir", read, "its own file", inside, "changed the working directory")
    yield "late", _wsgi("late", read, "its own file", why_not="when it answered requests", view=inside)
    yield (
        "environ",
        _wsgi("environ", "os.environ['WHO']", "me", "os.environ['WHO'] = 'me'", "changed os.environ['WHO']"),
    )
    thread = "import threading\nthreading.Timer(9999, print).start()"
    yield "thread", _wsgi("thread", "threading.active_count() > 1", "True", thread, "started a thread")
    yield "flask", Kind("flask: /", {"app.py": FLASK})
    yield "blog", _django("blog")
    yield "shop", _django("shop")
    yield "tokyo", _django("tokyo", "Asia/Tokyo", 9)


KINDS = dict(_of_all_kinds())


def fill(home: HomeDir) -> None:
    """Write and enable the sites."""
    for name, kind in KINDS.items():
        folder = home.path / "sites" / name
        (folder / "data").mkdir(parents=True)
        for path, text in {**kind.files, "data/mine.txt": "its own file"}.items():
            (folder / path).write_text(text)
        keys = f"domains = {name}.test\nlocation = {folder}\napplication = {kind.application}\n"
        home.ini(name, f"[service]\n{keys}")


def listed(home: HomeDir) -> list[dict[str, Any]]:
    """What ``list`` tells programs of the sites."""
    sites: list[dict[str, Any]] = json.loads(home.multisite("--json", "list"))["sites"]
    return sites


def verdicts(home: HomeDir) -> dict[str, tuple[str, str]]:
    """Where each site lives, and why."""
    return {each["name"]: (each["placement"], each["reason"]) for each in listed(home)}
