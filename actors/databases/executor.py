"""How jobs come to a connection in this process and in a child: in batches, with claims."""

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from actors.databases.base import Connection
    from actors.databases.steps import Step
    from actors.values.requests import Request

__all__ = ["Batch", "Task"]

# Seconds. An interrupt never blocks, but its thread may have to wait for the interpreter.
_LONGEST_INTERRUPT: Final = 1.0


class Task(Protocol):
    """A job as a connection knows it. The object is the identity of the job."""

    @property
    def request(self) -> "Request | Step":
        """The request to run."""
        ...

    @property
    def is_unwanted(self) -> bool:
        """Whether it was interrupted."""
        ...


class Batch:
    """Jobs that a worker has taken for its connection.

    The connection begins one job after the other. It ends each job, in any order, by exactly one of
    `answer`, `fail`, `reroute` and `give_back`. All methods belong to the thread of the connection,
    except `interrupt` and `let_go`.

    **An interrupt hits its own job and no other.** The interrupting thread leaves a mark, then
    looks whether the job runs. The connection's thread removes the job from `running`, then looks
    for the mark, and waits until the mark is gone. So one of the two threads sees the other.
    """

    __slots__ = ("_marks", "connection", "running")

    is_over: bool = False
    """Whether its worker was given up. The connection begins no more jobs of it."""
    was_taken_back: bool = False
    """Whether another thread may have removed jobs from `running`."""

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.running: list[Any] = []
        """The tasks that were begun and have not ended."""
        # The tasks that a thread is interrupting at this moment.
        self._marks: list[Any] = []

    def __len__(self) -> int:
        """Return how many jobs the batch had in the beginning."""
        raise NotImplementedError

    def begin(self) -> Any:
        """Claim the next job and return its `Task`. Return `None` if no job is left."""
        raise NotImplementedError

    def hand_over(self) -> Any:
        """Claim the next job for another process. It may never begin there; see `recall`."""
        return self.begin()

    def answer(self, task: Any, value: Any, seconds: float | None = None) -> None:
        """Answer a job with the value that `Connection.execute` has returned.

        Args:
            task: the job.
            value: the answer.
            seconds: how long the job ran, if another process has measured it.
        """
        raise NotImplementedError

    def fail(self, task: Any, error: BaseException, seconds: float | None = None) -> None:
        """Answer a job with its own error; `seconds` as for `answer`."""
        raise NotImplementedError

    def reroute(self, task: Any) -> None:
        """Hand a job of which nothing ran to the worker that writes; see `NeedsWriter`."""
        raise NotImplementedError

    def let_go(self, task: Any) -> bool:
        """Give up the claim of a job that will never run here; say whether this call did so.

        From any thread, in `Connection.recall`. A slow thread must not give up the claim of a later
        batch.
        """
        raise NotImplementedError

    def give_back(self, *tasks: Any) -> None:
        """Return jobs to the head of the queue, in this order: they did nothing, or only read."""
        raise NotImplementedError

    def tell(self) -> None:
        """Send the answers that are kept back: the next job cannot lose them then."""
        return  # without this line a type checker takes the method for abstract

    # --- interrupts -----------------------------------------------------------------------

    def interrupt(self, task: Any) -> None:
        """End a job soon, if it runs. From any thread; never blocks, raises no `Exception`."""
        self._marks.append(task)
        try:
            if any(each is task for each in self.running):
                self.connection.cancel(task)
        finally:
            self._marks.remove(task)

    def _leave(self, task: Any) -> None:
        """Note that a job runs no more. No interrupt of it is on the way afterwards.

        Raises:
            RuntimeError: the connection has ended this job before.
        """
        try:
            self.running.remove(task)
        except ValueError:
            if not self.was_taken_back:
                message = f"run() of {type(self.connection).__name__} has ended a job that does not run"
                raise RuntimeError(message) from None
        if self._marks:
            self._wait_for_interrupts(task)

    def _wait_for_interrupts(self, task: Any) -> None:
        # A thread that is killed during an interrupt leaves its mark for ever.
        until = time.monotonic() + _LONGEST_INTERRUPT
        while any(each is task for each in tuple(self._marks)) and time.monotonic() < until:
            time.sleep(0)
