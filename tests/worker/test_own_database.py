"""A database of the user. The crew refuses the requests that its connection does not support."""

import sqlite3
import threading
from dataclasses import dataclass, field

import pytest

from actors.databases.steps import STEPS
from supervisor import (
    Backup,
    Call,
    ChildProcess,
    Connection,
    DatabaseUnavailable,
    Query,
    QueryTimeout,
    RestartPolicy,
    Result,
    Script,
    SessionClosed,
    Status,
    Stream,
    Transaction,
)
from tests.conftest import eventually
from tests.support import call_functions
from tests.support.common import PATIENCE, RUNAWAY, error_of
from tests.support.fakes import Gate
from tests.support.health import is_idle, same_workers
from tests.support.own import Own

PLACES = {"thread": lambda database: database, "child": ChildProcess}
EAGER = RestartPolicy(max_restarts=1_000_000, backoff_initial=0.0, quiet_period=0.0)
NUMBERS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT 30) SELECT i FROM n"


@pytest.fixture(params=PLACES, ids=str)
def crew(request, start, path):
    def start_crew(kind="Everything"):
        db = start(PLACES[request.param](Own(path, kind)), size=1, restart=EAGER)
        db.ask(Query("CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
        db.ask(Query("INSERT INTO kept VALUES (1), (2)"))
        return db

    return start_crew


def insert(number):
    return Query("INSERT INTO kept VALUES (?)", (number,))


def numbers(asked):
    return asked.ask(Query("SELECT number FROM kept ORDER BY number")).column(0)


def begin(db):
    with db.transaction():
        pytest.fail("the block was entered")


REFUSED = [
    (lambda db: db.ask(Script("SELECT 1")), "takes no Script"),
    (lambda db: db.ask(Transaction([insert(3)])), "takes no Transaction"),
    (lambda db: db.ask(Call(call_functions.insert_it, 3)), "takes no Call"),
    (begin, "takes no interactive transactions"),
    (lambda db: db.ask(Stream("SELECT 1")), "takes no streams"),
    (lambda db: db.ask(Backup("copy.db")), "takes no backups"),
]


def test_an_unsupported_request_is_refused_by_name_and_costs_no_worker(crew):
    db = crew("QueriesOnly")
    with same_workers(db):
        for ask, said in REFUSED * 2:
            with pytest.raises(TypeError, match=f"^QueriesOnly {said}\\b"):
                ask(db)
            assert numbers(db) == [1, 2]
    assert eventually(lambda: is_idle(db))


def test_a_connection_that_knows_no_steps_answers_the_first_error(crew):
    """The later error about the missing `Close` step does not replace it."""
    db = crew("DuckTyped")
    with same_workers(db):
        for ask, step in ((begin, "Begin"), (lambda db: db.ask(Backup("copy.db")), "OpenBackup")):
            with pytest.raises(AttributeError, match=f"'{step}' object has no attribute 'sql'"):
                ask(db)
            assert numbers(db) == [1, 2]
        rows = db.ask(Stream(NUMBERS, chunk=7))  # the connection runs it as a query
        assert [row.i for row in rows] == list(range(1, 31))


def test_a_request_that_a_transaction_cannot_run_is_refused_and_leaves_it_open(crew):
    db = crew()
    with same_workers(db), db.transaction() as tx:
        tx.ask(insert(3))
        for request, said in (
            (Script("SELECT 1"), "takes no Script in an interactive transaction"),
            (Call(call_functions.insert_it, 4), "takes no Call in an interactive transaction"),
        ):
            with pytest.raises(TypeError, match=f"^Everything {said}\\b"):
                tx.ask(request)
        tx.ask(insert(4))
    assert numbers(db) == [1, 2, 3, 4]


def test_transactions_and_streams_need_nothing_but_the_steps(crew):
    db = crew()
    with same_workers(db):
        with db.transaction() as tx:
            tx.ask(insert(3))
            streams = [tx.ask(Stream(NUMBERS, chunk=chunk)) for chunk in (4, 7)]
            assert next(streams[0]).i == 1
            tx.ask(insert(4))
            assert [row.i for row in streams[1]] == list(range(1, 31))
            assert [row.i for row in streams[0]] == list(range(2, 31))
            streams.append(tx.ask(Stream(NUMBERS, chunk=4)))
        with pytest.raises(SessionClosed):
            list(streams[2])
        with pytest.raises(LookupError), db.transaction() as tx:
            tx.ask(insert(5))
            raise LookupError
        assert [row.i for row in db.ask(Stream(NUMBERS, chunk=10))] == list(range(1, 31))
        assert numbers(db) == [1, 2, 3, 4]
        with db.transaction(readonly=True) as tx:
            assert numbers(tx) == [1, 2, 3, 4]
    assert eventually(lambda: is_idle(db))


def test_the_crew_keeps_max_rows(crew):
    db = crew()
    for most, rows in ((0, 0), (1, 1), (29, 29), (30, 30), (31, 30)):
        query = Query(NUMBERS, max_rows=most)
        results = [db.ask(query), *db.ask(Transaction([query, Query("SELECT 1"), query]))[::2]]
        with db.transaction() as tx:
            results.append(tx.ask(query))
        assert [(len(result), result.truncated) for result in results] == [(rows, most < 30)] * 4
        assert all(result.column(0) == list(range(1, rows + 1)) for result in results)


def test_a_deadline_holds_by_the_interrupt(crew):
    db = crew("QueriesOnly")
    with same_workers(db):
        error = error_of(db.ask(Query(RUNAWAY, timeout=0.05), block=False))
        assert (type(error), error.executed) == (QueryTimeout, False)
        assert numbers(db) == [1, 2]


def test_a_connection_that_cannot_be_cleaned_is_lost_after_the_answer(crew):
    db = crew("Unclean")
    with db.transaction() as tx:
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3], "the transaction was committed, and its caller got the answer"
    with pytest.raises(sqlite3.IntegrityError), db.transaction() as tx:
        tx.ask(insert(1))
    assert numbers(db) == [1, 2, 3]
    assert [row.i for row in db.ask(Stream(NUMBERS, chunk=7))] == list(range(1, 31))
    assert eventually(lambda: db.ask(Status()).restarts >= 3)


def test_a_connection_that_is_lost_as_it_closes_takes_no_answer_back(crew):
    db = crew("LostAtClose")
    with db.transaction() as tx:
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]
    assert eventually(lambda: db.ask(Status()).restarts == 1)


