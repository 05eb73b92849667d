"""`multisite serve` for a developer: projects as they are, code that changes, the debugger, pages that explain."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.projects import SERVED, write

from .harness import PACKAGE_ROOT, PATIENCE, HomeDir, Server, eventually, free_port

pytestmark = pytest.mark.servers

APP = """\
def application(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        kept = {"a": 41}
        raise RuntimeError("broken on purpose")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"version 1"]
"""
MODES = ("in-process", "spawned")


def serve(home: HomeDir, *options: str, env: dict[str, str] | None = None) -> Server:
    port = free_port()
    argv = [sys.executable, "-m", "multisite", "serve", "--port", str(port), *options]
    return Server(argv, port, home.path / "log" / "serve.log", {**home.environ(), **(env or {})})


@pytest.fixture
def home(tmp_path: Path) -> HomeDir:
    (tmp_path / "home").mkdir()
    return HomeDir(tmp_path / "home").create()


def change(path: Path, old: str, new: str) -> None:
    """As an editor saves, in one step."""
    draft = path.with_suffix(".draft")
    draft.write_text(path.read_text().replace(old, new))
    draft.replace(path)


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Every kind of project, as `new --from --enable` sets it up."""
    path = tmp_path_factory.mktemp("kinds")
    (path / "home").mkdir()
    home = HomeDir(path / "home").create()
    for kind, (files, _, _) in SERVED.items():
        said = home.multisite("new", kind, "--from", str(write(path / kind, files)), "--enable")
        assert "enabled" in said, said
    with serve(home, "--reload") as server:
        yield server


@pytest.mark.parametrize("kind", SERVED)
def test_what_was_guessed_is_served(all_kinds: Server, kind: str) -> None:
    answer = all_kinds.ask(f"{kind}.localhost")
    assert (answer.status, answer.text) == (200, SERVED[kind][2]), all_kinds.log()


@pytest.mark.parametrize("mode", MODES)
def test_a_change_of_a_sites_code_is_there_with_the_next_request_and_reloads_it_alone(home: HomeDir, mode: str) -> None:
    for name in ("one", "two"):
        home.site(name, APP + "import os, time\nborn = time.monotonic_ns()\n", mode=mode)
    neighbour = home.path / "sites/two/two_app.py"
    change(neighbour, 'b"version 1"', 'b"%d" % born')
    with serve(home, "--reload") as server:
        assert server.ask("one.test").text == "version 1"
        born, workers = server.ask("two.test").text, server.workers()
        for number in (2, 3):
            change(home.path / "sites/one/one_app.py", f"version {number - 1}", f"version {number}")
            assert server.ask("one.test").text == f"version {number}"
        assert (server.ask("two.test").text, server.workers()) == (born, workers)


@pytest.mark.parametrize("mode", MODES)
def test_modules_and_templates_count_as_code_and_what_is_installed_does_not(home: HomeDir, mode: str) -> None:
    where = home.site(
        "one",
        """
        import os
        from words import WORD
        here = os.path.dirname(os.path.abspath(__file__))
        TEXT = open(os.path.join(here, "templates", "page.html")).read()
        def application(environ, start_response):
            start_response("200 OK", [])
            return [f"{WORD} {TEXT}".encode()]
        """,
        mode=mode,
    )
    write(where, {"words.py": "WORD = 'a'", "templates/page.html": "x", ".venv/lib/other.py": "", "data/log.txt": ""})
    with serve(home, "--reload") as server:
        assert server.ask("one.test").text == "a x"
        change(where / "words.py", "'a'", "'b'")
        assert server.ask("one.test").text == "b x"
        change(where / "templates/page.html", "x", "y")
        assert server.ask("one.test").text == "b y"
        reloads = server.log().count("reloading") + server.log().count("its code changed")
        for other in (".venv/lib/other.py", "data/log.txt"):
            change(where / other, "", "#")
        assert server.ask("one.test").text == "b y"
        assert server.log().count("reloading") + server.log().count("its code changed") == reloads == 2


