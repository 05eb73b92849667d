"""The multisite command, on real homes."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from multisite.cli import ALIASES, COMMANDS, main
from multisite.config.read import read_home
from multisite.errors import NeedsProcess
from multisite.sites import placement
from multisite.sites.failures import LastFailures
from multisite.sites.sitedir import SiteDir

Run = Callable[..., Result]

APP = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Make an empty home of which this process may share the workers' interpreter."""
    home = tmp_path / "home"
    for folder in ("sites-available", "sites-enabled"):
        (home / folder).mkdir(parents=True)
    settings = f"[service]\nstate_dir = {tmp_path}/state\ntemp_dir = {tmp_path}/tmp\nruntime_dir = {tmp_path}/run\n"
    settings += "[defaults]\nshare = yes\n[supervisor]\nallow_root = yes\nexamine = no\n"
    (home / "moya.conf").write_text("[projects]\nread = sites-enabled/*.ini\n" + settings)
    monkeypatch.delenv("MOYA_SERVICE_HOME", raising=False)
    return home


@pytest.fixture
def run(home: pathlib.Path) -> Run:
    """Run one command on the home; before its name stand the words in `options`."""

    def run(*words: str, options: tuple[str, ...] = ()) -> Result:
        return CliRunner().invoke(main, ["--home", str(home), *options, *words], prog_name="multisite")

    return run


def add(home: pathlib.Path, name: str, text: str = "", code: str = APP, enable: bool = True) -> pathlib.Path:
    """Write a site that works, with `text` added to its [service]."""
    location = home.parent / "code" / name
    location.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    (location / f"{module}_app.py").write_text(code)
    own = "" if "domains" in text else f"domains = {name}.example.com\n"
    own += "" if "location" in text else f"location = {location}\n"
    body = f"[service]\n{own}application = {module}_app:application\n{text}\n"
    path = home / "sites-available" / f"{name}.ini"
    path.write_text(body)
    if enable:
        (home / "sites-enabled" / path.name).symlink_to(f"../sites-available/{path.name}")
    return path


def address(name: str) -> str:
    """What is printed of a site that is well, while no server runs."""
    note = "as soon as multisite serve, or another server of these sites, is running"
    return f"{name}: http://{name}.example.com:8000/ {note}\n"


def answer(result: Result) -> Any:
    return json.loads(result.stdout)


# ensite, dissite


def test_ensite_and_dissite_are_idempotent_and_take_names_with_and_without_ini(home: pathlib.Path, run: Run) -> None:
    add(home, "blog", enable=False)
    add(home, "shop", enable=False)
    first = run("ensite", "blog", "shop.ini")
    assert first.exit_code == 0
    assert first.stdout == f"enabled blog\nenabled shop\n{address('blog')}{address('shop')}"
    assert os.readlink(home / "sites-enabled/shop.ini") == "../sites-available/shop.ini"
    assert run("ensite", "blog").stdout == f"blog is already enabled\n{address('blog')}"
    assert run("dissite", "blog.ini").stdout == "disabled blog\n"
    assert run("dissite", "blog").stdout == "blog is already disabled\n"
    assert (home / "sites-available/blog.ini").exists()


def test_an_unknown_site_is_guessed_at_and_the_others_are_enabled_all_the_same(home: pathlib.Path, run: Run) -> None:
    add(home, "blog", enable=False)
    result = run("ensite", "blgo", "blog")
    assert result.exit_code == 1
    assert result.stderr == "multisite: there is no site 'blgo' (did you mean blog?)\n"
    assert (home / "sites-enabled/blog.ini").is_symlink()


@pytest.mark.parametrize("name", ["../blog", "/etc/passwd", "", ".", "..", "blog\x00"])
def test_a_name_never_leads_out_of_the_directories(home: pathlib.Path, run: Run, name: str) -> None:
    add(home, "blog", enable=False)
    (home / "blog.ini").write_text("[service]\n")
    assert run("ensite", name).exit_code == 1
    assert run("dissite", name).exit_code == 1
    assert list((home / "sites-enabled").iterdir()) == []


def test_a_site_is_found_by_the_name_that_its_file_gives(home: pathlib.Path, run: Run) -> None:
    add(home, "blog", "name = journal", enable=False)
    assert run("ensite", "journal").stdout.startswith("enabled blog\njournal: http://blog.example.com:8000/")
    assert run("dissite", "journal").stdout == "disabled blog\n"


def test_wildcards_stand_for_all_that_they_match(home: pathlib.Path, run: Run) -> None:
    for name in ("demo-a", "demo-b", "other"):
        add(home, name, enable=False)
    said = "".join(map(address, ("demo-a", "demo-b")))
    assert run("ensite", "demo-*").stdout == f"enabled demo-a\nenabled demo-b\n{said}"
    assert run("dissite", "*").stdout == "disabled demo-a\ndisabled demo-b\n"
    assert run("dissite", "*").exit_code == 1


