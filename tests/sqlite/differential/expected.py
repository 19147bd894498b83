"""The right answers to a whole request, in each form.

Plain SQLite has no requests, so this module states the rules of the library.
"""

from typing import Any

import apsw

from tests.sqlite.differential.oracle import BROKEN, LEFT_OPEN, REFUSED, Oracle, answer, answer_within, prepared
from tests.sqlite.differential.statements import Answer, Statement, failed


class Expected:
    """The right answers to a request, whose statements come one by one."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._answers: list[Answer] = []
        self.is_over = False
        """Whether no more statements are run."""
        self.has_inserted = False
        """Whether a row was inserted on the connection of the next statement."""
        oracle.refresh()

    @property
    def connection(self) -> apsw.Connection:
        return self._oracle.connection

    def step(self, statement: Statement) -> None:
        """Run the next statement."""
        raise NotImplementedError

    def end(self) -> list[Answer]:
        """End the request, and return the answers to it."""
        return self._answers

    def _begin(self, *, readonly: bool) -> None:
        if readonly:
            self.connection.pragma("query_only", True)
        self.connection.execute("BEGIN" if readonly else "BEGIN IMMEDIATE")

    def _commit(self) -> Answer:
        try:
            self.connection.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            return failed(error)
        return Answer()

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


class Apart(Expected):
    """Each statement is a request of its own."""

    def step(self, statement: Statement) -> None:
        self._oracle.refresh()
        if statement.many is None:
            found = answer(self.connection, statement)
        else:
            self._begin(readonly=False)
            found = answer_within(self.connection, statement)
            if found.error is None and (commit := self._commit()).error is not None:
                found = commit
        if self.connection.in_transaction:
            self._roll_back()
            found = found if found.error is not None else LEFT_OPEN
        self._answers.append(found)


class Streamed(Expected):
    """Each statement is a request of its own, which may only read."""

    def step(self, statement: Statement) -> None:
        self._oracle.refresh()
        only_reads, error = prepared(self.connection, statement)
        if statement.changes or (error is None and not only_reads):
            found = REFUSED
        else:
            found = error or answer(self.connection, statement)
        self._roll_back()
        self._answers.append(found if found.error is not None else Answer(found.columns, found.rows))


class InTransaction(Expected):
    """All or nothing: the answer to an error is that error."""

    def __init__(self, oracle: Oracle, *, readonly: bool = False) -> None:
        super().__init__(oracle)
        self._readonly = readonly
        self._begin(readonly=readonly)

    def step(self, statement: Statement) -> None:
        if not self.is_over:
            found = self._answer(statement)
            self.has_inserted = self.has_inserted or found.lastrowid is not None
            self._answers.append(found)
            self._look_at(found)

    def _answer(self, statement: Statement) -> Answer:
        return answer_within(self.connection, statement)

    def _look_at(self, found: Answer) -> None:
        if found.error is not None:
            self._fail(found)

    def _fail(self, found: Answer) -> None:
        self._roll_back()
        self._answers, self.is_over = [found], True

    def end(self) -> list[Answer]:
        self._finish()
        if self._readonly:
            self.connection.pragma("query_only", False)
        return self._answers

    def _finish(self) -> None:
        if not self.is_over and (commit := self._commit()).error is not None:
            self._fail(commit)


class InSession(InTransaction):
    """An error undoes its statement alone, unless the error ends the transaction.

    The last answer is the answer to the commit."""

    def _answer(self, statement: Statement) -> Answer:
        return super()._answer(statement) if self.connection.in_transaction else BROKEN

    def _look_at(self, found: Answer) -> None:
        pass

    def _finish(self) -> None:
        self._answers.append(self._commit() if self.connection.in_transaction else BROKEN)


class InCall(InTransaction):
    """A function runs the statements. A tolerant function goes on after an error."""

    def __init__(self, oracle: Oracle, *, tolerant: bool = False, readonly: bool = False) -> None:
        super().__init__(oracle, readonly=readonly)
        self._tolerant = tolerant

    def _look_at(self, found: Answer) -> None:
        if not self._tolerant and found.error is not None:
            self._fail(found)
        elif not self.connection.in_transaction:
            self._fail(BROKEN)


class InScript(Expected):
    """Each statement commits by itself, until one fails. The answer is one for all."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(oracle)
        self._rowcount = 0
        self._rowid: int | None = None

    def step(self, statement: Statement) -> None:
        if self.is_over:
            return
        found = answer(self.connection, statement)
        if found.error is not None:
            self._roll_back()
            self._answers, self.is_over = [found], True
        elif statement.changes:
            self._rowcount += found.rowcount or 0
            self._rowid = self._rowid if found.lastrowid is None else found.lastrowid
            self.has_inserted = self._rowid is not None

    def end(self) -> list[Answer]:
        if self.is_over:
            return self._answers
        if self.connection.in_transaction:
            self._roll_back()
            return [LEFT_OPEN]
        return [Answer((), [], self._rowcount, self._rowid)]


_FORMS: dict[str, tuple[type[Expected], dict[str, Any]]] = {
    "query": (Apart, {}),
    "together": (Apart, {}),
    "reads at once": (Apart, {}),
    "many": (Apart, {}),
    "max_rows": (Apart, {}),
    "transaction": (InTransaction, {}),
    "readonly transaction": (InTransaction, {"readonly": True}),
    "session": (InSession, {}),
    "readonly session": (InSession, {"readonly": True}),
    "call": (InCall, {}),
    "tolerant call": (InCall, {"tolerant": True}),
    "readonly call": (InCall, {"readonly": True}),
    "script": (InScript, {}),
    "stream": (Streamed, {}),
}


def expected(oracle: Oracle, form: str) -> Expected:
    """Begin a request in a form."""
    kind, options = _FORMS[form]
    return kind(oracle, **options)
