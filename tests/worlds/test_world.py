"""The simulated world: many worlds are clean, a seed replays its world, planted bugs are found."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds.mutants import MUTANTS
from tests.worlds.run import ends_of, run_worlds, silent
from tests.worlds.world import World

_WORLDS = 1000
_LOOKED_AT = 2000  # worlds in which a planted bug has to show


@pytest.fixture(autouse=True)
def _silence():
    with silent():
        yield


def traced(seed: int) -> list[str]:
    lines: list[str] = []
    World(seed, lines.append).run()
    return lines


def test_nothing_goes_wrong_in_a_thousand_worlds():
    assert run_worlds(1, _WORLDS).wrong == {}


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
        assert (world.stage.steps, world.stage.now, len(world.history.entries)) == (
            *(seen.stage.steps, seen.stage.now, len(seen.history.entries)),
        )


def test_another_seed_gives_another_world():
    assert len({"\n".join(traced(seed)) for seed in range(1, 30)}) == 29


def test_the_worlds_hold_every_kind_of_fault_and_of_answer():
    lines: list[str] = []
    for seed in range(1, 600):
        world = World(seed, lines.append)
        world.run()
        lines += ends_of(world)
    text = "\n".join(lines)
    for wanted in (
        *("is killed at", "its process is killed", "kills a child", "a finalizer runs", "troubles a worker"),
        *("stops the crew", "stops all actors", "shuts the crew down", "gave up", "cancels", "sends Subscribe"),
        *(
            "begins a transaction",
            "the transaction is over: True",
            "the transaction is over: False",
            "begins the stream",
        ),
        *("answered", "WorkerDied", "DatabaseUnavailable False", "SupervisorStopped False", "QueueFull False"),
        *("QueryTimeout False", "QueryCancelled False", "Overloaded False", "PoisonQuery False", "Scripted"),
    ):
        assert wanted in text, wanted


@pytest.mark.parametrize(
    ("owner", "method", "bug", "first"), MUTANTS, ids=[bug.__name__.strip("_") for _, _, bug, _ in MUTANTS]
)
def test_a_planted_bug_is_found(owner, method, bug, first, monkeypatch):
    World(1).run()  # the steps of the real code are known from here on
    monkeypatch.setattr(owner, method, bug)
    assert any(goes_wrong(seed) for seed in range(first, first + _LOOKED_AT))


def goes_wrong(seed: int) -> bool:
    try:
        return bool(World(seed).run())
    except Exception:
        return True  # an answer that makes no sense


def test_the_command_replays_a_world_and_says_how_many_are_wrong():
    command = [sys.executable, "-m", "tests.worlds", "--worlds", "1", "--seed", "3", "--trace"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        for _ in range(2)
    )
    steps = first.stdout.splitlines()[:-1]
    assert len(steps) > 10
    assert steps == second.stdout.splitlines()[:-1]
    assert first.returncode == 0, first.stdout
    assert "1 worlds from seed 3" in first.stdout
