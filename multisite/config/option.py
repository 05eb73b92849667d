"""One option: the name, value and meaning of a key of a configuration file.

The fields of the dataclasses in `multisite.config.sections` and `multisite.config.site` declare the
options; `multisite.config.options` gathers them into the one table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from multisite.config.values import CASTS, EMPTY


@dataclass(frozen=True, slots=True)
class Option:
    """One key of moya.conf or of a site file.

    Attributes:
        kind: name of the cast in `multisite.config.values.CASTS`.
        default: the default as it would be written in the file; empty: none.
        help: one or two finished sentences, with units.
        note: what applies when there is no fixed default ("the owner of location").
        limits: smallest and largest number, for the kinds that have them.
        any_key: the section takes any key (its values are of this kind) and `key` is empty.
        attribute: name of the dataclass field.
    """

    kind: str
    default: str = ""
    help: str = ""
    note: str = ""
    choices: tuple[str, ...] = ()
    example: str = ""
    since: str = "0.1"
    limits: tuple[float, float] | None = None
    any_key: bool = False
    file: str = ""
    section: str = ""
    key: str = ""
    attribute: str = ""

    def cast(self, value: str) -> Any:
        """Turn text that is not empty into the value; raises ValueError with the reason."""
        return CASTS[self.kind](value, *(self.choices or self.limits or ()))

    @property
    def check(self) -> str:
        """The option's check in ConfigObj's configspec language, as ``integer(1, 64)``."""
        arguments = [f'"{word}"' for word in self.choices] or [str(limit) for limit in self.limits or ()]
        return f"{self.kind}({', '.join(arguments)})" if arguments else self.kind

    @property
    def default_value(self) -> Any:
        """The default, cast; None where a number or a choice has none."""
        return self.cast(self.default) if self.default else EMPTY.get(self.kind)


def option(kind: str, default: str = "", help: str = "", **more: Any) -> Any:
    """Declare a dataclass field that is an option (see `Option` for *more*)."""
    declared = Option(kind, default, help, **more)
    if declared.any_key:
        return field(default_factory=dict, metadata={"option": declared})
    value = False if kind == "boolean" and not default else declared.default_value
    return field(default=value, metadata={"option": declared})