@pytest.mark.parametrize("mode", MODES)
def test_code_that_does_not_load_is_shown_and_mended_by_the_next_save(home: HomeDir, mode: str) -> None:
    where = home.site("one", APP, mode=mode)
    with serve(home, "--reload", "--debug") as server:
        assert server.ask("one.localhost").text == "version 1"
        change(where / "one_app.py", "def application", "import nowhere_to_be_found\ndef application")
        broken = server.ask("one.localhost")
        assert broken.status in (500, 503)
        assert "No module named &#x27;nowhere_to_be_found&#x27;" in broken.text
        change(where / "one_app.py", "import nowhere_to_be_found\n", "")
        assert server.ask("one.localhost").text == "version 1"


def test_a_failed_start_is_told_step_by_step_in_debug_mode_only(home: HomeDir) -> None:
    home.site("one", "print('I was here')\nraise SystemExit('I leave')", mode="spawned")
    for options, shown in ((("--debug",), True), ((), False)):
        with serve(home, *options) as server:
            answer = server.ask("one.test")
            assert answer.status == 503
            page = answer.text
            assert bool(re.search(r"prepare +\d+ ms\n.*start up +\d+ ms\n", page, re.DOTALL)) is shown, page
            assert ("I was here" in page) is shown
            assert ("I leave" in page) is shown


@pytest.mark.parametrize("mode", MODES)
def test_flask_leaves_its_errors_to_the_debugger(home: HomeDir, mode: str) -> None:
    """Flask answers with a page of its own unless it is told to debug; no PIN is said where there is no debugger."""
    home.site(
        "one",
        "from flask import Flask\napplication = Flask('one')\napplication.add_url_rule('/', view_func=lambda: 1 / 0)\n",
        mode=mode,
    )
    home.site("two", APP, mode="spawned", server="gunicorn")
    with serve(home, "--debug") as server:
        page = server.ask("one.localhost").text
        assert "ZeroDivisionError" in page and "Werkzeug Debugger" in page
        assert "one: " in server.log() and "PIN" not in re.search(r"^two: .*$", server.log(), re.MULTILINE)[0]  # type: ignore[index]


