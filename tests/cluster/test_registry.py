"""URLs of engines."""

from __future__ import annotations

import pytest

from multisite.cluster.registry import Address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://10.0.0.1", "redis://10.0.0.1"),
        ("rediss://me:secret@10.0.0.1:6380/2#shop", "rediss://10.0.0.1:6380/2#shop"),
        ("sentinel://a:26379,b,[::1]:26380/main", "sentinel://a:26379,b,[::1]:26380/main"),
        ("etcd://10.0.0.1:2379,10.0.0.2:2379", "etcd://10.0.0.1:2379,10.0.0.2:2379"),
    ],
)
def test_what_is_shown_has_no_password(url: str, shown: str) -> None:
    assert str(Address.parse(url)) == shown
    assert "secret" not in repr(Address.parse(url))


@pytest.mark.parametrize("url", ["", "redis", "redis://", "redis://a:x", "etcd://a:1,", "redis://a#b c", "redis://[a"])
def test_wrong_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not|has no port|cluster's name"):
        Address.parse(url)


@pytest.mark.parametrize("url", ["redis://:pa#ss@h", "redis://:pa/ss@h", "redis://:pa?ss@h", "redis://me:pa#s/s@h:1/0"])
def test_a_password_that_ends_the_url_early_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="write these as %2F") as error:
        Address.parse(url)
    assert "pa" not in str(error.value).replace("password", "")
