"""Writes with large answers, for children with little memory.

An answer that cannot be packed forbids the commit.
"""

from supervisor import Call, Query, Transaction
from tests.stress.truth import called
from tests.stress.truth.write import Order, Session, Write

__all__ = ["LARGE"]

_PIECES = 30
_RETURNING = f"{called.INSERT} RETURNING zeroblob(?)"


def _many(order: Order) -> Query:
    pieces = [(order.number, part, order.size // _PIECES) for part in range(_PIECES)]
    return Query(_RETURNING + order.text, timeout=order.timeout, many=pieces)


def _statements(order: Order) -> list[Query]:
    """Return an insert, and a read of many bytes."""
    return [order.part(called.INSERT, order.number, 0), order.part("SELECT zeroblob(?)", order.size)]


LARGE = [
    Write("large: returning", 1, lambda order: order.query(_RETURNING, order.number, 0, order.size)),
    Write(
        "large: returning rows",
        _PIECES,
        lambda order: order.query(
            "INSERT INTO written(number, part) SELECT ?, i - 1 FROM seed WHERE i <= ? RETURNING zeroblob(?)",
            *(order.number, _PIECES, order.size // _PIECES),
        ),
    ),
    Write("large: many", _PIECES, _many),
    Write("large: transaction", 1, lambda order: Transaction(_statements(order), timeout=order.timeout)),
    Write("large: session", 1, lambda order: Session(_statements(order), order.timeout)),
    Write(
        "large: call",
        1,
        lambda order: Call(called.insert_and_return, order.number, order.size, timeout=order.timeout),
    ),
]
