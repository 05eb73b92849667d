"""What kind of app a callable is. Like `inprocess.callables`, without `inspect`, which takes 10 ms to import."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IS_COROUTINE = 0x80 | 0x100  # inspect.CO_COROUTINE, inspect.CO_ITERABLE_COROUTINE
_ASGI_PARAMETERS = (("scope",), ("scope", "receive", "send"))


def is_asgi(app: Any) -> bool:
    """Whether `app` is an ASGI application: it makes a coroutine, or takes what ASGI gives."""
    while hasattr(app, "func") and hasattr(app, "keywords"):  # functools.partial
        app = app.func
    if not callable(app):
        return False
    function, is_bound = _function(app)
    code = getattr(function, "__code__", None)
    if code is None:
        return _is_compiled_coroutine(function)
    names = code.co_varnames[int(is_bound) : code.co_argcount]
    return bool(code.co_flags & _IS_COROUTINE) or names in _ASGI_PARAMETERS


def _function(app: Any) -> tuple[Any, bool]:
    """The Python function that a call runs, and whether its first parameter is already taken."""
    if isinstance(app, type):
        return app.__init__, True  # type: ignore[misc]
    if hasattr(app, "__code__"):
        return app, False
    function = getattr(app, "__func__", None) or type(app).__call__
    return function, True


def _is_compiled_coroutine(function: Any) -> bool:
    import inspect

    return inspect.iscoroutinefunction(function)
