"""Evaluates the arguments that a logging.ini gives to a handler, without `eval`.

Understood are Python literals, `sys.stdout`, `sys.stderr`, and the constants of `logging` and `logging.handlers` by
the names that the standard library's own examples use (``handlers.SysLogHandler.LOG_USER``).
"""

from __future__ import annotations

import ast
import logging
import logging.handlers
import sys
from typing import Any


def evaluate(text: str) -> Any:
    """The value of an expression.

    Raises:
        ValueError: it is no expression or has a part that is not understood; the text says which.
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as fault:
        raise ValueError(f"is not a Python value: {fault.msg}") from fault
    except (RecursionError, MemoryError) as fault:
        raise ValueError("is nested too deeply") from fault


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Tuple(elts=parts):
            return tuple(map(_value, parts))
        case ast.List(elts=parts):
            return list(map(_value, parts))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as fault:
        raise ValueError(f"has {ast.unparse(node)}, which is not a plain value") from fault


def _named(name: str) -> Any:
    if name in ("sys.stdout", "sys.stderr"):
        return getattr(sys, name.removeprefix("sys."))
    found: Any = logging
    for part in name.removeprefix("logging.").split("."):
        # only through logging's own modules and classes: it imports os and sys too
        inside = found in (logging, logging.handlers) or isinstance(found, type)
        found = vars(found).get(part) if inside else None
    if not isinstance(found, int | str):
        raise ValueError(f"has {name}, which is not a name that may stand here")
    return found
