"""Apache with mod_wsgi, embedded and daemon mode, with the configurations of docs/deploy/mod_wsgi.md."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest

from .harness import (
    PACKAGE_ROOT,
    HomeDir,
    Server,
    assert_serves,
    debian_install,
    debian_program,
    documented,
    free_port,
    not_tested,
    two_sites,
)
from .system_python import system_virtualenv

pytestmark = pytest.mark.servers

MODULES = Path("/usr/lib/apache2/modules")

# All that Debian's apache2.conf would say, in a ServerRoot of our own: the machine's Apache is not touched.
APACHE = """
ServerRoot {root}
PidFile {root}/apache.pid
DefaultRuntimeDir {root}
Mutex file:{root}
Listen 127.0.0.1:{port}
ServerName localhost
ErrorLog {root}/log/apache.log
LogLevel warn
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
StartServers 1
ServerLimit 2
ThreadsPerChild 8
MaxRequestWorkers 16
WSGISocketPrefix {root}/wsgi
{user}
{site}
"""


def apache_with_mod_wsgi() -> str:
    """The program; Debian's packages are installed where they are missing and can be."""
    packages = ("apache2-bin", "libapache2-mod-wsgi-py3")  # the server without its service
    apache = debian_program("apache2", *packages)
    if not (MODULES / "mod_wsgi.so").exists() and not debian_install(*packages):
        not_tested(f"mod_wsgi: not installed (apt-get install {' '.join(packages)})")
    return apache


def user_and_group() -> tuple[str, str]:
    """Whom Apache's workers run as: not root, or ourselves."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name, ""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return ("www-data", "www-data") if "www-data" in names else ("nobody", "nogroup")


def write_configuration(home: HomeDir, port: int, mode: str) -> Path:
    """The documented virtual host of `mode`, and a main configuration around it."""
    user, group = user_and_group()
    root, virtualenv = home.path, system_virtualenv()
    (root / "multisite.wsgi").write_text(
        documented("mod_wsgi.md", "/etc/moya/multisite.wsgi", {"/etc/moya": str(root)})
    )
    site = documented(
        "mod_wsgi.md",
        f"/etc/apache2/sites-available/multisite.conf ({mode} mode)",
        {"*:80": f"127.0.0.1:{port}", "/etc/moya": str(root), "/opt/multisite": str(virtualenv)},
    )
    # multisite comes from a copy that the workers may read, in place of an installation in the virtualenv.
    if mode == "daemon":
        site = site.replace("python-home=", f"python-path={root}/package python-home=")
        if group:
            site = site.replace("user=www-data group=www-data", f"user={user} group={group}")
        else:
            site = site.replace("user=www-data group=www-data ", "")
    else:
        site = f"WSGIPythonPath {root}/package\n{site}"
    user_lines = f"User {user}\nGroup {group}" if group else ""
    configuration = root / "apache.conf"
    configuration.write_text(APACHE.format(root=root, port=port, modules=MODULES, user=user_lines, site=site))
    return configuration


@pytest.mark.parametrize("mode", ["embedded", "daemon"])
def test_mod_wsgi_serves_two_domains(public_path: Path, mode: str) -> None:
    """The documented virtual host answers two domains."""
    apache = apache_with_mod_wsgi()
    home, port = two_sites(public_path), free_port()
    shutil.copytree(PACKAGE_ROOT / "multisite", public_path / "package" / "multisite")
    for path in (home.runtime, public_path / "run", public_path / "state"):
        path.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(path, user_and_group()[0])
    configuration = write_configuration(home, port, mode)
    environ = home.environ()
    del environ["PYTHONPATH"]
    argv = [apache, "-f", str(configuration), "-D", "FOREGROUND"]
    with Server(argv, port, public_path / "log" / "apache.log", environ) as server:
        assert_serves(server, home)
