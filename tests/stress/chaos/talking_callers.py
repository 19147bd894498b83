"""Callers that hold a worker: they write in transactions, and read by streams."""

from typing import TYPE_CHECKING

from actors.values.errors import SessionClosed
from supervisor import Query, Stream
from tests.stress.chaos.files import writes

if TYPE_CHECKING:
    from supervisor import SupervisorRef
    from tests.stress.chaos.callers import Tally

_TIMEOUT = 5.0  # seconds
_AWAY = "INSERT INTO written VALUES (?)"


def in_transactions(ref: "SupervisorRef", tally: "Tally") -> None:
    """Write the numbers of a window in one transaction; every third one is rolled back."""
    for count, window in enumerate(tally.windows(ref, 4)):
        numbers = [number for number in window if writes(number)]
        keeps = count % 3 > 0
        try:
            with ref.transaction(readonly=not numbers, timeout=_TIMEOUT) as tx:
                for number in window:
                    result = tx.ask(Query(_AWAY, (number,)) if number in numbers else Query("SELECT ?", (number,)))
                    if number not in numbers and result.rows != [(number,)]:
                        tally.unexpected.append(f"{number} got the answer {result!r}")
                if not keeps:
                    tx.rollback()
        except Exception as error:
            for number in window:
                tally.note_error(number, error, SessionClosed)
        else:
            tally.outcomes["committed" if keeps else "rolled back"] += len(window)
            (tally.acknowledged if keeps else tally.denied).update(numbers)


def by_streams(ref: "SupervisorRef", tally: "Tally") -> None:
    """Read the numbers of a window as the rows of a stream, in small chunks."""
    sql = "WITH RECURSIVE n(i) AS (VALUES(?1) UNION ALL SELECT i + 1 FROM n WHERE i < ?2) SELECT i FROM n"
    for window in tally.windows(ref, 16):
        wanted = list(range(window[0], window[0] + len(window)))
        try:
            with ref.ask(Stream(sql, (wanted[0], wanted[-1]), chunk=5, timeout=_TIMEOUT)) as rows:
                seen = [number for (number,) in rows]
        except Exception as error:
            tally.note_error(window[0], error, SessionClosed)
            tally.outcomes["not streamed"] += len(window) - 1
        else:
            tally.outcomes["streamed"] += len(window)
            if seen != wanted:
                tally.unexpected.append(f"the stream of {wanted} gave {seen}")
