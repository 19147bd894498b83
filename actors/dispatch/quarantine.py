"""Quarantine: which statements have killed workers of late. A pure value; time is an argument."""

import marshal
from contextlib import suppress
from typing import Any

from actors.values.requests import Call, Interactive, Query, Request

__all__ = ["Quarantine"]


class _Death:
    """One worker that died of a statement, or while it ran it."""

    __slots__ = ("alone", "at", "cleared", "digest", "sql")

    def __init__(self, request: Request, at: float, *, alone: bool) -> None:
        self.sql = request.sql
        self.digest = _digest(request)
        """Of the parameters; `None` where they have none."""
        self.at = at
        """Monotonic seconds."""
        self.alone = alone
        """Whether nothing else ran there at the same time: then it was this."""
        self.cleared = False
        """Whether the statement has been answered since, with other parameters."""


class Quarantine:
    """Remembers the deaths of a window of time, and decides which request must not be run again within it.

    A request is held back once so many workers died of it: of the very same, or of the statement with any parameters,
    if that was not answered a single time since. So a statement that everybody runs is not suspected because
    workers are killed from outside.

    It remembers no parameters, only a number made from them.
    """

    def __init__(self, deaths: int, within: float) -> None:
        """Hold back what has killed so many workers `within` so many seconds; nothing at all for 0 deaths."""
        self._allowed = deaths
        self.within = within
        self.deaths: list[_Death] = []
        """Oldest first."""

    def record(self, request: Request, now: float, *, alone: bool = True) -> None:
        """Note that a worker died while it ran `request`.

        What it ran in an interactive transaction is not told by that: no other such is suspected for it.
        """
        if self._allowed and not isinstance(request, Interactive):
            self.forget(now)
            self.deaths.append(_Death(request, now, alone=alone))

    def suspects(self, request: Request) -> bool:
        """Say whether a worker has died while it ran this statement, which was not answered since."""
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
        """Return how many workers a request has killed, if it is held back; else 0."""
        self.forget(now)
        suspects = [death for death in self.deaths if death.sql == request.sql and death.alone]
        if len(suspects) < self._allowed:
            return 0
        digest = _digest(request)
        same = sum(death.digest == digest for death in suspects)
        any_parameters = sum(not death.cleared for death in suspects)
        return max(same, any_parameters) if max(same, any_parameters) >= self._allowed else 0

    def forget(self, now: float) -> None:
        """Let go of deaths that are long past."""
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
        # Version 2 writes the same for equal values, however they came about.
        return hash(marshal.dumps(values, 2))
    except ValueError:  # of a type of somebody's own; its methods have no place under a lock
        return None
