"""The callers of the chaos run: each asks in its own way, and counts its answers."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import pykka

from actors.values.errors import DatabaseUnavailable, WorkerDied
from supervisor import Reply, Status, SupervisorRef
from tests.conftest import eventually
from tests.stress.chaos.hurried_callers import on_a_loop_with_time_limits, with_deadlines, with_second_thoughts
from tests.stress.chaos.talking_callers import by_streams, in_transactions

_EXPECTED = (WorkerDied, DatabaseUnavailable)


class Told(threading.local):
    """Where replies are kept that a caller does not get to see."""

    replies: list[Reply[Any]] | None = None


told = Told()


class Tally:
    """The requests of one caller, and their answers."""

    def __init__(self, database: Any, numbers: range, patience: float) -> None:
        self.database = database
        self.numbers = numbers
        self.patience = patience
        self.outcomes: Counter[str] = Counter()
        self.unanswered = 0
        self.unexpected: list[str] = []
        self.acknowledged: set[int] = set()
        self.callbacks_missed = 0
        self.denied: set[int] = set()
        """Of which it was said that they have not taken effect."""
        self.cancelled: set[int] = set()
        """Of which `cancel` has said that it takes effect."""
        self.given_up: list[tuple[int, Reply[Any]]] = []
        self.lateness: list[float] = []
        """Seconds from each deadline until the answer."""
        self._seen_unavailable = 0

    def windows(self, ref: SupervisorRef, size: int) -> Iterator[list[int]]:
        """Yield the numbers to ask together.

        Wait between two windows while the crew is suspended.
        """
        numbers = iter(self.numbers)
        while window := list(islice(numbers, size)):
            yield window
            if self.outcomes["DatabaseUnavailable"] > self._seen_unavailable:
                self._seen_unavailable = self.outcomes["DatabaseUnavailable"]
                eventually(lambda: ref.ask(Status()).state == "up", self.patience)

    def note(self, number: int, get: Callable[[], Any], *expected: type[BaseException]) -> None:
        """Take note of the value or the error of `get`."""
        try:
            result = get()
        except Exception as error:
            if type(error) is pykka.Timeout:
                self.unanswered += 1
            else:
                self.note_error(number, error, *expected)
        else:
            self.note_result(number, result)

    def note_result(self, number: int, result: Any) -> None:
        self.outcomes["answered"] += 1
        self.acknowledged.add(number)
        if getattr(result, "rows", None) != [(number,)]:
            self.unexpected.append(f"{number} got the answer {result!r}")
        if number in self.cancelled:
            self.unexpected.append(f"{number} was cancelled, and answered")

    def note_error(self, number: int, error: BaseException | None, *expected: type[BaseException]) -> None:
        self.outcomes[type(error).__name__] += 1
        own = self.database.must_fail(number)
        if not isinstance(error, (*_EXPECTED, *expected)) and not own:
            self.unexpected.append(f"{number} got {error!r}")
        executed = getattr(error, "executed", None)
        if executed is False:
            self.denied.add(number)
        elif executed:
            self.acknowledged.add(number)

    def wait_for(self, number: int, reply: Any, *expected: type[BaseException]) -> None:
        self.note(number, partial(reply.get, timeout=self.patience), *expected)


def one_by_one(ref: SupervisorRef, tally: Tally) -> None:
    for (number,) in tally.windows(ref, 1):
        tally.note(number, partial(ref.ask, tally.database.request(number), timeout=tally.patience))


def in_windows(ref: SupervisorRef, tally: Tally, size: int = 64) -> None:
    for window in tally.windows(ref, size):
        replies = [(number, ref.ask(tally.database.request(number), block=False)) for number in window]
        for number, reply in replies:
            tally.wait_for(number, reply)


def in_large_windows(ref: SupervisorRef, tally: Tally) -> None:
    in_windows(ref, tally, 1000)


def by_telling(ref: SupervisorRef, tally: Tally) -> None:
    for window in tally.windows(ref, 64):
        told.replies = []
        for number in window:
            ref.tell(tally.database.request(number))
        replies, told.replies = told.replies, None
        for number, reply in zip(window, replies, strict=True):
            tally.wait_for(number, reply)


def from_callbacks(ref: SupervisorRef, tally: Tally) -> None:
    """Ask every second number from the callback of the one before."""
    for window in tally.windows(ref, 64):
        called: list[int] = []
        following: list[tuple[int, Reply[Any]]] = []

        def ask_again(number: int, _: Any, called: list[int] = called, following: Any = following) -> None:
            called.append(number)
            following.append((number, ref.ask(tally.database.request(number), block=False)))

        replies = [(number, ref.ask(tally.database.request(number), block=False)) for number in window[::2]]
        for (_, reply), second in zip(replies, window[1::2], strict=False):
            reply.add_done_callback(partial(ask_again, second))
        for number, reply in replies:
            tally.wait_for(number, reply)
        wanted = len(window) // 2
        # Waiters are released first: the last callback may still run. A kill that hits one ends it.
        eventually(lambda called=called, wanted=wanted: len(called) == wanted, 0.2)
        tally.callbacks_missed += wanted - len(following)
        if len(called) != len(set(called)):
            tally.unexpected.append("a callback was called twice")
        for number, reply in following.copy():
            tally.wait_for(number, reply)


def on_a_loop(ref: SupervisorRef, tally: Tally) -> None:
    asyncio.run(_on_a_loop(ref, tally))


async def _on_a_loop(ref: SupervisorRef, tally: Tally) -> None:
    async def ask(number: int) -> None:
        try:
            result = await ref.ask(tally.database.request(number), block=False)
        except Exception as error:
            tally.note_error(number, error)
        else:
            tally.note_result(number, result)

    for window in tally.windows(ref, 64):
        _, waiting = await asyncio.wait(
            [asyncio.ensure_future(ask(number)) for number in window], timeout=tally.patience
        )
        tally.unanswered += len(waiting)
        for task in waiting:
            task.cancel()


def by_derived_replies(ref: SupervisorRef, tally: Tally) -> None:
    for window in tally.windows(ref, 64):
        replies = [(number, ref.ask(tally.database.request(number), block=False)) for number in window]
        mapped = [(number, reply.map(lambda result: result)) for number, reply in replies]
        for number, reply in mapped:
            tally.wait_for(number, reply)


CALLERS = (
    *(one_by_one, one_by_one, in_windows, in_large_windows),
    *(by_telling, from_callbacks, on_a_loop, by_derived_replies),
    *(with_deadlines, with_second_thoughts, on_a_loop_with_time_limits),
)
TALKERS = (in_transactions, by_streams)
"""Callers for a database that takes transactions and streams."""
