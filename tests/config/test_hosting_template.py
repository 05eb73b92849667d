"""Luisito's templates."""

from __future__ import annotations

from multisite.config import hosting


def test_every_placeholder_is_replaced_in_each_argument() -> None:
    values = {"HOST": "a.test", "PORT": "9000", "UID": "7", "GID": "8", "%": "%"}
    argv = ("serve", "--at=%HOST:%PORT", "%UID.%GID", "100%%", "%%PORT")
    assert hosting.render(argv, values) == ("serve", "--at=a.test:9000", "7.8", "100%", "%PORT")


def test_what_means_nothing_is_named() -> None:
    assert hosting.unknown(("%HOST", "%NOPE/%WHAT", "%%FINE", "50% off")) == ["NOPE", "WHAT"]


def test_lower_case_and_lone_percent_signs_are_themselves() -> None:
    assert hosting.render(("date +%s", "%"), {"%": "%"}) == ("date +%s", "%")


def test_nothing_is_replaced_twice() -> None:
    assert hosting.render(("%HOST",), {"HOST": "%PORT", "PORT": "1"}) == ("%PORT",)
