"""The INI dialect: what is a comment, a list, a section, and what a hostile text costs."""

from __future__ import annotations

import pytest
from configobj import ConfigObj

from multisite.config.ini import LONGEST_NAME, MOST_FAULTS, expand_environ, expand_names, parse


def service(body: str) -> dict[str, str]:
    document = parse("[service]\n" + body)
    assert document.faults == []
    return document.values["service"]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("a = b", "b"),
        ("a=b=c", "b=c"),
        ("a = http://x/#top", "http://x/#top"),
        ("a = b # comment", "b"),
        ("a = b\t# comment", "b"),
        ("a = # comment", ""),
        ("a = 'b # c' # d", "'b # c'"),
        ('a = "b # c", "d # e"', '"b # c", "d # e"'),
        ("a = it's # comment", "it's"),
        ("a = Hello, World", "Hello, World"),
        ("a = 100 % %(x)s", "100 % %(x)s"),
        ("a", ""),
        ("  a = b", "b"),
        ('"a" = b', "b"),
        ("a = '''b # c'''", "b # c"),
        ("a = é", "é"),
    ],
)
def test_one_line(line: str, value: str) -> None:
    assert service(line + "\n") == {"a": value}


def test_comment_lines_start_with_hash_or_semicolon() -> None:
    assert service("# a = 1\n; b = 2\n   # c\nd = 4\n") == {"d": "4"}


def test_deeper_lines_continue_a_value_and_a_blank_line_ends_it() -> None:
    assert service("a =\n  b\n  # note\n  c # note\n\n  d = e\n") == {"a": "b\nc", "d": "e"}


def test_a_continued_value_may_end_in_an_equals_sign() -> None:
    assert service("a = x=\n  y\n") == {"a": "x=\ny"}


def test_indented_keys_are_keys() -> None:
    assert service("  a = 1\n  b = 2\n") == {"a": "1", "b": "2"}


def test_an_ipv6_literal_on_a_line_of_its_own_is_an_item_and_no_section() -> None:
    assert service("a =\n  [::1]\n") == {"a": "[::1]"}


def test_triple_quotes_span_lines() -> None:
    assert service('a = """b\n\n  # c\nd"""  # e\nf = g\n') == {"a": "b\n\n  # c\nd", "f": "g"}


def test_byte_order_mark_and_windows_line_ends_are_no_matter() -> None:
    assert parse("\ufeff[a]\r\nb = c\r\n").values == {"a": {"b": "c"}}


def test_keys_above_the_first_section_are_in_the_empty_one() -> None:
    assert parse("extends = x.ini\n[a]\n").values == {"": {"extends": "x.ini"}, "a": {}}


def test_what_configobj_reads_is_read_alike() -> None:
    text = (
        "[a]\nkey=value\ncomma=a, b\nquoted='a \"b\" c'\ntriple='''a # b'''\nbehind='''a''' # b\n"
        'lines="""one\n  two\n\nthree"""\nempty=\nequals=a=b\n\'in quotes\'=1\n"#no comment"=2\n[b]\npercent=%(a)s\n'
    )
    config = ConfigObj(text.split("\n"), list_values=False, interpolation=False)
    document = parse(text)
    assert (document.faults, document.values) == ([], {name: dict(config[name]) for name in config})


def test_a_value_in_triple_quotes_may_begin_below_its_key() -> None:
    assert service("a =\n  '''b\n  c'''\nd = e\n") == {"a": "b\nc", "d": "e"}


def test_a_key_above_the_sections_may_have_the_name_of_one() -> None:
    document = parse("a = b\n[a]\nc = d\n")
    assert (document.faults, document.values) == ([], {"": {"a": "b"}, "a": {"c": "d"}})


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        ("a = 1\na = 2", 3, "is set twice, first in line 2"),
        ("a: b", 2, "is not KEY = VALUE"),
        ("two words", 2, "is not KEY = VALUE"),
        ("= b", 2, "has no key"),
        ("[b", 2, "is not a section"),
        ("[]", 2, "is not a section"),
        ("[[b]]", 2, "nested"),
        ("[service]", 2, "appears twice, first in line 1"),
        ("a = '''b", 2, "does not close"),
        ("a = '''b''' c", 2, "text after the closing quotes"),
        ("a = b\x07c", 2, "control character '\\x07'"),
        ("a = b\x1fc", 2, "control character '\\x1f'"),
        ("k" * 300 + " = 1", 2, "has no key"),
    ],
)
def test_a_bad_line_is_one_fault_and_costs_only_itself(body: str, line: int, reason: str) -> None:
    document = parse(f"[service]\n{body}\n[env]\nb = 1\n")
    assert [fault.line for fault in document.faults] == [line]
    assert reason in document.faults[0].reason
    assert document.values["env"] == {"b": "1"}


def test_a_repeated_section_does_not_spill_its_keys_into_another() -> None:
    document = parse("[a]\nx = 1\n[b]\ny = 2\n[a]\nz = 3\n")
    assert document.values == {"a": {"x": "1"}, "b": {"y": "2"}}


def test_a_file_of_nonsense_is_told_in_a_few_faults() -> None:
    faults = parse("no sense\n" * 10_000).faults
    assert len(faults) == MOST_FAULTS + 1
    assert faults[-1].reason == f"{10_000 - MOST_FAULTS} more lines cannot be understood"


@pytest.mark.parametrize(
    "text",
    [
        " " * 2**20,
        "a" + " " * 2**20 + "x",
        "a = " + " " * 2**20 + "x",
        "[" + " ]" * 2**19 + "x",
        "[" * 2**20,
        "a = " + '"""x ' * 2**17,
        "a = #" + "\" ' " * 2**18,
        "a =\n" + " x\n" * 2**18,
        "a = '''\n" * 2**16,
        "a" * LONGEST_NAME + "\n" * 2**20,
    ],
)
def test_hostile_text_of_one_mebibyte_is_read_in_linear_time(text: str) -> None:
    """A quadratic reader would need hours here, and the test would never end."""
    parse(text)


def test_the_environment_replaces_names_and_every_look_up_is_noted() -> None:
    used: dict[str, str | None] = {}
    assert expand_environ("$A/$B $1 $", {"A": "x"}, used) == "x/$B $1 $"
    assert used == {"A": "x", "B": None}


def test_other_percent_signs_are_themselves() -> None:
    assert expand_names("%(name)s 5% %(asctime)s %HOST", {"name": "blog"}) == "blog 5% %(asctime)s %HOST"
