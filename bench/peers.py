"""The peers that a user would take instead, installed where they are missing, on the very same sites.

All run the interpreter of the distribution, which uWSGI's plugin and mod_wsgi are built for, with one virtualenv; so do
our own sites when they are compared. The virtualenv is kept in the temporary directory from one run to the next.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common import Server, free_port

from tests.servers.harness import Answer, ask, debian_install, eventually, find_program

PYTHON = "/usr/bin/python3"
PACKAGES = ("flask~=3.0", "django~=5.2")
UWSGI_PLUGINS = Path("/usr/lib/uwsgi/plugins")
APACHE_MODULES = Path("/usr/lib/apache2/modules")
PATIENCE = 30.0

FLASK = """\
import flask

application = flask.Flask(__name__)


@application.get("/")
def hello():
    return "hello\\n"
"""
DJANGO = """\
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
"""
SETTINGS = """\
from pathlib import Path

SECRET_KEY = "not secret, this is a measurement"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "project.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db.sqlite3")}}
USE_TZ = True
STATIC_URL = "static/"
"""
URLS = """\
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls), path("", lambda request: HttpResponse("hello\\n"))]
"""


def write_site(folder: Path, kind: str) -> Path:
    """A minimal Flask application, or a Django project as ``startproject`` makes it, with `wsgi.py` on top."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wsgi.py").write_text(FLASK if kind == "flask" else DJANGO)
    if kind == "django":
        (folder / "project").mkdir(exist_ok=True)
        for name, text in (("__init__", ""), ("settings", SETTINGS), ("urls", URLS)):
            (folder / "project" / f"{name}.py").write_text(text)
    return folder


def virtualenv() -> Path:
    """The virtualenv of all sites."""
    folder = Path(tempfile.gettempdir()) / "multisite-bench-virtualenv"
    done = folder / "installed"
    told = " ".join(PACKAGES)
    if not done.exists() or done.read_text() != told:
        if subprocess.run([PYTHON, "-m", "venv", "--clear", folder], capture_output=True, check=False).returncode:
            debian_install("python3-venv")
            subprocess.run([PYTHON, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", *PACKAGES], check=True)
        done.write_text(told)
    return folder


def program(name: str, *packages: str) -> str:
    """The path of a program, installed if need be."""
    if not find_program(name):
        debian_install(*packages)
    return find_program(name) or sys.exit(f"bench: {name} is missing (apt-get install {' '.join(packages)})")


@contextmanager
def uwsgi(folder: Path, sites: dict[str, Path]) -> Iterator[int]:
    """uWSGI's emperor with on-demand vassals behind nginx; yields the port. `sites`: host → folder."""
    uwsgi_path = program("uwsgi", "uwsgi-core")
    if not (UWSGI_PLUGINS / "python3_plugin.so").exists():
        debian_install("uwsgi-plugin-python3")
    vassals, sockets = folder / "vassals", folder / "sockets"
    for made in (vassals, sockets, folder / "nginx"):
        made.mkdir(parents=True)
    folder.chmod(0o755)
    for host, place in sites.items():
        (vassals / f"{host}.ini.socket").write_text(str(sockets / host))
        (vassals / f"{host}.ini").write_text(
            f"[uwsgi]\nplugins-dir = {UWSGI_PLUGINS}\nplugin = python3\nmaster = true\nneed-app = true\n"
            f"disable-logging = true\nprocesses = 1\nvirtualenv = {virtualenv()}\nchdir = {place}\n"
            f"wsgi-file = wsgi.py\nsocket = {sockets / host}\nlisten = 100\nidle = 600\ndie-on-idle = true\n"
        )
    port = free_port()
    emperor = [uwsgi_path, "--master", "--die-on-term", "--emperor", str(vassals)]
    emperor += ["--emperor-on-demand-extension", ".socket"]
    with ExitStack() as running:
        log = running.enter_context((folder / "emperor.log").open("ab"))
        process = subprocess.Popen(emperor, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        running.callback(_end, process)
        running.enter_context(_nginx(folder / "nginx", port, sockets))
        eventually(lambda: len(list(sockets.iterdir())) == len(sites), PATIENCE, "the emperor has made all sockets")
        yield port


def _nginx(folder: Path, port: int, sockets: Path) -> Server:
    names = {
        "QUERY_STRING": "$query_string",
        "REQUEST_METHOD": "$request_method",
        "CONTENT_TYPE": "$content_type",
        "CONTENT_LENGTH": "$content_length",
        "REQUEST_URI": "$request_uri",
        "PATH_INFO": "$document_uri",
        "SERVER_PROTOCOL": "$server_protocol",
        "REMOTE_ADDR": "$remote_addr",
        "SERVER_PORT": "$server_port",
        "SERVER_NAME": "$host",
    }
    params = "".join(f"uwsgi_param {name} {value}; " for name, value in names.items())
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; user root; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; {paths}\n"
        f"server {{ listen 127.0.0.1:{port}; server_name ~^(?<site>.+)$;\n"
        f"location / {{ uwsgi_pass unix:{sockets}/$site; {params} uwsgi_read_timeout 60s; }} }} }}\n"
    )
    argv = [program("nginx", "nginx-light"), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    return Server(argv, port, folder / "output.log", {"PATH": "/usr/sbin:/usr/bin:/bin"})


@contextmanager
def mod_wsgi(folder: Path, sites: dict[str, Path]) -> Iterator[tuple[int, list[int]]]:
    """Apache with one daemon process group for each site; yields the port and the pid of Apache."""
    apache = program("apache2", "apache2-bin", "apache2")
    if not list(APACHE_MODULES.glob("mod_wsgi.so*")):
        debian_install("libapache2-mod-wsgi-py3")
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    port = free_port()
    load = "\n".join(
        f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in ("mpm_event", "authz_core", "wsgi")
    )
    hosts = "\n".join(
        f"WSGIDaemonProcess {host} processes=1 threads=2 python-home={virtualenv()} python-path={place}\n"
        f"<VirtualHost 127.0.0.1:{port}>\nServerName {host}\nWSGIProcessGroup {host}\n"
        f"WSGIApplicationGroup %{{GLOBAL}}\nWSGIScriptAlias / {place}/wsgi.py\n</VirtualHost>"
        for host, place in sites.items()
    )
    (folder / "httpd.conf").write_text(
        f"ServerRoot {folder}\n{load}\nPidFile {folder}/pid\nServerName localhost\nUser www-data\nGroup www-data\n"
        f"Listen 127.0.0.1:{port}\nErrorLog {folder}/error.log\nStartServers 1\nServerLimit 2\nThreadsPerChild 25\n"
        f"MaxRequestWorkers 50\nMutex file:{folder}\nDefaultRuntimeDir {folder}\nWSGISocketPrefix {folder}/wsgi\n"
        f"WSGIRestrictEmbedded On\n<Directory />\nRequire all granted\n</Directory>\n{hosts}\n"
    )
    argv = [apache, "-d", str(folder), "-f", str(folder / "httpd.conf"), "-DFOREGROUND"]
    with Server(argv, port, folder / "output.log", {"PATH": "/usr/sbin:/usr/bin:/bin"}) as server:
        yield port, [server.process.pid]


def wait_for(port: int, host: str) -> Answer:
    """The first answer of 200."""
    found: list[Answer] = []

    def answers() -> bool:
        found.append(ask(port, host))
        return found[-1].status == 200

    eventually(answers, PATIENCE, f"{host} answers")
    return found[-1]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(PATIENCE)
