"""A home in a temporary directory, made of small real sites."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

from multisite.service import Service

MOYA_CONF = """[projects]
read = sites-enabled/*.ini
[service]
state_dir = state
runtime_dir = run
temp_dir = temp
[defaults]
share = yes
[supervisor]
allow_root = yes
examine = no
"""

HELLO = """
def application(environ, start_response):
    body = "{text}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class TestHome:
    """Files of a home, and a `Service` over them with a clock that only moves when told."""

    __test__ = False

    def __init__(self, path: Path, moya_conf: str = MOYA_CONF) -> None:
        self.path = path
        for name in ("sites-available", "sites-enabled", "sites", "temp"):
            (path / name).mkdir(parents=True, exist_ok=True)
        (path / "moya.conf").write_text(moya_conf)
        self.now = 1000.0
        self.service = Service(str(path))
        self.service._elsewhere = None  # sites that cannot share say why; tests/servers has them served
        self.service._clock = self.service._live._clock = lambda: self.now

    def code(self, site: str, **files: str) -> Path:
        """Write modules (``app="…"`` is app.py) into the folder of a site."""
        folder = self.path / "sites" / site
        folder.mkdir(parents=True, exist_ok=True)
        for stem, text in files.items():
            (folder / f"{stem}.py").write_text(textwrap.dedent(text))
        return folder

    def ini(self, site: str, text: str = "", enable: bool = True, **keys: str) -> Path:
        """Write a site file; without `text` one whose [service] has `keys`."""
        keys = {"domains": f"{site}.test", "location": str(self.path / "sites" / site), **keys}
        keys.setdefault("application", "app:application")
        body = text or "[service]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        path = self.path / "sites-available" / f"{site}.ini"
        path.write_text(body)
        if enable:
            self.enable(site)
        return path

    def enable(self, site: str) -> Path:
        """Link the site's file as ensite does."""
        link = self.path / "sites-enabled" / f"{site}.ini"
        if not link.is_symlink():
            os.symlink(f"../sites-available/{site}.ini", link)
        return link

    def disable(self, site: str) -> None:
        """Take the link away as dissite does."""
        (self.path / "sites-enabled" / f"{site}.ini").unlink()

    def hello(self, site: str, text: str = "", **keys: str) -> None:
        """Make and enable a site that answers with `text` (its name)."""
        self.code(site, app=HELLO.format(text=text or site))
        self.ini(site, **keys)

    def get(self, host: str, path: str = "/", **environ: Any) -> Answer:
        """Ask the service, through `wsgiref.validate`."""
        return ask(self.service, host, path, **environ)

    def later(self, seconds: float = 1.1) -> None:
        """Move the clock on."""
        self.now += seconds


class Answer:
    """What one request got."""

    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = int(status.split(maxsplit=1)[0])
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body
        self.text = body.decode()

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.text[:200]!r}>"


def ask(app: Any, host: str, path: str = "/", **environ: Any) -> Answer:
    """Make one request of `app` and check both sides against PEP 3333."""
    from wsgiref.util import setup_testing_defaults
    from wsgiref.validate import validator

    full: dict[str, Any] = {
        "PATH_INFO": path,
        "HTTP_HOST": host,
        "REMOTE_ADDR": "127.0.0.1",
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
    }
    full |= environ
    setup_testing_defaults(full)
    got: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        got[:] = [status, headers]
        return lambda data: None

    body = validator(app)(full, start_response)
    try:
        content = b"".join(body)
    finally:
        body.close()
    return Answer(got[0], got[1], content)
