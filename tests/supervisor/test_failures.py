"""What a worker that lost a request is told of the failures of a site, at each moment."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from multisite.config.read import read_home
from multisite.sites.failures import of_starts
from multisite.supervisor.process.sitelog import Journey
from multisite.supervisor.site.failures import JUST_NOW, Failures, Unavailable

from .harness import MOYA_CONF

ENDED = 1000.0


@pytest.fixture
def failures(tmp_path: Path) -> Failures:
    """Those of a site of which a process ended at `ENDED`."""
    (tmp_path / "moya.conf").write_text(MOYA_CONF.format(supervisor=""))
    made = Failures("blog", of_starts(read_home(str(tmp_path))), logging.getLogger("test"))
    made.last = made.trouble = Journey(ENDED - 1)
    made.last.fail("exited with code 3 before it was ready", "3fa9c1d2", ENDED)
    made.in_a_row = 1
    return made


@pytest.mark.parametrize("later", [0.0, JUST_NOW])
def test_a_request_that_waited_for_a_start_that_failed_twice_may_come_again(failures: Failures, later: float) -> None:
    """Whether it asks during the pause or after its end."""
    failures.in_a_row = 2
    with pytest.raises(Unavailable, match="exited with code 3") as caught:
        failures.just_now(ENDED + later, is_alive=False)
    assert (caught.value.incident, caught.value.retry_after) == ("3fa9c1d2", 1.0)


def test_one_whose_process_crashed_gets_its_incident_alone(failures: Failures) -> None:
    """It may have had an effect: nobody shall make it again by himself."""
    assert failures.just_now(ENDED, is_alive=False) is failures.trouble
    failures.in_a_row = 2
    assert failures.just_now(ENDED, is_alive=True) is failures.trouble, "another process serves"
    failures.last = None
    assert failures.just_now(ENDED, is_alive=False) is failures.trouble, "the site has worked since it failed"


def test_what_ended_long_ago_explains_nothing(failures: Failures) -> None:
    failures.in_a_row = 2
    assert failures.just_now(ENDED + JUST_NOW + 0.1, is_alive=False) is None
