"""The pages in Chromium at three widths, light and dark: no complaint of the browser, nothing that axe-core finds."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from ..servers.harness import debian_program, not_tested
from .rows import HOSTILE, failure, many, row
from .test_page import Visit

pytestmark = pytest.mark.servers

PACKAGES = ("playwright-core", "axe-core")
PATHS = ("/?sort=-memory", "/site/blog?ask=stop", "/site/evil", "/incident/c0ffee42")
LOOKS = 3  # as the script has them


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two packages of npm."""
    npm = shutil.which("npm") or not_tested("npm: not installed, so the pages are looked at by no browser")
    folder = tmp_path_factory.mktemp("npm")
    options = ["--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
    ways = (["--offline"], ["--fetch-retries=0", "--fetch-timeout=20000"])  # from npm's own cache, else at once or not
    installs = ([npm, "install", *options, *way, *PACKAGES] for way in ways)
    if not any(
        subprocess.run(argv, capture_output=True, timeout=120, check=False).returncode == 0 for argv in installs
    ):
        not_tested(f"npm cannot install {' '.join(PACKAGES)}")
    return folder / "node_modules"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_told: Any) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """A server with a thousand sites, of which some are in trouble, and one is hostile."""
    told = many(1000)
    told["sites"] += [
        row("blog", state="broken", failure=failure(), in_flight=1, latencies=[5] * 19),
        row("evil", domains=[HOSTILE], state="backoff", reason=HOSTILE, failure=failure(HOSTILE, remedy=HOSTILE)),
    ]
    visit = Visit(told, has_buttons=True)
    visit.subject.more = {"lines": [HOSTILE] * 20, "settings": [("domains", HOSTILE, HOSTILE)]}

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        return visit.page.answer(environ, start_response, forwarded=False)

    with make_server("127.0.0.1", 0, application, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://status.localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_browser_has_nothing_to_say(modules: Path, origin: str) -> None:
    node = debian_program("node", "nodejs")
    chromium = debian_program("chromium", "chromium")
    script = Path(__file__).parent / "browser.mjs"
    argv = [node, str(script), str(modules), chromium, origin]
    done = subprocess.run(argv, input="\n".join(PATHS), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(PATHS) * LOOKS
    for each in found:
        where = (each["path"], each["width"], each["colorScheme"])
        assert each["said"] == [], where
        assert each["violations"] == [], where
        assert each["wide"] <= 0, (where, "the page is wider than the window")
        assert each["first"] == "skip", (where, "the first stop of the keyboard is the way past the header")
