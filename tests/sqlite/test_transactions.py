"""Transactions, calls and queries with many runs: all or nothing, on threads and in children."""

import threading
from functools import partial

import apsw
import pytest

from actors.databases.sqlite.transactions import OwnTransaction
from supervisor import (
    Call,
    ChildProcess,
    Query,
    QueryCancelled,
    QueryTimeout,
    ResultLost,
    Script,
    SQLite,
    Status,
    Transaction,
    TransactionBroken,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support import call_functions
from tests.support.common import PATIENCE, RUNAWAY, can_lock, error_of
from tests.support.health import same_workers

KINDS = {
    "file": SQLite,
    "rollback journal": lambda path: SQLite(path, journal_mode="delete"),
    "memory": lambda path: SQLite(),
    "child": ChildProcess,
}


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return request.param


@pytest.fixture
def db(kind, start, path):
    ref = start(KINDS[kind](path), size=1)
    ref.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)"))
    return ref


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number")).column(0)


def insert(number):
    return Query("INSERT INTO kept VALUES (?)", (number,))


# --- Transaction --------------------------------------------------------------------------


def test_a_transaction_answers_the_results_of_its_queries(db):
    results = db.ask(Transaction([insert(3), Query("SELECT count(*) AS many FROM kept"), Query("DELETE FROM kept")]))
    assert [(result.rowcount, result.lastrowid) for result in results] == [(1, 3), (1, None), (3, None)]
    assert results[1].one().many == 3
    assert numbers(db) == []


def test_a_transaction_that_fails_has_done_nothing_and_says_where(db):
    with same_workers(db):
        for bad, said in ((insert(1), "UNIQUE"), (Query("SELECT missing FROM nowhere"), "nowhere")):
            error = error_of(db.ask(Transaction([insert(3), insert(4), bad, insert(5)]), block=False))
            assert isinstance(error, apsw.Error)
            assert said in str(error)
            assert any("statement 3 of 4" in note for note in error.__notes__)
            assert numbers(db) == [1, 2]


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK", "END", "COMMIT -- twice"])
def test_a_statement_that_ends_the_transaction_undoes_it(db, sql):
    for _ in range(2):  # the second time, the statement is prepared already
        error = error_of(db.ask(Transaction([insert(3), Query(sql), insert(4)]), block=False))
        assert isinstance(error, (TransactionBroken, apsw.ConstraintError))
        assert getattr(error, "executed", False) is False
        assert numbers(db) == [1, 2]
    assert db.ask(insert(5)).rowcount == 1, "an ordinary statement does not commit any more"
    assert numbers(db) == [1, 2, 5]


def test_a_transaction_may_have_savepoints(db):
    db.ask(
        Transaction([insert(3), Query("SAVEPOINT s"), insert(4), Query("ROLLBACK TO s"), Query("RELEASE s"), insert(5)])
    )
    assert numbers(db) == [1, 2, 3, 5]


def test_a_transaction_that_reads_cannot_write(db):
    reading = [Query("SELECT count(*) FROM kept"), Query("SELECT max(number) FROM kept")]
    assert [result.scalar() for result in db.ask(Transaction(reading, readonly=True))] == [2, 2]
    error = error_of(db.ask(Transaction([*reading, insert(3)], readonly=True), block=False))
    assert isinstance(error, apsw.ReadOnlyError)
    assert db.ask(insert(3)).rowcount == 1, "the next job cannot write"


def test_a_transaction_that_reads_sees_one_state_and_blocks_no_other_request(start, path):
    db = start(SQLite(path), size=2)
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1)"))
    seen = db.ask(Call(_look_twice, str(path), readonly=True))
    assert seen == (1, 1)
    assert numbers(db) == [1, 2]


def _look_twice(connection, path):
    look = "SELECT count(*) FROM kept"
    before = connection.execute(look).get
    other = apsw.Connection(path)
    other.execute("INSERT INTO kept VALUES (2)")
    other.close()
    return before, connection.execute(look).get


