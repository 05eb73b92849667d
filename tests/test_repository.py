"""The repository keeps its promises: layout, metadata, demonstration home, Makefile."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
AVAILABLE = CHECKOUT / "sites-available"
ENABLED = CHECKOUT / "sites-enabled"
SCRIPTS = sorted(path for path in (CHECKOUT / ".ci").iterdir() if path.is_file() and path.name != "demo")


def sources() -> list[Path]:
    """The text files that are ours, as far as they exist in this checkout."""
    roots = ("multisite", "tests", "docs", "bench", "sites-available", "etc-moya", ".ci")
    found = [path for root in roots for path in (CHECKOUT / root).rglob("*") if path.is_file()]
    built = {"__pycache__", "_build", "var"}
    return [path for path in found if not built & set(path.parts)]


def make(*arguments: str, cwd: Path = CHECKOUT) -> str:
    """What make prints; the environment of an outer make is not handed on."""
    environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", *arguments], cwd=cwd, env=environ, capture_output=True, text=True, check=True)
    return done.stdout


def test_all_but_the_broken_site_are_enabled() -> None:
    """Each site file is switched on, broken.ini excepted."""
    available = {path.name for path in AVAILABLE.glob("*.ini")}
    assert available - {path.name for path in ENABLED.glob("*.ini")} == {"broken.ini"}


@pytest.mark.parametrize("link", sorted(ENABLED.iterdir()), ids=lambda path: path.name)
def test_enabled_sites_are_relative_links(link: Path) -> None:
    """A checkout can be moved: each link is relative and leads to the site file of its name."""
    if not link.is_symlink():
        pytest.fail(f"{link} is not a symlink")
    assert os.readlink(link) == f"../sites-available/{link.name}"
    assert link.exists(), "dangling"


@pytest.mark.parametrize("file", sorted(AVAILABLE.glob("*.ini")), ids=lambda path: path.name)
def test_site_files_explain_themselves(file: Path) -> None:
    """They double as documentation: each opens with a comment."""
    assert file.read_text().startswith("# ")


def test_demonstration_modules_do_not_clash() -> None:
    """At most the single-file sites may be called alike; anything more could be mixed up in one interpreter."""
    seen: dict[str, list[str]] = {}
    for directory in (path for path in AVAILABLE.iterdir() if path.is_dir()):
        modules = [path.stem for path in directory.glob("*.py")]
        modules += [path.parent.name for path in directory.glob("*/__init__.py")]
        for name in modules:
            seen.setdefault(name, []).append(directory.name)
    clashes = {name for name, sites in seen.items() if len(sites) > 1}
    assert clashes <= {"app"}
    for site in seen.get("app", []):
        assert len(list((AVAILABLE / site).glob("*.py"))) == 1, f"{site} is not a single-file site"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_shell(script: Path) -> None:
    """Each script is executable, stops at the first error, and parses."""
    assert os.access(script, os.X_OK)
    assert "\nset -eu\n" in script.read_text()
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_the_scripts_of_make_say_their_target() -> None:
    """`make` alone lists the targets of the contract."""
    listing = make()
    for target in ("run", "test", "venv", "check", "bench", "docs", "clean"):
        assert re.search(rf"^  make {target}  ", listing, re.MULTILINE), target


def test_make_run_serves_the_demonstration_home_on_loopback() -> None:
    """`make -n run` shows the server that would be started."""
    recipe = make("-n", "run", "PORT=8123")
    assert f".ci/demo '{CHECKOUT}/etc-moya'" in recipe
    assert "--bind 127.0.0.1:8123" in recipe


def test_a_python_that_is_too_old_is_said(tmp_path: Path) -> None:
    """The virtualenv script names the version that is wanted and the one it met."""
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.1" || exit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        [str(CHECKOUT / ".ci/venv"), str(tmp_path / "venv"), str(old)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs Python 3.10" in done.stderr and "Python 3.8.1" in done.stderr
    assert not (tmp_path / "venv").exists()


PIP_SAYS = """
Collecting click>=8.1 (from multisite-wsgi==0.1)
  Downloading click-8.5.1-py3-none-any.whl (126 kB)
