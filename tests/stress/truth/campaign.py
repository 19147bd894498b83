"""The campaign: crews one after the other, each on its own file, until enough interrupts."""

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from supervisor import SQLite
from tests.stress.truth.failures import FAILING_ROWS, FAILING_WHOLES
from tests.stress.truth.findings import Findings
from tests.stress.truth.large import LARGE
from tests.stress.truth.moments import Moments
from tests.stress.truth.rounds import STATES, STATES_OF_MEMORY, Crew
from tests.stress.truth.rows import ROWS
from tests.stress.truth.schema import SCHEMA
from tests.stress.truth.setting import Setting, start
from tests.stress.truth.transactions import TRANSACTIONS
from tests.stress.truth.ways import BY_CREW, BY_MEMORY, BY_SHUTDOWN, UNHURT, WAYS, Way
from tests.stress.truth.write import Write
from tests.support.common import switching_often

__all__ = ["WRITES", "Plan", "run"]

WRITES = (*ROWS, *TRANSACTIONS, *SCHEMA, *FAILING_ROWS, *FAILING_WHOLES)
"""All kinds of write, except for large answers."""


@dataclass(frozen=True)
class Plan:
    """The settings that a campaign tries.

    The seed chooses among them. Shares are of crews or of rounds.
    """

    places: Sequence[str] = (*4 * ["threads"], *3 * ["children"], "memory", "children's memory")
    writes: Sequence[Write] = WRITES
    ways: Sequence[Way] = tuple(WAYS)
    states: Sequence[str] = ("warm", *STATES)
    large: float = 0.25
    """Crews of children with little memory, as a share of the crews of children."""
    shaky: float = 0.05
    """Crews that can open some of their connections only."""
    limited: float = 0.1
    """Crews with a timeout of their own."""
    shut_down: float = 0.9
    """Crews that end in the middle of a write."""
    together: float = 0.4
    """Writes that are asked for together with others."""
    undisturbed: float = 0.08
    """Writes that nobody interrupts."""
    rounds: Sequence[int] = (1, 3, 40, 120)
    """Writes that a crew is asked for; of children, not so few."""
    child: Callable[[SQLite], Any] = lambda database: database
    """Makes the database of the children."""


def run(folder: Path, tries: int, seed: int, plan: Plan | None = None, *, until_wrong: bool = False) -> Findings:
    """Interrupt so many writes.

    Args:
        folder: where the files are made, and removed again.
        tries: how many writes are interrupted.
        seed: for every choice. A real machine decides the moments.
        plan: the settings to try.
        until_wrong: whether to end at the first finding.
    """
    # Otherwise a worker that needs the interpreter waits for the thread that measures the time.
    with switching_often(), asyncio.Runner() as runner:
        campaign = _Campaign(folder, tries, seed, plan or Plan(), runner, until_wrong=until_wrong)
        began = time.monotonic()
        try:
            while not campaign.is_over:
                campaign.try_a_crew()
        except Exception:  # the findings before it are reported, too
            campaign.findings.broken.append(traceback.format_exc())
        campaign.findings.seconds = time.monotonic() - began
    return campaign.findings


class _Campaign:
    """The choices."""

    def __init__(
        self, folder: Path, tries: int, seed: int, plan: Plan, runner: asyncio.Runner, *, until_wrong: bool
    ) -> None:
        self.findings = Findings(seed)
        self._folder = folder
        self._tries = tries
        self._plan = plan
        self._runner = runner
        self._until_wrong = until_wrong
        self._chance = Random(seed)
        self._moments = Moments(self._chance)
        self._numbers = count(1)

    @property
    def is_over(self) -> bool:
        findings = self.findings
        return findings.total >= self._tries or (self._until_wrong and not findings.is_clean)

    def try_a_crew(self) -> None:
        """Start a crew on a new file, lead it through its rounds, and check its file at the end."""
        self.findings.crews += 1
        path = self._folder / f"{self.findings.crews}.db"
        setting = self._setting()
        db, file = start(setting, path, self._plan.child)
        crew = Crew(db, file, setting, self._chance, self._moments, self._numbers, self._runner, self.findings)
        try:
            self._go_rounds(crew)
            if not setting.is_in_memory:
                crew.db.stop()
            crew.check_file()
        finally:
            crew.db.shutdown(cancel_pending=True, timeout=0)
            crew.file.close()
            for rest in self._folder.glob(f"{path.name}*"):
                rest.unlink()

    def _go_rounds(self, crew: Crew) -> None:
        rounds = self._chance.choice(self._plan.rounds)
        for _ in range(max(20, rounds) if crew.setting.is_in_children else rounds):
            if self.is_over:
                break
            self._go_round(crew, self._way(crew))
        if self._happens(self._plan.shut_down) and not crew.setting.is_in_memory:
            self._go_round(crew, BY_SHUTDOWN)
        else:
            crew.check_serves()

    def _setting(self) -> Setting:
        plan, chance = self._plan, self._chance
        place = chance.choice(plan.places)
        if place.endswith("memory"):
            return Setting(place, "memory", "full")
        return Setting(
            place,
            journal=chance.choices(["wal", "delete", "truncate"], [8, 1, 1])[0],
            synchronous=chance.choice(["off", "normal", "full"]),
            timeout=chance.choice([0.0002, 0.0005, 0.001]) if self._happens(plan.limited) else None,
            is_small=place == "children" and self._happens(plan.large),
            is_shaky=self._happens(plan.shaky),
        )

    def _way(self, crew: Crew) -> Way:
        if crew.setting.is_small and self._happens(0.7):
            return BY_MEMORY
        if self._happens(self._plan.undisturbed):
            return UNHURT
        return BY_CREW if crew.setting.timeout is not None else self._chance.choice(self._plan.ways)

    def _go_round(self, crew: Crew, way: Way) -> None:
        plan, chance = self._plan, self._chance
        write = chance.choice(LARGE if crew.setting.is_small else plan.writes)
        neighbours: list[Write] = []
        if self._happens(plan.together) and not write.is_sole:
            neighbours = chance.choices(_NEIGHBOURS, k=chance.randint(1, 5))
        state = chance.choice(
            [state for state in plan.states if not crew.setting.is_in_memory or state in STATES_OF_MEMORY]
        )
        crew.go_round(write, way, state, neighbours)

    def _happens(self, share: float) -> bool:
        return self._chance.random() < share


_NEIGHBOURS = [
    *(3 * [*ROWS, *FAILING_ROWS]),
    *(write for write in WRITES if write.name.startswith(("transaction", "call", "script", "create", "add"))),
]
"""The neighbours of an interrupted write. Most of them can share its commit."""
