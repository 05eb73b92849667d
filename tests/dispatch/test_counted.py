"""A site in the workers whose answer raises while it is made: a page with an incident, where nothing has been sent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from multisite.sites.usage import MEASURED
from tests.homes import TestHome

APP = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/none":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return None
    return parts(environ["PATH_INFO"], start_response)


def parts(path, start_response):
    if path == "/before":
        raise ValueError("before it began")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    if path == "/after":
        raise ValueError("after it began")
    yield b"well"
"""


@pytest.fixture
def home(tmp_path: Path) -> TestHome:
    made = TestHome(tmp_path)
    made.code("parts", app=APP)
    made.ini("parts")
    return made


@pytest.mark.parametrize("before", [0, MEASURED], ids=["measured", "counted"])
@pytest.mark.parametrize("path", ["/none", "/before", "/after"])
def test_an_answer_that_raises_before_its_first_part_is_a_page_with_an_incident(
    home: TestHome, path: str, before: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the first requests of a second, which are measured, and in the others."""
    for _ in range(1 + before):
        assert home.get("parts.test").text == "well"
    answer = home.get("parts.test", path)
    found = re.search(r"Incident ([0-9a-f]{8})", answer.text)
    assert answer.status == 500 and found, answer
    assert int(answer.headers["content-length"]) == len(answer.body)
    (told,) = [record.getMessage() for record in caplog.records if "MS324" in record.getMessage()]
    assert found[1] in told
    assert home.get("parts.test").text == "well"