def test_a_transaction_may_be_undone_by_its_deadline_and_by_a_cancel(db):
    with same_workers(db):
        error = error_of(db.ask(Transaction([insert(3), Query(RUNAWAY)], timeout=0.1), block=False))
        assert isinstance(error, QueryTimeout)
        assert error.executed is False
        reply = db.ask(Transaction([insert(3), Query(RUNAWAY)]), block=False)
        assert eventually(lambda: db.ask(Status()).running)
        reply.cancel()
        error = error_of(reply)
        assert isinstance(error, QueryCancelled)
        assert error.executed is False
        assert numbers(db) == [1, 2]


def test_a_transaction_leaves_no_lock_behind(start, path):
    db = start(SQLite(path), size=1)
    db.ask(Query("CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
    for transaction in (
        Transaction([insert(1), Query("SELECT * FROM kept")]),
        Transaction([Query("SELECT * FROM kept")], readonly=True),
        Transaction([insert(1)]),
    ):
        error_of(db.ask(transaction, block=False))
        assert can_lock(path)


def test_transactions_of_many_workers_wait_for_each_other(start, path):
    db = start(SQLite(path), size=4)
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); CREATE TABLE sum(total); INSERT INTO sum VALUES (0)"))
    add = Query("UPDATE sum SET total = total + 1")
    replies = [db.ask(Transaction([insert(number), add, add]), block=False) for number in range(200)]
    assert [error_of(reply) for reply in replies] == [None] * 200
    assert db.ask(Query("SELECT total FROM sum")).scalar() == 400


# --- many ---------------------------------------------------------------------------------


def test_a_query_runs_for_each_of_many_parameters(db):
    result = db.ask(Query("INSERT INTO kept VALUES (?)", many=[(number,) for number in range(10, 20)]))
    assert (result.rowcount, result.lastrowid, result.rows) == (10, 19, [])
    assert numbers(db) == [1, 2, *range(10, 20)]
    result = db.ask(Query("INSERT INTO kept VALUES (:n) RETURNING number * 2 AS twice", many=[{"n": 30}, {"n": 31}]))
    assert (result.columns, result.rows, result.rowcount) == (("twice",), [(60,), (62,)], 2)
    assert db.ask(Query("SELECT ? AS x", many=[(1,), (2,)])).rows == [(1,), (2,)]
    assert db.ask(Query("INSERT INTO kept VALUES (?)", many=[])).rowcount == 0


def test_many_runs_of_which_one_fails_change_nothing(db):
    with same_workers(db):
        error = error_of(db.ask(Query("INSERT INTO kept VALUES (?)", many=[(10,), (11,), (1,), (12,)]), block=False))
        assert isinstance(error, apsw.ConstraintError)
        assert numbers(db) == [1, 2]


def test_many_runs_are_part_of_their_transaction(db):
    many = Query("INSERT INTO kept VALUES (?)", many=[(10,), (11,)])
    assert [result.rowcount for result in db.ask(Transaction([many, insert(3)]))] == [2, 1]
    error_of(db.ask(Transaction([Query("DELETE FROM kept"), many, insert(3), insert(3)]), block=False))
    assert numbers(db) == [1, 2, 3, 10, 11]


# --- Call ---------------------------------------------------------------------------------


def test_a_call_answers_the_value_of_its_function_and_commits(db):
    assert db.ask(Call(call_functions.move, 1, 5)) == 2
    assert numbers(db) == [2, 5]
    for value in (None, 7, "text", [1, (2, {"three": 3})], {1, 2}):
        assert db.ask(Call(call_functions.return_it, value)) == value


def test_a_value_that_is_an_error_is_a_value(db):
    value = db.ask(Call(call_functions.return_an_error))
    assert isinstance(value, ValueError)
    assert value.args == ("a value, and nothing that was raised",)


def test_an_error_of_a_call_reaches_its_caller_and_rolls_back(db):
    with same_workers(db):
        error = error_of(db.ask(Call(call_functions.move, 9, 5), block=False))
        assert type(error) is LookupError
        assert error.args == ("there is no 9",)
        assert any("Call(tests.support.call_functions.move)" in note for note in error.__notes__)
        error = error_of(db.ask(Call(call_functions.move, 1, 2), block=False))
        assert isinstance(error, apsw.ConstraintError)
        assert numbers(db) == [1, 2]


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
def test_a_call_that_ends_the_transaction_is_undone(db, how):
    error = error_of(db.ask(Call(call_functions.end_it, how), block=False))
    assert isinstance(error, (TransactionBroken, apsw.ConstraintError))
    assert numbers(db) == [1, 2]


def test_a_call_that_reads_cannot_write(db):
    error = error_of(db.ask(Call(call_functions.move, 1, 5, readonly=True), block=False))
    assert isinstance(error, apsw.ReadOnlyError)
    assert numbers(db) == [1, 2]


def test_the_changes_of_the_connection_by_a_call_are_gone_after_it(db, kind):
    if kind == "memory":
        pytest.skip("in memory the connection is the database")
    with same_workers(db):
        for _ in range(2):
            db.ask(Call(call_functions.spoil))
            assert numbers(db) == [1, 2]
            for sql in ("SELECT left_behind()", "SELECT * FROM left_behind"):
                assert isinstance(error_of(db.ask(Query(sql), block=False)), apsw.SQLError)


@pytest.mark.parametrize("what", ["connection", "cursor", "in a list", "generator"])
def test_a_value_that_belongs_to_the_connection_is_refused(db, what):
    with same_workers(db):
        error = error_of(db.ask(Call(call_functions.bound, what), block=False))
        assert isinstance(error, TypeError)
        assert "belongs to the worker's connection" in str(error) or "cannot be sent from a child" in str(error)
        assert numbers(db) == [1, 2]


def test_a_call_is_ended_by_its_deadline(db):
    error = error_of(db.ask(Call(call_functions.wait_for_ever, timeout=0.1), block=False))
    assert isinstance(error, QueryTimeout)
    assert numbers(db) == [1, 2]


def test_a_call_that_closes_the_connection_costs_its_worker(start, path):
    db = start(SQLite(path), size=1)
    error = error_of(db.ask(Call(call_functions.close), block=False))
    assert isinstance(error, WorkerDied)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_a_call_runs_where_its_connection_lives(start, path):
    import os

    assert start(SQLite(path), size=1).ask(Call(call_functions.where)) == os.getpid()
    db = start(ChildProcess(path), size=1)
    db.ask(Query("SELECT 1"))
    written, read = db.ask(Call(call_functions.where)), db.ask(Call(call_functions.where, readonly=True))
    assert [read, written] == [worker.pid for worker in db.ask(Status()).workers]


def test_a_call_whose_value_cannot_be_sent_from_a_child_is_undone(start, path):
    db = start(ChildProcess(path), size=1)
    db.ask(Query("CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
    with same_workers(db):
        error = error_of(db.ask(Call(call_functions.insert_and_return_a_lock, 5), block=False))
        assert isinstance(error, TypeError)
        assert "insert_and_return_a_lock) returned cannot be sent to another process" in str(error)
        assert numbers(db) == []


def nested():
    def inner(connection):
        return 1

    return inner


def of_main(connection):
    """Stand for a function of the module that was started as a program."""


of_main.__module__ = "__main__"


class Bound:
    def __init__(self):
        self.lock = threading.Lock()

    def method(self, connection):
        return 1


UNSENDABLE = [
    (lambda connection: 1, r"tests.sqlite.test_transactions.<lambda>", "it is a lambda"),
    (nested(), r"tests.sqlite.test_transactions.nested.<locals>.inner", "it is defined inside another function"),
    (of_main, "__main__.of_main", "it is defined in __main__"),
    (partial(of_main, value=1), "__main__.of_main", "it is defined in __main__"),
    (partial(lambda connection: 1), r"tests.sqlite.test_transactions.<lambda>", "it is a lambda"),
    (Bound().method, "tests.sqlite.test_transactions.Bound.method", r"it cannot be pickled \(TypeError\)"),
    (
        partial(call_functions.return_it, value=threading.Lock()),
        "tests.support.call_functions.return_it",
        r"it cannot be pickled \(TypeError\)",
    ),
]


@pytest.mark.parametrize(("function", "name", "reason"), UNSENDABLE)
def test_a_function_that_cannot_be_sent_to_a_child_is_named_with_the_remedy(start, path, function, name, reason):
    db = start(ChildProcess(path), size=1)
    said = (
        rf"^Call\({name}\) cannot be sent to a child process: {reason}.*\. The function must stand at the top level of"
    )
    for readonly in (True, False):
        with same_workers(db), pytest.raises(TypeError, match=said):
            db.ask(Call(function, readonly=readonly), timeout=PATIENCE)


@pytest.mark.parametrize(
    "function", [partial(call_functions.return_it, value=7), partial(partial(call_functions.return_it), value=7)]
)
def test_a_partial_function_is_sent_and_named_by_the_function_that_it_calls(start, path, function):
    db = start(ChildProcess(path), size=1)
    assert db.ask(Call(function)) == 7
    assert str(Call(function)) == "Call(tests.support.call_functions.return_it)"


def test_a_parameter_of_a_function_that_cannot_be_sent_is_an_error_of_its_caller(start, path):
    db = start(ChildProcess(path), size=1)
    with same_workers(db):
        error = error_of(db.ask(Call(call_functions.return_it, threading.Lock()), block=False))
        assert "a parameter cannot be sent" in str(error)
        assert isinstance(error_of(db.ask(Call(call_functions.bound, "connection"), block=False)), TypeError)


# --- max_rows -----------------------------------------------------------------------------

TEN = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT i FROM n"


@pytest.mark.parametrize(
    ("most", "rows", "truncated"),
    [(0, 0, True), (3, 3, True), (10, 10, False), (11, 10, False), (None, 10, False), (2**70, 10, False)],
)
def test_a_result_is_cut_and_says_so(db, most, rows, truncated):
    for _ in range(2):
        result = db.ask(Query(TEN, max_rows=most))
        assert (len(result), result.rowcount, result.truncated, result.columns) == (rows, rows, truncated, ("i",))
        assert ("there were more" in repr(result)) == truncated


def test_a_cut_result_costs_no_more_than_its_rows(db):
    endless = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    result = db.ask(Query(endless, max_rows=5, timeout=PATIENCE))
    assert (result.column(0), result.truncated) == ([1, 2, 3, 4, 5], True)
    assert numbers(db) == [1, 2]


def test_a_writing_statement_that_is_cut_has_written_everything(db):
    result = db.ask(Query("INSERT INTO kept VALUES (3), (4), (5) RETURNING number", max_rows=1))
    assert (result.rows, result.rowcount, result.truncated) == ([(3,)], 3, True)
    assert numbers(db) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("most", "truncated"), [(0, True), (1, True), (3, False)])
def test_many_runs_that_are_cut_have_all_run(db, most, truncated):
    def in_a_session(query):
        with db.transaction() as tx:
            return tx.ask(query)

    first = 10
    for ask in (db.ask, lambda query: db.ask(Transaction([query]))[0], in_a_session):
        for sql in ("SELECT ?", "INSERT INTO kept VALUES (?) RETURNING number"):
            many = [(first,), (first + 1,), (first + 2,)]
            result = ask(Query(sql, many=many, max_rows=most))
            assert (result.rows, result.rowcount, result.truncated) == (many[:most], 3, truncated)
        first += 3
    assert numbers(db) == [1, 2, *range(10, 19)]


# --- requests that are refused in the caller ----------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: Transaction([]), ValueError, r"Transaction\(queries\) is empty"),
        (lambda: Transaction(Query("SELECT 1")), TypeError, "must be a sequence of Query, not Query"),
        (lambda: Transaction("SELECT 1"), TypeError, "must be a sequence of Query, not str"),
        (lambda: Transaction(["SELECT 1"]), TypeError, "must hold Query alone, not str"),
        (lambda: Transaction([Script("SELECT 1")]), TypeError, "must hold Query alone, not Script"),
        (lambda: Transaction([Query("SELECT 1", timeout=1)]), ValueError, "timeout of its own"),
        (lambda: Transaction([Query("SELECT 1")], readonly=1), TypeError, r"Transaction\(readonly\) must be a bool"),
        (lambda: Transaction([Query("SELECT 1")], timeout=-1), ValueError, r"Transaction\(timeout=-1\)"),
        (lambda: Call(5), TypeError, r"Call\(function\) must be callable, not int"),
        (lambda: Call(print, readonly=None), TypeError, r"Call\(readonly\) must be a bool"),
        (lambda: Call(print, timeout="1"), TypeError, r"Call\(timeout\) must be a number"),
        (lambda: Query("SELECT ?", (1,), many=[(2,)]), ValueError, r"Query\(params, many\) cannot have both"),
        (lambda: Query("SELECT ?", many=5), TypeError, r"Query\(many\) must be a sequence of parameters, not int"),
        (lambda: Query("SELECT ?", many={"a": 1}), TypeError, r"Query\(many\) must be a sequence .* not dict"),
        (lambda: Query("SELECT ?", many=[5]), TypeError, r"Query\(many\), run 1 must be a sequence .* not int"),
        (lambda: Query("SELECT 1", max_rows=-1), ValueError, r"Query\(max_rows=-1\) must be 0 or more"),
        (lambda: Query("SELECT 1", max_rows=1.5), TypeError, r"Query\(max_rows\) must be a whole number, not float"),
        (lambda: Query("SELECT 1", max_rows=True), TypeError, r"Query\(max_rows\) must be a whole number, not bool"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(make, kind, said):
    with pytest.raises(kind, match=said):
        make()


def test_requests_are_values_that_show_no_parameters():
    rows = [["s3cret"]]
    query = Query("INSERT INTO t VALUES (?)", many=rows)
    rows[0][0] = "changed"
    transaction = Transaction([query, Query("SELECT ?", ("s3cret",))], timeout=2)
    request = Call(call_functions.move, "s3cret", 5)
    assert query.many == (("s3cret",),)
    for each in (query, transaction, request):
        assert "s3cret" not in repr(each) + str(each)
    assert str(transaction) == "Transaction(2 queries, 'INSERT INTO t VALUES (?); SELECT ?')"
    assert str(request) == "Call(tests.support.call_functions.move)"
    assert transaction == Transaction([query, Query("SELECT ?", ("s3cret",))], timeout=2)
    assert request == Call(call_functions.move, "s3cret", 5)
    assert request != Call(call_functions.move, "s3cret", 6)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: Query("INSERT INTO kept VALUES (?)", many=[(7,)]),
        lambda: Transaction([insert(7)]),
        lambda: Call(call_functions.execute, "INSERT INTO kept VALUES (7)"),
    ],
)
def test_an_error_after_the_commit_says_that_it_was_done(path, request_of, monkeypatch):
    real = OwnTransaction.end

    def end_and_fail(own):
        real(own)
        raise MemoryError

    connection = SQLite(path).connect()
    connection.execute(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
    with monkeypatch.context() as patched:
        patched.setattr(OwnTransaction, "end", end_and_fail)
        with pytest.raises(ResultLost, match="was done, and its result is lost: MemoryError") as caught:
            connection.execute(request_of())
    assert caught.value.executed is True
    assert connection.execute(Query("SELECT number FROM kept")).column(0) == [7]
    with pytest.raises(apsw.ConstraintError):
        connection.execute(insert(7))
    connection.close()


def test_an_open_cursor_of_an_interrupted_function_costs_at_most_the_worker(kind, start, path):
    """SQLite forgets an interrupt only when no statement is open, so each rollback fails."""
    if kind == "memory":
        pytest.skip("in memory the connection is the database")
    db = start(KINDS[kind](path), size=1)
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)"))
    error = error_of(db.ask(Call(call_functions.leave_a_reading_cursor_and_run, RUNAWAY, timeout=0.1), block=False))
    assert isinstance(error, QueryTimeout)
    call_functions.CURSORS.clear()
    db.ask(insert(3), timeout=PATIENCE)
    assert numbers(db) == [1, 2, 3]
    assert can_lock(path)
