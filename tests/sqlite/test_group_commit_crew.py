"""Group commit in a crew: small writes share a commit, and each of them may fail alone."""

import random
import re
import threading
import time

import apsw
import pytest

from supervisor import (
    Call,
    ChildProcess,
    Query,
    QueryCancelled,
    QueryTimeout,
    Reply,
    RestartPolicy,
    Script,
    SQLite,
    Status,
    Transaction,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, error_of
from tests.support.groups import Held, asked, child_held, counted, fail, insert, writer_held


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch):
    """Let a group take a minute, so that a slow machine does not end it early."""
    monkeypatch.setattr("actors.databases.sqlite.writer._LONGEST", 60.0)


@pytest.fixture
def functions():
    """The SQL functions of the connections of `db`, by name. A test adds its own at first."""
    return {}


@pytest.fixture
def db(start, path, functions):
    def register(connection):
        for name in ("held", "other_held", "boom"):
            connection.create_scalar_function(name, lambda *args, name=name: functions[name](*args))

    ref = start(SQLite(path, on_connect=register), size=2, restart=RestartPolicy(grace=PATIENCE))
    ref.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY, what TEXT DEFAULT '')"))
    return ref


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number")).column(0)


def test_writes_that_wait_together_are_one_commit(db, path):
    with counted(path) as written:
        with writer_held(db):
            replies = asked(db, *map(insert, range(100)))
        assert [error_of(reply) for reply in replies] == [None] * 100
    assert written.count == 1
    assert [reply.get().lastrowid for reply in replies] == [*range(100)]
    assert numbers(db) == [*range(100)]


def test_writes_that_wait_together_are_one_commit_in_children(start, path, tmp_path):
    db = start(ChildProcess(path), size=1)
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY, what TEXT DEFAULT '')"))
    with counted(path) as written:
        with child_held(db, tmp_path):
            replies = asked(db, *map(insert, range(20)))
        assert [error_of(reply) for reply in replies] == [None] * 20
    assert written.count < 20
    assert [reply.get().lastrowid for reply in replies] == [*range(20)]
    bad = [
        insert(5),
        Query("INSERT OR ROLLBACK INTO kept(number) VALUES (6)"),
        Query("SELECT missing FROM nowhere"),
        Transaction([insert(50), insert(7)]),
        Query("INSERT INTO kept(number) VALUES (51) RETURNING CAST(x'ff' AS TEXT)"),
        Script("INSERT INTO kept(number) VALUES (20); SELECT missing"),
    ]
    kinds = ["ConstraintError", "ConstraintError", "SQLError", "ConstraintError", "UnicodeDecodeError", "SQLError"]
    with child_held(db, tmp_path):
        replies = asked(db, insert(21), *bad, insert(22), Query("VACUUM"), insert(23))
    found = [error_of(reply) for reply in replies]
    assert [type(error).__name__ for error in found[1:7]] == kinds
    assert found[0] is found[7] is found[8] is found[9] is None
    assert numbers(db) == [*range(24)]


def test_a_lone_write_of_a_crew_is_answered_at_once(db, path):
    with counted(path) as written:
        for number in range(5):
            assert db.ask(insert(number), timeout=PATIENCE).lastrowid == number
    assert written.count == 5


def test_a_crew_answers_each_caller_with_its_own_error(db):
    requests = [Query(f"INSERT INTO kept(number) VALUES (1) /* caller {number} */") for number in range(20)]
    with writer_held(db):
        replies = asked(db, *requests)
    found = [error_of(reply) for reply in replies]
    assert found[0] is None
    assert {type(error) for error in found[1:]} == {apsw.ConstraintError}
    assert len({id(error) for error in found}) == 20
    for number, error in enumerate(found[1:], 1):
        said = " ".join([str(error), *error.__notes__])
        assert [other for other in range(20) if f"caller {other} " in said] == [number]
    assert db.ask(Status()).failed == 19


def test_a_write_with_a_callback_that_writes_is_part_of_a_group(db):
    more = []
    with writer_held(db):
        replies = asked(db, *map(insert, range(5)))
        for reply in replies:
            reply.add_done_callback(lambda done: more.append(db.ask(insert(100 + done.get().lastrowid), block=False)))
    assert [error_of(reply) for reply in replies] == [None] * 5
    assert eventually(lambda: len(more) == 5)
    assert [error_of(reply) for reply in more] == [None] * 5
    assert numbers(db) == [*range(5), *range(100, 105)]


