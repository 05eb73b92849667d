"""Signed announcements, with keys that openssl made."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.router import announcement, signatures
from multisite.router.announcement import Announcement
from multisite.router.signatures import DIGESTS, Signatures
from tests.router.signing import Signer
from tests.servers.harness import eventually
from tests.servers.system_python import uwsgi_of_debian

A = Announcement("example.com", "127.0.0.1:1", unix=1700000000)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a folder of keys."""
    home = tmp_path_factory.mktemp("home")
    (home / "keys").mkdir()
    return home


@pytest.fixture(scope="module")
def signer(home: Path) -> Signer:
    return Signer(home / "keys", "example.com")


def read(data: bytes) -> Announcement:
    found = announcement.read(data)
    assert found
    return found


@pytest.mark.parametrize("digest", DIGESTS)
def test_each_digest(home: Path, signer: Signer, digest: str) -> None:
    found = Signatures(f"{digest.lower()}:keys", str(home))
    assert found.verify(read(signer.packet(A, digest.lower())))
    assert not found.verify(read(signer.packet(A, "md5")))


def test_any_other_bit_is_wrong(home: Path, signer: Signer) -> None:
    """Of the variables or of the signature."""
    found, good = Signatures("SHA1:keys", str(home)), signer.packet(A)
    assert found.verify(read(good))
    for at in range(4, len(good), 7):
        spoilt = announcement.read(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert not spoilt or not found.verify(spoilt)


def test_a_join_is_no_leave(home: Path, signer: Signer) -> None:
    """The command stands outside of what is signed; uWSGI's number differs, and a number is taken once."""
    found, good = Signatures("SHA1:keys", str(home)), signer.packet(A)
    turned = read(good[:3] + b"\x01" + good[4:])
    assert turned.leaves
    assert turned.unix == A.unix
    assert found.verify(turned)


def test_whose_key_it_is(home: Path, signer: Signer) -> None:
    """The key of one host signs for no other; neither does what is unsigned or has no number."""
    found = Signatures("SHA1:keys", str(home))
    Signer(home / "keys", "other.example")
    assert not found.verify(read(signer.packet(replace(A, key="other.example"))))
    assert not found.verify(read(signer.packet(replace(A, key="unknown.example"))))
    assert not found.verify(read(signer.packet(replace(A, unix=0))))
    assert not found.verify(read(announcement.write(A)))


def test_a_key_with_a_port(home: Path) -> None:
    """Its file is named as uWSGI names it."""
    signer = Signer(home / "keys", "port.example", "port.example_8000")
    assert Signatures("SHA1:keys", str(home)).verify(read(signer.packet(replace(A, key="port.example:8000"))))


@given(st.text(max_size=100))
def test_a_file_is_in_the_folder(key: str) -> None:
    assert os.path.basename(f"/keys/{signatures.file_of(key)}.pem") == f"{signatures.file_of(key)}.pem"


def test_a_key_that_is_replaced_counts_at_once(home: Path) -> None:
    found = Signatures("SHA1:keys", str(home))
    old = Signer(home / "keys", "rolls.example")
    packet = read(old.packet(replace(A, key="rolls.example")))
    assert found.verify(packet)
    (home / "keys" / "rolls.example.pem").unlink()
    assert not found.verify(packet)
    new = Signer(home / "keys", "rolls.example")
    assert not found.verify(packet)
    assert found.verify(read(new.packet(replace(A, key="rolls.example"))))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_file_that_is_no_key(home: Path, signer: Signer, content: bytes) -> None:
    (home / "keys" / "bad.example.pem").write_bytes(content)
    assert not Signatures("SHA1:keys", str(home)).verify(read(signer.packet(replace(A, key="bad.example"))))


def test_a_key_of_another_kind(home: Path, signer: Signer) -> None:
    made = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(home / "ec.pem")]
    public = ["openssl", "ec", "-in", str(home / "ec.pem"), "-pubout", "-out", str(home / "keys" / "ec.example.pem")]
    for argv in (made, public):
        subprocess.run(argv, check=True, capture_output=True)
    assert not Signatures("SHA1:keys", str(home)).verify(read(signer.packet(replace(A, key="ec.example"))))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("keys", "DIGEST:FOLDER"),
        ("MD5:keys", "SHA1, SHA224"),
        ("SHA1:nowhere", "is not a folder"),
        ("", "DIGEST:FOLDER"),
    ],
)
def test_what_is_no_option(home: Path, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Signatures(text, str(home))


def is_asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.servers
def test_the_real_program_signs(home: Path, signer: Signer, tmp_path: Path) -> None:
    """What uWSGI sends is read, verified, and has a number of its own for the leave."""
    found = Signatures("SHA1:keys", str(home))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30)
        where = f"127.0.0.1:{sock.getsockname()[1]}:example.com,0,SHA1:{signer.private}"
        argv = [uwsgi_of_debian(), "-M", "--socket", "127.0.0.1:0", "--logto", str(tmp_path / "log"), "--die-on-term"]
        with subprocess.Popen([*argv, "--subscribe-to", where]) as process:
            try:
                joined = read(sock.recv(65536))
                eventually(
                    lambda: is_asleep(process.pid)
                )  # a uWSGI that is told in the middle of a packet signs no leave
            finally:
                process.terminate()
            while not (left := read(sock.recv(65536))).leaves:
                pass
    assert found.verify(joined)
    assert found.verify(left)
    assert abs(joined.unix - time.time()) < 60
    assert left.unix > joined.unix
