"""What kind of app a callable is, told without calling it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

_EMPTY = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def is_asgi(app: object) -> bool:
    """Whether `app` is an ASGI application, of version 2 or 3 (asgiref, "Applications").

    A coroutine can never answer a WSGI server, so one is proof; otherwise the parameters are:
    ``(scope)`` and ``(scope, receive, send)`` cannot be called with (environ, start_response).
    """
    while isinstance(app, partial):
        app = app.func
    if not callable(app):
        return False
    plain = inspect.isroutine(app) or inspect.isclass(app)
    return inspect.iscoroutinefunction(app if plain else type(app).__call__) or _takes_scope(app)


def _takes_scope(app: Callable[..., Any]) -> bool:
    return _required_names(app) in (("scope",), ("scope", "receive", "send"))


def _required_names(app: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the positional parameters without a default; () where Python cannot tell."""
    try:
        parameters = inspect.signature(app, follow_wrapped=False).parameters.values()
    except (ValueError, TypeError):
        return ()
    return tuple(each.name for each in parameters if each.kind in _POSITIONAL and each.default is _EMPTY)


def refuses_wsgi(app: object) -> bool:
    """Whether `app` is a plain function that (environ, start_response) cannot be passed to: a factory, likely.

    A decorator's wrapper is judged by its own parameters, not by those of what it wraps
    (werkzeug's `Request.application` wraps a function of one).
    """
    if not inspect.isfunction(app):
        return False
    try:
        inspect.signature(app, follow_wrapped=False).bind(None, None)
    except TypeError:
        return True
    return False
