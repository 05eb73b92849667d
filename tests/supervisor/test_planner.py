"""What is started and stopped, decided without a process, a socket or a clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multisite.supervisor import planner
from multisite.supervisor.planner import Limits, SiteView, SpawnBudget, Start, Stop, plan

NOW = 1000.0


def decide(*sites: SiteView, most: int = 3, memory: int | None = None, budget: SpawnBudget | None = None) -> list:
    return plan(sites, Limits(most, memory), NOW, budget or SpawnBudget())


def idle(name: str, seconds: float, **more: object) -> SiteView:
    return SiteView(name, missing=0, processes=1, idle_since=NOW - seconds, **more)  # type: ignore[arg-type]


def busy(name: str, **more: object) -> SiteView:
    return SiteView(name, missing=0, processes=1, idle_timeout=1.0, **more)  # type: ignore[arg-type]


def waiting(name: str, since: float = NOW, **more: object) -> SiteView:
    return SiteView(name, wanted_since=since, **more)  # type: ignore[arg-type]


def test_a_site_somebody_waits_for_is_started() -> None:
    assert decide(waiting("a")) == [Start("a")]


def test_after_a_crash_the_next_start_waits_for_its_time() -> None:
    assert decide(waiting("a", not_before=NOW + 0.1)) == []
    assert decide(waiting("a", not_before=NOW)) == [Start("a")]


def test_a_site_that_crashes_with_every_request_gets_less_and_less_of_the_machine() -> None:
    """The pause is a start's time while some requests are answered, then a growing multiple of it, within a bound."""
    pauses = [planner.crash_pause(crashes, 0.1) for crashes in range(1, 200)]
    assert pauses[: planner.FREE_CRASHES + 1] == [0.1] * (planner.FREE_CRASHES + 1)
    assert pauses == sorted(pauses) and pauses[-1] == planner.LONGEST_CRASH_PAUSE
    assert planner.crash_pause(1, 0.0) == planner.LEAST_COST


def test_all_its_processes_are_started() -> None:
    assert decide(waiting("a", missing=2)) == [Start("a", 2)]


def test_a_site_in_backoff_is_not_started() -> None:
    assert decide(waiting("a", missing=0)) == []


def test_an_idle_site_is_stopped_after_its_own_timeout() -> None:
    assert decide(idle("a", 5.0, idle_timeout=5.0), idle("b", 5.0, idle_timeout=6.0)) == [Stop("a", "idle")]


def test_a_timeout_of_zero_never_stops() -> None:
    assert decide(idle("a", 1e6, idle_timeout=0.0)) == []


def test_a_request_in_flight_is_never_idle() -> None:
    assert decide(busy("a")) == []


def test_a_site_that_somebody_waits_for_is_never_idle() -> None:
    """Another of its processes is, which is needed at once."""
    assert decide(idle("a", 50, idle_timeout=1.0, wanted_since=NOW)) == []


def test_the_least_recently_used_makes_room_and_nothing_starts_until_it_is_gone() -> None:
    full = [idle("old", 50), idle("new", 5), busy("c")]
    assert decide(*full, waiting("d")) == [Stop("old", "evicted")]


def test_room_that_is_being_made_is_counted() -> None:
    """One more look before the evicted one has ended evicts nobody else."""
    leaving = SiteView("old", missing=0, processes=1, leaving=1)
    assert decide(leaving, idle("new", 5), busy("c"), waiting("d")) == []


def test_where_all_are_busy_the_new_one_waits() -> None:
    assert decide(busy("a"), busy("b"), busy("c"), waiting("d")) == []


def test_who_waits_longest_is_first() -> None:
    assert decide(busy("a"), busy("b"), waiting("late", NOW), waiting("early", NOW - 1)) == [Start("early")]


def test_memory_counts_only_when_it_differs_by_much() -> None:
    alike = [idle("old", 50, memory=30 << 20), idle("new", 40, memory=45 << 20)]
    assert decide(*alike, waiting("d"), most=2) == [Stop("old", "evicted")]
    heavy = [idle("old", 50, memory=30 << 20), idle("new", 40, memory=900 << 20)]
    assert decide(*heavy, waiting("d"), most=2) == [Stop("new", "evicted")]


def test_above_the_memory_budget_idle_ones_go() -> None:
    sites = [idle("old", 50, memory=60), idle("new", 5, memory=60), busy("c")]
    assert decide(*sites, memory=100) == [Stop("old", "evicted")]


def test_memory_is_taken_where_most_is_had_for_the_cost_of_starting_again() -> None:
    """Weighed by the cost: time alone does not decide."""
    sites = [
        idle("small", 90, memory=20, start_cost=0.1),
        idle("dear", 90, memory=60, start_cost=3.0),
        idle("cheap", 60, memory=60, start_cost=0.1),
    ]
    assert decide(*sites, memory=120) == [Stop("cheap", "evicted")]


