"""Who decides which user a site runs as."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from multisite.config import policies
from multisite.config.model import Home, Site, SupervisorOptions
from multisite.config.policies import Refused
from multisite.config.read import read_home
from multisite.supervisor.process import privilege

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")

PACKAGE = """
from multisite.config.policies import Refused

def by_name(site):
    return "www-data", None

def numbers(site):
    return 33, 1

def refuses(site):
    raise Refused(f"{site.name} has not paid")

def apart(site):
    raise Refused(f"{site.name} has not paid", "pay")

def sentence(site):
    raise Refused(f"{site.name} has not paid; pay")

def root(site):
    return "root", "root"

def fails(site):
    return 1 / 0

def nonsense(site):
    return "www-data"
"""
NAMES = ("by_name", "numbers", "refuses", "root", "fails", "nonsense", "apart", "sentence")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution that offers policies."""
    (tmp_path / "paid_users.py").write_text(PACKAGE)
    info = tmp_path / "paid_users-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: paid-users\nVersion: 1.0\n")
    lines = [f"{name} = paid_users:{name}" for name in NAMES] + ["gone = no_such_module:policy"]
    (info / "entry_points.txt").write_text("[multisite.policies]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    policies.installed.cache_clear()
    yield tmp_path
    policies.installed.cache_clear()
    sys.modules.pop("paid_users", None)


def who(policy: str, **keys: str) -> privilege.Identity:
    options = SupervisorOptions(user_policy=policy)
    return privilege.identity(Site("a.ini", name="a", **keys), Home("/home", supervisor=options))[0]


@as_root
def test_a_package_offers_a_policy(package: Path) -> None:
    """By name or by number; None is the user's own group."""
    assert (who("by_name").name, who("by_name").gid) == ("www-data", 33)
    assert (who("numbers").uid, who("numbers").gid) == (33, 1)


@as_root
def test_what_the_file_says_wins(package: Path) -> None:
    """A policy is asked where a file names no user."""
    assert who("refuses", user="nobody").name == "nobody"


@as_root
@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("refuses", "refuses it: a has not paid"),
        ("root", "allow_root = yes"),
        ("fails", "failed: ZeroDivisionError"),
        ("nonsense", "returned 'www-data' instead of a user and a group"),
        ("gone", "cannot be loaded: ModuleNotFoundError"),
        ("unheard_of", "there is no such policy; there are owner, directory, apart, by_name"),
    ],
)
def test_a_policy_that_gives_no_user_is_a_reason_not_to_start(package: Path, policy: str, reason: str) -> None:
    """In one sentence, and never root."""
    with pytest.raises(Refused, match=reason):
        who(policy)


@as_root
def test_the_remedy_of_a_policy_is_the_remedy(package: Path) -> None:
    """Whether it was given apart, or within one sentence."""
    for policy in ("apart", "sentence"):
        with pytest.raises(Refused) as refused:
            who(policy)
        problem = refused.value.problem("a.ini")
        assert (problem.reason, problem.remedy) == (f"user_policy = {policy} refuses it: a has not paid", "pay")
        assert str(refused.value) == f"{problem.reason}; {problem.remedy}"


def test_a_refusal_is_a_problem_of_a_key() -> None:
    refused = Refused("there is no such file", "correct it", "python", "/venv")
    assert str(refused) == "python = /venv: there is no such file; correct it"
    assert str(refused.problem("a.ini")) == "a.ini: [service] python = /venv: there is no such file; correct it"


@as_root
def test_directory_takes_user_and_group_of_the_folder(tmp_path: Path) -> None:
    """Luisito's rule; owner takes the owner's own group."""
    folder = Path("/tmp") / f"multisite-policy-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        os.chown(folder, 33, 1)
        assert (who("directory", location=str(folder)).uid, who("directory", location=str(folder)).gid) == (33, 1)
        assert who("owner", location=str(folder)).gid == 33
        with pytest.raises(Refused, match="no location"):
            who("directory")
        with pytest.raises(Refused, match="No such file"):
            who("directory", location=str(folder / "gone"))
        os.chown(folder, 0, 0)
        with pytest.raises(Refused, match="would run as root"):
            who("directory", location=str(folder))
    finally:
        folder.rmdir()


@as_root
@pytest.mark.parametrize("policy", ["owner", "directory"])
def test_nobody_makes_his_neighbour_run_his_code(policy: str) -> None:
    """A folder or link on the way that belongs to somebody else than the owner could be exchanged by him."""
    top = Path("/tmp") / f"multisite-way-{os.getpid()}"
    places = ["mallory", "victim", "victim/www"]
    top.mkdir(mode=0o755)
    try:
        for place in places:
            (top / place).mkdir(mode=0o755)
            os.chown(top / place, *((65534, 65534) if place == "mallory" else (33, 33)))
        (top / "mallory" / "www").symlink_to(top / "victim" / "www")
        (top / "by-root").symlink_to("victim/www")
        with pytest.raises(Refused, match=r"mallory belongs to another user"):
            who(policy, location=str(top / "mallory" / "www"))
        os.chown(top / "mallory", 0, 0)
        assert who(policy, location=str(top / "mallory" / "www")).uid == 33  # root's link in root's folder
        os.lchown(top / "mallory" / "www", 65534, 65534)
        with pytest.raises(Refused, match=r"mallory/www is a link whose owner"):
            who(policy, location=str(top / "mallory" / "www"))
        assert who(policy, location=str(top / "by-root")).uid == 33
        assert who(policy, location=str(top / "victim" / "www")).uid == 33
    finally:
        os.system(f"rm -r {top}")


def test_a_policy_that_is_not_there_is_a_problem_of_moya_conf(tmp_path: Path) -> None:
    """With what there is, and what may have been meant."""
    (tmp_path / "moya.conf").write_text("[supervisor]\nuser_policy = directroy\n")
    (problem,) = read_home(str(tmp_path)).problems
    assert (problem.section, problem.key, problem.value) == ("supervisor", "user_policy", "directroy")
    assert "did you mean directory?" in str(problem)
