"""Pipeline: what a worker has sent to a connection that takes jobs ahead, and what has come back."""

from collections import deque
from collections.abc import Sequence

from actors.databases.base import Answer, Pipelined
from actors.job import Job

__all__ = ["Pipeline"]


class Pipeline:
    """The jobs of one worker on their way to its connection and back. In the worker's thread."""

    def __init__(self, connection: Pipelined) -> None:
        self._connection = connection
        # By ticket; those that were taken back stay until there are too many, or nothing is in hand.
        self._sent: dict[int, Job] = {}
        self.landed: deque[tuple[Job, Answer]] = deque()
        """Jobs that were answered and whose replies are not settled yet: a death in between must not lose them."""

    def check(self) -> None:
        """Raise `ConnectionLost` if there is nobody to send to."""
        self._connection.check()

    def send(self, jobs: Sequence[tuple[int, Job]]) -> None:
        """Send jobs, each with its ticket."""
        self._sent.update(jobs)
        self._connection.send([(ticket, job.request) for ticket, job in jobs])

    def receive(self) -> None:
        """Wait until a job is answered, and let all that are land."""
        sent, landed = self._sent, self.landed
        for answer in self._connection.receive():
            landed.append((sent.pop(answer[0]), answer))
        if len(sent) > 2 * self._connection.depth:
            for ticket in [ticket for ticket, job in sent.items() if job.member is None or job.ticket != ticket]:
                del sent[ticket]

    def forget(self) -> None:
        """Let go of what was taken back: nothing is in hand."""
        self._sent.clear()
