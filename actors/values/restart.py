"""RestartPolicy and what is remembered of deaths: pure values, time and chance are arguments."""

from collections import deque

from actors.values.checks import check_number
from actors.values.record import Record

__all__ = ["Deaths", "RestartPolicy"]


class RestartPolicy(Record, kw_only=True):
    """When a worker that was lost is replaced. All times in seconds.

    The first replacement of a worker that was up comes at once; a replacement that fails to
    open the database, or dies again within `quiet_period`, waits `backoff_initial`, then twice
    as long each time up to `backoff_max`, give or take `jitter`. If more than `max_restarts`
    workers died `within` so many seconds, further replacements wait for these deaths to pass.

    The words, and the window, are those of OTP's supervisor (intensity and period).

    Raises:
        TypeError: a value is not a number.
        ValueError: a value is negative, not finite, or out of its range; the text names it.
    """

    max_restarts: int = 30
    """Deaths in the window after which replacements have to wait."""
    within: float = 10.0
    """Length of the window."""
    backoff_initial: float = 0.05
    """The first wait that is not zero."""
    backoff_max: float = 10.0
    """The longest wait."""
    jitter: float = 0.2
    """Each wait is made longer or shorter by up to this part of it, so that crews do not march in step."""
    quiet_period: float = 5.0
    """A worker that was up for so long starts from the first wait again when it dies."""
    start_timeout: float = 30.0
    """A start that takes longer has failed."""
    grace: float = 0.5
    """A statement that goes on for so long after its interrupt loses its worker: another takes the slot."""
    poison_after: int = 3
    """A statement that killed so many workers `within` so many seconds is rejected with `PoisonQuery` until these
    have passed; 0 never does."""

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
        """Return the seconds to wait after so many failures in a row.

        Args:
            failures: 0 for none: the wait is 0.
            chance: a random number from 0 to 1, for the jitter.
        """
        if failures <= 0:
            return 0.0
        # 2**60 of the smallest sensible wait is over any limit; more would overflow.
        wait = min(self.backoff_max, self.backoff_initial * 2.0 ** min(failures - 1, 60))
        return wait * (1 + self.jitter * (2 * chance - 1))


class Deaths:
    """The recent deaths of workers that were up, for the window of a `RestartPolicy`."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        # Monotonic seconds, oldest first; never more than max_restarts + 1 of them.
        self._times: deque[float] = deque(maxlen=min(policy.max_restarts, 1_000_000) + 1)

    def record(self, now: float) -> None:
        """Note that a worker died."""
        self._times.append(now)

    def free_at(self, now: float) -> float:
        """Return when the next restart is allowed: `now`, or when enough deaths have passed."""
        if len(self._times) <= self._policy.max_restarts:
            return now
        return max(now, self._times[0] + self._policy.within)
