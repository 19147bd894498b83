"""Routing: which requests go to the writer of a database that has one. A pure value, used under the dispatcher's lock.

The engine decides, not this: a worker that reads finds out that a statement writes before its first step, and hands it
on. What is remembered here only saves that detour, so a wrong guess costs time, and nothing else.
"""

from typing import Final

from actors.values.requests import Backup, Query, Request, Script, Stream

__all__ = ["Routing"]

_REMEMBERED: Final = 4096  # texts, of which only a number is kept
_SURELY_WRITING: Final = frozenset(
    {"INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER", "VACUUM", "ANALYZE", "REINDEX"}
)


class Routing:
    """Guesses whether a request writes."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # Hash of a text → whether it writes. Two texts of one hash share an answer, which may then be wrong.
        self._known: dict[int, bool] = {}

    def writes(self, request: Request) -> bool:
        """Say whether `request` is one for the writer."""
        if isinstance(request, Query) and request.many is None:
            writes = self._known.get(hash(request.sql))
            # Writes are run in the order of their asking where they go straight to the writer: most say so.
            return self._remember(request.sql, _begins_with_a_writing_word(request.sql)) if writes is None else writes
        if isinstance(request, (Query, Script)):
            return True
        return not isinstance(request, (Stream, Backup)) and not request.readonly

    def note_writing(self, request: Request) -> None:
        """Remember that `request` turned out to write."""
        self._remember(request.sql, True)

    def _remember(self, sql: str, writes: bool) -> bool:
        if len(self._known) >= _REMEMBERED:
            self._known = {}
        self._known[hash(sql)] = writes
        return writes


def _begins_with_a_writing_word(sql: str) -> bool:
    words = sql[:64].split(None, 1)
    return bool(words) and words[0].upper() in _SURELY_WRITING
