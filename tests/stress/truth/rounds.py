"""A round: one write is interrupted, alone or among others, and the file is compared."""

import asyncio
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import apsw

from supervisor import (
    Call,
    DatabaseUnavailable,
    Query,
    QueryTimeout,
    ResultLost,
    Script,
    Status,
    SupervisorRef,
    TransactionBroken,
    WorkerDied,
)
from tests.conftest import eventually
from tests.stress.truth import called
from tests.stress.truth.asking import PATIENCE, ask
from tests.stress.truth.file import File
from tests.stress.truth.findings import Findings
from tests.stress.truth.law import There, Told, Word, allowed
from tests.stress.truth.moments import Moments
from tests.stress.truth.setting import Setting
from tests.stress.truth.ways import BESIDE, UNHURT, Victim, Way
from tests.stress.truth.write import Order, Write

__all__ = ["STATES", "STATES_OF_MEMORY", "Crew"]

STATES = {
    "warm": "warm",
    "new text": "warm",
    "after a call": "fresh",
    "after a pragma": "fresh",
    "after an attach": "fresh",
    "altered": "fresh",
    "locked": "locked",
}
"""States of the connection, or of the file, before a write.

The length of a write depends on the value.
"""
STATES_OF_MEMORY = ("warm", "new text", "altered")
"""The same of a database in memory, whose connection is never opened anew."""

_NO_CONNECTION = (ConnectionRefusedError, DatabaseUnavailable)
# A child may even have no memory for the module of a function.
_NO_MEMORY = (MemoryError, apsw.NoMemError, ImportError, WorkerDied)
_HASTY = 0.15  # the share of neighbours that have a deadline of their own


@dataclass(frozen=True)
class _Asked:
    """A write of a round, and the state of the connection before."""

    write: Write
    order: Order
    state: str

    def __str__(self) -> str:
        return f"{self.write.name} (number {self.order.number}, {self.state})"


