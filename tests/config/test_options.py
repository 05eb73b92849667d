"""The option table, and what is written from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from configobj import ConfigObj

from multisite.config import options
from multisite.config.option import Option
from multisite.config.options import HOME_FILE, KNOWN, OPTIONS, SITE_FILE, example_line
from multisite.config.read import read_home, read_site


def test_every_option_has_a_finished_help_text() -> None:
    for option in OPTIONS:
        assert option.help.endswith("."), option
        assert option.help[0].isupper(), option


def test_every_default_and_example_is_a_value_of_its_kind() -> None:
    for option in OPTIONS:
        for text in filter(None, (option.default, "" if option.any_key else option.example)):
            option.cast(text)


def test_options_are_found_by_file_and_section() -> None:
    assert options.sections(SITE_FILE) == ("service", "env", "static", "access", "logging")
    assert options.sections(HOME_FILE) == ("projects", "service", "supervisor", "router", "cluster", "events", "env")
    assert [option.key for option in options.of_section(SITE_FILE, "logging")] == ["access", "access_format", "error"]


@pytest.mark.parametrize("file", [HOME_FILE, SITE_FILE])
def test_the_configspec_holds_every_key_once(file: str) -> None:
    spec = ConfigObj(options.configspec(file), _inspec=True, list_values=False, interpolation=False)
    for section, known in KNOWN[file].items():
        assert list(spec[section]) == [key or "__many__" for key in known]


def test_defaults_take_every_key_of_a_site_but_its_name() -> None:
    assert {*KNOWN[SITE_FILE]["service"]} - {*KNOWN[HOME_FILE]["defaults"]} == {"name"}


def test_the_reference_names_every_option() -> None:
    page = options.reference_rst()
    for option in OPTIONS:
        assert f".. option-key:: {options.file_section_key(option)}\n" in page
        assert option.any_key or f".. index:: ! single: {option.key.replace('_', ' ')}\n" in page


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.file == SITE_FILE], ids=lambda o: f"{o.section}.{o.key}")
def test_every_example_of_a_site_can_be_copied_into_its_file(tmp_path: Path, option: Option) -> None:
    base = {"location": "/srv", "application": "a:b", "domains": "a.example"}
    lines = [f"{key} = {value}" for key, value in base.items() if key != option.key]
    if option.section != "service":
        lines.append(f"[{option.section}]")
    path = tmp_path / "s.ini"
    path.write_text("\n".join(["[service]", *lines, example_line(option)]))
    assert read_site(str(path), str(tmp_path)).problems == ()


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.file == HOME_FILE], ids=lambda o: f"{o.section}.{o.key}")
def test_every_example_of_a_home_can_be_copied_into_its_file(tmp_path: Path, option: Option) -> None:
    (tmp_path / "moya.conf").write_text(f"[{option.section}]\n{example_line(option)}\n")
    assert read_home(str(tmp_path), {}).problems == ()


def test_a_site_template_reads_back_as_what_was_asked_for(tmp_path: Path) -> None:
    asked = {"domains": "a.example\n*.b.example", "location": "/srv/x # y", "application": "x:app"}
    path = tmp_path / "new.ini"
    path.write_text(options.site_template(asked))
    site = read_site(str(path), str(tmp_path))
    assert site.problems == ()
    assert site.domains == ("a.example", "*.b.example")
    assert site.values["service"]["location"] == "/srv/x # y"


def test_the_fingerprint_is_the_same_in_every_run() -> None:
    assert options.fingerprint() == options.fingerprint() != ""
