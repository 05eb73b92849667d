"""The pages of invented sites: a thousand of them, within the bounds of one answer."""

from __future__ import annotations

import re
import time
from itertools import product
from pathlib import Path
from typing import Any

from multisite.config.trusted import TrustedProxies
from multisite.logs import past
from multisite.logs.past import Past, Pasts
from multisite.status.page import StatusPage
from multisite.status.rehearsal import Rehearsal
from multisite.status.web.admission import Admission

from .test_page import LIMIT, Elements, Visit


def visit(count: int) -> Visit:
    made = Visit({"sites": []})
    made.page = StatusPage(Rehearsal(count, time.time), Admission("", "key", TrustedProxies([])), has_buttons=True)
    return made


def test_a_thousand_invented_sites_are_shown_within_the_bounds() -> None:
    pages = visit(1000)
    first = pages("/")
    assert "1000 sites (" in first.text and "Needs you (" in first.text
    name = re.findall(r'data-site="([^"]+)"', first.text)[0]
    for path in ("/", "/?page=10&sort=name", "/status.json", "/status.csv", f"/site/{name}"):
        answer = pages(path)
        assert answer.status == 200 and len(answer.body) <= LIMIT, path
        if path.startswith(("/?", "/site")):
            Elements(answer.text).assert_harmless()


def test_nothing_can_be_done_to_them() -> None:
    pages = visit(20)
    same: dict[str, Any] = {"HTTP_SEC_FETCH_SITE": "same-origin"}
    assert pages("/", {"do": "reload"}, **same).status == 409


def test_their_pasts_are_like_those_of_real_sites(tmp_path: Path) -> None:
    """Each row has what `multisite.logs.past` would return."""
    real = Pasts(str(tmp_path))
    real.write("a", {"start": "cold", "at": 1.0, "steps": [["import", 1.0]]})
    real.write("a", {"deploy": "reload", "at": 1.0})
    real.write("a", {"slow": 1.0, "at": 1.0})
    (keys,) = shape(past.read([str(tmp_path)], "a"))
    rehearsal = Rehearsal(300)
    rows = rehearsal.document()["sites"]
    found = [rehearsal.detail(row)["past"] for row in rows]
    assert {one for each in found for one in shape(each)} == {keys}
    for row, each in zip(rows, found, strict=True):
        failed = {one["incident"] for one in each.starts if one["failure"]}
        assert failed == ({row["failure"]["incident"]} if row["failure"] else set())


def shape(found: Past) -> set[tuple[frozenset[str], ...]]:
    """The keys of the rows of all three kinds, in every combination; () where there are not all kinds."""
    kinds = [{frozenset(one) for one in rows} for rows in (found.starts, found.deploys, found.slow)]
    return set(product(*kinds))