@pytest.mark.parametrize("target", [0, 1, 2, 3])
def test_a_cancel_undoes_one_write_of_a_group(db, functions, target):
    functions["held"] = held = Held()
    with writer_held(db):
        replies = asked(db, insert(0), insert(1), Query("INSERT INTO kept(number) SELECT 2 WHERE held()"), insert(3))
    assert held.entered.wait(PATIENCE)
    assert replies[target].cancel()
    held.opened.set()
    found = [error_of(reply) for reply in replies]
    error = found.pop(target)
    assert isinstance(error, QueryCancelled)
    assert error.executed is False
    assert found == [None] * 3
    assert numbers(db) == [number for number in range(4) if number != target]
    assert (db.ask(Status()).restarts, db.ask(Status()).cancelled) == (0, 1)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_a_deadline_undoes_one_write_of_a_group(db, functions, target):
    functions["held"] = held = Held()
    texts = ["SELECT 0", "SELECT 1 WHERE held()", "SELECT 2"]
    with writer_held(db):
        replies = asked(
            db,
            *(
                Query(f"INSERT INTO kept(number) {text}", timeout=0.3 if number == target else None)
                for number, text in enumerate(texts)
            ),
        )
    assert held.entered.wait(PATIENCE)
    assert eventually(lambda: replies[target].done() or replies[target].job.abort is not None)
    held.opened.set()
    found = [error_of(reply) for reply in replies]
    error = found.pop(target)
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    assert found == [None] * 2
    assert numbers(db) == [number for number in range(3) if number != target]


def test_the_error_of_a_statement_that_ran_in_a_group_says_that_it_ran(db, functions):
    functions["held"] = held = Held()
    with writer_held(db):
        first, slow = asked(db, insert(0), Query("INSERT INTO kept(number) SELECT 1 WHERE held()", timeout=0.3))
    assert held.entered.wait(PATIENCE)
    assert eventually(lambda: slow.job.abort is not None)
    held.opened.set()
    assert error_of(first) is None
    assert "while it ran" in str(error_of(slow))


def test_the_log_says_how_long_a_statement_of_a_group_ran(start, path, caplog):
    held, began = Held(), time.monotonic()
    database = SQLite(path, on_connect=lambda connection: connection.create_scalar_function("held", held))
    db = start(database, size=1, restart=RestartPolicy(grace=0.01))
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY, what)"))
    with writer_held(db):
        _, slow = asked(db, insert(0), Query("INSERT INTO kept(number) SELECT 1 WHERE held()"))
    assert held.entered.wait(PATIENCE)
    slow.cancel()
    assert eventually(lambda: "ignored its interrupt" in caplog.text)
    held.opened.set()
    told = re.search(r"ran for ([0-9.]+) seconds", caplog.text)
    assert float(told[1]) <= time.monotonic() - began
    assert eventually(lambda: not db.ask(Status()).stuck)


def test_many_cancels_of_one_group(db, functions):
    functions["held"] = held = Held()
    with writer_held(db):
        replies = asked(db, *map(insert, range(40)), Query("INSERT INTO kept(number) SELECT 1000 WHERE held()"))
    assert held.entered.wait(PATIENCE)
    cancelled = [reply.cancel() for reply in replies[::2]]
    assert all(cancelled)
    held.opened.set()
    found = [error_of(reply) for reply in replies]
    assert [isinstance(error, QueryCancelled) and error.executed is False for error in found[::2]] == [True] * 21
    assert found[1::2] == [None] * 20
    assert numbers(db) == [*range(1, 40, 2)]


