"""What a worker needs of a database: two protocols, nothing else."""

from typing import Protocol

from actors.messages import Request
from actors.result import Result

__all__ = ["Connection", "Database"]


class Connection(Protocol):
    """One open connection, used by one worker."""

    def execute(self, request: Request) -> Result:
        """Run `request` to its end and leave the connection clean. In the worker's thread.

        Raises:
            ConnectionLost: nothing more can run here; the cause is the driver's error.
            Exception: the statement failed, nothing of it is left behind, the connection is good.
        """
        ...

    def interrupt(self) -> None:
        """End what is running, soon. From any thread; harmless when nothing runs; never raises."""
        ...

    def close(self) -> None:
        """Close. In the worker's thread; never raises; may be called twice."""
        ...


class Database(Protocol):
    """A small frozen value that knows how to reach a database.

    `str()` of it names the database and shows no secret.
    """

    @property
    def name(self) -> str:
        """A short name for the crew, its threads and its log lines."""
        ...

    @property
    def max_size(self) -> int | None:
        """The most workers that can share this database; `None` for any number."""
        ...

    def connect(self) -> Connection:
        """Open a connection that can serve, or raise. In the worker's thread."""
        ...
