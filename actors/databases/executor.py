"""Executor: how jobs come to a connection, in this process and in a child: in batches, each job with its claim."""

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
    """A job as a connection knows it. It is also the job's identity."""

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

    The connection begins one job after the other and says what became of each, in any order, by exactly one of
    `answer`, `fail`, `reroute` and `give_back`. All methods but `interrupt` belong to the thread of the connection.

    An interrupt hits its own job and no other. The thread that interrupts leaves a mark before it looks whether the
    job runs. The thread that runs the job strikes it off `running` before it looks for the mark, and waits until the
    mark is gone. So one of the two sees the other.
    """

    __slots__ = ("_marks", "connection", "running")

    is_over: bool = False
    """Whether its worker was given up: nothing more is to be begun, and nobody waits for what is left."""
    was_taken_back: bool = False
    """Whether another thread may have struck jobs off `running`."""

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.running: list[Any] = []
        """The tasks that were begun and have not ended."""
        # The tasks that a thread is interrupting at this moment.
        self._marks: list[Any] = []

    def __len__(self) -> int:
        """Return how many jobs it had in the beginning."""
        raise NotImplementedError

    def begin(self) -> Any:
        """Claim the next job and return its `Task`; `None` if no job is left."""
        raise NotImplementedError

    def hand_over(self) -> Any:
        """Claim the next job for another process, which may not begin it: see `Connection.recall`."""
        return self.begin()

    def answer(self, task: Any, value: Any, seconds: float | None = None) -> None:
        """Answer a job with what `Connection.execute` returned.

        Args:
            task: the job.
            value: the answer.
            seconds: how long it ran, where that was measured elsewhere.
        """
        raise NotImplementedError

    def fail(self, task: Any, error: BaseException, seconds: float | None = None) -> None:
        """Answer a job with its own error; `seconds` as for `answer`."""
        raise NotImplementedError

    def reroute(self, task: Any) -> None:
        """Let the worker that writes run a job of which nothing ran; see `NeedsWriter`."""
        raise NotImplementedError

    def let_go(self, task: Any) -> bool:
        """Give up the claim of a job that will never run here; say whether this call did so.

        From any thread, in `Connection.recall`. A thread that comes late must not give up the claim of a later batch.
        """
        raise NotImplementedError

    def give_back(self, *tasks: Any) -> None:
        """Let jobs wait again, before all others and in this order: nothing of them ran, or they have read only."""
        raise NotImplementedError

    def tell(self) -> None:
        """See to it that nothing that was answered is lost, whatever the next job does to this process."""
        return  # without this a type checker takes it for abstract

    # --- interrupts -----------------------------------------------------------------------

    def interrupt(self, task: Any) -> None:
        """End a job soon, if it runs. From any thread; never blocks, never raises an `Exception`."""
        self._marks.append(task)
        try:
            if any(each is task for each in self.running):
                self.connection.cancel(task)
        finally:
            self._marks.remove(task)

    def _leave(self, task: Any) -> None:
        """Note that a job does not run any more. No interrupt of it is on the way afterwards.

        Raises:
            RuntimeError: it did not run, since the connection has already said what became of it.
        """
        try:
            self.running.remove(task)
        except ValueError:
            if not self.was_taken_back:
                message = f"run() of {type(self.connection).__name__} has said what became of a job that does not run"
                raise RuntimeError(message) from None
        if self._marks:
            self._wait_for_interrupts(task)

    def _wait_for_interrupts(self, task: Any) -> None:
        # A thread that was killed in the middle of an interrupt leaves its mark for ever.
        until = time.monotonic() + _LONGEST_INTERRUPT
        while any(each is task for each in tuple(self._marks)) and time.monotonic() < until:
            time.sleep(0)