def test_the_neighbour_of_a_statement_that_ignores_its_interrupt_is_answered(start, path):
    """The crew gives up the worker, whose thread does not come back. No caller may wait for it."""
    held = Held()
    database = SQLite(path, busy_timeout=0, on_connect=lambda c: c.create_scalar_function("held", held))
    db = start(database, size=1, restart=RestartPolicy(grace=0.01))
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY, what)"))
    try:
        with writer_held(db):
            replies = asked(db, insert(0), Query("INSERT INTO kept(number) SELECT 1 WHERE held()"), insert(2))
        assert held.entered.wait(PATIENCE)
        assert replies[1].cancel()
        assert isinstance(error_of(replies[1]), QueryCancelled)
        for reply in (replies[0], replies[2]):
            # The job was begun, or the next writer took it over and could not get the lock.
            assert isinstance(error_of(reply), (WorkerDied, apsw.BusyError))
    finally:
        held.opened.set()
    assert eventually(lambda: not db.ask(Status()).stuck)
    assert numbers(db) == []
    assert db.ask(insert(5), timeout=PATIENCE).rowcount == 1


def test_the_neighbour_of_a_statement_that_ignores_its_interrupt_is_no_suspect(start, path):
    gates = [Held(), Held(), Held()]
    waiting = iter(gates)

    def hold():
        return next(waiting)()

    database = SQLite(path, on_connect=lambda c: c.create_scalar_function("held", hold))
    db = start(database, size=1, restart=RestartPolicy(grace=0.01, backoff_initial=0))
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY, what)"))
    for number, gate in enumerate(gates):
        with writer_held(db):
            replies = asked(db, insert(number), Query("INSERT INTO kept(number) SELECT 100 WHERE held()"))
        assert gate.entered.wait(PATIENCE)
        replies[1].cancel()
        assert isinstance(error_of(replies[1]), QueryCancelled)
        gate.opened.set()
        error_of(replies[0])
        assert eventually(lambda: not db.ask(Status()).stuck)
    assert error_of(db.ask(insert(50), block=False)) is None, "the statement counts as poison"


def test_a_group_whose_worker_dies_is_rejected_and_the_next_writes_go_on(db, functions):
    functions["boom"] = fail(apsw.CorruptError("the disk is malformed"))
    with writer_held(db):
        replies = asked(db, insert(0), Query("UPDATE kept SET what = boom()"), insert(2))
    found = [error_of(reply) for reply in replies]
    assert isinstance(found[1], WorkerDied)
    for number, error in zip((0, 2), (found[0], found[2]), strict=True):
        assert (error is None) == (number in numbers(db))
        assert error is None or (isinstance(error, WorkerDied) and error.executed is None)
    assert db.ask(insert(5), timeout=PATIENCE).rowcount == 1


@pytest.mark.parametrize(
    "request_",
    [Script("INSERT INTO kept(number) VALUES (7)"), Transaction([insert(7)]), Call(lambda c: None), insert(7)],
    ids=["script", "transaction", "call", "query"],
)
def test_a_job_that_another_jobs_cancel_takes_back_waits_for_the_writer(db, functions, request_):
    """A cancel takes back all jobs that were sent to the writer and have not begun."""
    functions["held"] = held = Held()
    with writer_held(db):
        first, kept, gone = asked(db, Script("INSERT INTO kept(number) SELECT held()"), request_, insert(9))
    assert held.entered.wait(PATIENCE)
    assert eventually(lambda: kept.job is not None)
    assert gone.cancel()
    held.opened.set()
    assert error_of(first) is None
    assert error_of(kept) is None
    assert isinstance(error_of(gone), QueryCancelled)


