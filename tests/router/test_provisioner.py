"""Which hosts somebody may set up, and how he is asked: as one word, whatever the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.config.domains import normalise
from multisite.errors import BadHost
from multisite.router.provisioner import FAILED, command, is_domain, is_function


@pytest.mark.parametrize("target", ["provision.py:domain", "lib/provision.py:domain", "provision:domain", "a.b.c:d"])
def test_a_function_is_told_from_a_command(target: str) -> None:
    assert is_function(target)
    assert command(target, "/home", "x.test", "python")[-3:] == ["/home", target, "x.test"]


@pytest.mark.parametrize(
    "target",
    ["provision", "./provision.py", "python provision.py:domain", "/bin/x:y", "a.py:b c", "a:b:c", "a-b:c", ":x"],
)
def test_whatever_else_is_a_command(target: str) -> None:
    assert not is_function(target)


@pytest.mark.parametrize("target", ["", "  ", "a 'b"])
def test_a_command_has_words(target: str) -> None:
    with pytest.raises(ValueError, match=r"empty|split"):
        command(target, "/home", "x.test", "python")


@pytest.mark.parametrize("host", ["a.test", "new.localhost", "xn--bcher-kva.example", "a_b.c-d.example", "1.2.3.a"])
def test_a_name_with_a_dot_may_be_a_domain(host: str) -> None:
    assert is_domain(host)


@pytest.mark.parametrize(
    "host",
    ["", "localhost", ".", "a.", ".a", "-a.test", "1.2.3.4", "10.1", "[::1]", "a/b.c", "a b.c", "A.test", "ä.test"],
)
def test_nothing_else_is(host: str) -> None:
    assert not is_domain(host)


@given(st.text())
def test_no_host_becomes_an_option_or_a_path(raw: str) -> None:
    try:
        host = normalise(raw)
    except BadHost:
        return
    if is_domain(host):
        assert not set(host) & set("/ \0\n'\"$;|&`\\-") - {"-"} and not host.startswith(("-", "."))
        assert command("tool --for", "/home", host, "python") == ["tool", "--for", host]


@pytest.mark.parametrize(
    ("body", "said", "status"),
    [
        ("return '127.0.0.1:3031'", "127.0.0.1:3031\n", 0),
        ("print('loud'); return None", "", 0),
        ("return 5", "", FAILED),
        ("raise SystemError('no')", "", FAILED),
        ("import os; return os.getcwd()", "{home}\n", 0),
    ],
)
def test_what_the_function_returns_is_all_that_is_said(tmp_path: Path, body: str, said: str, status: int) -> None:
    (tmp_path / "provision.py").write_text(f"def domain(name):\n    {body}\n")
    argv = command("provision.py:domain", str(tmp_path), "x.test", sys.executable)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(argv, cwd="/", env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == (said.format(home=tmp_path), status), done.stderr
    assert bool(done.stderr) == ("loud" in body or bool(status))


def test_its_file_is_run_once_and_why_it_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "provision.py").write_text("open('runs', 'a').write('once ')\nraise RuntimeError('the key is lost')\n")
    argv = command("provision.py:domain", str(tmp_path), "x.test", sys.executable)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(argv, cwd="/", env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("", FAILED)
    assert "the key is lost" in done.stderr and (tmp_path / "runs").read_text() == "once "
