"""The casts: each says what it takes, and why it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from multisite.config import values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("5m", 300), ("1h", 3600), ("1d", 86400), ("500ms", 0.5), ("1.5 h", 5400), ("0", 0)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert values.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "5 parsecs", "1e9", "٣", "inf", "nan", "9" * 400, "1h 5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        values.duration(text)


def test_a_duration_has_bounds() -> None:
    with pytest.raises(ValueError, match=r"is less than 0\.1s"):
        values.duration("50ms", 0.1, 10)
    with pytest.raises(ValueError, match="is more than 10s"):
        values.duration("11", 0.1, 10)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("64k", 65536), ("512M", 512 << 20), ("2G", 2 << 30), ("1.5k", 1536), ("2GiB", 2 << 30)],
)
def test_sizes_are_bytes_in_units_of_1024(text: str, size: int) -> None:
    assert values.size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        values.size(text)


@pytest.mark.parametrize("text", ["yes", "true", "on", "1", "True", "ON"])
def test_true_words(text: str) -> None:
    assert values.boolean(text) is True


@pytest.mark.parametrize("text", ["no", "false", "off", "0", "No"])
def test_false_words(text: str) -> None:
    assert values.boolean(text) is False


def test_other_words_are_no_booleans() -> None:
    with pytest.raises(ValueError, match="neither yes nor no"):
        values.boolean("maybe")


@pytest.mark.parametrize(("text", "mask"), [("022", 0o22), ("0027", 0o27), ("0o77", 0o77), ("0", 0)])
def test_a_umask_is_octal(text: str, mask: int) -> None:
    assert values.octal(text) == mask


@pytest.mark.parametrize("text", ["8", "7777", "-1", "rwx", "0x1f"])
def test_what_is_no_umask_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="octal"):
        values.octal(text)


def test_integers_have_bounds() -> None:
    assert values.integer("-20", -20, 19) == -20
    for text in ("20", "-21", "1.0", "1_000", "", "٣", "9" * 5000):
        with pytest.raises(ValueError, match=r"is more|is less|whole number"):
            values.integer(text, -20, 19)


def test_a_misspelt_choice_is_answered_with_the_nearest() -> None:
    assert values.choice("Spawned", "auto", "spawned") == "spawned"
    with pytest.raises(ValueError, match=r"is not one of auto, spawned; did you mean spawned\?"):
        values.choice("spawnd", "auto", "spawned")


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a", ("a",)),
        ("a, b,c", ("a", "b", "c")),
        ("a\nb", ("a", "b")),
        ("a,,b,", ("a", "b")),
        (",", ()),
        ("'a, b', c", ("a, b", "c")),
        ('"a"\n"b, c"', ("a", "b, c")),
        ("it's, b", ("it's", "b")),
    ],
)
def test_a_list_is_cut_at_commas_and_line_ends(text: str, items: tuple[str, ...]) -> None:
    assert values.list_of(text) == items


def test_a_command_is_cut_into_words_as_a_shell_would() -> None:
    assert values.argv("/bin/x --a 'b c' $HOME; rm") == ("/bin/x", "--a", "b c", "$HOME;", "rm")
    with pytest.raises(ValueError, match="no closing quotation"):
        values.argv("/bin/x 'a")


@pytest.mark.parametrize("text", ["blog", "b", "9.a_b-c", "a" * 64])
def test_names(text: str) -> None:
    assert values.name(text) == text


@pytest.mark.parametrize("text", ["", ".a", "-a", "a b", "a/b", "..", "é", "a" * 65, "a\n"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name"):
        values.name(text)


@pytest.mark.parametrize(("text", "mount"), [("/", "/"), ("/api", "/api"), ("/api/v1/", "/api/v1")])
def test_a_mount_loses_its_final_slash(text: str, mount: str) -> None:
    assert values.mount(text) == mount


@pytest.mark.parametrize("text", ["api", "/a b", "/a?b", "/../x", "//x", "/a/.."])
def test_what_is_no_mount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"start with /|plain URL path"):
        values.mount(text)


def test_matching_quotes_are_removed_and_stray_ones_refused() -> None:
    assert values.text('"a, b"') == "a, b"
    assert values.text("it's") == "it's"
    with pytest.raises(ValueError, match="does not close"):
        values.text('"a')
    with pytest.raises(ValueError, match="after the closing quote"):
        values.text('"a" b')


@pytest.mark.parametrize("kind", [values.integer, values.duration, values.size])
def test_the_bounds_themselves_are_allowed_and_what_is_beyond_is_not(kind: Callable[..., float]) -> None:
    assert [kind("3", 3, 7), kind("7", 3, 7)] == [3, 7]
    for beyond in ("2", "8"):
        with pytest.raises(ValueError):
            kind(beyond, 3, 7)
