"""Files of passwords: every form that htpasswd and openssl write, and what becomes of the others."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from multisite.config.safefiles import Unusable
from multisite.config.site import Site
from multisite.sites import htpasswd
from multisite.sites.htpasswd import PasswordFile, credentials, fits, is_known, parse, problems, unreadable

#: made by htpasswd -m, -s, -B and -5, -2, and by openssl passwd
KNOWN = {
    "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/": "secret",
    "$apr1$u6gLRPhd$vIR4BbREqpv4cm1jkh3TU/": "a much longer pässword of many",
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=": "secret",
    "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC": "myPassword",
    "$5$YSAyVgbZVHh930Z8$dQbshIMqSYsy98Q817UTTJ3csB9bV36ClNzXmzu.hq4": "secret",
    "$6$jOv6CUoovJRyoUU/$SID0zPzmZ/Vof0Msw7rW4jAqbDyusLXO1saitxjGBAs.SDZpoBxsL2mV0HAw4wIoLFup5Pad29CVSh1hgI4gu/": (
        "secret"
    ),
}
UNKNOWN = ["rl5FQB1y9xg5E", "secret", "", "$2y$", "$2y$05$short", "$6$", "$1$abcdefgh$x", "$apr1$", "{SHA}", "*0", "!"]
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("hashed", KNOWN)
def test_the_right_password_fits_and_no_other(hashed: str) -> None:
    assert is_known(hashed)
    assert fits(KNOWN[hashed], hashed)
    for wrong in (KNOWN[hashed] + "x", KNOWN[hashed][:-1], "", hashed, KNOWN[hashed] + "\0"):
        assert not fits(wrong, hashed)


@pytest.mark.parametrize("hashed", UNKNOWN)
def test_another_form_is_a_fault_with_the_command_that_mends_it(hashed: str) -> None:
    assert not is_known(hashed)
    users = parse("/etc/a file", f"# a comment\n\nann:{hashed}\n")
    assert not users.hashes
    ((line, reason, remedy),) = users.faults
    assert line == 3
    assert "ann" in reason
    assert remedy.endswith("htpasswd -B '/etc/a file' ann")
    assert not hashed or hashed not in reason


def test_lines_as_apache_reads_them() -> None:
    """The first of two lines counts, and what follows the hash is a comment."""
    users = parse("f", f"ann:{SHA}:Ann Smith\r\nann:{{SHA}}{'A' * 27}=\nnonsense\n:{SHA}\nb\x07b:{SHA}\n")
    assert users.hashes == {"ann": SHA}
    assert [line for line, *_ in users.faults] == [3, 4, 5]


@pytest.mark.parametrize(
    "field", ["", "Basic", "Basic !!!", "Bearer " + base64.b64encode(b"a:b").decode(), "Basic YWJj", "Basic é"]
)
def test_what_is_no_basic_authentication_names_nobody(field: str) -> None:
    assert credentials(field) is None


def test_the_scheme_may_be_in_any_case_and_a_password_may_have_colons() -> None:
    assert credentials(basic("ann", "a:b:ü").replace("Basic", "bAsIC")) == ("ann", "a:b:ü")


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"ann:{SHA}\n")
    file = PasswordFile(str(path))
    assert file.look()
    assert not file.look()
    assert [file.user(basic(*each)) for each in (("ann", "secret"), ("ann", "Secret"), ("bob", "secret"))] == [
        "ann",
        None,
        None,
    ]
    new = tmp_path / "new"
    new.write_text(f"bob:{SHA}\n")
    os.utime(new, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    new.replace(path)  # of the same size and the same time
    assert file.look()
    assert file.user(basic("ann", "secret")) is None  # not even one that was remembered
    assert file.user(basic("bob", "secret")) == "bob"
    path.unlink()
    with pytest.raises(Unusable):
        file.look()
    with pytest.raises(Unusable):  # not only the first time
        file.look()


def test_a_password_is_computed_once_and_the_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "users"
    path.write_text("".join(f"user{number}:{SHA}\n" for number in range(htpasswd.MOST_VERIFIED + 10)))
    file = PasswordFile(str(path))
    file.look()
    computed = []
    monkeypatch.setattr(htpasswd, "fits", lambda *pair: computed.append(pair) or fits(*pair))
    for _ in range(3):
        assert file.user(basic("user0", "secret")) == "user0"
    assert len(computed) == 1
    assert file.user(basic("nobody", "secret")) is None
    assert len(computed) == 2  # who is no user takes as long
    for number in range(htpasswd.MOST_VERIFIED + 10):
        assert file.user(basic(f"user{number}", "secret"))
    assert len(file._verified) <= htpasswd.MOST_VERIFIED
    assert b"secret" not in repr(file._verified).encode()


def test_problems_of_a_site(tmp_path: Path) -> None:
    path = tmp_path / "users"
    site = Site("blog.ini", name="blog", htpasswd=str(path))
    missing = unreadable(site)
    assert missing
    assert (missing.section, missing.key, missing.severity) == ("access", "htpasswd", "error")
    assert f"htpasswd -B -c {path} USER" in missing.remedy
    assert problems(site) == []
    path.write_text("")
    assert [problem.severity for problem in problems(site)] == ["warning"]
    path.write_text(f"ann:{SHA}\nbob:plain\n")
    assert unreadable(site) is None
    (problem,) = problems(site)
    assert (problem.severity, problem.value) == ("error", str(path))
    assert problem.reason.startswith("line 2: ")
    assert f"htpasswd -B {path} bob" in problem.remedy
    path.write_text(f"ann:{SHA}\n")
    served = Site("blog.ini", name="blog", htpasswd=str(path), static={"/s": (f"{tmp_path}/x", f"{tmp_path}")})
    assert [problem.severity for problem in problems(served)] == ["warning"]