@dataclass
class Crew:
    """A crew on a file, and the rounds that it is led through."""

    db: SupervisorRef
    file: File
    setting: Setting
    chance: Random
    moments: Moments
    numbers: Iterator[int]
    runner: asyncio.Runner
    findings: Findings

    # --- asking ---------------------------------------------------------------------------

    def go_round(self, write: Write, way: Way, state: str, neighbours: Sequence[Write] = ()) -> None:
        """Ask for a write and its neighbours, interrupt the write, and look at the file."""
        if not self.moments.knows(self._kind(write, state)) and way.is_swept:
            way, neighbours = UNHURT, ()
        length = sum(self.moments.length(self._kind(each, state)) for each in (write, *neighbours))
        circumstances = (way.name, self.setting.place, bool(neighbours), STATES[state])
        delay, tell_moment = self.moments.draw(length, circumstances, write.name)
        size, tell_size = self.moments.draw_size(write.name)
        asked = self._prepare(write, state, self._patience(), size)
        others = [self._prepare(other, state, self._patience(delay if way.is_swept else None)) for other in neighbours]
        self._bring_into(state)
        began = time.perf_counter()
        told, told_others = self._interrupt(asked, way, delay, others)
        if way is UNHURT and not neighbours:
            self.moments.measured(self._kind(write, state), time.perf_counter() - began)
        if told.is_left and not eventually(self._is_at_rest, PATIENCE):
            self.findings.broken.append(f"{self.setting.place}, {asked}, {way.name}: the crew does not come to rest")
        self.file.look()
        there = self._judge(asked, told, way)
        self.findings.note(self.setting.place, write.name, way.name, state, told.word, is_try=way is not UNHURT)
        for other, each in zip(others, told_others, strict=True):
            self._judge(other, each, BESIDE if way.spares_others else way)
        self.findings.neighbours += len(others)
        for each in (asked, *others):
            each.write.clear(self.file, each.order.number)
        tell_moment(there is There.WHOLE or told.word is Word.FAILED)
        tell_size(there is There.WHOLE)

    def _kind(self, write: Write, state: str) -> Hashable:
        """Return the key on which the length of a write depends."""
        return write.name, self.setting.is_in_children, STATES[state]

    def _patience(self, delay: float | None = None) -> float | None:
        """Return a timeout that never ends, or now and then a timeout that ends at the interrupt.

        The interrupt comes after `delay`.
        """
        if delay is not None and self.chance.random() < _HASTY:
            return delay * self.chance.uniform(0.2, 1.0)
        return None if self.setting.timeout is None else PATIENCE

    def _prepare(self, write: Write, state: str, timeout: float | None, size: int = 0) -> _Asked:
        number = next(self.numbers)
        write.prepare(self.file, number)
        text = f" /* {number} */" if state == "new text" else ""
        return _Asked(write, Order(number, text, timeout, size), state)

    def _bring_into(self, state: str) -> None:
        match state:
            case "after a call":
                self._ask(Call(called.nothing, timeout=PATIENCE))
            case "after a pragma":
                self._ask(Script("PRAGMA cache_size = -1500", PATIENCE))
            case "after an attach":
                self._ask(Script("ATTACH ':memory:' AS other", PATIENCE))
            case "altered":
                self.file.alter_tables()
            case "locked":
                self.file.lock_for(self.chance.uniform(0.0001, 0.004))

    def _ask(self, request: Query | Script | Call[None]) -> Any:
        """Ask until the crew has a connection for it, and the memory."""
        answers: list[Any] = []
        setting = self.setting
        passing = (*_NO_CONNECTION * setting.is_shaky, *_NO_MEMORY * setting.is_small)

        def asked() -> bool:
            with suppress(*passing):
                answers.append(self.db.ask(request))
            return bool(answers)

        assert eventually(asked, PATIENCE)
        return answers[0]

    def _interrupt(self, asked: _Asked, way: Way, delay: float, others: list[_Asked]) -> tuple[Told, list[Told]]:
        """Ask for all, and interrupt one; return its outcome, and the outcomes of the others."""
        at = len(others) if way.waits else self.chance.randint(0, len(others))
        requests = [other.write.make(other.order) for other in others]
        pending = [ask(self.db, request) for request in requests[:at]]

        def ask_others() -> None:
            pending.extend(ask(self.db, request) for request in requests[at:])

        limit = self.setting.timeout or 0.0
        told = way.interrupt(
            Victim(self.db, asked.write.make, asked.order, delay, ask_others, self.chance, self.runner, limit)
        )
        return told, [each.told() for each in pending]

    def _is_at_rest(self) -> bool:
        status = self.db.ask(Status())
        return not status.running and not status.queued

    # --- judging --------------------------------------------------------------------------

    def _judge(self, asked: _Asked, told: Told, way: Way) -> There:
        """Compare the word to a caller with the file."""
        there, findings = asked.write.there(self.file, asked.order.number), self.findings
        what = f"{self.setting.place}, {asked}, {way.name}: {told}"
        if not allowed(told.word, there):
            findings.lies.append(f"{what}; {there.value}")
        if told.word is Word.ANSWERED and not _is_right(asked.write, told.value):
            findings.lies.append(f"{what}; the answer is wrong")
        if told.error is not None and not isinstance(told.error, self._expected(asked, way)):
            findings.broken.append(f"{what}; no such error was expected")
        return there

    def _expected(self, asked: _Asked, way: Way) -> tuple[type[BaseException], ...]:
        """Return the errors that the caller of a write may get."""
        errors = way.errors
        if self.setting.timeout is not None or asked.order.timeout is not None:
            errors += (QueryTimeout,)
        if asked.write.fails:
            errors += (apsw.ConstraintError, TransactionBroken)
        if asked.write.is_lost and self.setting.is_in_children:
            errors += (ResultLost,)
        if self.setting.is_shaky:
            errors += _NO_CONNECTION
            if "session" in asked.write.name and self.setting.is_in_children:
                errors += (WorkerDied,)  # it has the child from its beginning on, also while that is opened anew
        if self.setting.is_small:
            errors += _NO_MEMORY
        return errors

    # --- the end --------------------------------------------------------------------------

    def check_serves(self) -> None:
        """See that the crew writes and reads as before."""
        number = next(self.numbers)
        self._ask(Query(called.INSERT, (number, 0), PATIENCE))
        found = self._ask(Query("SELECT DISTINCT part FROM written WHERE number = ?", (number,), PATIENCE)).rows
        status = self.db.ask(Status())
        restarts = 0 if self.setting.is_small or self.setting.is_shaky else status.restarts
        if found != [(0,)] or status.stuck or status.queued or restarts:
            self.findings.broken.append(f"{self.setting.place}: the crew serves badly: {found}, {status}")
        self.file.look()

    def check_file(self) -> None:
        """Look at the whole file."""
        faults = [*self.file.changed_later(), *self.file.integrity()]
        self.findings.broken += [f"{self.setting.place}: {fault}" for fault in faults]


def _is_right(write: Write, value: Any) -> bool:
    try:
        return write.is_right(value)
    except Exception:  # it is not even of the right class
        return False
