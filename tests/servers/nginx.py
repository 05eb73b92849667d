"""nginx in front of what a test is about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .harness import Server, debian_program

SETTINGS = """
daemon off;
worker_processes 1;
{user}
pid {root}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    types {{ text/css css; }}
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    {inside}
}}
"""


def nginx_settings(root: Path, inside: str, user: str = "") -> str:
    """Return a whole configuration of an nginx that keeps everything in `root`, with `inside` for its sites."""
    return SETTINGS.format(root=root, inside=inside, user=user and f"user {user};")


def nginx_server(root: Path, inside: str, port: int, environ: Mapping[str, str], user: str = "") -> Server:
    """An nginx with these settings, not started yet; one of `inside` listens on `port`."""
    root.mkdir(exist_ok=True)
    settings = root / "nginx.conf"
    settings.write_text(nginx_settings(root, inside, user))
    argv = [debian_program("nginx", "nginx-light"), "-p", str(root), "-e", "stderr", "-c", str(settings)]
    return Server(argv, port, root / "log" / "nginx.log", dict(environ))