def test_a_start_waits_until_there_is_memory_for_it() -> None:
    big = waiting("d", expected=50)
    assert decide(idle("old", 50, memory=60), big, memory=100) == [Stop("old", "evicted")]
    assert decide(busy("c", memory=60), big, memory=100) == []
    leaving = SiteView("old", missing=0, processes=1, leaving=1, memory=60)
    assert decide(leaving, idle("new", 5, memory=10), big, memory=100) == []
    assert decide(idle("new", 5, memory=10), big, memory=100) == [Start("d")]


def test_a_site_that_is_larger_than_the_budget_runs_alone() -> None:
    huge = waiting("d", expected=500)
    assert decide(huge, memory=100) == [Start("d")]
    assert decide(idle("old", 1, memory=1), huge, memory=100) == [Stop("old", "evicted")]


def test_nobody_overtakes_who_waits_for_memory_unless_nothing_is_known_of_him() -> None:
    first, second = waiting("first", NOW - 2, expected=60), waiting("second", NOW - 1, expected=10)
    assert decide(busy("c", memory=60), first, second, waiting("new"), memory=100) == [Start("new")]


def test_what_is_due_is_started_where_there_is_room() -> None:
    due = SiteView("due", is_due=True, expected=50)
    assert decide(due) == [Start("due")]
    assert decide(idle("old", 50), busy("b"), busy("c"), due) == []
    assert decide(idle("old", 50, memory=60), due, memory=100) == []
    assert decide(busy("a"), busy("b"), waiting("w"), due) == [Start("w")]
    assert decide(busy("b"), busy("c"), idle("old", 50), waiting("w"), due) == [Stop("old", "evicted")]
    assert decide(SiteView("due", is_due=True, failures=1)) == []


def test_what_stays_is_stopped_last_and_for_others_only() -> None:
    always = idle("always", 500, idle_timeout=5.0, stays=True)
    assert decide(always) == []
    assert decide(always, idle("new", 5), busy("c"), waiting("d")) == [Stop("new", "evicted")]
    assert decide(always, busy("b"), busy("c"), waiting("d")) == [Stop("always", "evicted")]


def test_failing_sites_share_a_budget_and_healthy_ones_do_not_feel_it() -> None:
    budget = SpawnBudget(most=2, window=10.0)
    failing = [waiting(f"f{number}", failures=2) for number in range(4)]
    decided = decide(*failing, waiting("healthy"), most=50, budget=budget)
    assert len(decided) == 3
    assert Start("healthy") in decided
    assert not budget.take_start(NOW + 9.9)
    assert budget.take_start(NOW + 10.0)


def test_a_first_failure_needs_no_budget() -> None:
    """Many good processes that are killed at one stroke are all replaced at once."""
    killed = [waiting(f"k{number}", failures=1) for number in range(4)]
    assert len(decide(*killed, most=50, budget=SpawnBudget(most=0))) == 4


def test_nobody_makes_room_for_a_start_that_waits_for_other_starts() -> None:
    starting = SiteView("s", missing=0, processes=8, starting=8)
    assert decide(starting, idle("old", 50), waiting("d"), most=9) == []


def test_the_first_failure_is_retried_at_once_and_then_pauses_double() -> None:
    pauses = [planner.backoff(failures, lambda: 0.5) for failures in range(1, 5)]
    assert pauses == [0.0, 0.5, 1.0, 2.0]
    assert planner.backoff(100, lambda: 1.0) == planner.BACKOFF_LONGEST * 1.25
    assert not planner.gives_up(planner.GIVE_UP_AFTER - 1)
    assert planner.gives_up(planner.GIVE_UP_AFTER)


@st.composite
def views(draw: st.DrawFn, name: str) -> SiteView:
    processes = draw(st.integers(0, 3))
    leaving = draw(st.integers(0, processes))
    starting = draw(st.integers(0, processes - leaving))
    settled = processes and not leaving and not starting
    return SiteView(
        name,
        missing=draw(st.integers(0, 3)),
        wanted_since=draw(st.none() | st.floats(0, NOW)),
        processes=processes,
        leaving=leaving,
        starting=starting,
        idle_since=draw(st.none() | st.floats(0, NOW)) if settled else None,
        idle_timeout=draw(st.sampled_from([0.0, 1.0, 300.0])),
        memory=draw(st.integers(0, 2**32)),
        failures=draw(st.integers(0, 3)),
        expected=draw(st.integers(0, 2**32)),
        is_due=draw(st.booleans()),
        stays=draw(st.booleans()),
    )


@given(st.data(), st.integers(1, 10))
def test_never_too_many_never_a_busy_one_never_twice(data: st.DataObject, most: int) -> None:
    """Whatever the situation: the bound holds, and only idle sites are stopped."""
    sites = [data.draw(views(f"s{number}")) for number in range(data.draw(st.integers(0, 12)))]
    by_name = {site.name: site for site in sites}
    budget = data.draw(st.none() | st.integers(1, 2**33))
    decisions = plan(sites, Limits(most, budget), NOW, SpawnBudget())
    started = [decision for decision in decisions if isinstance(decision, Start)]
    alive = sum(site.processes for site in sites)
    assert alive + sum(start.count for start in started) <= max(most, alive)
    assert all(by_name[decision.name].idle_since is not None for decision in decisions if isinstance(decision, Stop))
    assert len({decision.name for decision in decisions}) == len(decisions)
