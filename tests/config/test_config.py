"""moya.conf and site files: what they mean, and that nothing in them raises."""

from __future__ import annotations

import json
import os
import socket
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multisite.config.model import Home, Site, SiteFile
from multisite.config.read import find_home, make_site, read_home, read_site
from multisite.config.safefiles import LARGEST
from multisite.errors import ConfigError, Problem

GOOD = "[service]\ndomains = blog.example.com\napplication = blog.wsgi:application\n"


def site_file(folder: Path, text: str | bytes, name: str = "blog.ini", **more: Any) -> SiteFile:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_site(str(path), "/home-dir", **{"environ": {}, **more})


def reasons(file: SiteFile) -> list[str]:
    return [str(problem).removeprefix(file.path) for problem in file.problems]


def made(folder: Path, text: str, home: Home | None = None) -> Site:
    return make_site(site_file(folder, text), home or Home(str(folder), environ={}, uid=1000))


# -- one site file ---------------------------------------------------------------------------------------------------


def test_a_plain_site(tmp_path: Path) -> None:
    file = site_file(tmp_path, GOOD)
    assert (file.name, file.domains, file.mount, file.problems) == ("blog", ("blog.example.com",), "/", ())
    assert file.sources == (str(tmp_path / "blog.ini"),)


def test_all_problems_are_told_at_once_with_line_reason_and_remedy(tmp_path: Path) -> None:
    file = site_file(
        tmp_path,
        "[service]\ndomains = a.example\nthread = 4\nidle_timeout = soon\nmode = proxi\nnonsense here\n"
        "[sevice]\n[logging]\naces = x\n[env]\n2x = y\n",
    )
    told = reasons(file)
    assert len(told) == 7
    for part in (
        ":3: [service] thread = 4: unknown key; did you mean threads?",
        ":4: [service] idle_timeout = soon: is not a duration such as 500ms, 30s, 5m, 1h or 1d; write it like 15m",
        ":5: [service] mode = proxi: is not one of auto, in-process, spawned, proxy; did you mean proxy?",
        ":6: [service]: the line 'nonsense here' is not KEY = VALUE; put = between the key and its value",
        ":7: [sevice]: unknown section; did you mean service?; "
        "the known ones are service, env, static, access, logging",
        ":9: [logging] aces = x: unknown key; did you mean access?",
        ":11: [env] 2x = y: is not the name of an environment variable; use letters, digits and _",
    ):
        assert part in told
    assert file.domains == ("a.example",)


def test_a_key_in_the_wrong_section_is_sent_to_the_right_one(tmp_path: Path) -> None:
    file = site_file(tmp_path, GOOD + "[logging]\nthreads = 3\n")
    assert reasons(file) == [":5: [logging] threads = 3: unknown key; it belongs in [service]"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[service]\ndomains = a.example\n", "nothing to run"),
        (GOOD + "mode = proxy\n", "no upstreams"),
        (GOOD + "exclusive = yes\nmode = in-process\n", "an exclusive site needs its own process"),
        (GOOD + "exclusive = yes\nmode = proxy\nupstreams = http://a\n", "its upstreams run elsewhere"),
        (GOOD + "exclusive = yes\nsubscribe_to = 127.0.0.1:7000:a\n", "nodes that do not run the site"),
        (GOOD + "server = command\n", "no command"),
        (GOOD + "mount = api\n", "does not start with /"),
        (GOOD + "protocol = fcgi\n", "is not one of http, uwsgi"),
        (GOOD + "title = 'x\n", "unknown key"),
        (GOOD + "user = 'x\n", "does not close"),
        (GOOD + "user = 'x' y\n", "after the closing quote"),
        (GOOD + "name = a b\n", "is not a name"),
        (GOOD + "name = a\n  threads = 2\n", "indented deeper"),
        (GOOD + "[static]\nstatic = /srv\n", "starts with /"),
        ("[service]\ndomains = *.example\nredirect_to_canonical = yes\napplication = a:b\n", "is a pattern"),
        ("[service]\ndomains = a.example\nini = production.ini\n", "needs a location"),
        ("domains = a.example\n" + GOOD, "before the first section"),
        ("[service]\ndomains = a.example\napplication = a b\n", "neither a module nor a file"),
        ("[service]\ndomains = a.example\napplication = a:make(*x)\n", "may not have * or **"),
        (GOOD + "[enviroment]\nA = b\n", "did you mean env?"),
        ("extends = gone.inc\n" + GOOD, "gone.inc does not exist"),
        (GOOD + "command = serve %NOPE %%FINE\n", "the placeholder %NOPE means nothing; there are %HOST, %PORT"),
        (GOOD + "location = /var/www/%HOTS\n", "the placeholder %HOTS means nothing; there is %HOST"),
        ("[service]\ndomains = {user}.a.example, b.example\nlocation = /home/%USER\n", "%USER means nothing"),
        (GOOD + "python = /srv/%HOST/.venv\n", "location has none"),
        (GOOD + "[logging]\nerror = /var/log/%HOST.log\n", "location has none"),
        (GOOD + "upstreams = ftp://x\n", "'ftp://x': the protocol ftp is not supported; http and uwsgi are"),
        (GOOD + "upstreams = http://a.example:99999\n", "a port is between 1 and 65535"),
        (GOOD + "upstreams = unix:x.sock, http://b.example\n", "the path of a socket is absolute"),
        (GOOD + "upstreams = http://b.example/path\n", "a path cannot be given"),
        (GOOD + "protocol = uwsgi\nupstreams = b.example\n", "the port is missing"),
    ],
)
def test_one_fault_is_one_problem(tmp_path: Path, text: str, part: str) -> None:
    file = site_file(tmp_path, text)
    assert [part in reason for reason in reasons(file)] == [True]
    assert file.errors == file.problems
    assert file.domains


