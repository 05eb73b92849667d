"""The environment of a site's processes: scrubbed, then what the configuration says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from multisite.config.model import Home, Site
from multisite.control.program import SERVERS_OWN
from multisite.supervisor.process.spec import Identity

MARKER = "MULTISITE_BACKEND"  # by which a site's leftovers are known
_KEPT = ("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_OUR_OWN = ("MULTISITE_", "MOYA_SERVICE_HOME", "PYTHONPATH")  # the supervisor's own PYTHONPATH leads to us
_NOT_A_SITES = (*SERVERS_OWN, *_OUR_OWN, "PYTHON", "LD_")  # the latter two are read when an interpreter starts


def base(environ: Mapping[str, str], who: Identity) -> dict[str, str]:
    """Return what every process starts from: nothing of the administrator's own but language, time zone and PATH."""
    kept = {name: value for name, value in environ.items() if name in _KEPT or name.startswith("LC_")}
    own = {"HOME": who.home, "USER": who.name, "LOGNAME": who.name, "SHELL": "/bin/sh"}
    return {"PATH": _DEFAULT_PATH, "LANG": "C.UTF-8", **kept, **own}


def around(
    site: Site, home: Home, environ: Mapping[str, str], who: Identity, python: str, *, may_move: bool = False
) -> dict[str, str]:
    """Return what a site's own [env] is put on top of.

    Args:
        site: its env_mode and pass_env count.
        home: its env counts.
        environ: of the supervisor.
        who: the site runs as.
        python: the interpreter whose virtualenv is to be found in PATH, "" for none.
        may_move: the site may come to live in the workers: it finds the same variables here and there.
    """
    service = {name: value for name, value in environ.items() if may_move and not name.startswith(_NOT_A_SITES)}
    passed = {name: value for name, value in environ.items() if _is_passed(name, site.pass_env)}
    if site.env_mode == "replace":
        return {**passed, **home.env}
    return with_venv({**service, **base(environ, who), **passed, **home.env}, python)


def _is_passed(name: str, patterns: Iterable[str]) -> bool:
    ours = name.startswith((*SERVERS_OWN, *_OUR_OWN))
    return not ours and any(fnmatchcase(name, pattern) for pattern in patterns)


def with_venv(env: dict[str, str], python: str) -> dict[str, str]:
    """Return `env` as ``activate`` leaves it, where `python` is the interpreter of a virtualenv."""
    folder = os.path.dirname(python)
    prefix = os.path.dirname(folder)
    if not os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
        return env
    return {**env, "VIRTUAL_ENV": prefix, "PATH": f"{folder}{os.pathsep}{env['PATH']}"}
