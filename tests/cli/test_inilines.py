"""One value changes, and all other lines stay."""

from __future__ import annotations

import random

import pytest

from multisite.cli.site.inilines import Unchangeable, with_value
from multisite.config.ini import parse
from multisite.config.options import KNOWN, SITE_FILE, site_template

COMMENTED = KNOWN[SITE_FILE]
TEXT = """# a site
[service]
domains =
    blog.test   # first

    # not a part of it
location = /srv/blog  # here's "it"

  threads = 2
command = "a # b" c
[env]
; more
MOTD = '''one
two = 2
'''
DEBUG = 1

[static]
/static = files
"""


def changed(text: str, section: str, key: str, value: str) -> str:
    return with_value(text, section, key, value, COMMENTED)


@pytest.mark.parametrize(
    ("section", "key", "value", "gone", "come"),
    [
        (
            "service",
            "location",
            "/srv/new",
            ['location = /srv/blog  # here\'s "it"'],
            ['location = /srv/new  # here\'s "it"'],
        ),
        ("service", "threads", "4", ["  threads = 2"], ["  threads = 4"]),
        ("service", "command", "x", ['command = "a # b" c'], ["command = x"]),
        ("service", "domains", "a.test", ["domains =", "    blog.test   # first"], ["domains = a.test"]),
        ("service", "umask", "027", [], ["umask = 027"]),
        ("service", "threads", "", ["  threads = 2"], ["  threads ="]),
        ("env", "MOTD", "x", ["MOTD = '''one", "two = 2", "'''"], ["MOTD = x"]),
        ("env", "NEW", "a #b", [], ['NEW = "a #b"']),
        ("static", "/media", "media", [], ["/media = media"]),
        ("logging", "error", "/x", [], ["", "[logging]", "error = /x"]),
        ("service", "domains", "a\nb", ["domains =", "    blog.test   # first"], ["domains =", "    a", "    b"]),
    ],
)
def test_one_value_changes_and_no_other_line(
    section: str, key: str, value: str, gone: list[str], come: list[str]
) -> None:
    before, after = TEXT.split("\n"), changed(TEXT, section, key, value).split("\n")
    rest = list(before)
    for line in gone:
        rest.remove(line)
    kept = list(after)
    for line in come:
        del kept[len(kept) - 1 - kept[::-1].index(line)]
    assert kept == rest
    assert changed("\n".join(after), section, key, value).split("\n") == after


def test_line_ends_stay_and_a_new_key_stands_behind_its_example() -> None:
    text = site_template({"domains": "a.test"}).replace("\n", "\r\n")
    after = changed(text, "service", "threads", "4")
    assert after.replace("\r\n", "").count("\n") == 0
    lines = after.split("\r\n")
    at = lines.index("threads = 4")
    assert lines[at - 1].startswith("# threads =")
    assert lines[:at] + lines[at + 1 :] == text.split("\r\n")


@pytest.mark.parametrize("value", ["a\n\nb", 'a "b" #c'])
def test_what_would_be_read_as_something_else_is_refused(value: str) -> None:
    with pytest.raises(Unchangeable):
        changed(TEXT, "env", "DEBUG", value)


def test_any_text_keeps_its_other_values() -> None:
    """Lines in any order, some of which make no sense."""
    pieces = [*TEXT.split("\n"), "  deeper = 1", "no sense at all", "x = '''", "\ty = 2", "# z", "[env]", "[other]"]
    dice = random.Random(7)
    for _ in range(500):
        text = "\n".join(dice.choices(pieces, k=dice.randrange(12)))
        section, key = dice.choice([("service", "threads"), ("env", "DEBUG"), ("new", "x"), ("service", "domains")])
        try:
            after = changed(text, section, key, "9")
        except Unchangeable:
            continue
        old, new = parse(text, COMMENTED).values, parse(after, COMMENTED).values
        assert new[section].pop(key) == "9"
        old.get(section, {}).pop(key, None)
        assert {name: keys for name, keys in new.items() if keys} == {name: keys for name, keys in old.items() if keys}