def test_a_site_with_a_bad_mount_stays_away_from_the_root_of_its_domain(tmp_path: Path) -> None:
    assert site_file(tmp_path, GOOD + "mount = api\n").mount == "/api"


def test_good_domains_are_kept_where_others_are_bad(tmp_path: Path) -> None:
    file = site_file(tmp_path, "[service]\napplication = a:b\ndomains = A.example., b c, *.d.example, a.example\n")
    assert file.domains == ("a.example", "*.d.example")
    assert len(file.problems) == 1


def test_no_domains_is_a_warning(tmp_path: Path) -> None:
    file = site_file(tmp_path, "[service]\napplication = a:b\n")
    assert [problem.severity for problem in file.problems] == ["warning"]
    assert not file.errors


def test_a_file_whose_name_is_no_site_name_is_told_and_still_has_a_usable_one(tmp_path: Path) -> None:
    file = site_file(tmp_path, GOOD, "my site.ini")
    assert file.name == "my-site"
    assert "is not a name for a site" in reasons(file)[0]


def test_empty_values_mean_the_default(tmp_path: Path) -> None:
    site = made(tmp_path, GOOD + "mode =\nthreads =\nmemory_limit =\nuser =\nname =\n")
    assert (site.name, site.mode, site.threads, site.memory_limit, site.user) == ("blog", "auto", 1, None, "")


def test_names_and_environment_are_replaced(tmp_path: Path) -> None:
    environ = {"TOP": "/srv"}
    file = site_file(
        tmp_path,
        "[service]\ndomains = %(name)s.example\nlocation = $TOP/%(name)s\napplication = a:b\n"
        "[env]\nPLACE = %(location)s/%(home)s\nOTHER = $UNSET 100% %(x)s, yes\n",
        environ=environ,
    )
    assert file.problems == ()
    assert file.domains == ("blog.example",)
    assert file.env_used == {"TOP": "/srv", "UNSET": None}
    site = make_site(file, Home("/home-dir"))
    assert site.location == "/srv/blog"
    assert site.env == {"PLACE": "/srv/blog//home-dir", "OTHER": "$UNSET 100% %(x)s, yes"}


def test_the_environment_cannot_smuggle_control_characters_in(tmp_path: Path) -> None:
    file = site_file(tmp_path, GOOD + "user = $EVIL\n", environ={"EVIL": "a\x1b[2J"})
    assert "control character" in reasons(file)[0]


