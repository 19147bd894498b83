"""A batch of a test: a connection runs its requests in the thread of the test."""

from typing import Any

from actors.databases.base import Connection
from actors.databases.executor import Batch
from supervisor import ConnectionLost

__all__ = ["TestBatch", "run_together"]


class _Task:
    def __init__(self, request: Any) -> None:
        self.request = request
        self.is_unwanted = False
        self.outcomes: list[Any] = []


class TestBatch(Batch):
    """Requests that a connection runs together. `outcomes` has a value or an error for each."""

    __test__ = False  # no test for pytest

    def __init__(self, connection: Connection, *requests: Any) -> None:
        super().__init__(connection)
        self.tasks = [_Task(request) for request in requests]
        self._waiting = list(self.tasks)
        self.given_back: list[Any] = []

    def __len__(self) -> int:
        return len(self.tasks)

    def begin(self) -> Any:
        if not self._waiting:
            return None
        task = self._waiting.pop(0)
        self.running.append(task)
        return task

    def answer(self, task: Any, value: Any, seconds: float | None = None) -> None:
        self._leave(task)
        task.outcomes.append(value)

    def fail(self, task: Any, error: BaseException, seconds: float | None = None) -> None:
        self._leave(task)
        task.outcomes.append(error)

    def give_back(self, *tasks: Any) -> None:
        for task in tasks:
            self._leave(task)
            self.given_back.append(task.request)

    def cancel(self, number: int) -> None:
        """Interrupt a job, as the crew does."""
        self.tasks[number].is_unwanted = True
        self.interrupt(self.tasks[number])

    @property
    def outcomes(self) -> list[Any]:
        """What each request has come to. A request has one outcome, or none if it was lost."""
        assert all(len(task.outcomes) <= 1 for task in self.tasks), "a job was ended twice"
        return [task.outcomes[0] if task.outcomes else None for task in self.tasks]


def run_together(connection: Connection, *requests: Any) -> list[Any]:
    """Run requests in one batch, and return their outcomes."""
    batch = TestBatch(connection, *requests)
    connection.run(batch)
    assert batch.running == [], "a job was not ended"
    assert batch.given_back == []
    return batch.outcomes


def lose_together(connection: Connection, *requests: Any) -> TestBatch:
    """Run requests in a batch that loses its connection; return the batch."""
    batch = TestBatch(connection, *requests)
    try:
        connection.run(batch)
    except ConnectionLost as lost:
        assert not lost.blames
        return batch
    message = "the connection was not lost"
    raise AssertionError(message)
