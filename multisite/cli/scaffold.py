"""The files of a new home; they are written without overwriting anybody's work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

MOYA_CONF = """\
# Configuration of multisite: where its sites are, and options for all of them.
# The documentation describes every option; `multisite check` reports mistakes in this file.

[projects]
# globs relative to this file, one per line
read = sites-enabled/*.ini
logging = logging.ini

[service]
# the site that answers hosts that no site claims (none: 404)
default_site =
# front ends whose X-Forwarded-* headers are believed; if sites run as different users, the default is narrower
# trusted_proxies = 127.0.0.1, ::1, unix

[defaults]
# any key of a site's [service], for every site; set share = yes if several copies of each site are safe
# share = no

[env]
# environment for every site
"""

SUPERVISOR_SECTION = """\
[supervisor]
# gunicorn's workers, and a front end that connects directly to the sites, may use their sockets
socket_group = {group}
"""

LOGGING_INI = """\
# The log of the service itself: warnings and errors of all sites, each with the site's name.

[logger:root]
handlers = stderr
level = INFO

[handler:stderr]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter:plain]
format = %(asctime)s %(levelname)s (%(site)s) %(name)s: %(message)s
"""

HELLO_INI = """\
# A first site. `multisite dissite hello` takes it out of service.
[service]
domains = hello.localhost
location = %(home)s/sites-available/hello
application = hello:application
"""

HELLO_PY = '''\
"""The smallest site: a WSGI callable (PEP 3333)."""


def application(environ, start_response):
    """Greet the visitor."""
    body = b"Hello from multisite.\\n"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
'''

BASHTOOLS = """\
# source this file from ~/.bashrc: `moyacd NAME` changes to the location of a site
moyacd () {
    cd "$(moya-srv where "$1")"
}
alias moya-cd=moyacd
"""

FOLDERS = ("", "sites-available", "sites-enabled")
HOME_FILES = {"moya.conf": MOYA_CONF, "logging.ini": LOGGING_INI}
HELLO_FILES = {"sites-available/hello.ini": HELLO_INI, "sites-available/hello/hello.py": HELLO_PY}


def make_home(home: str, files: dict[str, str], force: bool) -> Iterator[tuple[str, str]]:
    """Create the folders and `files` of `home`; yield ("created" | "wrote" | "same" | "kept", path) for each.

    Raises:
        OSError: a folder or file cannot be made.
    """
    for folder in FOLDERS:
        path = os.path.join(home, folder) if folder else home
        if not os.path.isdir(path):
            os.makedirs(path)
            yield "created", path
    for name, text in files.items():
        path = os.path.join(home, name)
        yield ("wrote" if write_new(path, text, force) else "same" if _holds(path, text) else "kept"), path


def _holds(path: str, text: str) -> bool:
    """Tell whether a file has exactly this text."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read() == text
    except OSError:
        return False


def write_new(path: str, text: str, force: bool = False) -> bool:
    """Write `path` whole or not at all; False if it exists and `force` is not given."""
    if os.path.lexists(path) and not force:
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}~"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        if force:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # fails, unlike replace, if another process was faster
    except FileExistsError:
        return False
    except OSError as error:
        error.filename, error.filename2 = path, None  # the name that the user knows
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return True
