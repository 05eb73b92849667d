"""What to say where a site's application, or something that it needs, is not there: cause, place and commands.

The workers, the site's own processes and the command line say the same.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

#: what pip calls a module that goes by another name there
PACKAGES = {
    **{"Crypto": "pycryptodome", "MySQLdb": "mysqlclient", "PIL": "Pillow", "bs4": "beautifulsoup4", "jwt": "PyJWT"},
    **{"corsheaders": "django-cors-headers", "cv2": "opencv-python-headless", "dateutil": "python-dateutil"},
    **{"dotenv": "python-dotenv", "environ": "django-environ", "paste": "PasteDeploy", "pkg_resources": "setuptools"},
    **{"rest_framework": "djangorestframework", "sklearn": "scikit-learn", "web": "web.py", "yaml": "PyYAML"},
}
FORM = "write it like MODULE:CALLABLE or PATH/TO/FILE.wsgi"


class NoSuchApp(Exception):
    """There is no such app.

    Attributes:
        reason: why, in one sentence without a final period.
        remedy: what to do about it, or "".
        key: the key of the site's ``[service]`` that is to blame.
    """

    def __init__(self, reason: str, remedy: str = "", key: str = "application") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason, self.remedy, self.key = reason, remedy, key


def name_remedy(name: str, known: Iterable[str]) -> str:
    """A remedy that names what is alike, else what there is at all, else ""."""
    from difflib import get_close_matches  # which few starts need

    names = sorted(set(known))
    near = get_close_matches(name[:80], names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "there is " + ", ".join(map(repr, names[:8])) if names else ""


def no_file(site: str, location: str, target: str) -> NoSuchApp:
    """What to say where the file that a site names is none."""
    path = os.path.normpath(os.path.join(location, target))
    if os.path.exists(path):
        return NoSuchApp(f"{path} is no regular file", "name a file of Python source")
    folder, name = os.path.split(path)
    known = [each for each in _listed(folder) if each.endswith((".py", ".wsgi", ".ini"))]
    prefix = os.path.dirname(target)
    first = os.path.join(prefix, _nearest(name, known) or (known[0] if len(known) == 1 else "FILE.wsgi"))
    remedy = name_remedy(name, known) or "a relative path starts at the site's location"
    commands = f"multisite set {site} application={first}, or multisite set {site} location=FOLDER"
    return NoSuchApp(f"there is no file {path}", _with_commands(remedy, commands))


def no_module(site: str, name: str, spec: Any, location: str, python: str, place: str = "") -> NoSuchApp:
    """What to say where a module is not there: the site's own, or one that it needs.

    Args:
        site: its name.
        name: of the module.
        spec: the site's application, with a kind, a target and an attribute ("" for none).
        location: the site's directory.
        python: the interpreter that has been searched.
        place: where it is imported, for a sentence, "" where that is not known.
    """
    target, attribute = spec.target, spec.attribute
    if target != name and not target.startswith(f"{name}."):
        return lacking(site, name, location, python, place)
    where = f"in {location or 'its location'}, nor does {python} have one"
    meant = "" if attribute or spec.kind == "django" else _with_colon(location, target)
    prefix, callable_ = ("django:", "") if spec.kind == "django" else ("", f":{attribute or 'application'}")
    prefix = "asgi:" if spec.kind == "asgi" else prefix
    if meant:
        remedy = f"write MODULE:CALLABLE, with a colon: multisite set {site} application={prefix}{meant}"
        return NoSuchApp(f"there is no module {name!r} {where}", remedy)
    beside = ".".join(name.split(".")[:-1])
    folder = os.path.join(location, *name.split(".")[:-1])
    known = [f"{beside}.{each}" if beside else each for each in modules(folder)]
    module = _nearest(name, known) or (known[0] if len(known) == 1 else "MODULE")
    commands = f"multisite set {site} application={prefix}{module}{callable_}, or " + _installing(
        site, name.partition(".")[0], location, python
    )
    also = f", and no file {location}/{target}" if target.endswith(".wsgi") and not attribute else ""
    return NoSuchApp(
        f"there is no module {name!r} {where}{also}", _with_commands(name_remedy(name, known) or FORM, commands)
    )


def lacking(site: str, name: str, location: str, python: str, place: str = "") -> NoSuchApp:
    """What to say where a site needs a module that its interpreter does not have; the arguments are `no_module`'s."""
    top = name.partition(".")[0]
    reason = f"it needs the module {name!r}, which {python} does not have{place}"
    return NoSuchApp(reason, _installing(site, PACKAGES.get(top, top), location, python))


def no_loader(site: str, name: str, python: str) -> NoSuchApp:
    """What to say where a name is that of no module, and of no loader of a package; the arguments are `no_module`'s."""
    prefix = os.path.dirname(os.path.dirname(python))
    commands = f"multisite set {site} application=MODULE:CALLABLE, or {_pip(python)} install PACKAGE"
    return NoSuchApp(f"there is neither a module nor a loader named {name!r} in {prefix}", f"{FORM}: {commands}")


def _with_commands(remedy: str, commands: str) -> str:
    return f"{remedy}{'' if remedy.endswith('?') else ':'} {commands}"


def _with_colon(location: str, target: str) -> str:
    """``blog:app`` for ``blog.app``, where there is a module ``blog`` that speaks of an ``app``; else ""."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        path = os.path.join(location, *parts[:cut])
        for source in (f"{path}.py", os.path.join(path, "__init__.py")):
            try:
                with open(source, "rb") as file:
                    text = file.read(1 << 20)
            except OSError:
                continue
            if re.search(rb"\b%s\b" % re.escape(parts[cut].encode()), text):
                return f"{'.'.join(parts[:cut])}:{'.'.join(parts[cut:])}"
    return ""


def _installing(site: str, package: str, location: str, python: str) -> str:
    """The two commands by which a site gets a package: one of its own interpreter, or another interpreter."""
    folder = os.path.dirname(python)
    prefix = os.path.dirname(folder)
    other = next((name for name in (".venv", "venv", "env") if _is_virtualenv(os.path.join(location, name))), "")
    if other and os.path.join(location, other) != prefix:
        return f"multisite set {site} python={other}, or {_pip(python)} install {package}"
    if not _is_virtualenv(prefix) and location and _is_managed(prefix):
        made = f"{python} -m venv {location}/.venv && {location}/.venv/bin/pip install {package}"
        return f"{made} && multisite set {site} python=.venv"
    return f"{_pip(python)} install {package}, or multisite set {site} python=VIRTUALENV"


def _pip(python: str) -> str:
    beside = os.path.join(os.path.dirname(python), "pip")
    return beside if os.path.exists(beside) else f"{python} -m pip"


def _is_virtualenv(prefix: str) -> bool:
    return os.path.isfile(os.path.join(prefix, "pyvenv.cfg"))


def _is_managed(prefix: str) -> bool:
    """Whether pip is to leave the packages of an interpreter to the system (PEP 668)."""
    from glob import escape, glob

    return bool(glob(os.path.join(escape(prefix), "lib", "python3*", "EXTERNALLY-MANAGED")))


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name[:80], sorted(known), n=1, cutoff=0.6)), "")


def modules(folder: str) -> list[str]:
    """The modules that a folder holds: files of Python source and packages."""
    names = _listed(folder)
    packages = [each for each in names if os.path.isfile(os.path.join(folder, each, "__init__.py"))]
    return [*(each[:-3] for each in names if each.endswith(".py") and each != "__init__.py"), *packages]


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder or "."))
    except OSError:
        return []
