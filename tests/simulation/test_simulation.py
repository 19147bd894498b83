"""The deterministic simulation: many worlds are clean, a seed replays its world, planted bugs are found."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.ledger import Entry
from tests.simulation.plants import PLANTS
from tests.simulation.run import run_worlds, silent
from tests.simulation.world import World

_WORLDS = 2000
_LOOKED_AT = 400  # worlds in which a planted bug has to show


@pytest.fixture(autouse=True)
def _silence():
    with silent():
        yield


@functools.cache
def clean_seeds() -> tuple[int, ...]:
    """Worlds in which nothing is wrong, so that what is wrong there with a bug comes from that bug."""
    wrong = run_worlds(1, _LOOKED_AT)
    return tuple(seed for seed in range(1, _LOOKED_AT + 1) if seed not in wrong)


def traced(seed: int) -> list[str]:
    lines: list[str] = []
    World(seed, lines.append).run()
    return lines


def outcome(entry: Entry) -> str:
    """Return how a request ended, and whether its statement took effect."""
    error = None if entry.reply is None or not entry.reply.done() else entry.reply.exception(0)
    return "answered" if error is None else f"{type(error).__name__} {getattr(error, 'executed', '')}"


def test_nothing_goes_wrong_in_two_thousand_worlds():
    assert run_worlds(1, _WORLDS) == {}


def test_the_same_seed_gives_the_same_world_step_by_step():
    for seed in range(1, 30):
        assert traced(seed) == traced(seed)


def test_a_world_does_not_depend_on_those_before_it():
    before = traced(40)
    run_worlds(1, 60)
    assert traced(40) == before


def test_tracing_changes_nothing():
    for seed in range(30, 60):
        world, seen = World(seed), World(seed, lambda line: None)
        assert world.run() == seen.run()
        assert (world.turns, world.now, len(world.ledger.entries)) == (seen.turns, seen.now, len(seen.ledger.entries))


def test_another_seed_gives_another_world():
    assert len({"\n".join(traced(seed)) for seed in range(1, 30)}) == 29


def test_the_worlds_hold_every_kind_of_fault_and_of_answer():
    lines: list[str] = []
    for seed in range(1, 300):
        world = World(seed, lines.append)
        world.run()
        lines += [outcome(entry) for entry in world.ledger.entries]
    text = "\n".join(lines)
    for wanted in (
        *("opening hangs", "killed at", "a finalizer runs", "troubles worker", "stops all actors", "gave up"),
        *(
            "shuts the crew down",
            "cancels",
            "is deaf",
            "sends Subscribe",
            "ended: ConnectionLost",
            "OpeningFailed",
            "SystemExit",
            "hangs",
        ),
        *("QueryTimeout False", "QueryTimeout None", "QueryCancelled True", "Overloaded False"),
        *("answered", "WorkerDied", "DatabaseUnavailable", "SupervisorStopped", "QueueFull", "Scripted"),
    ):
        assert wanted in text, wanted


@pytest.mark.parametrize(("owner", "method", "bug"), PLANTS, ids=[bug.__name__.strip("_") for _, _, bug in PLANTS])
def test_a_planted_bug_is_found(owner, method, bug, monkeypatch):
    seeds = clean_seeds()
    monkeypatch.setattr(owner, method, bug)
    assert any(World(seed).run() for seed in seeds)


def test_the_command_replays_a_world_and_says_how_many_are_wrong():
    command = [sys.executable, "-m", "tests.simulation", "--worlds", "1", "--seed", "7", "--trace"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        for _ in range(2)
    )
    steps = first.stdout.splitlines()[:-1]
    assert len(steps) > 10
    assert steps == second.stdout.splitlines()[:-1]
    assert first.returncode == 0, first.stdout
    assert "1 worlds from seed 7, 0 of them wrong" in first.stdout
