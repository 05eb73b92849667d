"""The document of outages: what of it is believed, and who may change it beside whom."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from multisite.config.model import Site
from multisite.config.read import read_home
from multisite.sites.outages import MAINTENANCE, PAUSED, Outage, Outages

SITE = Site("/x/blog.ini", "blog")


@pytest.fixture
def outages(tmp_path: Path) -> Outages:
    (tmp_path / "moya.conf").write_text("")
    return Outages(read_home(str(tmp_path)))


def test_what_is_noted_is_known_to_everybody_until_it_is_ended(outages: Outages) -> None:
    other = Outages.__new__(Outages)
    other.path, other._stamp, other._rows = outages.path, None, {}
    outages.begin("blog", Outage(MAINTENANCE, 5.0, "page"))
    outages.begin("blog", Outage(PAUSED, 6.0))
    other.look()
    assert other.of(SITE) == Outage(MAINTENANCE, 5.0, "page")
    assert other.of(replace(SITE, name="shop")) is None
    assert outages.end("blog", MAINTENANCE)
    other.look()
    assert other.of(SITE) == Outage(PAUSED, 6.0)
    assert not outages.end("blog", MAINTENANCE)
    assert outages.end("blog")
    other.look()
    assert other.of(SITE) is None


def test_an_instance_shares_the_outage_of_its_hosting_site(outages: Outages) -> None:
    outages.begin("hosts", Outage(MAINTENANCE, 5.0))
    assert outages.of(Site("/x/hosts.ini", "hosts..a.test", host="a.test", template="hosts"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"blog": 1}',
        '{"blog": [1, null, {}]}',
        '{"blog": [{"kind": "gone", "since": 1}]}',
        '{"blog": [{"kind": "maintenance", "since": "soon"}]}',
    ],
)
def test_a_document_of_another_form_takes_nothing_out_of_service(outages: Outages, text: str) -> None:
    Path(outages.path).write_text(text)
    outages.look()
    assert outages.of(SITE) is None


def test_a_media_type_cannot_bring_another_header(outages: Outages) -> None:
    row = {"kind": "maintenance", "since": 1, "page": "x", "media_type": "text/html\r\nX-Evil: 1"}
    Path(outages.path).write_text(json.dumps({"blog": [row]}))
    outages.look()
    found = outages.of(SITE)
    assert found and found.media_type == "text/html; charset=utf-8"


def test_those_who_switch_at_once_lose_nothing(outages: Outages) -> None:
    names = [f"site{number}" for number in range(20)]
    threads = [threading.Thread(target=outages.begin, args=(name, Outage(MAINTENANCE, 1.0))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads(Path(outages.path).read_text())) == sorted(names)
