"""Requests that travel together, on a connection in the thread of the test."""

from contextlib import contextmanager
from typing import Any

import pytest

from actors.databases.base import Connection
from supervisor import ConnectionLost
from tests.support.groups import Together

__all__ = ["lose_together", "opened", "run_together"]


@contextmanager
def opened(database: Any) -> Any:
    """Open a connection without a crew."""
    connection = database.connect()
    try:
        yield connection
    finally:
        connection.close()


def run_together(connection: Connection, *requests: Any) -> list[Any]:
    """Run requests in one batch, and return for each its answer or its error."""
    batch = Together(connection, requests)
    connection.run(batch)
    assert [task.ends for task in batch.tasks] == [1] * len(requests)
    return [task.value if task.error is None else task.error for task in batch.tasks]


def lose_together(connection: Connection, *requests: Any) -> Together:
    """Run requests in a batch that loses its connection; return the batch."""
    batch = Together(connection, requests)
    with pytest.raises(ConnectionLost) as caught:
        connection.run(batch)
    assert not caught.value.blames
    return batch