def test_a_wrong_answer_to_a_step_is_named_in_the_error(crew):
    db = crew("Wrong")
    with same_workers(db):
        with pytest.raises(TypeError, match=r"Wrong\.execute\(\) must return a Result, not Cursor"):
            db.ask(Stream("SELECT 1"))
        with db.transaction() as tx, pytest.raises(TypeError, match=r"must return a Result, not Cursor"):
            tx.ask(Query("SELECT 1"))
        assert numbers(db) == [1, 2]


@dataclass(frozen=True)
class Opening:
    """A database whose connection is any object that the test chooses."""

    connection: object
    name: str = "opening"
    max_size: int | None = None

    def connect(self):
        return self.connection


WRONG = {"nothing": None, "one": Result(), "too few": [Result()], "no results": [1, 2], "an iterator": iter([1, 2])}


class Answering(Connection):
    """A connection that gives every request the same answer."""

    def __init__(self, answer):
        self.answer = answer

    def execute(self, request):
        return self.answer


@dataclass(frozen=True)
class Answered:
    answer: object = field(repr=False)
    name = "answered"
    max_size = 1

    def connect(self):
        return Answering(self.answer)


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_a_wrong_answer_to_a_transaction_is_named_in_the_error(start, answer):
    db = start(Answered(answer), size=1)
    with (
        same_workers(db),
        pytest.raises(TypeError, match=r"Answering.execute\(\) must return for a Transaction a list"),
    ):
        db.ask(Transaction([Query("SELECT 1"), Query("SELECT 2")]))


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("answer", [(["a"], [(1,)]), (("a",), 5)], ids=["list of columns", "rows that are none"])
@pytest.mark.parametrize("place", PLACES)
def test_a_wrong_answer_to_a_stream_is_an_error_of_its_caller(start, place, answer, more):
    db = start(PLACES[place](Answered(Result(*answer, truncated=more))), size=1)
    with same_workers(db):
        assert error_of(db.ask(Stream("SELECT 1"), block=False)) is not None
    assert eventually(lambda: is_idle(db))


def test_an_object_without_execute_is_no_connection(start):
    db = start(Opening(object()))
    with pytest.raises(DatabaseUnavailable) as caught:
        db.ask(Query("SELECT 1"), timeout=PATIENCE)
    assert "method execute(), not object" in str(caught.value)


class OnlyCloses:
    def __init__(self):
        self.closed = threading.Event()

    def close(self):
        self.closed.set()


def test_an_object_without_execute_is_still_closed(start):
    opened = OnlyCloses()
    db = start(Opening(opened))
    with pytest.raises(DatabaseUnavailable, match=r"method execute\(\), not OnlyCloses"):
        db.ask(Query("SELECT 1"), timeout=PATIENCE)
    assert opened.closed.wait(PATIENCE)


class Executes:
    def execute(self, request):
        return Result(("answer",), [("yes",)], 1)


def test_an_object_with_execute_alone_is_a_connection(start):
    db = start(Opening(Executes()), size=1)
    assert db.ask(Query("SELECT 1")).scalar() == "yes"
    db.stop(timeout=PATIENCE)


class Plain:
    """A connection that does not derive from `Connection`, and has more than an `execute`."""

    reads_only = True
    warnings = ("no mirror is there",)

    def __init__(self):
        self.checks = 0

    def execute(self, request):
        return Result(("checks",), [(self.checks,)], 1)

    def check(self):
        self.checks += 1

    def run(self, batch):
        while (task := batch.begin()) is not None:
            batch.answer(task, Result(("by",), [("run",)], 1))


def test_an_object_with_execute_keeps_its_other_methods_and_attributes(start, caplog):
    connection = Plain()
    with caplog.at_level("WARNING", "querycrew"):
        db = start(Opening(connection), size=1)
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == "run"
    assert connection.checks > 0
    assert "no mirror is there" in caplog.text


def test_a_deadline_without_an_interrupt_costs_the_worker(start):
    class Stuck:
        def execute(self, request):
            return gate() if request.sql == "stuck" else Result(("answer",), [("yes",)], 1)

    gate = Gate()
    db = start(Opening(Stuck()), size=1, restart=RestartPolicy(grace=0.02, backoff_initial=0.0))
    error = error_of(db.ask(Query("stuck", timeout=0.05), block=False))
    assert (type(error), error.executed) == (QueryTimeout, None)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == "yes"
    gate.opened.set()


def test_the_base_class_answers_close_and_refuses_all_other_steps():
    class Nothing(Connection):
        pass

    connection = Nothing()
    connection.interrupt()
    connection.close()
    for kind in STEPS:
        step = kind(*[None] * len(kind._fields))
        if kind.__name__ == "Close":
            assert connection.execute(step) == Result()
        else:
            with pytest.raises(TypeError, match=r"^Nothing takes no "):
                connection.execute(step)
