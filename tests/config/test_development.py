"""The decisions of a developer's server: PINs, whose requests are local, names in localhost, publisher files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multisite.cli.serve import _overridden
from multisite.config.domains import HostTable, local_host
from multisite.config.model import Site
from multisite.config.options import KNOWN, PUBLISHER_FILE
from multisite.config.read import read_home
from multisite.config.sections import PublisherOptions
from multisite.config.serving import development, publisher
from multisite.config.serving.development import MOST_SIMULATED, OFF, Development, simulated
from multisite.config.serving.publisher import read_publisher
from multisite.errors import pages
from multisite.runner import debugger
from multisite.sites import changes


@pytest.mark.parametrize("how", [OFF, Development(True), Development(reload=True), Development(True, True, "k")])
def test_what_is_on_survives_the_environment(how: Development) -> None:
    assert development.from_environ(how.environ) == how


def test_each_site_has_a_pin_of_its_own_that_only_the_key_gives() -> None:
    pins = [Development(True, key=key).pin(site) for key in ("one", "two") for site in ("a", "b")]
    assert len({*pins}) == 4
    assert all(len(pin) == 11 and pin.replace("-", "").isdigit() for pin in pins)
    assert Development(key="one").pin("a") == Development(True).pin("a") == ""


@pytest.mark.parametrize(
    ("environ", "local"),
    [
        ({"REMOTE_ADDR": "127.0.0.1"}, True),
        ({"REMOTE_ADDR": "127.8.8.8"}, True),
        ({"REMOTE_ADDR": "::1"}, True),
        ({"REMOTE_ADDR": "::ffff:127.0.0.1"}, True),
        ({"REMOTE_ADDR": ""}, False),
        ({}, False),
        ({"REMOTE_ADDR": "10.0.0.1"}, False),
        ({"REMOTE_ADDR": "::ffff:10.0.0.1"}, False),
        ({"REMOTE_ADDR": "1270.0.0.1"}, False),
        *(({"REMOTE_ADDR": "127.0.0.1", name: "127.0.0.1"}, False) for name in pages.FORWARDED),
    ],
)
def test_only_requests_of_this_machine_that_no_front_end_passed_on_are_local(
    environ: dict[str, str], local: bool
) -> None:
    """Both who asks so, here and in a site's own process, agree."""
    assert pages.is_local(environ) is local
    assert debugger.is_local(environ) is local


def test_the_runner_knows_the_same_fields_of_front_ends() -> None:
    assert debugger.FORWARDED == pages.FORWARDED


def test_a_fallback_answers_after_exact_domains_and_patterns() -> None:
    table = HostTable(
        [("a.localhost", "exact"), ("*.b.localhost", "pattern")], {"a.localhost": "no", "c.localhost": "name"}
    )
    assert [found.value for found in table.lookup("a.localhost")] == ["exact"]
    assert [found.value for found in table.lookup("x.b.localhost")] == ["pattern"]
    [found] = table.lookup("c.localhost")
    assert (found.value, table.falls_back(found)) == ("name", True)
    assert not table.falls_back(table.lookup("a.localhost")[0])
    assert table.lookup("d.localhost") == []


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
def test_any_name_of_a_site_has_a_host_or_none(name: str) -> None:
    host = local_host(name)
    assert host in ("", f"{name.lower()}.localhost")


def test_localhost_names_are_off_unless_serve_or_moya_conf_says_so(tmp_path: Path) -> None:
    (tmp_path / "moya.conf").write_text("[projects]\n")
    assert not read_home(str(tmp_path), {}).service.localhost_names
    assert read_home(str(tmp_path), {development.LOCALHOST: "1"}).service.localhost_names
    (tmp_path / "moya.conf").write_text("[service]\nlocalhost_names = yes\n")
    assert read_home(str(tmp_path), {}).service.localhost_names


def test_the_application_file_counts_as_code_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/site.ini").write_text("")
    site = Site("x.ini", location=str(tmp_path), application="paste:conf/site.ini#main")
    assert [name for name, _ in changes.times(site)] == [str(tmp_path / "conf/site.ini")]


