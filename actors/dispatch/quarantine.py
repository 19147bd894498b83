"""Quarantine: which statements have recently killed workers. A pure value; time is an argument."""

import marshal
from contextlib import suppress
from typing import Any

from actors.values.requests import Call, Interactive, Query, Request

__all__ = ["Quarantine"]


class _Death:
    """The death of one worker, of a statement or while the worker ran it."""

    __slots__ = ("alone", "at", "cleared", "digest", "sql")

    def __init__(self, request: Request, at: float, *, alone: bool) -> None:
        self.sql = request.sql
        self.digest = _digest(request)
        """A number made from the parameters; `None` if no number can be made."""
        self.at = at
        """Monotonic seconds."""
        self.alone = alone
        """Whether nothing else ran in the worker at that time. Then the worker died of this
        statement."""
        self.cleared = False
        """Whether the statement was answered later, with other parameters."""


class Quarantine:
    """Remembers the deaths within a window of time, and decides which requests are held back.

    A request is held back in two cases:

    * Enough workers died of the same statement with the same parameters.
    * Enough workers died of the same statement with any parameters, and it was never answered
      since.

    So a statement that many callers run is not suspected when workers are killed from outside. The
    quarantine stores no parameters, only a number made from them.
    """

    def __init__(self, deaths: int, within: float) -> None:
        """Create a quarantine.

        Args:
            deaths: how many workers a request has to kill before it is held back; 0 holds nothing
                back.
            within: the window in seconds.
        """
        self._allowed = deaths
        self.within = within
        self.deaths: list[_Death] = []
        """Oldest first."""

    def record(self, request: Request, now: float, *, alone: bool = True) -> None:
        """Note that a worker died while it ran `request`.

        An interactive transaction does not show which statement ran, so it is never suspected.
        """
        if self._allowed and not isinstance(request, Interactive):
            self.forget(now)
            self.deaths.append(_Death(request, now, alone=alone))

    def suspects(self, request: Request) -> bool:
        """Say whether a worker has died while it ran this statement.

        A statement that was answered since is not suspected.
        """
        return bool(self.deaths) and any(death.sql == request.sql and not death.cleared for death in self.deaths)

    def clear(self, request: Request) -> None:
        """Note that `request` was answered."""
        suspects = [death for death in self.deaths if death.sql == request.sql]
        if suspects:
            digest = _digest(request)
            for death in suspects:
                death.cleared = True
                if death.digest == digest:
                    with suppress(ValueError):  # another thread has removed it
                        self.deaths.remove(death)

    def deaths_of(self, request: Request, now: float) -> int:
        """Return how many workers a request has killed; 0 if it is not held back."""
        self.forget(now)
        suspects = [death for death in self.deaths if death.sql == request.sql and death.alone]
        if len(suspects) < self._allowed:
            return 0
        digest = _digest(request)
        same = sum(death.digest == digest for death in suspects)
        any_parameters = sum(not death.cleared for death in suspects)
        return max(same, any_parameters) if max(same, any_parameters) >= self._allowed else 0

    def forget(self, now: float) -> None:
        """Forget the deaths that are older than the window."""
        # A new list: another thread may look at the old one.
        self.deaths = [death for death in self.deaths if now - death.at < self.within]


def _digest(request: Request) -> int | None:
    if isinstance(request, Query):
        values: Any = (request.params, request.many)
    elif isinstance(request, Call):
        values = request.args
    else:
        return 0
    try:
        # Version 2 of marshal writes equal values as equal bytes.
        return hash(marshal.dumps(values, 2))
    except ValueError:  # a type of the user's: its methods must not run under a lock
        return None