Building wheel for multisite-wsgi (pyproject.toml): started
Using cached whatever
Installing collected packages: click, rich, gunicorn
Successfully installed click
"""


@pytest.mark.parametrize("status", [0, 3])
def test_an_installation_shows_what_pip_is_doing(tmp_path: Path, status: int) -> None:
    """There is a line for each package, in a pipe at once; warnings and the exit status are pip's."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f"#!/bin/sh\ncat <<'EOF'\n{PIP_SAYS}EOF\necho WARNING >&2\nread word\nexit {status}\n")
    python.chmod(0o755)
    words = [str(CHECKOUT / ".ci/pip"), str(tmp_path), "click"]
    done = subprocess.run(words, input="kept\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "WARNING\n")
    assert done.stdout.splitlines() == [
        "  collecting click>=8.1",
        "  downloading click-8.5.1-py3-none-any.whl (126 kB)",
        "  building wheel for multisite-wsgi (pyproject.toml): started",
        "  installing click and 2 more",
    ]


def test_a_missing_package_is_named_to_those_who_are_not_root(tmp_path: Path) -> None:
    """Without root the script says the command that root would type, and fails."""
    tools = {"id": "echo 1000", "apt-get": "exit 9", "dpkg-query": "exit 1"}
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        [str(CHECKOUT / ".ci/apt"), "python3-venv"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "sudo apt-get install --no-install-recommends python3-venv" in done.stderr


def test_readme_begins_with_run_and_test() -> None:
    """The first two commands of the README are `make run` and `make test`."""
    readme = (CHECKOUT / "README.md").read_text()
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", readme, re.DOTALL)
    commands = [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]
    assert commands[:2] == ["make run", "make test"]


def test_readme_links_lead_somewhere() -> None:
    """Each relative link of the README names a file of the repository."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (CHECKOUT / "README.md").read_text())
    assert links
    assert [link for link in links if not (CHECKOUT / link).exists()] == []


def test_metadata_is_complete() -> None:
    """The distribution's name, licence, version and commands are those of the contract."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    assert setup["metadata"]["name"] == "multisite-wsgi"
    assert setup["metadata"]["license"] == "BSD-3-Clause"
    assert setup["metadata"]["version"] == "attr: multisite.__version__"
    assert "multisite = multisite.cli:main" in setup["options.entry_points"]["console_scripts"]
    assert "BSD 3-Clause" in (CHECKOUT / "LICENSE").read_text()


def test_changes_tell_the_version() -> None:
    """CHANGES has a heading for the version the package says it is, or for what is not released yet."""
    from multisite import __version__

    headings = re.findall(r"^## \[?([^\]\s]+)", (CHECKOUT / "CHANGES").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0] == __version__


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    """One noun per file: nothing is called utils, helpers, common or misc."""
    names = {path.stem for path in (CHECKOUT / "multisite").rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "common", "misc", "base"}


def test_every_module_says_what_it_is_for() -> None:
    """Each module of the package opens with a docstring and postpones its annotations."""
    for path in (CHECKOUT / "multisite").rglob("*.py"):
        text = path.read_text()
        assert text.startswith(('"""', "#!")), path
        started_as_a_script = path.parts[-2:] == ("runner", "__main__.py")  # by Pythons of any age
        imports = re.search(r"^(from|import) ", text, re.MULTILINE)
        assert started_as_a_script or not imports or "from __future__ import annotations" in text, path


def test_no_pickle_and_no_eval() -> None:
    """Neither data that can run, nor text that is run."""
    for path in (CHECKOUT / "multisite").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) (pickle|marshal|shelve)\b", path.read_text(), re.MULTILINE), path
        assert not re.search(r"(?<![\w.])eval\(", path.read_text()), path


def test_text_is_clean() -> None:
    """Files are UTF-8 with Unix line ends, without trailing blanks, and end with one newline."""
    for path in sources():
        if path.suffix not in {".py", ".md", ".ini", ".conf", ".wsgi", ".html", ".cfg", ".toml", ""}:
            continue
        text = path.read_bytes().decode("utf-8")
        assert "\r" not in text, path
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), path
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), path


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed: what is ignored cannot be asked")
def test_what_is_made_at_run_time_is_ignored() -> None:
    """The demonstration writes nothing that git would want to commit."""
    if not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout: what is ignored cannot be asked")
    made = ["sites-available/django/var/db.sqlite3", ".venv/bin/python", ".venv-3.12/x", "docs/reference/options.rst"]
    done = subprocess.run(["git", "check-ignore", *made], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == made


def test_the_package_installs_nothing_else() -> None:
    """Only `multisite` is put on the import path of whoever installs it."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    assert setup["options.packages.find"]["include"] == "multisite*"
    assert {path.parent.name for path in CHECKOUT.glob("multisite*/__init__.py")} == {"multisite"}
