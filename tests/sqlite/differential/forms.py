"""Each form of a request to a crew.

A form takes statements. It returns answers in the shape of the expected answers.
"""

from collections.abc import Callable
from unittest.mock import patch

from actors.dispatch.lane import Lane
from supervisor import Call, Result, Script, Stream, SupervisorRef, Transaction
from tests.sqlite.differential import calls
from tests.sqlite.differential.statements import Answer, Asked, Statement, failed
from tests.support.common import PATIENCE

Statements = tuple[Statement, ...]


def answers(db: SupervisorRef, asked: Asked) -> list[Answer]:
    """Ask a crew the request in its form."""
    return FORMS[asked.form](db, asked.statements)


def _answer(ask: Callable[[], Result]) -> Answer:
    try:
        result = ask()
    except Exception as error:
        return failed(error)
    return Answer(result.columns, result.rows, result.rowcount, result.lastrowid, result.truncated)


def one_by_one(db: SupervisorRef, statements: Statements) -> list[Answer]:
    queries = [statement.query() for statement in statements]
    return [_answer(lambda query=query: db.ask(query)) for query in queries]


def together(db: SupervisorRef, statements: Statements) -> list[Answer]:
    """Ask for all at once, and wake the workers afterwards, so that writes share a commit."""
    with patch.object(Lane, "wake_one", lambda lane: None):
        replies = [db.ask(statement.query(), block=False) for statement in statements]
    for lane in db._dispatcher.lanes:
        if lane.jobs:
            lane.wake_one()
    return [_answer(lambda reply=reply: reply.get(timeout=PATIENCE)) for reply in replies]


def reads_at_once(db: SupervisorRef, statements: Statements) -> list[Answer]:
    """Ask for all at once, twice. The second time they are known reads, and share a snapshot."""
    together(db, statements)
    return together(db, statements)


def transaction(db: SupervisorRef, statements: Statements, *, readonly: bool = False) -> list[Answer]:
    request = Transaction([statement.query() for statement in statements], readonly=readonly)
    try:
        results = db.ask(request)
    except Exception as error:
        return [failed(error)]
    return [_answer(lambda result=result: result) for result in results]


def session(db: SupervisorRef, statements: Statements, *, readonly: bool = False) -> list[Answer]:
    queries = [statement.query() for statement in statements]
    found: list[Answer] = []
    try:
        with db.transaction(readonly=readonly) as tx:
            found += [_answer(lambda query=query: tx.ask(query)) for query in queries]
    except Exception as error:
        return [*found, failed(error)]
    return [*found, Answer()]


def call(db: SupervisorRef, statements: Statements, *, tolerant: bool = False, readonly: bool = False) -> list[Answer]:
    try:
        return db.ask(Call(calls.run, statements, tolerant, readonly=readonly))
    except Exception as error:
        return [failed(error)]


def script(db: SupervisorRef, statements: Statements) -> list[Answer]:
    return [_answer(lambda: db.ask(Script(";\n".join(statement.sql for statement in statements))))]


def stream(db: SupervisorRef, statements: Statements) -> list[Answer]:
    return [_streamed(db, statement) for statement in statements]


def _streamed(db: SupervisorRef, statement: Statement) -> Answer:
    try:
        with db.ask(Stream(statement.sql, statement.params, chunk=3)) as rows:
            return Answer(rows.columns, [tuple(row) for row in rows])
    except Exception as error:
        return failed(error)


FORMS: dict[str, Callable[[SupervisorRef, Statements], list[Answer]]] = {
    "query": one_by_one,
    "together": together,
    "reads at once": reads_at_once,
    "many": one_by_one,
    "max_rows": one_by_one,
    "transaction": transaction,
    "readonly transaction": lambda db, statements: transaction(db, statements, readonly=True),
    "session": session,
    "readonly session": lambda db, statements: session(db, statements, readonly=True),
    "call": call,
    "tolerant call": lambda db, statements: call(db, statements, tolerant=True),
    "readonly call": lambda db, statements: call(db, statements, readonly=True),
    "script": script,
    "stream": stream,
}