# -- files that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "nothing to run"),
        (b"\0\1\2", "is a binary file"),
        (os.urandom(4096) + b"\0", "is a binary file"),
        (b"x" * (LARGEST + 1), "is too large"),
        (GOOD.encode() + b"\n[env]\nA = caf\xe9\n", "is not UTF-8 (byte 0xe9 in line 6)"),
        (GOOD.encode() + b"user = a\x07\n", "control character"),
        (GOOD.encode() + b"user = a\nuser = b\n", "is set twice"),
    ],
)
def test_a_file_that_is_none_is_one_problem(tmp_path: Path, data: bytes, part: str) -> None:
    errors = site_file(tmp_path, data).errors
    assert [part in str(problem) for problem in errors] == [True]


def test_a_latin_1_file_still_names_its_domains(tmp_path: Path) -> None:
    assert site_file(tmp_path, GOOD.encode() + b"[env]\nA = caf\xe9\n").domains == ("blog.example.com",)


def test_what_is_no_regular_file_is_refused_unopened(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "dir.ini")
    os.mkfifo(tmp_path / "fifo.ini")
    os.symlink("nowhere", tmp_path / "dangling.ini")
    os.symlink("loop.ini", tmp_path / "loop.ini")
    os.symlink("/dev/zero", tmp_path / "zero.ini")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock.ini"))
    for name, part in {
        "dir": "is a directory",
        "fifo": "is a named pipe",
        "dangling": "is a dangling link to nowhere",
        "loop": "leads back to itself",
        "zero": "is a device",
        "sock": "is a socket",
        "missing": "does not exist",
    }.items():
        file = read_site(str(tmp_path / f"{name}.ini"), str(tmp_path))
        assert [part in str(problem) for problem in file.problems] == [True], name
        assert file.name == name


@pytest.mark.parametrize("path", ["a\0b.ini", "x" * 5000, "", "\udcff.ini"])
def test_impossible_paths_are_one_problem(path: str) -> None:
    assert len(read_site(path, "/").errors) == 1


def test_a_mebibyte_of_unknown_keys_is_told_in_few_problems(tmp_path: Path) -> None:
    text = GOOD + "\n".join(f"domain{n} = x" for n in range(60_000))
    file = site_file(tmp_path, text)
    assert len(file.problems) == 51
    assert file.problems[-1].reason.endswith("more problems")
    assert file.domains == ("blog.example.com",)


def test_a_problem_is_one_printable_line_of_bounded_length(tmp_path: Path) -> None:
    file = site_file(tmp_path, GOOD + "mode = " + "x" * 9000 + "\n")
    line = str(file.problems[0])
    assert len(line) < 500 + len(file.path)
    assert str(Problem("MS112", "a\nb", "c\x1b", value="d")) == "a\\nb: d: c\\x1b"


# -- extends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["extends = base/common.ini\n[service]\n", "[service]\nextends = base/common.ini\n"])
def test_extends_takes_what_the_file_does_not_say(tmp_path: Path, place: str) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "common.ini").write_text(
        "extends = root.ini\n[service]\nthreads = 2\nuser = a\n[env]\nA=1\nB=1\n"
    )
    (tmp_path / "base" / "root.ini").write_text("[service]\nuser = root\ngroup = g\nmode = wrong\n")
    file = site_file(tmp_path, place + "user = b\napplication = a:b\ndomains = a.example\n[env]\nA = 2\n")
    service = file.values["service"]
    assert (service["user"], service["threads"], service["group"]) == ("b", 2, "g")
    assert file.values["env"] == {"A": "2", "B": "1"}
    assert [Path(source).name for source in file.sources] == ["blog.ini", "common.ini", "root.ini"]
    assert [(Path(problem.file).name, problem.line) for problem in file.problems] == [("root.ini", 4)]


def test_extends_in_a_circle_and_into_nothing_are_problems(tmp_path: Path) -> None:
    (tmp_path / "b.ini").write_text("extends = blog.ini\n")
    circle = site_file(tmp_path, "extends = b.ini\n" + GOOD)
    assert ["in a circle" in str(problem) for problem in circle.problems] == [True]
    missing = site_file(tmp_path, "extends = nothing.ini\n" + GOOD)
    assert ["does not exist" in str(problem) for problem in missing.problems] == [True]
    assert circle.domains == missing.domains == ("blog.example.com",)


# -- Moya ------------------------------------------------------------------------------------------------------------


