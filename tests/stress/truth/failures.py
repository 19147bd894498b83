"""Writes that fail in their middle or at their commit: nothing of them may be there."""

from collections.abc import Callable

from supervisor import Call, Query, Script, Transaction
from tests.stress.truth import called
from tests.stress.truth.file import File
from tests.stress.truth.write import Asked, Order, Session, Write

__all__ = ["FAILING_ROWS", "FAILING_WHOLES"]

_ROWS = 300
_INSERT = "INSERT INTO written(number, part) SELECT ?, i - 1 FROM seed WHERE i <= ?"
_ORPHAN = "INSERT INTO orphans SELECT ? FROM seed WHERE i <= ?"
"""Breaks a constraint that is looked at as the transaction is committed."""


def _picky(how: str = "") -> str:
    """Return an insert whose last row breaks a constraint."""
    return f"INSERT {how}INTO picky(number, part) SELECT ?, i FROM seed WHERE i <= 900"


def _found(file: File, number: int) -> int:
    return file.inserted(number) + sum(
        int(file.value(f"SELECT count(*) FROM {table} WHERE number = ?", number)) for table in ("picky", "orphans")
    )


def _failing(name: str, make: Callable[[Order], Asked]) -> Write:
    return Write(name, _ROWS, make, found=_found, fails=True)


FAILING_ROWS = [
    _failing("fails", lambda order: order.query(_picky(), order.number)),
    _failing("fails: or fail", lambda order: order.query(_picky("OR FAIL "), order.number)),
    _failing("fails: or rollback", lambda order: order.query(_picky("OR ROLLBACK "), order.number)),
    _failing("fails late", lambda order: order.query(_ORPHAN, order.number, _ROWS)),
    _failing(
        "fails: many",
        lambda order: Query(
            f"INSERT INTO picky(number, part) VALUES (?, ?){order.text}",
            timeout=order.timeout,
            many=[(order.number, part) for part in range(700, 901)],
        ),
    ),
]
"""Of one statement."""


def _late(order: Order) -> list[Query]:
    return [order.part(_INSERT, order.number, _ROWS), order.part(_ORPHAN, order.number, _ROWS)]


def _rolled_back(order: Order) -> list[Query]:
    return [order.part(_INSERT, order.number, _ROWS), order.part(_picky("OR ROLLBACK "), order.number)]


def _script(order: Order) -> Script:
    inserts = "; ".join(sql.replace("?", str(order.number), 1).replace("?", str(_ROWS)) for sql in (_INSERT, _ORPHAN))
    return Script(f"BEGIN IMMEDIATE; {inserts}; COMMIT", order.timeout)


FAILING_WHOLES = [
    _failing("transaction fails late", lambda order: Transaction(_late(order), timeout=order.timeout)),
    _failing("transaction or rollback", lambda order: Transaction(_rolled_back(order), timeout=order.timeout)),
    _failing("session fails late", lambda order: Session(_late(order), order.timeout)),
    _failing("session or rollback", lambda order: Session(_rolled_back(order), order.timeout, forgives=True)),
    _failing("call fails late", lambda order: Call(called.insert_orphans, order.number, _ROWS, timeout=order.timeout)),
    _failing("script fails late", _script),
]
"""Of several."""
