"""Routing: a guess which requests write, for a database that has a writer.

The database engine decides, and not this guess. Before the first step of a statement a reader
learns that the statement writes, and reroutes the job to the writer. A right guess saves that
detour. A wrong guess costs time and nothing else.
"""

from typing import Final

from actors.values.requests import Backup, Query, Request, Script, Stream

__all__ = ["Routing"]

_REMEMBERED: Final = 4096  # texts; only the hash of each is kept
_SURELY_WRITING: Final = frozenset(
    {"INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER", "VACUUM", "ANALYZE", "REINDEX"}
)


class Routing:
    """Guesses whether a request writes."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # Hash of a text → whether it writes. Two texts with one hash share an answer, which may be
        # wrong for one.
        self._known: dict[int, bool] = {}

    def writes(self, request: Request) -> bool:
        """Say whether `request` should go to the writer."""
        if isinstance(request, Query) and request.many is None:
            writes = self._known.get(hash(request.sql))
            # Writes that go straight to the writer run in the order of their submission. Most begin
            # with such a word.
            return self._remember(request.sql, _begins_with_a_writing_word(request.sql)) if writes is None else writes
        if isinstance(request, (Query, Script)):
            return True
        return not isinstance(request, (Stream, Backup)) and not request.readonly

    def note_writing(self, request: Request) -> None:
        """Remember that `request` writes, as a reader has learned."""
        self._remember(request.sql, True)

    def _remember(self, sql: str, writes: bool) -> bool:
        if len(self._known) >= _REMEMBERED:
            self._known = {}
        self._known[hash(sql)] = writes
        return writes


def _begins_with_a_writing_word(sql: str) -> bool:
    words = sql[:64].split(None, 1)
    return bool(words) and words[0].upper() in _SURELY_WRITING