@pytest.mark.parametrize("mode", MODES)
def test_the_debugger_evaluates_in_the_frame_for_who_knows_the_pin(home: HomeDir, mode: str) -> None:
    """werkzeug's console, with the local variables of the request that failed."""
    home.site("one", APP, mode=mode)
    with serve(home, "--debug") as server:
        found = re.search(r"^one: .*debugger PIN (\d{3}-\d{3}-\d{3})$", server.log(), re.MULTILINE)
        assert found
        page = server.ask("one.localhost", "/fail").text
        assert "RuntimeError" in page and "broken on purpose" in page
        secret = re.search(r'SECRET = "(\w+)"', page)
        frames = re.findall(r'id="frame-(\d+)"', page)
        assert secret and frames
        console = {"__debugger__": "yes", "s": secret[1], "frm": frames[-1]}

        def ask(cookie: str = "", host: str = "one.localhost", **words: str) -> tuple[int, str, str]:
            import http.client

            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
            headers = {"Host": host, **({"Cookie": cookie} if cookie else {})}
            connection.request("GET", f"/?{urlencode({**console, **words})}", headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer.status, text, (answer.getheader("Set-Cookie") or "").partition(";")[0]

        evaluate = {"cmd": "kept['a'] + 1"}
        assert "42" not in ask(**evaluate)[1]
        assert '"auth": false' in ask(cmd="pinauth", pin="000-000-000")[1]
        _, text, cookie = ask(cmd="pinauth", pin=found[1])
        assert '"auth": true' in text
        assert ask(cookie, **evaluate)[1].rstrip().endswith('<span class="number">42</span>')
        assert "42" not in ask(cookie, host="one.test", **evaluate)[1]  # a name that somebody else may own


@pytest.mark.parametrize("mode", MODES)
def test_what_came_through_a_front_end_sees_no_debugger(home: HomeDir, mode: str) -> None:
    home.site("one", APP, mode=mode)
    with serve(home, "--debug") as server:
        import http.client

        for field in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
            connection.request("GET", "/fail", headers={"Host": "one.localhost", field: "10.0.0.1"})
            answer = connection.getresponse()
            assert answer.status == 500
            assert b"broken on purpose" not in answer.read()
            connection.close()


def test_an_interpreter_without_werkzeug_shows_the_traceback_as_text(home: HomeDir, tmp_path: Path) -> None:
    import subprocess

    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    home.site("one", APP, python=str(venv))
    with serve(home, "--debug") as server:
        answer = server.ask("one.localhost", "/fail")
        assert answer.status == 500
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text.startswith("Traceback") and answer.text.endswith("RuntimeError: broken on purpose\n")
        assert server.ask("one.localhost").text == "version 1"


def test_each_site_answers_its_name_in_localhost_unless_a_domain_says_otherwise(home: HomeDir) -> None:
    home.site("one", domains="blog.example", redirect_to_canonical="yes")
    home.site("two", domains="one.example, two.localhost")
    home.site("three", domains="*.three.localhost")
    home.site("four", domains="five.localhost", mount="/api")
    home.site("five", domains="x.example")
    with serve(home) as server:
        for host, text in {
            "one.localhost": "site one",
            "two.localhost": "site two",
            "three.localhost": "site three",
            "any.three.localhost": "site three",
        }.items():
            assert server.ask(f"{host}:{server.port}").text == text
        assert server.ask("four.localhost", "/api/x").text == "site four"
        assert server.ask("five.localhost", "/").status == 404  # the domain of another site
        assert server.ask("six.localhost").status == 404
        home.site("six", domains="y.example")
        eventually(lambda: server.ask("six.localhost").status == 200, PATIENCE)
        assert f"one: http://one.localhost:{server.port}/ http://blog.example:{server.port}/" in server.log()
        hosts = [f"{name}.localhost" for name in ("one", "two", "three", "any.three", "four", "six")]
        told = {host: home.multisite("explain", f"http://{host}:{server.port}/api/x") for host in hosts}
        for host, text in told.items():
            assert re.search(rf"^site: +{host.split('.')[-2]}$", text, re.MULTILINE), text
        assert all(
            "only with multisite serve, which is running" in told[f"{name}.localhost"]
            for name in ("one", "four", "six")
        )
        assert "multisite serve" not in told["any.three.localhost"]  # its own domain
    assert "with multisite serve, the site one answers it" in home.multisite("explain", "one.localhost")


def test_a_production_server_answers_no_such_name_unless_it_is_told_to(home: HomeDir) -> None:
    from .harness import gunicorn

    home.site("one", domains="blog.example")
    with gunicorn(home) as server:
        assert server.ask("blog.example").status == 200
        assert server.ask("one.localhost").status == 404
        home.conf((home.path / "moya.conf").read_text() + "[service]\nlocalhost_names = yes\n")
        eventually(lambda: server.ask("one.localhost").status == 200, PATIENCE)


def test_a_change_of_an_installed_module_starts_the_worker_anew(home: HomeDir, tmp_path: Path) -> None:
    """multisite itself, that is: here a copy, so that nothing is touched."""
    import shutil

    shutil.copytree(PACKAGE_ROOT / "multisite", tmp_path / "copy" / "multisite")
    home.site("one", APP)
    with serve(home, "--reload", env={"PYTHONPATH": str(tmp_path / "copy")}) as server:
        before = server.workers()
        change(tmp_path / "copy/multisite/errors/pages.py", '"""The pages', '"""All pages')
        eventually(lambda: server.workers() and not server.workers() & before, PATIENCE)
        assert server.ask("one.test").text == "version 1"


def test_the_supervisor_that_runs_already_is_told_of(home: HomeDir) -> None:
    home.site("one", APP, mode="spawned")
    with serve(home) as first:
        assert first.ask("one.test").status == 200
        with serve(home, "--debug") as second:
            assert "a supervisor is already running" in second.log()
            assert "broken on purpose" not in second.ask("one.localhost", "/fail").text


def test_an_address_that_strangers_can_reach_answers_no_such_name(home: HomeDir) -> None:
    home.site("one", domains="blog.example")
    port = free_port()
    argv = [sys.executable, "-m", "multisite", "serve", "--bind", f"127.0.0.1:{port}"]
    argv += ["--bind", f"unix:{home.runtime}/front.sock"]
    with Server(argv, port, home.path / "log" / "serve.log", home.environ()) as server:
        assert server.ask("blog.example").status == 200
        assert server.ask("one.localhost").status == 404
