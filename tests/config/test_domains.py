from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from multisite.config.domains import HostTable, check_pattern, compile_pattern, is_pattern, normalise
from multisite.errors import BadHost

LONGEST = ".".join(["a" * 63] * 3 + ["a" * 61])  # RFC 1035 section 2.3.4: 253 octets


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com:8000", "example.com"),
        ("example.com:", "example.com"),
        ("example.com.", "example.com"),
        ("EXAMPLE.com.:80", "example.com"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]:8000", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("b\xfccher.de", "xn--bcher-kva.de"),
        ("b\xc3\xbccher.de", "xn--bcher-kva.de"),
        ("xn--bcher-kva.de", "xn--bcher-kva.de"),
        ("stra\xdfe.de", "xn--strae-oqa.de"),
        ("my_host", "my_host"),
        ("_dmarc.a-b.test", "_dmarc.a-b.test"),
        ("-a.b-.-", "-a.b-.-"),
        ("r3---sn.test.:80", "r3---sn.test"),
        ("a:65535", "a"),
        (LONGEST, LONGEST),
    ],
)
def test_a_host_has_one_normal_form(raw: str, host: str) -> None:
    assert normalise(raw) == host


@pytest.mark.parametrize(
    "raw",
    [
        "",
        ".",
        "..",
        "a..b",
        " a",
        "a b",
        "a/b",
        "../x",
        "a\0b",
        "a\r\nX: y",
        "a:b",
        "a:65536",
        "a:80:80",
        "[::1",
        "[::1%eth0]",
        "[zz]",
        "[1.2.3.4]",
        "::1",
        "x" * 64,
        LONGEST + "a",
        "x" * 10_000,
        "a@b",
        "%61",
        "{a}",
        "*",
    ],
)
def test_what_is_no_host_is_refused(raw: str) -> None:
    with pytest.raises(BadHost) as caught:
        normalise(raw)
    assert caught.value.status == 400


@given(st.text())
def test_any_text_is_a_normal_host_or_refused(raw: str) -> None:
    """The normal form is a fixed point, short, lower case and harmless in a path or a header."""
    try:
        host = normalise(raw)
    except BadHost:
        return
    assert normalise(host) == host
    assert len(host) <= 253
    assert host == host.lower()
    assert not set(host) & set("/\\\0\r\n \"'<>%")


@pytest.mark.parametrize(
    "text", ["example.com:80", "http://example.com", "a b", "a/b", "{a}.{a}", "*.a..b", "", "{1}.x"]
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_pattern(text)


@given(st.text(alphabet="ab.*{}_-", max_size=20))
def test_a_checked_pattern_compiles_and_is_its_own_normal_form(text: str) -> None:
    try:
        pattern = check_pattern(text)
    except ValueError:
        return
    assert check_pattern(pattern) == pattern
    if is_pattern(pattern):
        compile_pattern(pattern)


TABLE = HostTable(
    [
        ("*", "any"),
        ("*.example.org", "all"),
        ("{user}.example.org", "user"),
        ("blog.example.org", "blog"),
        ("foo.*", "foo"),
        ("*x.example.org", "x"),
        ("{*deep}.example.net", "deep"),
    ]
)


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("blog.example.org", "blog"),  # exact beats patterns
        ("ann.example.org", "user"),  # the last registered pattern wins
        ("annx.example.org", "x"),
        ("a.b.example.org", "all"),  # a {name} is one label
        ("foo.bar", "foo"),
        ("example.org", "any"),
        ("a.b.example.net", "deep"),
    ],
)
def test_precedence_is_moyas(host: str, answer: str) -> None:
    assert TABLE.lookup(host)[0].value == answer


def test_captures_are_given() -> None:
    assert TABLE.lookup("ann.example.org")[0].captures == {"user": "ann"}
    assert TABLE.lookup("a.b.example.net")[0].captures == {"deep": "a.b"}


def test_nobody_answers_an_unknown_host() -> None:
    assert HostTable([("a.test", 1), ("*.b.test", 2)]).lookup("c.test") == []


@given(
    st.lists(st.sampled_from(["a", "b", "*", "{x}", "{*y}"]), min_size=1, max_size=4),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=4),
)
def test_filing_by_suffix_finds_what_trying_every_pattern_finds(pattern: list[str], host: list[str]) -> None:
    domain, name = ".".join(pattern), ".".join(host)
    assume(domain.count("{x}") < 2 and domain.count("{*y}") < 2)
    expected = bool(compile_pattern(domain).match(name)) if is_pattern(domain) else domain == name
    assert bool(HostTable([(domain, 1)]).lookup(name)) is expected


def test_many_patterns_cost_no_more_than_few() -> None:
    """Counted, not timed: only the patterns filed under the host's own labels are tried."""
    table = HostTable([(f"*.s{i}.test", i) for i in range(5000)])
    tried = sum(len(table._patterns.get(suffix, ())) for suffix in ("", "test", "s7.test", "a.s7.test"))
    assert table.lookup("a.s7.test")[0].value == 7
    assert tried == 1


def test_repr_counts() -> None:
    assert repr(TABLE) == "<HostTable 1 exact, 6 patterns>"
