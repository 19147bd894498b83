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
        # By ticket, in the order of the sending; those that were taken back stay until a later one is answered.
        self._sent: dict[int, Job] = {}
        self.landed: deque[tuple[Job, Answer]] = deque()
        """Jobs that were answered and whose replies are not settled yet: a death in between must not lose them."""

    def check(self) -> None:
        """Raise `ConnectionLost` if there is nobody to send to."""
        self._connection.check()

    def send(self, jobs: Sequence[Job]) -> None:
        """Send jobs, each with its ticket."""
        for job in jobs:
            self._sent[job.ticket] = job
        self._connection.send([(job.ticket, job.request) for job in jobs])

    def receive(self) -> None:
        """Wait until a job is answered, and let all that are land."""
        for answer in self._connection.receive():
            for earlier in list(self._sent):
                job = self._sent.pop(earlier)
                if earlier == answer.ticket:
                    self.landed.append((job, answer))
                    break

    def forget(self) -> None:
        """Let go of what was taken back: nothing is in hand."""
        self._sent.clear()
