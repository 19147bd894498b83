"""RestartPolicy, and the recent deaths of workers. Time and chance are arguments."""

from collections import deque

from actors.values.checks import check_number
from actors.values.record import Record

__all__ = ["Deaths", "RestartPolicy"]


class RestartPolicy(Record, kw_only=True):
    """When the crew replaces a lost worker. All times are in seconds.

    The first replacement of a worker that was up starts at once. A replacement may fail to open the
    database, or die again within `quiet_period`. Then the next one waits `backoff_initial`, and
    each later one twice as long, up to `backoff_max`. `jitter` varies each wait.

    If more than `max_restarts` workers died `within` this many seconds, further replacements wait
    until enough of the deaths are older than that.

    The window comes from OTP's supervisor (intensity and period).

    Raises:
        TypeError: a value is not a number.
        ValueError: a value is negative, not finite, or out of its range. The text names the value.
    """

    max_restarts: int = 30
    """How many deaths in the window are allowed before replacements wait."""
    within: float = 10.0
    """The length of the window."""
    backoff_initial: float = 0.05
    """The first wait that is not zero."""
    backoff_max: float = 10.0
    """The longest wait."""
    jitter: float = 0.2
    """Each wait becomes longer or shorter by up to this part of the wait, at random. So several
    crews do not try at the same times."""
    quiet_period: float = 5.0
    """If a worker was up for this long and dies, the waits start again from the first."""
    start_timeout: float = 30.0
    """A start that takes longer than this has failed."""
    grace: float = 0.5
    """If a statement still runs this long after its interrupt, the crew gives its worker up.
    Another worker takes the slot."""
    poison_after: int = 3
    """If a statement killed this many workers `within` the window, the crew rejects it with
    `PoisonQuery` until the deaths are older than the window. 0 means that no statement is
    rejected."""

    def __post_init__(self) -> None:
        for name in self._fields:
            check_number("RestartPolicy", name, getattr(self, name))
        for name in ("max_restarts", "poison_after"):
            if not isinstance(getattr(self, name), int):
                message = f"RestartPolicy({name}={getattr(self, name)}) must be a whole number"
                raise TypeError(message)
        if self.jitter > 1:
            message = f"RestartPolicy(jitter={self.jitter}) must be between 0 and 1"
            raise ValueError(message)
        if self.backoff_initial > self.backoff_max:
            message = (
                f"RestartPolicy(backoff_initial={self.backoff_initial}) must not be larger than "
                f"backoff_max ({self.backoff_max})"
            )
            raise ValueError(message)

    def backoff(self, failures: int, chance: float) -> float:
        """Return the seconds to wait before the next start.

        Args:
            failures: how many starts have failed in a row. The wait is 0 if none has.
            chance: a random number from 0 to 1, for the jitter.
        """
        if failures <= 0:
            return 0.0
        # The smallest sensible wait times 2**60 is over any limit. A larger power would overflow.
        wait = min(self.backoff_max, self.backoff_initial * 2.0 ** min(failures - 1, 60))
        return wait * (1 + self.jitter * (2 * chance - 1))


class Deaths:
    """The recent deaths of workers that were up, for the window of a `RestartPolicy`."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        # Times of deaths in monotonic seconds, oldest first. At most max_restarts + 1 times.
        self._times: deque[float] = deque(maxlen=min(policy.max_restarts, 1_000_000) + 1)

    def record(self, now: float) -> None:
        """Note that a worker died."""
        self._times.append(now)

    def free_at(self, now: float) -> float:
        """Return when the next restart is allowed: `now`, or once enough deaths are too old."""
        if len(self._times) <= self._policy.max_restarts:
            return now
        return max(now, self._times[0] + self._policy.within)