def test_a_moya_project_s_settings_have_comments_on_lines_of_their_own_only(tmp_path: Path) -> None:
    text = "[service]\ndomains = m.example  # ours\nlocation = /srv/m\nini = production.ini\n"
    file = site_file(tmp_path, text + "[settings]  # theirs\n# a comment\ncolour = #fff\ntitle = Blog #1\n    and #2\n")
    assert file.problems == ()
    assert file.domains == ("m.example",)
    assert file.values["settings"] == {"colour": "#fff", "title": "Blog #1\nand #2"}


def test_a_moya_project_keeps_its_own_sections(tmp_path: Path) -> None:
    file = site_file(
        tmp_path,
        "[service]\nname = m\ndomains =\n    m.example\n    *.m.example\nlocation = /srv/m\nini = local.ini\n"
        "    production.ini\n[settings]\ncolour = red, 5%\n[db:main]\necho\n[logging]\nfile = x\n",
    )
    assert file.problems == ()
    site = make_site(file, Home(str(tmp_path)))
    assert site.domains == ("m.example", "*.m.example")
    assert site.ini == ("local.ini", "production.ini")
    assert site.overlay == {"settings": {"colour": "red, 5%"}, "db:main": {"echo": ""}, "logging": {"file": "x"}}


def test_a_moya_project_has_production_ini_by_default(tmp_path: Path) -> None:
    (tmp_path / "production.ini").write_text("")
    site = made(tmp_path, "[service]\nname = m\ndomains = m.example\nlocation = .\n[settings]\na = b\n")
    assert site.ini == ("production.ini",)
    assert site.overlay == {"settings": {"a": "b"}}


# -- sites -----------------------------------------------------------------------------------------------------------


