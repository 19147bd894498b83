"""The restart policy: a pure value that gets time and chance as arguments."""

import sys

import pytest

from actors.values.restart import Deaths, RestartPolicy

FIELDS = ["max_restarts", "within", "backoff_initial", "backoff_max", "jitter", "quiet_period", "start_timeout"]
STEADY = RestartPolicy(backoff_initial=0.1, backoff_max=10, jitter=0)


# --- validation ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [-1, -0.001, float("inf"), float("-inf"), float("nan")])
def test_a_number_that_is_negative_or_not_finite_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^RestartPolicy\({name}={value}\) must be 0 or more, and finite$"):
        RestartPolicy(**{name: value})


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", ["1", None, True, [1], 1j])
def test_a_value_that_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=rf"^RestartPolicy\({name}\) must be a number, not {type(value).__name__}$"):
        RestartPolicy(**{name: value})


def test_deaths_are_counted_in_whole_numbers():
    with pytest.raises(TypeError, match=r"RestartPolicy\(max_restarts=1.5\) must be a whole number"):
        RestartPolicy(max_restarts=1.5)


def test_jitter_is_a_fraction():
    assert RestartPolicy(jitter=1).jitter == 1
    with pytest.raises(ValueError, match=r"RestartPolicy\(jitter=1.01\) must be between 0 and 1"):
        RestartPolicy(jitter=1.01)


def test_the_first_wait_is_not_longer_than_the_longest():
    assert RestartPolicy(backoff_initial=2, backoff_max=2).backoff(1, 0.5) == 2
    with pytest.raises(
        ValueError, match=r"RestartPolicy\(backoff_initial=3\) must not be larger than backoff_max \(2\)"
    ):
        RestartPolicy(backoff_initial=3, backoff_max=2)


def test_zero_is_allowed_everywhere():
    policy = RestartPolicy(**dict.fromkeys(FIELDS, 0))
    assert policy.backoff(5, 1.0) == 0


def test_a_policy_is_a_frozen_value_given_by_name():
    with pytest.raises(AttributeError):
        STEADY.jitter = 1
    with pytest.raises(TypeError):
        RestartPolicy(30)
    assert RestartPolicy() == RestartPolicy()


# --- backoff ------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [0, -1])
def test_without_failures_there_is_no_wait(failures):
    assert STEADY.backoff(failures, 1.0) == 0


def test_the_wait_doubles_up_to_its_limit():
    waits = [STEADY.backoff(failures, 0.9) for failures in range(1, 10)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])


@pytest.mark.parametrize("failures", [60, 61, 1_000, 10**9])
def test_any_number_of_failures_waits_for_the_limit(failures):
    assert STEADY.backoff(failures, 0.5) == 10


@pytest.mark.parametrize("jitter", [0.0, 0.2, 1.0])
def test_jitter_makes_a_wait_longer_or_shorter_by_its_fraction(jitter):
    policy = RestartPolicy(backoff_initial=0.1, backoff_max=10, jitter=jitter)
    for failures, wait in ((1, 0.1), (3, 0.4), (20, 10)):
        assert policy.backoff(failures, 0.0) == pytest.approx(wait * (1 - jitter))
        assert policy.backoff(failures, 0.5) == pytest.approx(wait)
        assert policy.backoff(failures, 1.0) == pytest.approx(wait * (1 + jitter))


# --- the window ---------------------------------------------------------------------------


def test_restarts_are_free_up_to_the_limit_and_then_wait_for_the_oldest_death_to_pass():
    deaths = Deaths(RestartPolicy(max_restarts=2, within=10))
    assert deaths.free_at(100.0) == 100.0
    for died, free_at in ((100.0, 100.0), (103.0, 103.0), (105.0, 110.0), (106.0, 113.0)):
        deaths.record(died)
        assert deaths.free_at(died) == free_at


def test_deaths_that_have_passed_no_longer_count():
    deaths = Deaths(RestartPolicy(max_restarts=1, within=10))
    deaths.record(0.0)
    deaths.record(5.0)
    assert deaths.free_at(9.9) == 10.0
    assert deaths.free_at(10.0) == 10.0
    assert deaths.free_at(30.0) == 30.0
    deaths.record(30.0)
    assert deaths.free_at(30.0) == 30.0


def test_without_allowed_restarts_each_death_waits_for_the_window():
    deaths = Deaths(RestartPolicy(max_restarts=0, within=10))
    assert deaths.free_at(1.0) == 1.0
    deaths.record(1.0)
    assert deaths.free_at(1.0) == 11.0


def test_no_more_deaths_are_remembered_than_are_needed():
    deaths = Deaths(RestartPolicy(max_restarts=3))
    for now in range(1_000):
        deaths.record(float(now))
    assert len(deaths._times) == 4


def test_an_enormous_number_of_allowed_restarts_is_no_limit():
    deaths = Deaths(RestartPolicy(max_restarts=sys.maxsize))
    deaths.record(1.0)
    assert deaths.free_at(1.0) == 1.0