def test_a_location_that_is_gone_has_no_code() -> None:
    assert changes.times(Site("x.ini", location="/nowhere/at/all", application="app:app")) == ()


# Publisher files


def read(tmp_path: Path, text: str) -> tuple[PublisherOptions, list[str]]:
    path = tmp_path / "publisher.conf"
    path.write_text(text)
    options, _written, problems = read_publisher(str(path))
    return options, [str(problem) for problem in problems]


def test_nagares_spelling_is_understood(tmp_path: Path) -> None:
    text = "[publisher]\ntype = fastcgi\nminSpare = 2\nmaxSpare = 6\nmaxChildren = 30\nmaxRequest = 100\nhost = ::1\n"
    options, problems = read(tmp_path, text)
    assert problems == []
    assert (options.min_children, options.max_spare, options.max_children, options.max_requests) == (2, 6, 30, 100)
    assert options.address == "[::1]:9000"


@pytest.mark.parametrize(("kind", "port"), [("gunicorn", 8000), ("fastcgi", 9000), ("uwsgi", 3031)])
def test_each_kind_has_its_usual_port(kind: str, port: int) -> None:
    assert PublisherOptions(type=kind).bound_port == port


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[publisher]\ntype = fapws3\n", "publisher.conf:2: [publisher] type = fapws3: "),
        ("[publisher]\nport = 70000\n", "publisher.conf:2: [publisher] port = 70000: "),
        ("[publisher]\nmaxchilden = 3\n", "publisher.conf:2: [publisher] maxchilden = 3: unknown key"),
        (
            "[publisher]\ntype = waitress\nmaxRequests = 5\n",
            "[publisher] max_requests = 5: waitress has nothing like it",
        ),
        ("[sessions]\ntype = memcache\n", "[sessions]: unknown section"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    [problem] = read(tmp_path, text)[1]
    assert told in problem


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    [problem] = read_publisher(str(tmp_path / "none"))[2]
    assert problem.is_error


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    options, _ = read(tmp_path, "[publisher]\nsocket = run/x.sock\n")
    assert options.socket == str(tmp_path / "run/x.sock")


def test_what_stands_on_the_command_line_wins() -> None:
    options = PublisherOptions(type="granian", socket="/x", port=1, processes=3)
    given: dict[str, object] = {"binds": ("[::1]:8080",), "workers": 2, "threads": 5}
    changed = _overridden(options, given)
    assert (changed.host, changed.port, changed.socket, changed.processes, changed.threads) == ("::1", 8080, "", 2, 5)
    assert _overridden(options, {"binds": ("unix:/y",)}).socket == "/y"


@pytest.mark.parametrize("kind", publisher.PROGRAMS)
def test_command_lines_name_address_processes_and_application(kind: str) -> None:
    options = PublisherOptions(type=kind, host="127.0.0.9", port=81, threads=3, max_requests=7)
    argv = publisher.command(options, f"/bin/{kind}", 2, "/venv")
    assert argv[0] == f"/bin/{kind}"
    assert publisher.APPLICATION in argv
    assert "127.0.0.9" in " ".join(argv) and "81" in " ".join(argv)


def test_uwsgi_has_as_many_processes_as_it_needs_between_the_bounds() -> None:
    argv = publisher.command(PublisherOptions(type="uwsgi", min_children=2, max_children=9), "uwsgi", 4, "/venv")
    assert argv[argv.index("--processes") + 1] == "9"
    assert argv[argv.index("--cheaper") + 1] == "2"


@given(st.text(max_size=20))
def test_any_key_has_one_spelling(key: str) -> None:
    known = KNOWN[PUBLISHER_FILE]["publisher"]
    spelled = publisher.spelled(key, known)
    assert spelled == key or spelled in known


def test_the_environment_says_how_many() -> None:
    asked = ({}, {"MULTISITE_SIMULATE": "x"}, {"MULTISITE_SIMULATE": "-1"}, {"MULTISITE_SIMULATE": "12"})
    assert [simulated(one) for one in asked] == [0, 0, 0, 12]
    assert simulated({"MULTISITE_SIMULATE": "999999999"}) == MOST_SIMULATED
