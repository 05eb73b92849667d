"""Make status.svg, the picture in README.md: `python docs/pictures/status.py` in a checkout after `make venv`.

It serves demonstration sites from a scratch home, sends them some requests, and records what `multisite status` prints
on a terminal, with /opt/multisite for the checkout, /etc/moya for the scratch home and /srv for the sites. Look at the
picture before you commit it.
"""

from __future__ import annotations

import io
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

CHECKOUT = Path(__file__).resolve().parents[2]
COLUMNS = 112
SITES = {  # what each file says, and how many requests the site gets
    "blog": ("location = {demo}/flask\napplication = app:app", 412),
    "intranet": ("location = {demo}/django\napplication = demoproject.wsgi:application", 86),
    "hello": ("location = {demo}/hello\napplication = app:application\nmode = in-process", 120),
    "tickets": ("location = {demo}/flask\napplication = app:app", 0),
    "wiki": ("location = {demo}/wiki\napplication = wiki:application", 1),
}
WIKI = 'import os\n\nSECRET = os.environ["WIKI_SECRET"]\n'  # which nobody has set


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="multisite-picture-") as scratch:
        lines = record(Path(scratch))
    console = Console(width=COLUMNS, record=True, file=io.StringIO())
    console.print(Text.assemble(("$ ", "bold green"), ("multisite status", "bold")))
    console.print(Text.from_ansi(lines.rstrip()), end="")
    svg = console.export_svg(title="multisite", theme=MONOKAI, unique_id="status")
    head, _, rest = svg.partition("    @font-face {")  # a picture that loads nothing from elsewhere
    Path(__file__).with_suffix(".svg").write_text(head + "    .status-matrix" + rest.partition("    .status-matrix")[2])


def record(scratch: Path) -> str:
    """Serve the sites from a home in `scratch` and return what `multisite status` prints."""
    multisite = str(Path(sys.executable).with_name("multisite"))
    environ = {**os.environ, "MOYA_SERVICE_HOME": str(scratch), "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    environ.pop("NO_COLOR", None)
    shutil.copytree(CHECKOUT / "sites-available", scratch / "demo")
    (scratch / "demo" / "wiki").mkdir()
    (scratch / "demo" / "wiki" / "wiki.py").write_text(WIKI)
    for name in ("sites-available", "sites-enabled"):
        (scratch / name).mkdir()
    (scratch / "moya.conf").write_text(
        "[projects]\nread = sites-enabled/*.ini\n[service]\nruntime_dir = run\nstate_dir = state\n"
        "[supervisor]\nallow_root = yes\ndefault_user = root\n"
    )
    for name, (text, _requests) in SITES.items():
        file = scratch / "sites-available" / f"{name}.ini"
        file.write_text(f"[service]\ndomains = {name}.localhost\n{text.format(demo=scratch / 'demo')}\n")
        (scratch / "sites-enabled" / file.name).symlink_to(f"../sites-available/{file.name}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = [multisite, "serve", "--workers", "1", "--port", str(port)]
    server = subprocess.Popen(serve, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for name, (_text, requests) in SITES.items():
            for _ in range(requests):
                ask(port, name)
        while "loading" in printed([multisite, "status"], environ):
            time.sleep(0.1)  # the preloader is not ready yet
        text = printed([multisite, "status"], environ)
        for place, name in ((CHECKOUT, "/opt/multisite"), (scratch / "demo", "/srv"), (scratch, "/etc/moya")):
            text = text.replace(str(place), name)
        return text
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def ask(port: int, name: str) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": f"{name}.localhost"})
    for _ in range(600):
        try:
            urllib.request.urlopen(request).read()
            return
        except urllib.error.HTTPError:
            return  # a site that fails is part of the picture
        except OSError:
            time.sleep(0.1)  # the server does not listen yet


def printed(command: list[str], environ: dict[str, str]) -> str:
    """Return what the command prints on a terminal."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(command, env=environ, stdin=terminal, stdout=terminal, stderr=terminal):
        os.close(terminal)
        got = b""
        while True:
            try:
                more = os.read(controller, 65536)
            except OSError:
                break
            if not more:
                break
            got += more
    return got.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    main()
