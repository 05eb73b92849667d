"""The grammar of ``application =``: how a site's file names its app.

Pure: nothing is imported and no file is looked at here, so ``multisite check`` may parse
every site. `multisite.inprocess.loader` uses the result.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal["module", "file", "paste", "django", "asgi", "moya", "plugin"]

MAX_LENGTH = 1000
EXAMPLE = "write it like blog.wsgi:application"

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
# Names that import accepts although an import statement cannot, as in gunicorn: my-app, my-site.wsgi, 2048.
_UNSPEAKABLE = re.compile(r"\w[\w-]*\Z|(?=.*-)[^\W\d][\w-]*(\.[^\W\d][\w-]*)+\Z")
_PLUGIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")
_PREFIXES = ("paste", "django", "asgi", "moya")


@dataclass(frozen=True)
class Call:
    """The literal arguments of a factory, as in ``blog:make_app('x', debug=True)``."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AppSpec:
    """Where an app is.

    Attributes:
        kind: how to load it; "plugin" is a loader of another package (`multisite.inprocess.loader`).
        target: the dotted module, the path of the file, the settings module or the plugin's name.
        attribute: the (dotted) name in the module, PasteDeploy's name of the app, or
            the argument of a plugin; "" stands for the kind's default.
        call: the arguments if the attribute is a factory, else None.
    """

    kind: Kind
    target: str
    attribute: str = ""
    call: Call | None = None

    @property
    def is_file(self) -> bool:
        """Whether the target is a path rather than a dotted module (``asgi`` takes either)."""
        return self.kind in ("file", "paste") or (self.kind == "asgi" and _is_path(self.target))

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names to look for in the module, best first."""
        if self.attribute:
            return (self.attribute,)
        return ("application", "app") if self.target.endswith(".py") else ("application",)

    def as_file(self) -> AppSpec:
        """Return this with its target read as a path: ``blog.wsgi`` may be either (the loader looks)."""
        return replace(self, kind="file")

    def as_module(self) -> AppSpec | None:
        """Return this with its target read as a module; None if the target cannot be one."""
        if self.kind == "file" and _UNSPEAKABLE.match(self.target):
            return replace(self, kind="module")
        if self.kind == "plugin" and not self.attribute:
            return replace(self, kind="module")
        return None


def parse(text: str) -> AppSpec:
    """Read the value of ``application =``.

    Raises:
        ValueError: it has none of the known forms; the message is a sentence with a remedy.
    """
    text = text.strip()
    if not text:
        raise ValueError(f"it is empty; {EXAMPLE}")
    if len(text) > MAX_LENGTH or not text.isprintable():
        raise ValueError(f"it is longer than {MAX_LENGTH} characters or has control characters; {EXAMPLE}")
    prefix, colon, rest = text.partition(":")
    if colon and prefix.strip() in _PREFIXES:
        return _parse_prefixed(prefix.strip(), rest.strip())
    return _parse_target(text)


def _parse_prefixed(prefix: str, rest: str) -> AppSpec:
    """One of our own ``prefix:rest`` forms."""
    if prefix == "moya":
        if rest:
            raise ValueError(f"'moya:' takes nothing after it (not {rest!r}); name the settings with ini = {rest}")
        return AppSpec("moya", "")
    if prefix == "django":
        if not (_DOTTED.match(rest) or _UNSPEAKABLE.match(rest)):
            raise ValueError(f"{rest!r} is no settings module; write it like django:blog.settings")
        return AppSpec("django", rest)
    if prefix == "paste":
        return _parse_paste(rest)
    if not rest:
        raise ValueError("'asgi:' names no app; write it like asgi:blog.main:app")
    spec = _parse_target(rest)
    if spec.kind == "plugin":
        raise ValueError(f"{rest!r} is neither a module nor a file; write it like asgi:blog.main:app")
    return replace(spec, kind="asgi")


def _parse_paste(rest: str) -> AppSpec:
    path, _, name = rest.partition("#")
    if not path:
        raise ValueError("'paste:' names no file; write it like paste:development.ini or paste:development.ini#admin")
    return AppSpec("paste", path, name)


def _parse_target(text: str) -> AppSpec:
    """``module``, ``file`` or ``plugin``, each with what follows its first colon."""
    target, colon, rest = (part.strip() for part in text.partition(":"))
    if colon and not rest:
        raise ValueError(f"nothing follows the ':' in {text!r}; name the callable or leave the ':' out")
    if _is_path(target):
        return AppSpec("file", target, *_parse_attribute(rest))
    is_module = _DOTTED.match(target) or (_UNSPEAKABLE.match(target) and ("." in target or rest))
    if is_module and ("." in target or _looks_like_python(rest)):
        return AppSpec("module", target, *_parse_attribute(rest))
    if _PLUGIN.match(target):
        return AppSpec("plugin", target, rest)
    raise ValueError(f"{target!r} is neither a module nor a file (a path has a '/' or ends in .py); {EXAMPLE}")


def _is_path(target: str) -> bool:
    """Tell whether it is a path; ``blog.wsgi`` is left to the loader: usually it is a module of a Django project."""
    return "/" in target or target.endswith(".py") or (target.endswith(".wsgi") and not _DOTTED.match(target))


def _looks_like_python(rest: str) -> bool:
    """Tell whether this was meant as a callable: then the message is about an error in it."""
    return not rest or "(" in rest or bool(_DOTTED.match(rest))


def _parse_attribute(text: str) -> tuple[str, Call | None]:
    """``obj.app`` or ``make_app('x', debug=True)``; the arguments are literals, as in gunicorn's `import_app`."""
    if not text:
        return "", None
    try:
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Call):
            return _dotted(node.func), _literal_call(node)
        return _dotted(node), None
    except ValueError as error:
        reason = str(error)
    except (SyntaxError, RecursionError, MemoryError):
        reason = "it is not Python"
    raise ValueError(
        f"{text!r} is neither a name nor a call of a factory: {reason}; "
        "write it like application, obj.app or make_app('x', debug=True)"
    )


def _dotted(node: ast.expr) -> str:
    """The dotted name of a chain of attributes."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ValueError("the name may only have letters, digits, '_' and '.'")
    return ".".join([node.id, *reversed(names)])


def _literal_call(node: ast.Call) -> Call:
    """The arguments, nothing evaluated but literals."""
    if any(isinstance(arg, ast.Starred) for arg in node.args) or any(word.arg is None for word in node.keywords):
        raise ValueError("the arguments may not have * or **")
    try:
        args = tuple(ast.literal_eval(arg) for arg in node.args)
        kwargs = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
    except (ValueError, TypeError):
        raise ValueError("the arguments may only be literals") from None
    return Call(args, kwargs)
