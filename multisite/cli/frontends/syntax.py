"""The web server's own syntax check, on rules that listen nowhere and log into a temporary folder."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from multisite.cli.frontends.blocks import Listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from multisite.cli.frontends.blocks import Front

TIMEOUT = 60  # seconds
DAEMONS = "/usr/sbin:/usr/local/sbin"  # not in every user's PATH

NGINX = """\
pid {root}/pid;
error_log stderr;
events {{}}
http {{
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    include {root}/rules;
}}
"""
APACHE_MODULES = (
    "mpm_event authz_core authz_host alias dir mime env setenvif headers rewrite log_config ssl socache_shmcb "
    "proxy proxy_http proxy_uwsgi wsgi xsendfile"
)
APACHE_FOLDERS = (
    "/usr/lib/apache2/modules",
    "/usr/lib64/httpd/modules",
    "/usr/lib/httpd/modules",
    "/usr/local/libexec/apache24",
)
APACHE = """\
ServerRoot {root}
PidFile {root}/pid
DefaultRuntimeDir {root}
ErrorLog {root}/error.log
ServerName localhost
{modules}
Include {root}/rules
"""
LIGHTTPD = """\
server.document-root = "{root}"
server.bind = "{root}/socket"
server.port = 0
include "{root}/rules"
"""


class Checked(NamedTuple):
    """A server's verdict on rules; `program` is "" if it is not installed."""

    program: str
    fault: str = ""


def check(server: str, front: Front, render: Callable[[Front], str]) -> Checked:
    """Let `server` read the rules that `render` makes from `front`."""
    program = _find(PROGRAMS[server])
    if not program:
        return Checked("")
    with tempfile.TemporaryDirectory(prefix="multisite-") as root:
        caddy = version_of_caddy() if server == "caddy" else ()
        harmless = replace(front, logs=root, listen=_listen(server, root, front), caddy=caddy)
        with open(os.path.join(root, "rules"), "w", encoding="utf-8") as file:
            file.write(render(harmless))
        argv = [program, *_arguments(server, root)]
        done = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        output = (done.stderr + done.stdout).replace(root + "/", "").strip()
    return Checked(program, output or f"exit code {done.returncode}") if done.returncode else Checked(program)


@functools.cache
def version_of_caddy() -> tuple[int, ...]:
    """Return the version of the installed Caddy, () if there is none or its version is unknown."""
    program = _find(PROGRAMS["caddy"])
    if not program:
        return ()
    try:
        done = subprocess.run([program, "version"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else ()


PROGRAMS = {
    "nginx": ("nginx",),
    "apache": ("apache2", "httpd"),
    "lighttpd": ("lighttpd",),
    "caddy": ("caddy",),
    "haproxy": ("haproxy",),
}


def _find(names: tuple[str, ...]) -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), DAEMONS])
    return next(filter(None, (shutil.which(name, path=path) for name in names)), "")


def _listen(server: str, root: str, front: Front) -> tuple[Listen, ...]:
    """A check binds no port that is forbidden or in use."""
    return (Listen(path=f"{root}/listen"),) if server == "nginx" else front.listen


def _arguments(server: str, root: str) -> list[str]:
    def write(text: str) -> str:
        path = os.path.join(root, "configuration")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    if server == "nginx":
        return ["-t", "-q", "-p", root, "-e", "stderr", "-c", write(NGINX.format(root=root))]
    if server == "apache":
        return ["-t", "-f", write(APACHE.format(root=root, modules=_modules()))]
    if server == "lighttpd":
        return ["-tt", "-f", write(LIGHTTPD.format(root=root))]
    if server == "haproxy":
        return ["-c", "-f", os.path.join(root, "rules")]
    return ["validate", "--adapter", "caddyfile", "--config", os.path.join(root, "rules")]


def _modules() -> str:
    folder = next(filter(os.path.isdir, APACHE_FOLDERS), "")
    files = ((name, os.path.join(folder, f"mod_{name}.so")) for name in APACHE_MODULES.split())
    return "\n".join(f"LoadModule {name}_module {path}" for name, path in files if folder and os.path.isfile(path))
