"""The counters, the durations and the text of a status."""

import random

import pytest

from actors.values.status import CrewStatus, Durations, Histogram, WorkerStatus

QUIET = Durations(0, 0.0, 0.0, 0.0, 0.0)


def histogram_of(durations):
    histogram = Histogram()
    for seconds in durations:
        histogram.record(seconds)
    return histogram.summary()


def crew_status(**changes):
    fields = {
        "name": "app",
        "database": "SQLite('/data/app.db')",
        "state": "up",
        "cause": None,
        "size": 2,
        "workers": (WorkerStatus(3, "busy", "Query('SELECT 1')", 1.5), WorkerStatus(4, "idle", None, 0.25)),
        "queued": 7,
        "running": 1,
        "writing": None,
        "submitted": 41,
        "answered": 22,
        "failed": 3,
        "died": 1,
        "rejected": 5,
        "cancelled": 2,
        "timed_out": 0,
        "shed": 0,
        "stuck": 0,
        "restarts": 9,
        "failed_starts": 8,
        "warnings": (),
        "wait": Durations(30, 0.001, 0.002, 0.003, 0.004),
        "run": Durations(29, 0.1, 0.2, 0.3, 0.4),
    }
    return CrewStatus(**{**fields, **changes})


# --- histograms ---------------------------------------------------------------------------


def test_an_empty_histogram_is_zero():
    assert Histogram().summary() == QUIET


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-6, 0.0123, 1.0, 999.0, 1e6])
def test_a_single_duration_is_its_own_percentiles_exactly(seconds):
    summary = histogram_of([seconds])
    assert summary == Durations(1, seconds, seconds, seconds, seconds)


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_true_to_within_twelve_percent(seed):
    chance = random.Random(seed)
    durations = [10 ** chance.uniform(-5.9, 2.9) for _ in range(2_000)]
    summary = histogram_of(durations)
    ordered = sorted(durations)
    for part, percentile in ((0.5, summary.p50), (0.95, summary.p95), (0.99, summary.p99)):
        exact = ordered[int(len(ordered) * part) - 1]
        assert exact <= percentile <= exact * 1.1200001
    assert (summary.count, summary.max) == (2_000, ordered[-1])


def test_a_rare_long_duration_shows_only_in_the_high_percentiles():
    summary = histogram_of([0.001] * 98 + [10.0] * 2)
    assert summary.p50 == pytest.approx(0.001, rel=0.12)
    assert summary.p95 == pytest.approx(0.001, rel=0.12)
    assert summary.p99 == 10.0


def test_no_percentile_is_longer_than_the_longest_duration():
    summary = histogram_of([0.00101, 0.00102, 0.00103])
    assert max(summary.p50, summary.p95, summary.p99) <= summary.max == 0.00103


def test_durations_beyond_the_last_bound_are_counted():
    summary = histogram_of([5_000.0, 6_000.0, 7_000.0])
    assert (summary.count, summary.p99, summary.max) == (3, 7_000.0, 7_000.0)


def test_a_later_duration_does_not_change_a_summary():
    histogram = Histogram()
    histogram.record(1.0)
    before = histogram.summary()
    histogram.record(2.0)
    assert (before.count, histogram.summary().count) == (1, 2)


# --- the snapshot -------------------------------------------------------------------------


def test_a_snapshot_is_frozen():
    with pytest.raises(AttributeError):
        crew_status().queued = 0


def test_a_snapshot_prints_every_number_once_by_its_name():
    assert str(crew_status()).splitlines() == [
        "app: up, SQLite('/data/app.db')",
        "  2 of 2 workers, 7 queued, 1 running",
        "  submitted 41, answered 22, failed 3, died 1",
        "  rejected 5, cancelled 2, timed out 0, shed 0",
        "  restarts 9, failed starts 8, stuck 0",
        "  wait  p50 1.000 ms  p95 2.000 ms  p99 3.000 ms  max 4.000 ms",
        "  run   p50 100.000 ms  p95 200.000 ms  p99 300.000 ms  max 400.000 ms",
        "  worker 3    busy        1.500 s  Query('SELECT 1')",
        "  worker 4    idle        0.250 s",
    ]


def test_a_snapshot_prints_why_the_crew_is_suspended():
    status = crew_status(state="suspended", cause="OSError: no such place", workers=())
    first, second, *_ = str(status).splitlines()
    assert first == "app: suspended, SQLite('/data/app.db') (OSError: no such place)"
    assert second.startswith("  0 of 2 workers")
