"""JobIds: the numbers that name the jobs of a crew."""

from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from actors.dispatch.counters import next_of
from actors.replies.reply import Reply

__all__ = ["JobIds"]


class JobIds:
    """The ids of a crew's jobs: 1, 2, 3 …, in the order of the first questions for them.

    A job gets its id when a `Status`, or its own reply, asks for it. So a job that nobody looks at
    costs nothing. No two jobs ever have the same id.

    All methods may be called from any thread. None takes a lock.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        # The replies of jobs, by their ids. A job holds its reply.
        self._replies: WeakValueDictionary[int, Reply[Any]] = WeakValueDictionary()

    def id_of(self, reply: Reply[Any]) -> int:
        """Return the id of the job of a reply.

        The race of two threads that give the first id: each draws a number. One step of the
        interpreter stores the number of one thread. The other thread drops its own number. The
        number leads to the reply before it is stored, so a thread that is killed in between leaves
        no id without its job.
        """
        known: int | None = reply.known_id
        if known is not None:
            return known
        number = next(self._numbers)
        self._replies[number] = reply
        given: int = vars(reply).setdefault("known_id", number)
        if given != number:
            self._replies.pop(number, None)
        return given

    def reply_of(self, job_id: int) -> Reply[Any] | None:
        """Return the reply of a job; `None` if the job has ended and its reply is gone.

        Raises:
            LookupError: the crew has given no job this id.
        """
        reply = self._replies.get(job_id)
        if reply is None and not 1 <= job_id < next_of(self._numbers):
            message = f"no job has the id {job_id}"
            raise LookupError(message)
        return reply