def test_own_value_beats_defaults_beats_supervisor_beats_the_option(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text(
        "[supervisor]\nstop_timeout = 1s\ndrain_timeout = 2s\nidle_timeout = 3s\n"
        "[defaults]\ndrain_timeout = 4s\nidle_timeout = 5s\nuser = u-%(name)s\ngroup = g\n"
    )
    home = read_home(str(tmp_path), {})
    assert home.problems == ()
    site = made(tmp_path, GOOD + "idle_timeout = 6s\ngroup =\n", home)
    assert (site.request_timeout, site.stop_timeout, site.drain_timeout, site.idle_timeout) == (60, 1, 4, 6)
    assert (site.user, site.group) == ("u-blog", "")


def test_a_default_application_is_not_missed(tmp_path: Path) -> None:
    defaults = {"application": "app:app", "domains": ("%(name)s.example",)}
    file = site_file(tmp_path, "[service]\n", defaults=defaults)
    assert file.problems == ()
    assert make_site(file, Home(str(tmp_path), defaults=defaults)).application == "app:app"
    assert file.domains == ("blog.example",)


def test_paths_count_from_the_real_file_and_from_location(tmp_path: Path) -> None:
    available, enabled = tmp_path / "sites-available", tmp_path / "sites-enabled"
    available.mkdir()
    enabled.mkdir()
    (available / "blog.ini").write_text(
        GOOD + "location = blog\npython = venv\ntouch_reload = a.py, /b.py\n"
        "[static]\n/s = public\n[logging]\naccess = log/%(name)s.log\n"
    )
    (enabled / "blog.ini").symlink_to("../sites-available/blog.ini")
    site = make_site(read_site(str(enabled / "blog.ini"), str(tmp_path)), Home(str(tmp_path)))
    location = str(available / "blog")
    assert site.file == str(enabled / "blog.ini")
    assert site.location == location
    assert site.python == f"{location}/venv"
    assert site.touch_reload == (f"{location}/a.py", "/b.py")
    assert site.static == {"/s": (f"{location}/public",)}
    assert site.access_log == f"{location}/log/blog.log"
    assert site.application == "blog.wsgi:application"


def test_a_tilde_is_the_user_s_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/users/me")
    assert made(tmp_path, GOOD + "location = ~/blog\n").location == "/users/me/blog"


def test_a_site_can_be_made_of_a_file_with_problems(tmp_path: Path) -> None:
    assert made(tmp_path, GOOD + "threads = x\n").threads == 1


# -- the home --------------------------------------------------------------------------------------------------------


def test_the_contract_s_own_moya_conf_is_read(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text(
        "[projects]                      # Moya's names\n"
        "read = sites-enabled/*.ini      # globs\nlogging = logging.ini\n"
        "[service]\nruntime_dir =           # sockets\nhost_header =\ntrusted_proxies = 127.0.0.1, ::1, unix\n"
        "debug_memory = yes\n"
        "[supervisor]\nmax_backends = 50\nmemory_budget =       # e.g. 2G\nallow_root = no\nidle_timeout = 5m\n"
        "[router]\npattern = /run/nodes/%s/uwsgi.sock\nto = 10.0.0.5:3031, http://10.0.0.6:8000\n"
        "query = SELECT node FROM map WHERE domain = :key\n[cluster]\nurl = redis://x\n[defaults]\n[env]\nA = b, c\n"
    )
    home = read_home(str(tmp_path), {})
    assert home.problems == ()
    assert home.router.pattern == "/run/nodes/%s/uwsgi.sock"
    assert home.supervisor.memory_budget is None
    assert home.env == {"A": "b, c"}
    assert home.service.debug_memory is True


def test_faults_of_moya_conf_are_problems_and_the_default_is_used(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text(
        "[supervisor]\nmax_backends = many\nidle = 3\n[defaults]\nthreads = x\nname = y\n"
    )
    home = read_home(str(tmp_path), {})
    assert home.supervisor.max_backends == 50
    assert home.defaults == {}
    assert len(home.problems) == 4


@pytest.mark.parametrize("data", [None, b"\0", b"caf\xe9", b"no ini\nat all\n", b"x" * (LARGEST + 1)])
def test_a_moya_conf_that_is_no_ini_is_an_error(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "moya.conf").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_home(str(tmp_path), {})
    assert caught.value.problems[0].file == str(tmp_path / "moya.conf")


def test_an_empty_value_of_moya_conf_means_the_default(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text("[service]\nruntime_dir =\nstate_dir =\n[supervisor]\ndefault_user =\n")
    home, bare = read_home(str(tmp_path), {}), Home("/home")
    assert (home.service, home.supervisor) == (bare.service, bare.supervisor)


def test_an_empty_moya_conf_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text("")
    home = read_home(str(tmp_path), {})
    assert (home.projects.read, home.problems) == (("sites-enabled/*.ini",), ())


def test_the_home_is_named_by_option_environment_or_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multisite.config.read.SYSTEM_HOME", str(tmp_path / "etc"))
    monkeypatch.chdir(tmp_path)
    assert find_home("x", {"MOYA_SERVICE_HOME": "/y"}) == str(tmp_path / "x")
    assert find_home(None, {"MOYA_SERVICE_HOME": "/y"}) == "/y"
    with pytest.raises(ConfigError, match="there is no home"):
        find_home(None, {})
    for name in ("etc-moya", "etc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "moya.conf").write_text("")
        assert find_home(None, {}) == str(tmp_path / name)


def test_the_folders_of_the_service(tmp_path: Path) -> None:
    user = Home("/h", environ={}, uid=1000, system_temp="/tmp")
    assert user.runtime_dir == "/tmp/multisite-1000"
    assert user.state_dir == os.path.expanduser("~/.local/state/multisite")
    root = Home("/h", environ={}, uid=0)
    assert (root.runtime_dir, root.state_dir) == ("/run/multisite", "/var/lib/multisite")
    desktop = Home("/h", environ={"XDG_RUNTIME_DIR": "/run/user/1", "XDG_STATE_HOME": "/s"}, uid=1)
    assert (desktop.runtime_dir, desktop.state_dir) == ("/run/user/1/multisite", "/s/multisite")
    (tmp_path / "moya.conf").write_text("[service]\nruntime_dir = run\nstate_dir = %(home)s/state\ntemp_dir = /t\n")
    told = read_home(str(tmp_path), {})
    assert (told.runtime_dir, told.state_dir, told.temp_dir) == (f"{tmp_path}/run", f"{tmp_path}/state", "/t")


# -- the cache's form ------------------------------------------------------------------------------------------------


def test_a_site_file_survives_json(tmp_path: Path) -> None:
    text = GOOD + "threads = x\nidle_timeout = 100ms\nupstreams = a, b\n[env]\nA = $B\n[static]\n/s = x\n"
    file = site_file(tmp_path, text)
    assert file.problems
    assert SiteFile.from_json(json.loads(json.dumps(file.to_json()))) == file == SiteFile.from_json(file.to_json())


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("junk", [7, None, [[7]], {"a": {"b": {}}}, {"a": 7}])
def test_a_record_of_another_shape_is_refused(tmp_path: Path, position: int, junk: object) -> None:
    record = json.loads(json.dumps(site_file(tmp_path, GOOD).to_json()))
    record[position] = junk
    with pytest.raises(ValueError, match="not a site file's record"):
        SiteFile.from_json(record)


@pytest.mark.parametrize("junk", [None, 7, [], "", {}, [1, 2]])
def test_what_is_no_record_is_refused(junk: object) -> None:
    with pytest.raises(ValueError, match=r"not a site file's record|unpack"):
        SiteFile.from_json(junk)


# -- any text --------------------------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        "[service]",
        "[env]",
        "[",
        "]",
        "[[x]]",
        "domains",
        "name",
        "mode",
        "extends",
        " = ",
        "=",
        "\n",
        "\n  ",
        "#",
        ";",
        '"""',
        "'",
        '"',
        ",",
        "$HOME",
        "%(name)s",
        "%(location)s",
        "%",
        "a.example",
        "blog.ini",
        "/",
        "\t",
        "\r\n",
        "yes",
        "\x1f",
        "é",
    ]
)
_TEXT = st.one_of(st.text(), st.lists(st.one_of(_PIECES, st.text(max_size=8)), max_size=40).map("".join))
_LOOSE = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_LOOSE
@given(_TEXT)
def test_no_text_raises(tmp_path: Path, text: str) -> None:
    file = site_file(tmp_path, text.encode("utf-8", "replace"), environ={"HOME": "/r"})
    make_site(file, Home(str(tmp_path)))
    assert all("\n" not in line for line in map(str, file.problems))
    assert SiteFile.from_json(json.loads(json.dumps(file.to_json()))) == file


@_LOOSE
@given(st.binary())
def test_no_bytes_raise(tmp_path: Path, data: bytes) -> None:
    make_site(site_file(tmp_path, data), Home(str(tmp_path)))


_PLAIN = st.text(
    string.ascii_letters + string.digits + string.punctuation.replace("$", "").replace('"', "") + "éß €", min_size=1
)


@_LOOSE
@given(_PLAIN)
def test_a_quoted_value_round_trips(tmp_path: Path, value: str) -> None:
    text = value.replace("%(", "%")
    file = site_file(tmp_path, f'{GOOD}[env]\nA = "{text}"  # note\nB = 1\n')
    assert file.problems == ()
    assert file.values["env"] == {"A": text, "B": "1"}


def test_a_hosting_site_needs_no_application_and_captures_go_into_its_location(tmp_path: Path) -> None:
    """What runs is found in each folder, and a pattern may come first where others are redirected."""
    text = "[service]\ndomains = {user}.a.example\nlocation = /home/%USER/www\nredirect_to_canonical = yes\n"
    assert site_file(tmp_path, text).problems == ()
    assert site_file(tmp_path, text + "command = serve %USER %PORT %HOST\n").problems == ()


def test_a_promise_is_what_a_file_says(tmp_path: Path) -> None:
    """processes and threads count as written in the site's file or in [defaults], not where they are the default."""
    (tmp_path / "moya.conf").write_text("[defaults]\nthreads = 1\n")
    (tmp_path / "plain.ini").write_text("[service]\napplication = a:b\nprocesses =\n")
    (tmp_path / "told.ini").write_text("[service]\napplication = a:b\nprocesses = 1\nshare = yes\n")
    home = read_home(str(tmp_path))

    def made(name: str) -> Site:
        return make_site(read_site(str(tmp_path / name), str(tmp_path), defaults=home.defaults), home)

    assert made("plain.ini").promised == ("threads",)
    assert made("told.ini").promised == ("processes", "threads")
    assert (made("plain.ini").share, made("told.ini").share) == (False, True)


@pytest.mark.parametrize("line", ["allow =", "htpasswd =", "allow = $NO_SUCH_NETWORK"])
def test_an_access_that_restricts_nothing_is_an_error(tmp_path: Path, line: str) -> None:
    """Whoever wrote it wants the site closed; its file is not served so."""
    path = tmp_path / "a.ini"
    path.write_text(f"[service]\nlocation = /srv\napplication = a:b\ndomains = a.test\n[access]\n{line}\n")
    assert [problem.section for problem in read_site(str(path), str(tmp_path), {}).errors] == ["access"]
