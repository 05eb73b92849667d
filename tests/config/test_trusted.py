"""Whose word is believed, and what becomes of the word of others."""

from __future__ import annotations

import pytest

from multisite.config.trusted import TrustedHeader


@pytest.mark.parametrize(
    ("peer", "host"), [("10.1.2.3", "blog.test"), ("", "blog.test"), ("192.0.2.1", ""), ("nonsense", "")]
)
def test_a_host_that_anybody_else_names_is_taken_out(peer: str, host: str) -> None:
    """A site may believe what it finds in its environ."""
    environ = {"HTTP_X_CANONICAL_HOST": "blog.test", "REMOTE_ADDR": peer}
    assert TrustedHeader("X-Canonical-Host", ("10.0.0.0/8", "unix")).host(environ) == host
    assert ("HTTP_X_CANONICAL_HOST" in environ) == bool(host)