def test_without_a_name_the_choices_are_listed(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    add(home, "shop", enable=False)
    assert run("ensite").stdout == "available: blog shop\n"
    assert run("dissite").stdout == "enabled: blog\n"
    assert answer(run("dissite", options=("--json",))) == {"enabled": ["blog"]}


def test_a_file_with_errors_is_enabled_and_they_are_printed(home: pathlib.Path, run: Run) -> None:
    add(home, "blog", "thraeds = 4", enable=False)
    result = run("ensite", "blog")
    assert result.exit_code == 1
    assert "enabled blog" in result.stdout
    assert "thraeds" in result.stderr
    assert "threads" in result.stderr


def test_a_domain_that_is_taken_is_said_when_the_site_is_enabled(home: pathlib.Path, run: Run) -> None:
    add(home, "a", "domains = x.example.com")
    add(home, "b", "domains = x.example.com", enable=False)
    result = run("ensite", "--force", "b")
    assert "sites-enabled/a.ini claims this domain, too," in result.stderr


def test_dangling_links_are_removed_and_regular_files_are_not(home: pathlib.Path, run: Run) -> None:
    (home / "sites-enabled/gone.ini").symlink_to("../sites-available/gone.ini")
    (home / "sites-enabled/mine.ini").write_text("[service]\n")
    assert run("dissite", "gone").exit_code == 0
    result = run("dissite", "mine")
    assert result.exit_code == 1
    assert "not a link" in result.stderr
    assert [path.name for path in (home / "sites-enabled").iterdir()] == ["mine.ini"]


# list, where, check


def test_stop_says_that_a_site_in_the_workers_has_no_process(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    add(home, "own", "mode = spawned")
    said = run("stop", "blog", "own").stdout
    assert said.startswith("blog: it shares the workers' interpreter and has no process; use dissite to disable it\n")
    assert said.endswith("own: it was not running\n")


def test_list_as_json_has_the_shape_of_the_contract(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    add(home, "broken", "threads = many")
    add(home, "idle", enable=False)
    add(home, "own", "mode = spawned")
    document = answer(run("list", options=("--json",)))
    assert document["supervisor"] is None
    assert document["preloaders"] == []
    sites = {site["name"]: site for site in document["sites"]}
    assert list(sites) == ["blog", "broken", "own", "idle"]
    states = {name: (site["enabled"], site["placement"], site["state"]) for name, site in sites.items()}
    assert states == {
        "blog": (True, "in-process", "in-process"),
        "broken": (True, None, "broken"),
        "own": (True, "spawned", "stopped"),
        "idle": (False, None, "stopped"),
    }
    assert sites["blog"]["domains"] == ["blog.example.com"]
    assert sites["blog"]["file"] == str(home / "sites-enabled/blog.ini")
    assert sites["blog"]["pids"] == []
    assert sites["blog"]["memory"] is sites["idle"]["requests"] is None
    assert all(sites[name]["requests"] == sites[name]["in_flight"] == 0 for name in ("blog", "own"))
    assert sites["broken"]["problems"][0]["key"] == "threads"


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("command", ["list", "status"])
def test_the_exit_status_reports_broken_sites(
    home: pathlib.Path, run: Run, command: str, options: tuple[str, ...]
) -> None:
    add(home, "blog")
    add(home, "idle", "threads = many", enable=False)
    assert run(command, options=options).exit_code == 0  # a site that is not enabled harms nobody
    add(home, "bad", "threads = many")
    result = run(command, options=options)
    assert result.exit_code == 3
    assert "bad" in result.stdout
    assert run(command, "blog", options=options).exit_code == 0
    assert run(command, "b*", options=options).exit_code == 3
    (home / "sites-available" / "bad.ini").unlink()
    assert run(command, options=options).exit_code == 3, "its link dangles"


def test_status_takes_names(home: pathlib.Path, run: Run) -> None:
    for name in ("blog", "demo-a", "demo-b"):
        add(home, name)
    add(home, "idle", enable=False)
    assert [site["name"] for site in answer(run("status", "demo-*", options=("--json",)))["sites"]] == [
        "demo-a",
        "demo-b",
    ]
    shown = run("status", "demo-a.ini").stdout
    assert "demo-a" in shown and "blog" not in shown
    unknown = run("status", "bolg")
    assert (unknown.exit_code, unknown.stdout) == (1, "")


def test_status_shows_failed_sites_alone(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    assert run("status", "--failed").exit_code == 0
    add(home, "bad", "threads = many")
    failed = run("status", "--failed", options=("--json",))
    assert (failed.exit_code, [site["name"] for site in answer(failed)["sites"]]) == (3, ["bad"])
    assert "blog" not in run("status", "--failed").stdout


def test_a_site_by_its_name_gets_what_explain_shows(home: pathlib.Path, run: Run) -> None:
    for name in ("blog", "shop"):
        add(home, name)
    explained = run("explain", "blog").stdout
    assert explained in run("status", "blog").stdout
    assert explained not in run("status").stdout and explained not in run("status", "b*").stdout


def test_troubles_of_many_sites_are_cut_short(home: pathlib.Path, run: Run) -> None:
    for number in range(13):
        add(home, f"bad-{number:02}", "threads = many")
    shown = run("status").stdout
    assert shown.count("\nerror: ") == 10 and shown.endswith("\n3 more; multisite status --wide shows all of them\n")
    assert run("status", "--wide").stdout.count("\nerror: ") == 13


@pytest.mark.parametrize("words", [("--watch", "1e9"), ("--watch=0",)])
def test_a_pause_that_is_none_is_refused(run: Run, words: tuple[str, ...]) -> None:
    assert run("status", *words).exit_code == 2


def test_status_is_shown_again_until_interrupted(home: pathlib.Path) -> None:
    """A word after --watch that is no number is a site."""
    for name in ("blog", "shop"):
        add(home, name)
    words = [sys.executable, "-m", "multisite", "--home", str(home), "status", "--watch", "blog"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout
        seen: list[str] = []
        while sum(line.startswith("multisite ") for line in seen) < 2:
            seen.append(process.stdout.readline())
            assert seen[-1]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert sum(line.startswith("blog ") for line in seen) == 1 and not any("shop" in line for line in seen)


def test_a_table_in_a_pipe_is_neither_cut_nor_coloured(home: pathlib.Path, run: Run) -> None:
    long = ".".join(["a" * 60] * 3) + ".example.com"
    add(home, "blog", f"domains = {long}")
    result = run("list")
    assert result.exit_code == 0
    assert long in result.stdout
    assert "\x1b" not in result.stdout


def test_what_a_file_says_cannot_steer_the_terminal(home: pathlib.Path, run: Run) -> None:
    add(home, "blog", "location = /tmp/\x1b[31mred [bold]x[/bold]")
    for command in (("list",), ("check",), ("where", "blog"), ("explain", "blog.example.com")):
        result = run(*command)
        assert "\x1b" not in result.output
        assert not isinstance(result.exception, Exception)


def test_where_prints_the_location(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    assert run("where", "blog").stdout == f"{home.parent}/code/blog\n"
    unknown = run("where", "blgo")
    assert unknown.exit_code == 1
    assert "did you mean blog?" in unknown.stderr


def test_where_knows_a_site_that_is_not_enabled_and_restart_says_that_it_is_not(home: pathlib.Path, run: Run) -> None:
    add(home, "blog", enable=False)
    assert run("where", "blog").stdout == f"{home.parent}/code/blog\n"
    assert run("restart", "blog").stderr == (
        "multisite: MS912 the site blog is not enabled; multisite ensite blog enables it\n"
    )


def test_check_says_every_problem_of_every_file_in_one_run(home: pathlib.Path, run: Run) -> None:
    add(home, "a", "threads = many\nmode = sideways")
    add(home, "b", "location = /no/such/place")
    add(home, "c", code="application = 42\n")
    add(home, "d", code="import nothing_in_particular\n")
    (home / "sites-enabled/gone.ini").symlink_to("../sites-available/gone.ini")
    (home / "sites-enabled/loop.ini").symlink_to("loop.ini")
    (home / "sites-enabled/dir.ini").mkdir()
    result = run("check")
    assert result.exit_code == 1
    for word in ("many", "sideways", "/no/such/place", "not callable", "no application", "gone", "loop", "dir"):
        assert word in result.stdout, word
    assert result.stderr.count("\n") == 1


def test_check_says_the_problems_of_logging_ini(home: pathlib.Path, run: Run) -> None:
    log = home.parent / "made.log"
    handler = f"[handler:file]\nclass = FileHandler\nargs = ({str(log)!r},)\n"
    (home / "logging.ini").write_text(f"[logger:root]\nhandlers = file, gone\nlevel = LOUD\n{handler}")
    result = run("check")
    assert result.exit_code == 1
    assert "[logger:root] level = LOUD: is not a level" in result.stdout
    assert "no handler is called 'gone'" in result.stdout
    assert not log.exists()


def test_check_of_a_clean_home_is_silent_but_for_one_line(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    result = run("check")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{home}: 1 site, no errors\n"


def test_named_sites_alone_are_checked_whether_enabled_or_not(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    add(home, "shop", "nice = very")
    add(home, "draft", "threads = many", enable=False)
    assert run("check", "blog").stdout == "blog: no problems\n"
    for name, word in (("shop", "very"), ("draft", "many")):
        result = run("check", "blog", name)
        assert result.exit_code == 1
        assert word in result.stdout
        assert result.stdout.count("error: ") == 1
    document = answer(run("check", "draft", options=("--json",)))
    assert (document["errors"], document["problems"][0]["enabled"]) == (1, False)
    unknown = run("check", "blgo")
    assert unknown.exit_code == 1
    assert "did you mean blog" in unknown.stderr


def test_files_that_are_not_enabled_are_checked_and_do_not_count(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    add(home, "draft", "threads = many", enable=False)
    result = run("check")
    assert result.exit_code == 0
    assert "not enabled: error: " in result.stdout
    document = answer(run("check", options=("--json",)))
    assert document["errors"] == 0
    assert [(problem["key"], problem["enabled"]) for problem in document["problems"]] == [("threads", False)]


WRONG = {
    "keys": "threads = many\nmode = sideways\nthraeds = 2",
    "keys and a place": "threads = many\nlocation = /no/such/place\nthraeds = 2",
    "keys and folders": "thraeds = 2\n[static]\n/static = /no/such/s\n[logging]\naccess = /no/such/access.log",
    "folders": "[static]\n/a = /no/such/a\n/b = /no/such/b\n[logging]\nerror = /no/such/logs/error.log",
    "a place": "location = /no/such/place",
    "a base": "",
    "an interpreter": "python = /no/such/venv\nuser = nobody-here\nprocesses = none",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_check_list_and_status_count_the_same_problems(home: pathlib.Path, run, text: str) -> None:
    (home / "base.ini").write_text("[service]\nnice = very\n")
    file = add(home, "one", text)
    file.write_text(f"extends = {home}/base.ini\n{file.read_text()}")
    add(home, "two", "domains = one.example.com, two.example.com")
    check = json.loads(run("check", options=("--json",)).stdout)["problems"]
    assert check
    for command in ("list", "status"):
        for row in json.loads(run(command, options=("--json",)).stdout)["sites"]:
            files = (row["file"], str(home / "base.ini")) if row["name"] == "one" else (row["file"],)
            ours = [{key: value for key, value in one.items() if key != "enabled"} for one in check]
            assert row["problems"] == [one for one in ours if one["file"] in files], row["name"]


def test_two_links_that_name_two_sites_alike_are_explained(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    (home / "sites-enabled/again.ini").symlink_to("../sites-available/blog.ini")
    result = run("check")
    assert result.exit_code == 1
    assert "again.ini" in result.stdout
    assert "blog.ini" in result.stdout


# explain


def test_explain_names_site_rule_file_and_placement(home: pathlib.Path, run: Run) -> None:
    add(home, "blog", "domains = blog.example.com, *.example.org")
    add(home, "api", "domains = blog.example.com\nmount = /api\nmode = spawned")
    root = answer(run("explain", "Blog.Example.COM.:8000", options=("--json",)))
    assert (root["name"], root["rule"], root["placement"]) == ("blog", "exact domain", "in-process")
    assert root["file"] == str(home / "sites-enabled/blog.ini")
    mounted = answer(run("explain", "http://blog.example.com/api/x?y=1", options=("--json",)))
    assert (mounted["name"], mounted["mount"], mounted["otherwise"]) == ("api", "/api", ["blog"])
    assert mounted["reason"] == "its file says mode = spawned"
    pattern = run("explain", "any.example.org")
    assert "pattern *.example.org" in pattern.stdout


def test_explain_says_why_nobody_answers(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    add(home, "shop", enable=False)
    add(home, "api", "domains = api.example.com\nmount = /v1")
    near = run("explain", "blgo.example.com")
    assert near.exit_code == 1
    assert "did you mean blog.example.com" in near.stderr
    assert "multisite ensite shop" in run("explain", "shop.example.com").stderr
    assert "its mounts are /v1" in run("explain", "api.example.com/v2").stderr
    bad = run("explain", "exa mple..com")
    assert bad.exit_code == 1
    assert bad.stderr == "multisite: 'exa mple..com' is not a host name: it gets a 400 page\n"


def test_explain_says_what_will_fail(home: pathlib.Path, run: Run) -> None:
    add(home, "gone", "location = /no/such/place")
    result = run("explain", "gone.example.com")
    assert result.exit_code == 1
    assert "/no/such/place" in result.stderr
    row = next(site for site in answer(run("list", options=("--json",)))["sites"] if site["name"] == "gone")
    assert row["state"] == "broken"
    assert [problem["key"] for problem in row["problems"]] == ["location"]


def test_explain_says_what_happened_to_a_site_in_the_workers(home: pathlib.Path, run: Run) -> None:
    add(home, "apart")
    add(home, "failed")
    add(home, "kept")
    settings = read_home(str(home))
    verdicts, says = LastFailures(settings), placement.basis(settings)
    reason = NeedsProcess("it is an ASGI application").reason
    verdicts.note("apart", reason, "1", serving=False, own_process=True, basis=says)
    verdicts.note("failed", "no module", "2", serving=False, own_process=False)
    verdicts.note("kept", "no module", "3", serving=True, own_process=False)
    told = {n: answer(run("explain", f"{n}.example.com", options=("--json",))) for n in ("apart", "failed", "kept")}
    assert (told["apart"]["placement"], told["apart"]["reason"]) == ("spawned", "it is an ASGI application")
    assert [told[name]["state"] for name in told] == ["stopped", "broken", "in-process"]
    assert told["failed"]["failure"]["incident"] == "2"


def test_a_bad_deploy_is_told_beside_the_old_version_that_serves(home: pathlib.Path, run: Run) -> None:
    """What is wrong with the code on disk does not make the site broken, until a worker has no older one."""
    add(home, "blog", code="import no_such_module\n")
    verdicts = LastFailures(read_home(str(home)))
    verdicts.note("blog", "it needs no_such_module", "1", serving=True)
    told = run("explain", "blog.example.com")
    assert told.exit_code == 1
    assert "state:       in-process\n" in told.stdout
    assert ": new version failed to start (" in told.stdout and "; the old version is still serving" in told.stdout
    assert "incident 1: new version failed to start (it needs no_such_module)" in told.stdout
    assert "there is no application" in told.stderr
    assert "error: blog: old version serves, incident 1: it needs no_such_module\n" in run("status").stdout
    verdicts.note("blog", "it needs no_such_module", "2", serving=False)
    verdicts.note("blog", "it needs no_such_module", "3", serving=True)
    told = run("explain", "blog.example.com")
    assert "state:       broken\n" in told.stdout
    assert "still serving" not in told.stdout


def test_list_says_that_an_old_version_serves(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    LastFailures(read_home(str(home))).note("blog", "its smoke request failed", "1", serving=True)
    (row,) = answer(run("list", options=("--json",)))["sites"]
    assert (row["state"], row["failure"]["serving"]) == ("in-process", True)
    said = "new version failed to start (its smoke request failed"
    assert said in " ".join(run("list").stdout.split())


def test_a_site_whose_processes_are_somebody_elses_is_not_stopped(home: pathlib.Path, run: Run) -> None:
    path = home / "sites-enabled" / "far.ini"
    path.write_text("[service]\ndomains = far.test\nmode = proxy\nupstreams = http://127.0.0.1:9\n")
    (row,) = answer(run("list", options=("--json",)))["sites"]
    assert (row["placement"], row["state"], row["pids"]) == ("proxy", "proxy", [])
    assert run("list").stdout.splitlines()[-1].split() == ["far", "far.test", "proxy", "yes", "proxy"]
    assert answer(run("explain", "far.test", options=("--json",)))["state"] == "proxy"


def test_why_a_site_has_a_process_is_decided_anew_when_its_configuration_is_another(
    home: pathlib.Path, run: Run
) -> None:
    """A worker looks again when [supervisor], [defaults] or the site's file is another one; so does the command."""
    path = add(home, "blog", "mode = in-process")
    conf, verdicts = home / "moya.conf", LastFailures(read_home(str(home)))

    def note() -> None:
        reason, says = NeedsProcess("it is an ASGI application").reason, placement.basis(read_home(str(home)))
        verdicts.note("blog", reason, "", serving=False, own_process=True, watched=[str(path)], basis=says)

    def placed() -> str:
        return str(answer(run("explain", "blog.example.com", options=("--json",)))["placement"])

    written = conf.read_text()
    for section, more in (("supervisor", "max_backends = 7"), ("defaults", "nice = 0")):
        note()
        assert placed() == "spawned"
        conf.write_text(f"# the same\n{written}")
        assert placed() == "spawned"
        conf.write_text(written.replace(f"[{section}]", f"[{section}]\n{more}"))
        assert placed() == "in-process"
        conf.write_text(written)
    note()
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))
    assert placed() == "in-process"


def test_a_bad_edit_is_told_beside_the_version_that_serves(home: pathlib.Path, run: Run) -> None:
    path = add(home, "blog")
    SiteDir(read_home(str(home))).scan()  # as a worker does
    path.write_text(path.read_text().replace("[service]", "[servce]"))
    assert "unknown section" in run("check").stdout
    assert run("check").exit_code == 1
    told = answer(run("explain", "blog.example.com", options=("--json",)))
    assert (told["name"], told["state"]) == ("blog", "in-process")


def test_a_key_is_told_of_once(home: pathlib.Path, run: Run) -> None:
    """Where the file has been edited, what is wrong with that key of the version in service is not told besides."""
    path = add(home, "blog")
    SiteDir(read_home(str(home))).scan()  # as a worker does
    shutil.rmtree(home.parent / "code" / "blog")
    assert [told["reason"] for told in row(run, "blog")["problems"]] == ["there is no such directory"]
    path.write_text(re.sub("location = .*", "location = /srv/%NOPE", path.read_text()))
    (told,) = row(run, "blog")["problems"]
    assert (told["key"], told["value"]) == ("location", "/srv/%NOPE")


def row(run: Run, name: str) -> Any:
    """A site as `list` describes it."""
    return next(site for site in answer(run("list", options=("--json",)))["sites"] if site["name"] == name)


def test_explain_knows_the_default_site_and_the_canonical_domain(home: pathlib.Path, run: Run) -> None:
    add(home, "blog", "domains = blog.example.com, www.example.com\nredirect_to_canonical = yes")
    conf = home / "moya.conf"
    conf.write_text(conf.read_text().replace("[service]\n", "[service]\ndefault_site = blog\n"))
    assert answer(run("explain", "www.example.com", options=("--json",)))["redirect"] == "blog.example.com"
    assert answer(run("explain", "else.where", options=("--json",)))["rule"] == "default site"


# restart, reload


def test_restart_touches_the_site_file(home: pathlib.Path, run: Run) -> None:
    path = add(home, "blog")
    os.utime(path, (1, 1))
    assert run("restart", "blog").exit_code == 0
    assert path.stat().st_mtime > 1
    assert not (home.parent / "tmp").exists()


def test_restart_of_an_unknown_site_restarts_nothing(home: pathlib.Path, run: Run) -> None:
    path = add(home, "blog")
    os.utime(path, (1, 1))
    assert run("restart", "blog", "nope").exit_code == 1
    assert path.stat().st_mtime == 1


def test_reload_touches_moya_conf_and_says_the_problems(home: pathlib.Path, run: Run) -> None:
    add(home, "blog")
    os.utime(home / "moya.conf", (1, 1))
    assert run("reload").exit_code == 0
    assert (home / "moya.conf").stat().st_mtime > 1
    add(home, "broken", "threads = many")
    os.utime(home / "moya.conf", (1, 1))
    result = run("reload")
    assert result.exit_code == 1
    assert "many" in result.stderr
    assert (home / "moya.conf").stat().st_mtime > 1


# init, new


def test_init_makes_a_home_that_checks_clean_and_never_overwrites(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "fresh"
    words = ["--home", str(home)]
    assert CliRunner().invoke(main, [*words, "init"]).exit_code == 0
    with (home / "moya.conf").open("a") as conf:
        conf.write("[supervisor]\nallow_root = yes\n")  # root's nobody may not reach this folder or this Python
    checked = CliRunner().invoke(main, [*words, "check"])
    assert checked.exit_code == 0, checked.output
    assert os.readlink(home / "sites-enabled/hello.ini") == "../sites-available/hello.ini"
    (home / "moya.conf").write_text("[projects]\n# mine\n")
    assert "kept" in CliRunner().invoke(main, [*words, "init"]).stdout
    assert "# mine" in (home / "moya.conf").read_text()
    CliRunner().invoke(main, [*words, "install", "--force"])
    assert "# mine" not in (home / "moya.conf").read_text()
    assert all("allow_root" not in path.read_text() for path in home.rglob("*") if path.is_file())


def test_a_disabled_first_site_stays_disabled_when_init_runs_again(tmp_path: pathlib.Path) -> None:
    words = ["--home", str(tmp_path / "fresh")]
    for command in (["init"], ["dissite", "hello"], ["init", "--force"]):
        assert CliRunner().invoke(main, words + command).exit_code == 0
    assert list((tmp_path / "fresh/sites-enabled").iterdir()) == []


def test_new_writes_a_file_that_can_be_enabled_and_refuses_to_overwrite(home: pathlib.Path, run: Run) -> None:
    add(home, "unused", enable=False)
    location = home.parent / "code/unused"
    words = ("--domain", "a.example.com", "--domain", "*.b.example.com", "--location", str(location))
    result = run("new", "blog", *words, "--application", "unused_app:application", "--enable")
    assert result.exit_code == 0, result.output
    assert run("check").exit_code == 0, run("check").output
    site = next(s for s in answer(run("list", options=("--json",)))["sites"] if s["name"] == "blog")
    assert site["domains"] == ["a.example.com", "*.b.example.com"]
    assert site["location"] == str(location)
    assert site["application"] == "unused_app:application"
    before = (home / "sites-available/blog.ini").read_bytes()
    again = run("new", "blog")
    assert again.exit_code == 1
    assert (home / "sites-available/blog.ini").read_bytes() == before


def test_new_refuses_names_that_no_site_may_have(run: Run) -> None:
    for name in ("../x", "a/b", ".hidden", "x" * 70):
        assert run("new", name).exit_code == 2


# the command as a whole


def test_every_command_has_a_help_text_with_an_example(run: Run) -> None:
    for name in COMMANDS:
        result = run(name, "--help")
        assert result.exit_code == 0
        assert f"multisite {name}" in result.stdout.partition("Examples:")[2] or name == "list", name


@pytest.mark.parametrize("words", [["--json", "{}"], ["{}", "--json"], ["{}", "--home", "{home}", "--json"]])
@pytest.mark.parametrize("command", ["list", "status", "check", "stats", "version"])
def test_json_and_home_stand_anywhere(home: pathlib.Path, command: str, words: list[str]) -> None:
    typed = [word.format(command, home=home) for word in words]
    if "--home" not in typed:
        typed.insert(0, f"--home={home}")
    result = CliRunner().invoke(main, typed)
    assert result.exit_code == 0, result.output
    assert answer(result)


def test_options_behind_the_names_of_sites_are_read_too(home: pathlib.Path) -> None:
    add(home, "blog")
    result = CliRunner().invoke(main, ["where", "blog", "--json", "--home", str(home)])
    assert answer(result)["name"] == "blog"
    assert [site["name"] for site in answer(CliRunner().invoke(main, ["list", "--home", str(home), "--json"]))["sites"]]


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (["where", "blgo", "--json"], 1, "did you mean blog?"),
        (["--json", "where", "blgo"], 1, "did you mean blog?"),
        (["restart", "none-*", "--json"], 1, "no enabled site matches"),
        (["list", "blgo", "--json"], 1, "did you mean blog?"),
        (["explain", "blgo", "--json"], 1, "did you mean blog?"),
        (["lst", "--json"], 2, "did you mean list"),
        (["--json", "--hom", "x", "list"], 2, "did you mean --home?"),
        (["restart", "--json"], 2, "NAME"),
        (["restart", "--json", "--wiat", "blog"], 2, "did you mean --wait?"),
        (["restart", "blog", "-wait", "--json"], 2, "did you mean --wait?"),
    ],
)
def test_errors_are_json_for_programs(home: pathlib.Path, run: Run, words: list[str], status: int, part: str) -> None:
    """The same reason is one line, or the usage, on standard error; the exit status is the same without --json."""
    add(home, "blog")
    result = run(*words)
    assert result.exit_code == status
    assert answer(result).keys() - {"id"} == {"error"}
    assert part in answer(result)["error"]
    assert part in result.stderr
    plain = run(*(word for word in words if word != "--json"))
    assert (plain.exit_code, plain.stdout) == (status, "")
    assert part in plain.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_guessed_at(run: Run, name: str) -> None:
    """Two letters of it are exchanged."""
    command = main.get_command(click.Context(main), name)
    assert command
    for option in (one for parameter in command.params for one in parameter.opts if one.startswith("--")):
        wrong = f"--{option[3]}{option[2]}{option[4:]}"
        result = run(name, wrong)
        assert result.exit_code == 2
        assert f"no such option: {wrong} (did you mean " in result.stderr
        assert option in result.stderr.partition("did you mean")[2]


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES])
def test_every_command_is_guessed_at(run: Run, name: str) -> None:
    result = run(f"{name[0]}x{name[1:]}")
    assert result.exit_code == 2
    assert name in result.stderr.partition("did you mean")[2]


def test_what_fingers_are_used_to_type_is_understood(home: pathlib.Path, run: Run) -> None:
    """Such names are in no list."""
    add(home, "blog", enable=False)
    assert run("enable", "blog").stdout == f"enabled blog\n{address('blog')}"
    assert run("configtest").stdout == run("check").stdout
    assert run("disable", "blog").stdout == "disabled blog\n"
    assert "multisite restart blog" in run("help", "restart").stdout
    assert "ensite" in run("help").stdout
    assert run("help", "restrat").exit_code == 2
    assert run("version").stdout == run("--version").stdout
    listed = run("help").stdout.partition("Commands:")[2]
    assert not [name for name in ALIASES if re.search(rf"^ +{name} ", listed, re.MULTILINE)]


def test_reload_of_a_site_restarts_that_alone(home: pathlib.Path, run: Run) -> None:
    paths = {name: add(home, name) for name in ("blog", "shop")}
    for path in paths.values():
        os.utime(path, (1, 1))
    assert run("reload", "blog").stdout == run("restart", "blog").stdout
    assert paths["blog"].stat().st_mtime > 1
    assert paths["shop"].stat().st_mtime == 1
    assert run("reload", "--supervisor", "blog").exit_code == 2


@pytest.mark.parametrize("command", ["restart", "stop", "start", "reload"])
def test_all_and_wildcards_stand_for_enabled_sites(home: pathlib.Path, run: Run, command: str) -> None:
    for name in ("demo-a", "demo-b", "other"):
        add(home, name)
    add(home, "demo-off", enable=False)

    def named(*words: str) -> list[str]:
        result = run(command, *words)
        assert result.exit_code == 0, result.output
        return [line.partition(":")[0] for line in result.stdout.splitlines()]

    assert named("all") == ["demo-a", "demo-b", "other"]
    assert named("demo-*") == ["demo-a", "demo-b"]
    assert named("other", "*") == ["other", "demo-a", "demo-b"]
    assert run(command, "none*").exit_code == 1


def test_a_site_called_all_is_that_site(home: pathlib.Path, run: Run) -> None:
    add(home, "all")
    add(home, "blog")
    assert run("stop", "all").stdout.count("\n") == 1
    assert [site["name"] for site in answer(run("list", "all", "--json"))["sites"]] == ["all"]


def test_list_takes_names_and_wildcards(home: pathlib.Path, run: Run) -> None:
    for name in ("demo-a", "demo-b", "other"):
        add(home, name)
    add(home, "demo-off", enable=False)

    def listed(*words: str) -> list[str]:
        return [site["name"] for site in answer(run("--json", "list", *words))["sites"]]

    assert listed("other.ini", "demo-b") == ["demo-b", "other"]
    assert listed("demo-*") == ["demo-a", "demo-b", "demo-off"]
    assert listed("demo-off") == ["demo-off"]
    assert listed("all") == listed()
    assert "demo-b" not in run("list", "demo-a").stdout


def test_explain_takes_the_name_of_a_site(home: pathlib.Path, run: Run) -> None:
    """A domain wins over a name, and a name over a pattern."""
    add(home, "blog")
    add(home, "nameless", "domains =")
    add(home, "any", "domains = *")
    add(home, "shop", "domains = other")
    add(home, "other")
    add(home, "draft", enable=False)
    assert answer(run("--json", "explain", "blog"))["domain"] == "blog.example.com"
    assert answer(run("--json", "explain", "blog")) == answer(run("--json", "explain", "blog.example.com"))
    assert answer(run("--json", "explain", "nameless"))["name"] == "nameless"
    assert answer(run("--json", "explain", "other"))["name"] == "shop"
    assert run("explain", "blog.ini").stdout == run("explain", "blog").stdout
    assert answer(run("--json", "explain", "whatever"))["name"] == "any"
    (home / "sites-enabled/any.ini").unlink()
    assert "multisite ensite draft" in run("explain", "draft").stderr


@pytest.mark.parametrize("command", ["import"])
def test_a_command_of_a_later_release_says_so(run: Run, command: str) -> None:
    result = run(command)
    assert result.exit_code == 2
    assert f"there is no {command} yet" in result.stderr


def test_an_unknown_command_is_a_usage_error_with_a_guess(run: Run) -> None:
    result = run("lst")
    assert result.exit_code == 2
    assert "did you mean list" in result.stderr


def test_a_missing_home_is_one_line(tmp_path: pathlib.Path) -> None:
    result = CliRunner().invoke(main, ["--home", str(tmp_path / "none"), "list"])
    assert result.exit_code == 1
    assert result.stderr.startswith("multisite: ")
    assert result.stderr.count("\n") == 1


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["--home", str(tmp_path / "file/home"), "init"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_completion_script(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_MULTISITE_COMPLETE" in result.stdout


def complete(home: pathlib.Path, words: str) -> set[str]:
    env = {
        **os.environ,
        "_MULTISITE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    env["MOYA_SERVICE_HOME"] = str(home)
    code = "from multisite.cli import main; main(prog_name='multisite')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert not done.stderr
    return {line.partition(",")[2] for line in done.stdout.splitlines()} - {""}


def test_site_names_complete_after_each_command(home: pathlib.Path) -> None:
    add(home, "blog")
    add(home, "shop", enable=False)
    assert complete(home, "multisite ensite ") == {"shop"}
    assert complete(home, "multisite dissite ") == {"blog"}
    assert complete(home, "multisite where b") == {"blog"}
    assert complete(home, "multisite explain b") == {"blog", "blog.example.com"}
    assert {"MS114", "MS119"} <= complete(home, "multisite explain MS11")
    assert complete(home, "multisite remove ") == {"blog", "shop"}
    assert complete(home, "multisite set blog thr") == {"threads="}
    assert {"logging.error=", "logging.access=", "env."} <= complete(home, "multisite set blog ")
    assert complete(home / "none", "multisite ensite ") == set()


def test_the_help_imports_nothing_that_is_slow() -> None:
    """Tables, servers and parsers are imported by the commands that use them."""
    code = (
        "import sys\nfrom multisite.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sys.modules.keys() & {'rich', 'gunicorn', 'werkzeug', 'configobj', 'idna', 'multisite.config.read'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_a_reader_that_goes_away_is_no_error(home: pathlib.Path) -> None:
    for number in range(400):
        add(home, f"site-{number:03}")
    code = "from multisite.cli import main; main(prog_name='multisite')"
    words = [sys.executable, "-c", code, "--home", str(home), "--json", "list"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
