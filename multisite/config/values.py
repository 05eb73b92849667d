"""Casts: from the text of one value to what the program works with (pure).

Each cast takes text that is not empty and raises `ValueError` with a reason that
completes the sentence "KEY = VALUE: …". Inside the program every duration is float
seconds and every size is bytes.
"""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from multisite.config import filerules, logformat, nodes, subscription
from multisite.config.application import parse as parse_application
from multisite.config.times import parse_end, parse_hours

WARM = ("never", "predicted", "always")
TRUE = frozenset({"yes", "true", "on", "1"})
FALSE = frozenset({"no", "false", "off", "0"})
SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
LONGEST_DURATION = 10 * 366 * 86400.0
#: ".." stands between site and host in the names of instances (`multisite.config.hosting`)
NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(ms|[smhd]?)", re.ASCII | re.IGNORECASE)
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([bkmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)


def unquote(value: str) -> str:
    """Remove one pair of matching quotes around the whole of *value*.

    Raises:
        ValueError: a quote is opened and not closed, or text follows the closing quote.
    """
    if not value or value[0] not in "\"'":
        return value
    end = value.find(value[0], 1)
    if end < 0:
        raise ValueError("opens a quote and does not close it")
    if end != len(value) - 1:
        raise ValueError("has text after the closing quote")
    return value[1:end]


def text(value: str) -> str:
    """Plain text in one line."""
    if "\n" in value:
        raise ValueError("continues in the next line")
    return unquote(value)


def boolean(value: str) -> bool:
    """yes/true/on/1 or no/false/off/0, in upper or lower case."""
    word = unquote(value).lower()
    if word not in TRUE | FALSE:
        raise ValueError("is neither yes nor no")
    return word in TRUE


def integer(value: str, minimum: float = -math.inf, maximum: float = math.inf) -> int:
    """Whole decimal number between two bounds, both included."""
    digits = unquote(value)
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", digits, re.ASCII):
        raise ValueError("is not a whole number")
    number = int(digits)
    check_bounds(number, minimum, maximum)
    return number


def octal(value: str) -> int:
    """File mode mask in octal, as umask(1) writes it: 022, 0027 or 0o27."""
    digits = unquote(value)
    if not re.fullmatch(r"(?:0o)?[0-7]{1,4}", digits, re.ASCII) or int(digits, 8) > 0o777:
        raise ValueError("is not an octal mask between 000 and 777")
    return int(digits, 8)


def duration(value: str, minimum: float = 0.0, maximum: float = LONGEST_DURATION) -> float:
    """Seconds from 30, 30s, 500ms, 5m, 1h or 1d."""
    match = _DURATION.fullmatch(unquote(value))
    if match is None:
        raise ValueError("is not a duration such as 500ms, 30s, 5m, 1h or 1d")
    seconds = float(match[1]) * SECONDS[match[2].lower()]
    check_bounds(seconds, minimum, maximum, "s")
    return seconds


def size(value: str, minimum: float = 0, maximum: float = 2**60) -> int:
    """Bytes from 4096, 64k, 512M or 2G (units of 1024)."""
    match = _SIZE.fullmatch(unquote(value))
    if match is None:
        raise ValueError("is not a size such as 64k, 512M or 2G")
    number = int(float(match[1]) * BYTES[match[2].lower()])
    check_bounds(number, minimum, maximum, " bytes")
    return number


def choice(value: str, *allowed: str) -> str:
    """One of a few words, in any case."""
    word = unquote(value).lower()
    if word not in allowed:
        raise ValueError(f"is not one of {', '.join(allowed)}" + did_you_mean(word, allowed))
    return word


def list_of(value: str) -> tuple[str, ...]:
    """Items separated by commas or line ends; a quoted item may hold a comma."""
    if "," not in value and "\n" not in value:
        return (unquote(value),)
    if '"' not in value and "'" not in value:
        return tuple(item for item in map(str.strip, value.replace("\n", ",").split(",")) if item)
    return tuple(unquote(item) for item in split_items(value))


def node_list(value: str) -> tuple[str, ...]:
    """Nodes (`multisite.config.nodes`); a number alone is the modifier of the node before it."""
    items = nodes.joined(list_of(value))
    nodes.parse_list(items)
    return items


def machine(value: str) -> str:
    """Address and port of a machine of the cluster."""
    return str(nodes.parse_machine(value))


def machines(value: str) -> tuple[str, ...]:
    """Machines of the cluster (`multisite.config.nodes.Machine`), perhaps with weights."""
    items = list_of(value)
    nodes.parse_machines(items)
    return items


def subscriptions(value: str) -> tuple[str, ...]:
    """Fastrouters and keys (`multisite.config.subscription`)."""
    return subscription.joined(list_of(value))


def networks(value: str) -> tuple[str, ...]:
    """Addresses and networks in CIDR notation."""
    items = list_of(value)
    for item in items:
        try:
            ipaddress.ip_network(item, strict=False)
        except ValueError:
            raise ValueError(f"{item} is neither an address nor a network such as 10.0.0.0/8") from None
    return items


def argv(value: str) -> tuple[str, ...]:
    """Words of a command line, quoted as in a POSIX shell; no shell ever sees them."""
    try:
        return tuple(shlex.split(value.replace("\n", " ")))
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({str(error).lower()})") from None


def name(value: str) -> str:
    """Name of a site, safe in file names, log lines and URLs."""
    word = unquote(value)
    if not NAME.fullmatch(word):
        raise ValueError(
            "is not a name of 1 to 64 letters, digits, '.', '_' and '-' that starts with a letter or digit, and no '..'"
        )
    return word


def mount(value: str) -> str:
    """URL path prefix without its final slash; the root is "/"."""
    path = unquote(value)
    if not path.startswith("/"):
        raise ValueError("does not start with /")
    if re.search(r"[\s?#%\\]|//|/\.{1,2}(?:/|$)", path):
        raise ValueError("is not a plain URL path (no blanks, '?', '#', '%', '//' or '..')")
    return path.rstrip("/") or "/"


def application(value: str) -> str:
    """One of the forms of ``application =`` (`multisite.config.application`), as text."""
    word = text(value)
    parse_application(word)
    return word


def expiries(value: str) -> tuple[str, ...]:
    """Durations, each with an optional pattern before it."""
    items = list_of(value)
    for item in items:
        filerules.parse_expiry(item, duration)
    return items


def media_types(value: str) -> tuple[str, ...]:
    """File extensions, each with its media type."""
    items = list_of(value)
    for item in items:
        filerules.parse_type(item)
    return items


def warm(value: str) -> str:
    """One of the words of `warm`, or hours of the week (`multisite.config.times`), as text."""
    word = " ".join(unquote(value).lower().split("\n"))
    if word in WARM:
        return word
    if word.isalpha():
        raise ValueError(f"is not one of {', '.join(WARM)}, nor hours such as mon-fri 8-18" + did_you_mean(word, WARM))
    parse_hours(word)
    return word


def expiry(value: str) -> str:
    """Date or duration after which a site is out of service (`multisite.config.times`), as text."""
    word = text(value)
    parse_end(word, duration)
    return word


def target(value: str) -> str:
    """Path of a URL, perhaps with a query, as a request line has it."""
    found = text(value)
    if not found.startswith("/") or found.startswith("//"):
        raise ValueError("is not a path such as /health")
    if not found.isascii() or not found.isprintable() or set(found) & set(' #"'):
        raise ValueError("has a character that a URL writes as %XX")
    return found


def webhook(value: str) -> str:
    """URL that takes a POST; it may hold a secret, so no message repeats it."""
    found = text(value)
    try:
        parts = urlsplit(found)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_one = False
    if not is_one or not found.isascii() or not found.isprintable() or " " in found:
        raise ValueError("is no http:// or https:// URL")
    return found


def sender(value: str) -> str:
    """How a front end is asked to send a file."""
    word = text(value)
    filerules.parse_sender(word)
    return word


def log(value: str) -> str:
    """Path of a log file, or a syslog daemon."""
    target = text(value)
    logformat.parse_syslog(target)
    return target


def access_format(value: str) -> str:
    """Word or template for the lines of an access log."""
    template = text(value)
    if template != "json":
        logformat.parse(template)
    return template


#: kind of an option → its cast
CASTS: dict[str, Callable[..., Any]] = {
    "text": text,
    "path": text,
    "boolean": boolean,
    "integer": integer,
    "octal": octal,
    "duration": duration,
    "size": size,
    "choice": choice,
    "list": list_of,
    "nodes": node_list,
    "machine": machine,
    "machines": machines,
    "networks": networks,
    "subscriptions": subscriptions,
    "multiline": unquote,
    "argv": argv,
    "name": name,
    "mount": mount,
    "application": application,
    "expiries": expiries,
    "expiry": expiry,
    "types": media_types,
    "sender": sender,
    "target": target,
    "webhook": webhook,
    "warm": warm,
    "log": log,
    "format": access_format,
}
#: kinds whose empty value means something ("none of it"); an empty value of any other kind means "not set"
EMPTY: dict[str, Any] = {"name": "", "text": "", "path": "", "application": "", "multiline": "", "list": (), "argv": ()}
EMPTY |= {
    "nodes": (),
    "machine": "",
    "machines": (),
    "networks": (),
    "subscriptions": (),
    "expiries": (),
    "types": (),
    "sender": "",
    "expiry": "",
    "target": "",
    "webhook": "",
    "log": "",
    "format": "",
}


def split_items(value: str) -> list[str]:
    """Split at commas and line ends outside quotes; drop empty items."""
    items, start, quote = [], 0, ""
    for position, char in enumerate(value):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and not value[start:position].strip():
            quote = char
        elif char in ",\n":
            items.append(value[start:position])
            start = position + 1
    items.append(value[start:])
    return [item.strip() for item in items if item.strip()]


def check_bounds(number: float, minimum: float, maximum: float, unit: str = "") -> None:
    """Raise ValueError unless minimum ≤ number ≤ maximum."""
    minimum, maximum = float(minimum), float(maximum)
    if number < minimum:
        raise ValueError(f"is less than {minimum:.15g}{unit}")
    if number > maximum:
        raise ValueError(f"is more than {maximum:.15g}{unit}")


def alike(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return those of *known* that look like a word, the nearest first, no more than `most`."""
    return get_close_matches(word[:80], dict.fromkeys(known), n=most, cutoff=0.6)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the nearest of the *known* words as "; did you mean X?", or ""."""
    words = list(known)
    close = alike(word, words) or [each for each in words if len(each) > 2 and word.startswith(each)]
    return f"; did you mean {close[0]}?" if close else ""