def test_writes_around_a_cancelled_write_keep_their_order(db, functions):
    functions["held"] = held = Held()
    db.ask(Script("CREATE TABLE log(id INTEGER PRIMARY KEY AUTOINCREMENT, number)"))
    add = [Script(f"INSERT INTO log(number) VALUES ({number})") for number in range(10)]
    with writer_held(db):
        replies = asked(db, Script("SELECT held()"), *add)
    assert held.entered.wait(PATIENCE)
    assert replies[4].cancel()
    later = asked(db, Script("INSERT INTO log(number) VALUES (10)"))
    held.opened.set()
    assert [error_of(reply) is None for reply in [*replies, *later]] == [n != 4 for n in range(12)]
    assert db.ask(Query("SELECT number FROM log ORDER BY id")).column(0) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_nothing_is_written_twice_while_jobs_are_taken_back_and_begun_again(db):
    """A write may be rolled back, taken back or delayed. It is done once, or never."""
    db.ask(Script("CREATE TABLE log(number)"))
    generator = random.Random(5)
    for first in range(0, 1000, 50):
        with writer_held(db):
            replies = []
            for number in range(first, first + 50):
                text = "INSERT INTO log(number) VALUES (?)"
                kind = generator.random()
                if kind < 0.1:
                    text += f" -- {number}"
                if kind > 0.95:
                    text = "INSERT OR ROLLBACK INTO kept SELECT ?, abs(-9223372036854775808)"
                replies.append(db.ask(Query(text, (number,)), block=False))
        for reply in generator.sample(replies, 5):
            reply.cancel()
        for reply in replies:
            error_of(reply)
        done = [first + place for place, reply in enumerate(replies) if error_of(reply) is None]
        there = db.ask(Query("SELECT number FROM log WHERE number >= ?", (first,))).column(0)
        assert [*filter(lambda number: there.count(number) > 1, there)] == []
        late = {
            first + place
            for place, reply in enumerate(replies)
            if isinstance(error_of(reply), QueryCancelled) and error_of(reply).executed
        }
        assert {*done} | late == {*there}


def test_the_table_agrees_with_the_answers_to_two_thousand_writes(db):
    db.ask(insert(-1))
    lock = threading.Lock()
    asked_for: list[tuple[int, int, Reply]] = []
    slow = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT count(*) FROM n"
    kinds = [
        lambda n, t: Query("INSERT INTO kept(number) VALUES (?)", (n,), timeout=t),
        lambda n, t: Query("INSERT INTO kept(number) VALUES (?)", (n,), timeout=t),
        lambda n, t: Query("WITH v(i) AS (VALUES (?)) INSERT INTO kept(number) SELECT i FROM v", (n,), timeout=t),
        lambda n, t: Query("INSERT INTO kept(number) VALUES (?) RETURNING number", (n,), timeout=t),
        lambda n, t: Query(f"INSERT INTO kept(number) VALUES ({n})", timeout=t),
        lambda n, t: Query("INSERT INTO kept(number) VALUES (?)", many=[(n,), (n + 1,)], timeout=t),
        lambda n, t: Transaction([insert(n), Query("SELECT 1"), insert(n + 1)], timeout=t),
        lambda n, t: Query("INSERT OR ROLLBACK INTO kept(number) VALUES (?), (-1)", (n,), timeout=t),
        lambda n, t: Query("INSERT INTO kept(number) VALUES (?), (-1)", (n,), timeout=t),
        lambda n, t: Transaction([insert(n), insert(-1)], timeout=t),
        lambda n, t: Script(f"BEGIN; INSERT INTO kept(number) VALUES ({n}); COMMIT", timeout=t),
        lambda n, t: Query(f"INSERT INTO kept(number) SELECT ? FROM ({slow})", (n,), timeout=t),
    ]

    def ask(seed):
        generator = random.Random(seed)
        for number in range(seed * 500, seed * 500 + 500):
            n = 2 * number
            kind = generator.randrange(len(kinds) if generator.random() < 0.1 else 7)
            timeout = generator.choice([None, None, None, 0.0, 0.001, 0.01, 0.05])
            request = kinds[kind](n, timeout)
            reply = db.ask(request, block=False)
            with lock:
                asked_for.append((n, 2 if kind in (5, 6) else 1, request, reply))
            if generator.random() < 0.2:
                asked_for[generator.randrange(len(asked_for))][-1].cancel()
            if generator.random() < 0.1:
                reply.exception(PATIENCE)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [(n, rows, error_of(reply), request) for n, rows, request, reply in asked_for]
    there = {*numbers(db)}
    wrong = []
    for n, rows, error, request in found:
        present = [number in there for number in range(n, n + rows)]
        if error is None or getattr(error, "executed", False) is True:
            right = all(present)
        elif getattr(error, "executed", False) is False:
            right = not any(present)
        else:
            right = isinstance(request, Script)  # the outcome of a script is unknown
        if not right:
            wrong.append((request, error, present))
    assert wrong == []
    assert len(found) == 2000
    status = db.ask(Status())
    assert (status.queued, status.running, status.restarts) == (0, 0, 0)
    assert {type(error) for _, _, error, _ in found} >= {type(None), QueryCancelled, QueryTimeout}
