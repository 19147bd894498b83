"""Writes of several statements: transactions, calls, sessions, scripts."""

from collections.abc import Sequence
from typing import Any

from supervisor import Call, Query, Script, Transaction
from tests.stress.truth import called
from tests.stress.truth.write import Order, Session, Write

__all__ = ["TRANSACTIONS"]

_RANGE = "INSERT INTO written(number, part) SELECT ?, i - 1 FROM seed WHERE i > ? AND i <= ?"
_READ = "SELECT i, word FROM seed WHERE i <= ?"

# --- several statements -------------------------------------------------------------------

_ROWS, _READS = 501, 3000


def _statements(order: Order) -> list[Query]:
    """Return two inserts with many rows read in between and behind."""
    return [
        order.part(_RANGE, order.number, 0, _ROWS - 1),
        order.part(_READ, _READS),
        order.part(f"{called.INSERT} RETURNING *", order.number, _ROWS - 1),
        order.part(_READ, _READS),
    ]


def _are_right(results: Sequence[Any]) -> bool:
    return [len(result.rows) for result in results] == [0, _READS, 1, _READS] and results[0].rowcount == _ROWS - 1


_TRANSACTION = Write(
    "transaction",
    _ROWS,
    lambda order: Transaction(_statements(order), timeout=order.timeout),
    is_right=_are_right,
)
_SESSION = Write("session", _ROWS, lambda order: Session(_statements(order), order.timeout), is_right=_are_right)
_CALL = Write(
    "call",
    _ROWS,
    lambda order: Call(called.insert_and_read, order.number, _ROWS, _READS, timeout=order.timeout),
    is_right=lambda rows: len(rows) == _READS,
)
_CALL_LOST = Write(
    "call, its value is lost",
    300,
    lambda order: Call(called.insert_and_return_broken, order.number, 300, timeout=order.timeout),
    is_lost=True,
)

_CALL_REGARDLESS = Write(
    "call, heeds no interrupt",
    40,
    lambda order: Call(called.insert_regardless, order.number, 40, timeout=order.timeout),
)


def _of_all_kinds(order: Order) -> Session:
    """Return a session: a call, a script, a query with many runs, an insert that returns rows."""
    number = order.number
    return Session(
        [
            Call(called.insert_and_read, number, 200, 1000),
            Script(f"SELECT count(*) FROM seed; {_RANGE.replace('?', '{}').format(number, 200, 400)}"),
            Query(called.INSERT + order.text, many=[(number, part) for part in range(400, 600)]),
            order.part(f"{_RANGE} RETURNING *", number, 600, 800),
        ],
        order.timeout,
    )


_SESSION_OF_ALL = Write(
    "session of all kinds",
    800,
    _of_all_kinds,
    is_right=lambda values: len(values[0]) == 1000 and len(values[3].rows) == 200,
)


_SESSION_LOST = Write(
    "session, a value is lost",
    300,
    lambda order: Session([Call(called.insert_and_return_broken, order.number, 300)], order.timeout),
    is_lost=True,
)


def _failing_in_between(order: Order) -> Session:
    """Return a session that goes on behind a statement that fails."""
    first, read, last, _ = _statements(order)
    fails = order.part("INSERT INTO picky(number, part) SELECT ?, i FROM seed WHERE i <= 900", order.number)
    return Session([first, read, fails, last, fails], order.timeout, forgives=True)


_SESSION_FORGIVING = Write(
    "session, goes on",
    _ROWS,
    _failing_in_between,
    found=lambda file, number: (
        file.inserted(number) + int(file.value("SELECT count(*) FROM picky WHERE number = ?", number))
    ),
    is_right=lambda results: len(results) == 3,
)

# --- scripts ------------------------------------------------------------------------------

_STATEMENTS = (1, 700, 1, 700)


def _script(order: Order, *around: str) -> Script:
    begin, end = around or ("", "")
    at, inserts = 0, ""
    for rows in _STATEMENTS:
        inserts += (
            "INSERT INTO written(number, part) "
            f"SELECT {order.number}, i - 1 FROM seed WHERE i > {at} AND i <= {at + rows}; "
        )
        at += rows
    return Script(begin + inserts + end, order.timeout)


_SCRIPT = Write("script", sum(_STATEMENTS), _script, statements=_STATEMENTS)
_SCRIPT_OF_ONE = Write(
    "script, one transaction", sum(_STATEMENTS), lambda order: _script(order, "BEGIN IMMEDIATE; ", "COMMIT")
)

TRANSACTIONS = [
    _TRANSACTION,
    _SESSION,
    _SESSION_FORGIVING,
    _SESSION_OF_ALL,
    _SESSION_LOST,
    _CALL,
    _CALL_REGARDLESS,
    _CALL_LOST,
    _SCRIPT,
    _SCRIPT_OF_ONE,
]
