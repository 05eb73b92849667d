"""The pages of invented sites: a thousand of them, within the bounds of one answer."""

from __future__ import annotations

import re
import time
from typing import Any

from multisite.config.trusted import TrustedProxies
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
