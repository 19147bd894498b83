"""CoDel: decides when a queue stands. A pure value. Time is an argument.

The idea is CoDel (Nichols and Jacobson, "Controlling Queue Delay", 2012), as Elixir's db_connection
applies it to a queue of checkouts. The length of a queue does not show that the queue is too long.
The shortest wait of a whole interval shows it.
"""

__all__ = ["CoDel"]


class CoDel:
    """Decides whether the queue stands.

    The queue stands once every job of an interval has waited longer than the target. It stands
    until a job has waited less than half of the target. The whole target would be too early: while
    the oldest jobs are rejected, the jobs that stay have waited just that long, and the queue would
    grow for another interval each time.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        """Seconds that a job may wait while the queue stands."""
        self._interval = target
        self._ends = 0.0
        self._shortest = float("inf")
        self._standing = False

    def stands(self, waited: float, now: float) -> bool:
        """Note that a job has waited so long when it could start; say whether the queue stands.

        Args:
            waited: seconds from its submission until now.
            now: monotonic seconds.
        """
        if now >= self._ends:
            self._standing = self._standing or min(self._shortest, waited) > self.target
            self._shortest = waited
            self._ends = now + self._interval
        elif waited < self._shortest:
            self._shortest = waited
        if waited <= self.target / 2:
            self._standing = False
        return self._standing
