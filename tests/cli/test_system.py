"""`multisite init --system`: what is written, what is kept, and that systemd, supervisord and logrotate take it."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from multisite.cli import main
from multisite.cli.standalone import believing
from multisite.cli.system import KINDS, adapted, is_untouched, marked
from multisite.config.read import read_home
from tests.servers.harness import debian_program, eventually, find_program, free_port

UNITS = "etc/systemd/system"


def init(root: Path, *words: str, home: str = "") -> Result:
    before = ["--home", home] if home else []
    return CliRunner().invoke(main, [*before, "init", *(words or ("--system",)), "--root", str(root)])


def test_units_and_home_are_written_with_what_each_is_for_and_what_comes_next(tmp_path: Path) -> None:
    result = init(tmp_path, home="/srv/sites")
    assert result.exit_code == 0, result.output
    for file in KINDS["systemd"]:
        path = tmp_path / file.target.lstrip("/")
        assert f"wrote {path}: {file.purpose}" in result.output
        assert path.read_text().startswith("# multisite init --system wrote this; digest ")
    unit = (tmp_path / UNITS / "multisite.service").read_text()
    assert f"ExecStart={Path(sys.executable).parent}/gunicorn " in unit
    assert "MOYA_SERVICE_HOME=/srv/sites " in unit
    assert "systemctl enable --now multisite-supervisor.service multisite.socket multisite.service" in result.output
    home = read_home(str(tmp_path / "srv/sites"), {})
    assert (home.problems, home.supervisor.socket_group) == ((), "www-data")


def test_another_user_is_in_every_file(tmp_path: Path) -> None:
    assert init(tmp_path, "--system", "--user", "web").exit_code == 0
    texts = [(tmp_path / file.target.lstrip("/")).read_text() for file in KINDS["systemd"]]
    assert "User=web\nGroup=web\n" in texts[1]
    assert not any("www-data" in re.sub(r"^# SocketUser.*$", "", text, flags=re.M) for text in texts)
    assert read_home(str(tmp_path / "etc/moya"), {}).supervisor.socket_group == "web"


@pytest.mark.parametrize("manager", ["systemd", "supervisord"])
def test_what_init_wrote_is_not_changed_by_hand(tmp_path: Path, manager: str) -> None:
    words = (f"--system={manager}",)
    assert init(tmp_path, *words).exit_code == 0
    again = init(tmp_path, *words)
    assert again.exit_code == 0
    done = [line.split()[0] for line in again.stdout.partition("next")[0].splitlines()]
    assert set(done) == {"same"}, again.stdout
    (tmp_path / "etc/moya/logging.ini").write_text("[logger:root]\n")
    (tmp_path / "etc/logrotate.d/multisite").write_text("mine\n")
    third = init(tmp_path, *words).stdout
    assert "logging.ini (its text differs; --force overwrites it)" in third
    assert sum("kept" in line for line in third.splitlines()) == 2
    assert sum("changed by hand" in line for line in third.splitlines()) == 1


def test_a_second_init_keeps_quiet_about_what_is_the_same(tmp_path: Path) -> None:
    words = ["--home", str(tmp_path / "home"), "init"]
    CliRunner().invoke(main, words)
    (tmp_path / "home/moya.conf").write_text("[projects]\n")
    lines = CliRunner().invoke(main, words).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["kept", "same"]


def test_a_second_time_nothing_is_written_and_a_changed_file_is_kept_unless_forced(tmp_path: Path) -> None:
    init(tmp_path)
    socket, service = tmp_path / UNITS / "multisite.socket", tmp_path / UNITS / "multisite.service"
    service.write_text(service.read_text().replace("--workers 2", "--workers 7"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = init(tmp_path)
    assert f"same {socket}" in again.output
    assert (
        f"kept {service}: runs gunicorn, confined, without root (changed by hand; --force overwrites it)"
        in again.output
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert f"updated {service}" in init(tmp_path, "--system", "--force").output
    assert "--workers 2" in service.read_text()


def test_what_nobody_has_changed_follows_new_settings(tmp_path: Path) -> None:
    init(tmp_path)
    result = init(tmp_path, "--system", "--user", "web")
    assert f"updated {tmp_path / UNITS / 'multisite.service'}" in result.output
    assert "kept " in result.output  # moya.conf, which has no such line
    assert "its [supervisor] section sets socket_group = web" in result.output


def test_a_file_of_somebody_elses_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "etc/logrotate.d/multisite"
    path.parent.mkdir(parents=True)
    path.write_text("mine\n")
    assert f"kept {path}" in init(tmp_path).output
    assert path.read_text() == "mine\n"


def test_in_json_the_steps_are_a_list(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--json", "init", "--system=supervisord", "--root", str(tmp_path)])
    answer = json.loads(result.output)
    assert {step["action"] for step in answer["steps"]} == {"created", "wrote"}
    assert "supervisorctl update" in answer["next"]


@pytest.mark.parametrize(
    ("words", "home", "reason"),
    [
        (("--system", "--user", "a b"), "", "is not a user name"),
        (("--system",), "/srv/my sites", "these files cannot name"),
        ((), "", "--root needs --system"),
    ],
)
def test_what_these_files_cannot_hold_is_refused(
    tmp_path: Path, words: tuple[str, ...], home: str, reason: str
) -> None:
    before = ["--home", home] if home else []
    result = CliRunner().invoke(main, [*before, "init", *words, "--root", str(tmp_path)])
    assert result.exit_code == 2
    assert reason in result.stderr


def test_a_mark_knows_its_text() -> None:
    text = marked("; x\ny\n")
    assert text.startswith("; ")
    assert is_untouched(text)
    assert not is_untouched(text + "z\n")
    assert not is_untouched("y\n")


def test_only_whole_names_are_replaced() -> None:
    told = adapted(
        "/etc/moya /etc/moyas www-data www-database /opt/multisite/bin/x", programs="/p", home="/h", user="u"
    )
    assert told == "/h /etc/moyas u www-database /p/x"


@pytest.mark.parametrize(
    ("said", "told"),
    [("", "127.0.0.1,::1"), ("10.1.2.3/8, unix, 192.0.2.1", "10.0.0.0/8,192.0.2.1"), ("unix", '""')],
)
@pytest.mark.parametrize("manager", list(KINDS))
def test_gunicorn_believes_whom_the_home_believes(tmp_path: Path, manager: str, said: str, told: str) -> None:
    home = tmp_path / "etc" / "moya"
    home.mkdir(parents=True)
    (home / "moya.conf").write_text(
        f"[projects]\nread = *.ini\n[service]\n{f'trusted_proxies = {said}' if said else ''}\n"
    )
    result = CliRunner().invoke(main, ["init", f"--system={manager}", "--root", str(tmp_path)])
    assert result.exit_code == 0, result.output
    files = [path.read_text() for path in (tmp_path / "etc").rglob("multisite.*") if path.is_file()]
    lines = [line for text in files for line in text.splitlines() if "bin/gunicorn " in line]
    assert len(lines) == 1 and f" --forwarded-allow-ips {told} --" in lines[0]


def test_serve_has_gunicorn_believe_whom_the_home_believes() -> None:
    believed = believing(("10.1.2.3/8", "unix", "::1"))
    assert believed == {"forwarded_allow_ips": "10.0.0.0/8,::1", "proxy_allow_ips": "10.0.0.0/8,::1"}


# What the real programs say


@pytest.mark.servers
def test_systemd_takes_what_is_written(tmp_path: Path) -> None:
    analyze = debian_program("systemd-analyze", "systemd")
    shutil.copytree(Path(sys.prefix) / "bin", tmp_path / "bin", symlinks=True)
    init(tmp_path)
    units = sorted(str(path) for path in (tmp_path / UNITS).glob("multisite*.s*t") if path.is_file())
    units += sorted(str(path) for path in (tmp_path / UNITS).glob("multisite*.service"))
    assert len(units) == 3
    for name in ("multisite", "gunicorn"):
        if not (Path(sys.executable).parent / name).exists():  # run from a checkout that is not installed
            for unit in units:
                path = Path(unit)
                path.write_text(path.read_text().replace(f"{Path(sys.executable).parent}/{name} ", "/bin/true "))
    done = subprocess.run(
        [analyze, "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "multisite" in line]


@pytest.mark.servers
def test_logrotate_and_tmpfiles_take_what_is_written(tmp_path: Path) -> None:
    """In folders of the test: a log is rotated, and the folders are made with their owners."""
    init(tmp_path)
    logs = tmp_path / "var/log/multisite"
    logs.mkdir(parents=True)
    (logs / "blog.access.log").write_text("line\n")
    rule = tmp_path / "rule"
    text = (tmp_path / "etc/logrotate.d/multisite").read_text().replace("/var/log", f"{tmp_path}/var/log")
    rule.write_text(text if os.geteuid() == 0 else re.sub(r"    su .*\n", "", text))
    rule.chmod(0o644)
    program = debian_program("logrotate", "logrotate")
    done = subprocess.run(
        [program, "--force", "--state", str(tmp_path / "state"), str(rule)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in logs.iterdir()] == ["blog.access.log.1"]
    tmpfiles = find_program("systemd-tmpfiles")
    if tmpfiles and os.geteuid() == 0:
        root = tmp_path / "machine"
        (root / "etc").mkdir(parents=True)
        for name in ("passwd", "group"):
            shutil.copy(f"/etc/{name}", root / "etc" / name)
        argv = [tmpfiles, f"--root={root}", "--create", str(tmp_path / "etc/tmpfiles.d/multisite.conf")]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        status = (root / "var/log/multisite").stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o775, 0, 33)
        assert (root / "var/lib/multisite-workers").stat().st_uid == 33


@pytest.mark.servers
@pytest.mark.skipif(os.geteuid() != 0, reason="its programs change users, as root alone can")
def test_supervisord_runs_what_is_written(tmp_path: Path) -> None:
    """Both programs start, a spawned site answers through them, and both end when they are told to."""
    import tempfile

    from tests.servers.harness import PACKAGE_ROOT, ask
    from tests.servers.system_python import system_virtualenv

    program = debian_program("supervisord", "supervisor")
    place = Path(tempfile.mkdtemp(prefix="ms-"))
    place.chmod(0o755)
    try:
        home, port = place / "home", free_port()
        assert init(place, "--system=supervisord", home=str(home)).exit_code == 0
        inside = place / str(home).lstrip("/")
        shutil.copytree(inside, home, symlinks=True)
        (home / "hello.py").write_text("def application(e, s):\n    s('200 OK', [])\n    return [b'hello']\n")
        keys = f"domains = a.test\nlocation = {home}\napplication = hello:application\nmode = spawned\n"
        (home / "sites-enabled/a.ini").write_text(f"[service]\n{keys}")
        for name, owner in (("run", 0), ("lib", 0), ("workers", 33), ("log", 0)):
            (place / name).mkdir()
            os.chown(place / name, owner, owner)
        conf = (place / "etc/supervisor/conf.d/multisite.conf").read_text()
        shutil.copytree(PACKAGE_ROOT / "multisite", place / "code/multisite")  # where every user may read it
        python = system_virtualenv() / "bin/python"
        bin_folder = Path(sys.executable).parent
        for old, new in {
            "127.0.0.1:8000": f"127.0.0.1:{port}",
            f"{bin_folder}/multisite": f"{python} -m multisite",
            f"{bin_folder}/gunicorn": f"{python} -m gunicorn --no-control-socket",
            '"/run"': f'"{place}/run",PYTHONPATH="{place}/code"',
            '"/var/lib/multisite-workers"': f'"{place}/workers"',
            '"/var/lib"': f'"{place}/lib"',
            "/var/log/supervisor": f"{place}/log",
        }.items():
            assert old in conf, old
            conf = conf.replace(old, new)
        parser = configparser.RawConfigParser()
        parser.read_string(conf)
        assert parser.sections() == ["program:multisite-supervisor", "program:multisite"]
        main_conf = f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={place}/pid\n"
        (place / "supervisord.conf").write_text(main_conf + conf)
        process = subprocess.Popen([program, "-c", str(place / "supervisord.conf")], stdout=subprocess.DEVNULL)
        try:

            def answers() -> bool:
                try:
                    return ask(port, "a.test").text == "hello"
                except OSError:
                    return False

            said = lambda: "".join(path.read_text() for path in (place / "log").iterdir())  # noqa: E731
            try:
                eventually(answers, 60)
            except AssertionError:
                raise AssertionError(said()) from None
        finally:
            process.terminate()
            assert process.wait(90) == 0
    finally:
        shutil.rmtree(place)
