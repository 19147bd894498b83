"""`with db.transaction() as tx:` commits all or nothing, on threads and in child processes.

This holds for each way in which the caller, the worker or the crew may end.
"""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import weakref
from operator import methodcaller

import apsw
import pytest

from supervisor import (
    Backup,
    Call,
    Query,
    QueryCancelled,
    QueryTimeout,
    QueueFull,
    RestartPolicy,
    Script,
    SessionClosed,
    SQLite,
    Status,
    Stream,
    Supervisor,
    SupervisorStopped,
    Transaction,
    TransactionBroken,
    WorkerDied,
    WouldDeadlock,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY, ask_writer, error_of
from tests.support.faulty_child_database import enter, system_exit
from tests.support.health import KINDS, assert_serves, is_idle, run_python, same_workers
from tests.support.waiters import waiter

FILL = Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)")
EAGER = RestartPolicy(max_restarts=1_000_000, backoff_initial=0.0, quiet_period=0.0)

# It writes a file as it begins. Then it would run for years.
BEGUN = "WITH RECURSIVE n(i) AS (VALUES(enter(?)) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def with_function(function):
    """Return a function that registers a function of `faulty_child_database` on a connection."""
    return methodcaller("create_scalar_function", function.__name__, function)


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return request.param


@pytest.fixture
def crew(start, path):
    """Start crews of a kind, with a SQL function.

    At the end of the test each crew must still serve."""
    refs = []

    def start_crew(kind="file", function=enter, size=1, **options):
        ref = start(KINDS[kind](path, on_connect=with_function(function)), size=size, **options)
        ref.ask(FILL)
        refs.append(ref)
        return ref

    yield start_crew
    for ref in refs:
        if ref.is_alive():
            assert_healthy(ref)


@pytest.fixture
def db(kind, crew):
    return crew(kind)


def assert_healthy(db):
    assert_serves(db, insert(1000))
    assert numbers(db)[-1] == 1000


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number"), timeout=PATIENCE).column(0)


def insert(number):
    return Query("INSERT INTO kept VALUES (?)", (number,))


def begun(tx, tmp_path):
    """Ask for a statement that never ends, wait until it runs, and return its reply."""
    file = tmp_path / "begun"
    reply = tx.ask(Query(BEGUN, (str(file),)), block=False)
    assert eventually(file.exists)
    return reply


# --- ordinary use -------------------------------------------------------------------------


def test_a_transaction_commits_at_the_end_of_its_block_and_sees_its_own_writes(db):
    with db.transaction() as tx:
        assert (tx.ask(insert(3)).rowcount, tx.ask(insert(4)).lastrowid) == (1, 4)
        total = tx.ask(Query("SELECT sum(number) AS total FROM kept"))
        assert total.one().total == 10
        assert tx.ask(Query("INSERT INTO kept VALUES (?) RETURNING number * 2 AS twice", (total.scalar(),))).rows == [
            (20,)
        ]
        assert tx.ask(Query("SELECT number FROM kept", max_rows=2)).truncated
        assert tx.ask(Query("INSERT INTO kept VALUES (?)", many=[(20,), (21,)])).rowcount == 2
        assert tx.ask(Query("SELECT number AS n FROM kept WHERE 0")).columns == ("n",)
    assert numbers(db) == [1, 2, 3, 4, 10, 20, 21]


def test_an_error_of_the_block_undoes_the_transaction_and_reaches_the_caller(db):
    own = LookupError("the caller's own")
    with same_workers(db):
        with pytest.raises(LookupError) as caught, db.transaction() as tx:
            tx.ask(insert(3))
            raise own
        assert caught.value is own
        assert numbers(db) == [1, 2], "the end of the block did not undo it"


def test_a_rollback_undoes_all_at_once_and_later_requests_are_refused(db):
    with db.transaction() as tx:
        tx.ask(insert(3))
        tx.rollback()
        assert numbers(db) == [1, 2], "the worker must be free before the end of the block"
        assert isinstance(error_of(tx.ask(insert(4), block=False)), SessionClosed)
        tx.rollback()
    assert numbers(db) == [1, 2]


def test_a_transaction_is_closed_after_its_end(db):
    with db.transaction() as tx:
        tx.ask(insert(3))
    for _ in range(2):
        error = error_of(tx.ask(insert(4), block=False))
        assert isinstance(error, SessionClosed)
        assert error.executed is False
    with pytest.raises(SessionClosed):
        tx.ask(insert(4))
    assert numbers(db) == [1, 2, 3]


def test_a_transaction_is_closed_after_an_error_of_its_block(db):
    with pytest.raises(LookupError), db.transaction() as tx:
        raise LookupError
    assert isinstance(error_of(tx.ask(insert(4), block=False)), SessionClosed)


def test_a_transaction_is_used_once_and_inside_of_its_block_only(crew):
    db = crew()
    tx = db.transaction()
    for use in (lambda: tx.ask(insert(3)), tx.rollback):
        with pytest.raises(SessionClosed, match="has not begun"):
            use()
    with tx, pytest.raises(SessionClosed, match="entered once"), tx:
        pass
    with pytest.raises(SessionClosed, match="entered once"), tx:
        pass


def test_an_error_of_a_statement_leaves_the_transaction_open(db):
    with db.transaction() as tx:
        tx.ask(insert(3))
        for bad in (insert(1), Query("SELECT missing FROM nowhere"), Query("SELECT ?")):
            assert isinstance(error_of(tx.ask(bad, block=False)), apsw.Error)
        assert isinstance(error_of(tx.ask(Query("DELETE FROM kept; DELETE FROM kept"), block=False)), ValueError)
        tx.ask(insert(4))
    assert numbers(db) == [1, 2, 3, 4]


def test_an_error_of_one_of_many_runs_undoes_all_runs_and_leaves_the_transaction_open(db):
    with db.transaction() as tx:
        tx.ask(insert(3))
        many = Query("INSERT INTO kept VALUES (?)", many=[(10,), (11,), (1,), (12,)])
        assert isinstance(error_of(tx.ask(many, block=False)), apsw.ConstraintError)
    assert numbers(db) == [1, 2, 3], "some of the many runs were kept"


def test_a_statement_whose_rows_cannot_be_decoded_is_undone_alone(db):
    with db.transaction() as tx:
        tx.ask(insert(3))
        bad = Query("INSERT INTO kept VALUES (20) RETURNING CAST(x'ff' AS TEXT)")
        assert isinstance(error_of(tx.ask(bad, block=False)), UnicodeDecodeError)
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("sql", ["COMMIT", "END -- by hand", "ROLLBACK"])
def test_a_statement_that_ends_the_transaction_by_hand_undoes_all_of_it(db, sql):
    with pytest.raises(TransactionBroken), db.transaction() as tx:
        tx.ask(insert(3))
        errors = [error_of(tx.ask(query, block=False)) for query in (Query(sql), insert(4))]
        assert [type(error) for error in errors] == [TransactionBroken, TransactionBroken]
        assert [error.executed for error in errors] == [False, False]
    assert numbers(db) == [1, 2]


def test_an_error_that_rolls_all_back_breaks_all_later_requests(db):
    with pytest.raises(TransactionBroken), db.transaction() as tx:
        tx.ask(insert(3))
        error = error_of(tx.ask(Query("INSERT OR ROLLBACK INTO kept VALUES (1)"), block=False))
        assert isinstance(error, apsw.ConstraintError)
        assert isinstance(error_of(tx.ask(insert(4), block=False)), TransactionBroken), "it was committed alone"
    assert numbers(db) == [1, 2]


def test_a_transaction_may_have_savepoints(db):
    with db.transaction() as tx:
        for query in (
            insert(3),
            Query("SAVEPOINT s"),
            insert(4),
            Query("ROLLBACK TO s"),
            Query("RELEASE s"),
            insert(5),
        ):
            tx.ask(query)
    assert numbers(db) == [1, 2, 3, 5]


def test_a_commit_that_fails_undoes_all_and_raises(crew):
    db = crew()
    db.ask(Query("CREATE TABLE child(parent REFERENCES kept DEFERRABLE INITIALLY DEFERRED)"))
    with same_workers(db):
        with pytest.raises(apsw.ConstraintError, match="FOREIGN KEY"), db.transaction() as tx:
            tx.ask(insert(3))
            tx.ask(Query("INSERT INTO child VALUES (77)"))
        assert numbers(db) == [1, 2]


def test_requests_without_a_wait_are_part_of_the_transaction(db):
    with db.transaction() as tx:
        replies = [tx.ask(insert(number), block=False) for number in range(10, 60)]
        del replies[::2]  # these replies are dropped
    assert numbers(db) == [1, 2, *range(10, 60)]
    assert [reply.get(timeout=PATIENCE).rowcount for reply in replies] == [1] * 25


# --- beside other requests ----------------------------------------------------------------


def test_a_transaction_holds_the_write_lock_as_its_block_begins(crew, path):
    db = crew()
    with db.transaction():
        other = apsw.Connection(str(path))
        with pytest.raises(apsw.BusyError):
            other.execute("BEGIN IMMEDIATE")
        other.close()


def test_other_writes_wait_for_the_end_of_a_transaction_and_see_its_rows(db):
    with db.transaction() as tx:
        tx.ask(Query("DELETE FROM kept"))
        other = db.ask(Query("INSERT INTO kept SELECT count(*) FROM kept"), block=False)
        tx.ask(insert(5))
        assert not other.done()
    assert other.get(timeout=PATIENCE).rowcount == 1
    assert numbers(db) == [1, 5]


def test_no_other_request_sees_uncommitted_rows(crew):
    db = crew(size=2)
    with db.transaction() as tx:
        tx.ask(insert(3))
        assert numbers(db) == [1, 2]
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_transaction_that_reads_sees_one_state_and_blocks_no_writer_and_cannot_write(crew, kind):
    db = crew(kind, size=2)
    with db.transaction(readonly=True) as tx:
        db.ask(insert(3))
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 2, "the state is not that of the begin"
        db.ask(insert(4))
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 2
        assert isinstance(error_of(tx.ask(insert(5), block=False)), apsw.ReadOnlyError)
    assert numbers(db) == [1, 2, 3, 4]


def test_a_transaction_that_reads_cannot_write_in_memory_and_the_next_job_can(crew):
    db = crew("memory")
    with db.transaction(readonly=True) as tx:
        assert isinstance(error_of(tx.ask(insert(5), block=False)), apsw.ReadOnlyError)
    assert db.ask(insert(3)).rowcount == 1


def test_read_modify_write_of_many_threads_adds_up(crew):
    db = crew()

    def add():
        for _ in range(10):
            with db.transaction() as tx:
                most = tx.ask(Query("SELECT max(number) FROM kept")).scalar()
                tx.ask(insert(most + 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert numbers(db) == list(range(1, 83))


def test_many_threads_may_use_one_transaction(db):
    with db.transaction() as tx:

        def ask(thread):
            for number in range(20):
                tx.ask(insert(100 * thread + number))

        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert numbers(db) == [1, 2, *(100 * thread + number for thread in range(1, 7) for number in range(20))]


# --- deadlines ----------------------------------------------------------------------------


def test_a_transaction_is_undone_at_its_deadline_though_its_owner_holds_it(db):
    with same_workers(db):
        with pytest.raises(QueryTimeout) as caught, db.transaction(timeout=0.1) as tx:
            tx.ask(insert(3))
            assert error_of(db.ask(insert(4), block=False)) is None, "the write must wait and succeed"
            for _ in range(2):
                error = error_of(tx.ask(insert(5), block=False))
                assert isinstance(error, QueryTimeout)
                assert error.executed is False
        assert caught.value.executed is False, "the error must say that nothing was committed"
        assert numbers(db) == [1, 2, 4]


def test_a_statement_that_runs_at_the_deadline_times_out(db):
    with same_workers(db):
        with pytest.raises(QueryTimeout) as caught, db.transaction(timeout=0.1) as tx:
            tx.ask(insert(3))
            tx.ask(Query(RUNAWAY))
        assert caught.value.executed is False
        assert numbers(db) == [1, 2]


def test_an_error_of_the_block_is_raised_even_after_the_deadline(crew):
    db = crew()
    with pytest.raises(LookupError), db.transaction(timeout=0.05):
        db.ask(insert(3), block=False).get(timeout=PATIENCE)
        raise LookupError


def test_a_transaction_whose_deadline_passes_before_its_begin_never_begins(db):
    entered, errors = [], []

    def try_to_enter():
        try:
            with db.transaction(timeout=0.05):
                entered.append(True)
        except QueryTimeout as error:
            errors.append(error.executed)

    with db.transaction() as tx:
        with waiter(try_to_enter):
            assert eventually(lambda: entered or errors)
        tx.ask(insert(3))
    assert (entered, errors) == ([], [False])
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("timeout", [30.0, None])
def test_a_thread_that_would_wait_for_its_own_transaction_gets_an_error_at_once(crew, timeout):
    db = crew(size=2)
    with db.transaction(timeout=timeout) as tx:
        for ask in (lambda: db.ask(insert(4)), lambda: db.ask(FILL), lambda: db.transaction().__enter__()):
            with pytest.raises(WouldDeadlock, match="you hold all workers"):
                ask()
        assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 2, "another worker must read"
        later = db.ask(insert(5), block=False)
        tx.ask(insert(3))
    assert error_of(later) is None
    assert numbers(db) == [1, 2, 3, 5]


def test_the_end_of_the_block_of_a_crew_does_not_wait_for_an_open_transaction(path):
    db = Supervisor.start(path, size=1)
    db.ask(FILL)
    tx = db.transaction()
    with pytest.raises(LookupError), db:
        tx.__enter__()
        tx.ask(insert(3))
        raise LookupError
    assert not tx._entered().end.exception().executed
    with Supervisor.start(path, size=1) as other:
        assert numbers(other) == [1, 2]


def test_a_stop_does_not_wait_for_an_endless_transaction_of_its_own_thread(crew):
    db = crew(size=1)
    with pytest.raises(QueryCancelled), db.transaction(timeout=float("inf")) as tx:
        tx.ask(insert(3))
        assert db.stop(timeout=PATIENCE)


# --- cancelled ----------------------------------------------------------------------------


def test_the_cancel_of_a_running_statement_cancels_the_transaction(db, tmp_path):
    with same_workers(db):
        with pytest.raises(QueryCancelled), db.transaction() as tx:
            tx.ask(insert(3))
            reply = begun(tx, tmp_path)
            behind = tx.ask(insert(4), block=False)
            assert reply.cancel() is True
            errors = [error_of(each) for each in (reply, behind, tx.ask(insert(5), block=False))]
            assert [type(error) for error in errors] == [QueryCancelled] * 3, "one was not cancelled"
            assert [error.executed for error in errors] == [False] * 3
            assert reply.cancel() is False
        assert numbers(db) == [1, 2]


def test_the_cancel_of_a_waiting_statement_cancels_the_transaction(db, tmp_path):
    with pytest.raises(QueryCancelled), db.transaction() as tx:
        running = begun(tx, tmp_path)
        waiting = tx.ask(insert(3), block=False)
        assert waiting.cancel() is True
        assert isinstance(error_of(running), QueryCancelled)
        assert isinstance(error_of(waiting), QueryCancelled)
    assert numbers(db) == [1, 2]


def test_the_cancel_of_a_finished_statement_changes_nothing(crew):
    db = crew()
    with db.transaction() as tx:
        reply = tx.ask(insert(3), block=False)
        assert reply.get(timeout=PATIENCE).rowcount == 1
        assert reply.cancel() is False
    assert numbers(db) == [1, 2, 3]


@contextlib.contextmanager
def ctrl_c(when):
    """Raise `KeyboardInterrupt` in this thread, once, when `when()` is true."""
    main, struck = threading.get_ident(), threading.Event()

    def strike(number, frame):
        if not struck.is_set():
            struck.set()
            raise KeyboardInterrupt

    def interrupt():
        assert eventually(when)
        while not struck.wait(0.01):  # it repeats, since a wait does not see a signal that comes just before it
            signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, strike)
    try:
        with waiter(interrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", ["file", "child"])
def test_ctrl_c_in_a_statement_undoes_the_transaction(crew, kind, tmp_path):
    db = crew(kind)
    file = tmp_path / "begun"
    with same_workers(db):
        with ctrl_c(file.exists), pytest.raises(KeyboardInterrupt), db.transaction() as tx:
            tx.ask(insert(3))
            tx.ask(Query(BEGUN, (str(file),)))
        assert not db.ask(Status()).running, "it must be over at the end of the block"
        assert numbers(db) == [1, 2]


# --- dropped ------------------------------------------------------------------------------


def enter_and_drop(db):
    tx = db.transaction()
    tx.__enter__()
    tx.ask(insert(3))


def drop_in_a_cycle(db):
    tx = db.transaction()
    tx.__enter__()
    tx.ask(insert(3))
    tx.itself = tx
    del tx
    gc.collect()


def leave_a_generator(db):
    def work():
        with db.transaction() as tx:
            tx.ask(insert(3))
            yield

    generator = work()
    next(generator)
    del generator


def let_a_thread_end(db):
    thread = threading.Thread(target=enter_and_drop, args=(db,))
    thread.start()
    thread.join(PATIENCE)


def drop_in_the_middle_of_a_statement(db):
    tx = db.transaction()
    tx.__enter__()
    tx.ask(insert(3))
    tx.ask(Query(RUNAWAY), block=False)


def leave_an_async_generator(db):
    async def work():
        async with db.transaction() as tx:
            await tx.ask(insert(3), block=False)
            yield

    async def main():
        await anext(work())

    asyncio.run(main())


def let_a_task_be_collected(db):
    async def main():
        tx = db.transaction()
        await tx.__aenter__()
        await tx.ask(insert(3), block=False)

    asyncio.run(main())


@pytest.mark.parametrize(
    "drop",
    [
        enter_and_drop,
        drop_in_a_cycle,
        leave_a_generator,
        let_a_thread_end,
        drop_in_the_middle_of_a_statement,
        leave_an_async_generator,
        let_a_task_be_collected,
    ],
)
def test_a_dropped_transaction_is_undone_and_frees_its_worker(crew, drop):
    db = crew()
    with same_workers(db):
        drop(db)
        assert db.ask(insert(4), timeout=PATIENCE).rowcount == 1
        assert numbers(db) == [1, 2, 4]


def test_a_dropped_transaction_is_undone_in_a_child_too(crew):
    db = crew("child")
    with same_workers(db):
        enter_and_drop(db)
        drop_in_the_middle_of_a_statement(db)
        assert numbers(db) == [1, 2]


@pytest.mark.parametrize("kind", ["file", "child"])
def test_an_error_of_a_statement_does_not_keep_a_dropped_transaction_open(crew, kind):
    db = crew(kind)

    def work():
        tx = db.transaction(timeout=3)
        tx.__enter__()
        tx.ask(insert(3))
        with contextlib.suppress(apsw.SQLError):
            tx.ask(Query("SELECT missing"))

    work()
    gc.collect()
    assert eventually(lambda: not db.ask(Status()).running, 1), "the worker still holds a reference to it"


class Kept:
    """A value for a weak reference."""


def test_an_answer_after_a_transaction_is_kept_by_no_part_of_the_crew(crew):
    db = crew()
    with db.transaction() as tx:
        tx.ask(insert(3))
    gc.disable()
    try:
        kept = [weakref.ref(db.ask(Call(lambda _: Kept(), readonly=True))) for _ in range(5)]
        assert eventually(lambda: not any(each() for each in kept), 1), "a value needs the garbage collector"
    finally:
        gc.enable()


def test_a_transaction_that_never_begins_costs_nothing(crew):
    db = crew()
    before = db.ask(Status()).submitted
    db.transaction()
    assert db.ask(Status()).submitted == before


# --- deaths -------------------------------------------------------------------------------


def test_a_worker_that_dies_of_a_statement_ends_its_transaction(crew, kind):
    if kind == "memory":
        pytest.skip("in memory the connection is the database")
    db = crew(kind, system_exit, restart=EAGER)
    with pytest.raises(WorkerDied), db.transaction() as tx:
        tx.ask(insert(3))
        dying, behind = tx.ask(Query("SELECT system_exit()"), block=False), tx.ask(insert(4), block=False)
        assert isinstance(error_of(dying), WorkerDied)
        assert isinstance(error_of(behind), WorkerDied)
        assert isinstance(error_of(tx.ask(insert(5), block=False)), WorkerDied)
    assert numbers(db) == [1, 2]


def test_a_child_that_is_killed_between_two_statements_ends_its_transaction(crew):
    db = crew("child", restart=EAGER)
    with pytest.raises(WorkerDied), db.transaction() as tx:
        tx.ask(insert(3))
        (busy,) = [worker for worker in db.ask(Status()).workers if worker.job]
        os.kill(busy.pid, signal.SIGKILL)
        assert isinstance(error_of(tx.ask(insert(4), block=False)), WorkerDied)
        assert isinstance(error_of(tx.ask(insert(5), block=False)), WorkerDied)
    assert numbers(db) == [1, 2]


def test_a_child_that_is_killed_between_two_statements_blocks_no_other_request(crew):
    db = crew("child", restart=EAGER)
    with pytest.raises(WorkerDied), db.transaction(timeout=3) as tx:
        tx.ask(insert(3))
        (busy,) = [worker for worker in db.ask(Status()).workers if worker.job]
        os.kill(busy.pid, signal.SIGKILL)
        other = db.ask(insert(4), block=False)
        assert eventually(other.done, 1), "a write waits for a transaction whose child is dead"
    assert numbers(db) == [1, 2, 4]


def test_a_transaction_in_which_a_worker_dies_says_that_nothing_took_effect(crew):
    db = crew(function=system_exit, restart=EAGER)
    with pytest.raises(WorkerDied) as caught, db.transaction() as tx:
        tx.ask(insert(3))
        tx.ask(Query("SELECT system_exit()"))
    assert caught.value.executed is False, "no commit was asked for, so the outcome is known"


def test_deaths_in_some_transactions_do_not_poison_other_transactions(crew):
    db = crew(function=system_exit, restart=EAGER)
    for number in range(3):
        with pytest.raises(WorkerDied), db.transaction() as tx:
            tx.ask(Query(f"SELECT system_exit(), {number}"))
    with db.transaction() as tx:  # it would be a PoisonQuery if all transactions counted as one statement
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]


# --- the crew ends ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_a_stop_waits_for_the_transaction_and_takes_no_other(crew, kind):
    db = crew(kind)
    with db.transaction() as tx:
        tx.ask(insert(3))
        stopped = db.stop(block=False)
        with pytest.raises(SupervisorStopped), db.transaction():
            pytest.fail("the transaction has begun")
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 3
        assert not stopped.done()
    assert stopped.get(timeout=PATIENCE) is True
    assert isinstance(error_of(tx.ask(insert(4), block=False)), SessionClosed)


def test_the_writes_of_a_transaction_during_a_stop_are_committed(crew, path):
    db = crew()
    with db.transaction() as tx:
        stopped = db.stop(block=False)
        tx.ask(insert(3))
    stopped.get(timeout=PATIENCE)
    other = apsw.Connection(str(path))
    assert other.execute("SELECT number FROM kept").fetchall() == [(1,), (2,), (3,)]
    other.close()


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_a_shutdown_at_its_time_limit_undoes_the_transaction(crew, kind, path, tmp_path):
    db = crew(kind)
    with pytest.raises(SupervisorStopped), db.transaction() as tx:
        tx.ask(insert(3))
        running = begun(tx, tmp_path)
        db.shutdown(timeout=0)
        errors = [error_of(reply) for reply in (running, tx.ask(insert(4), block=False))]
        assert [type(error) for error in errors] == [SupervisorStopped] * 2
        assert [error.executed for error in errors] == [False] * 2
    if kind != "memory":
        other = apsw.Connection(str(path))
        assert other.execute("SELECT count(*) FROM kept").get == 2
        other.close()


def test_a_stop_that_waits_ends_with_the_time_of_the_transaction(crew):
    db = crew()
    with pytest.raises(QueryTimeout), db.transaction(timeout=0.1) as tx:
        tx.ask(insert(3))
        assert db.stop(timeout=PATIENCE) is True


ENDING = """
import sys, threading
from supervisor import ChildProcess, Query, Supervisor
kind, path = sys.argv[1:]
db = Supervisor.start(ChildProcess(path) if kind == "child" else path, size=1)
db.ask(Query("CREATE TABLE kept(number)"))
tx = db.transaction(timeout=3600)
tx.__enter__()
tx.ask(Query("INSERT INTO kept VALUES (1)"))
if kind == "statement":
    endless = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    tx.ask(Query(endless), block=False)
print("left open")
"""


@pytest.mark.parametrize("kind", ["thread", "statement", "child"])
def test_a_program_that_ends_with_an_open_transaction_undoes_it(path, kind):
    assert run_python(ENDING, kind, path) == "left open\n"
    log = path.with_name(path.name + "-wal")  # the log stays, empty, if two connections close at the same moment
    assert not log.exists() or log.stat().st_size == 0, "the connections were not closed"
    other = apsw.Connection(str(path))
    assert other.execute("SELECT count(*) FROM kept").get == 0
    other.close()


FORKING = """
import os, signal, sys, warnings
from supervisor import Query, Supervisor, SupervisorStopped
warnings.simplefilter("ignore", DeprecationWarning)
db = Supervisor.start(sys.argv[1], size=1)
db.ask(Query("CREATE TABLE kept(number)"))
with db.transaction() as tx:
    tx.ask(Query("INSERT INTO kept VALUES (1)"))
    child = os.fork()
    if not child:
        signal.alarm(20)
        code = 1
        try:
            error = tx.ask(Query("INSERT INTO kept VALUES (2)"), block=False).exception(10)
            tx.rollback()
            del tx
            code = 0 if isinstance(error, SupervisorStopped) else 2
        finally:
            os._exit(code)
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    tx.ask(Query("INSERT INTO kept VALUES (3)"))
print("rows", db.ask(Query("SELECT number FROM kept")).column(0))
db.stop()
"""


def test_a_forked_process_cannot_use_a_transaction_and_its_parent_can(path):
    assert run_python(FORKING, path).splitlines() == ["child 0", "rows [1, 3]"]


# --- asyncio ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_task_uses_a_transaction_by_async_with(crew, kind):
    db = crew(kind)

    async def main():
        async with db.transaction() as tx:
            replies = [tx.ask(insert(number), block=False) for number in range(10, 20)]
            results = await asyncio.gather(*map(get, replies))
        with pytest.raises(LookupError):
            async with db.transaction() as tx:
                await tx.ask(insert(30), block=False)
                raise LookupError
        async with db.transaction() as tx:
            await tx.ask(insert(31), block=False)
            tx.rollback()
        return [result.lastrowid for result in results]

    assert asyncio.run(main()) == list(range(10, 20))
    assert numbers(db) == [1, 2, *range(10, 20)]


async def get(reply):
    return await reply


async def until(condition):
    """Let the event loop go on until `condition()` is true."""
    for _ in range(10_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("the condition never became true")


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_a_task_that_is_cancelled_in_a_statement_undoes_its_transaction(crew, kind, tmp_path):
    db = crew(kind)
    file = tmp_path / "begun"

    async def work():
        async with db.transaction() as tx:
            await tx.ask(insert(3), block=False)
            await tx.ask(Query(BEGUN, (str(file),)), block=False)

    async def main():
        task = asyncio.create_task(work())
        await until(file.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return not db.ask(Status()).running

    with same_workers(db):
        assert asyncio.run(main()), "it must be over at the end of the block"
        assert numbers(db) == [1, 2]


def test_a_task_that_is_cancelled_while_it_waits_to_begin_leaves_nothing(crew):
    db = crew()

    async def work():
        async with db.transaction():
            pytest.fail("the transaction has begun")

    async def main():
        async with db.transaction() as tx:
            task = asyncio.create_task(work())
            await until(lambda: db.ask(Status()).queued)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert db.ask(Status()).queued == 0
            await tx.ask(insert(3), block=False)

    asyncio.run(main())
    assert numbers(db) == [1, 2, 3]


def test_a_timeout_of_asyncio_ends_the_transaction(crew):
    db = crew()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), db.transaction() as tx:
                await tx.ask(insert(3), block=False)
                await tx.ask(Query(RUNAWAY), block=False)

    asyncio.run(main())
    assert numbers(db) == [1, 2]


def test_the_event_loop_runs_while_a_task_waits_to_begin(crew):
    db = crew()

    async def late():
        async with db.transaction() as tx:
            await tx.ask(insert(4), block=False)

    async def main():
        async with db.transaction() as tx:
            task = asyncio.create_task(late())
            await until(lambda: db.ask(Status()).queued)
            for _ in range(100):
                await asyncio.sleep(0)
            assert not task.done()
            await tx.ask(insert(3), block=False)
        await task

    asyncio.run(main())
    assert numbers(db) == [1, 2, 3, 4]


# --- changes of the connection ------------------------------------------------------------


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("end", ["commit", "rollback", "error", "dropped"])
def test_the_changes_of_the_connection_are_gone_after_the_transaction(crew, readonly, end):
    db = crew()
    look = [
        "PRAGMA cache_size",
        "PRAGMA query_only",
        "PRAGMA foreign_keys",
        "SELECT count(*) FROM sqlite_temp_schema",
        "SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp')",
    ]

    def state():
        reading = [db.ask(Query(sql)).scalar() for sql in look]
        return reading, [result.scalar() for result in ask_writer(db, *look)]

    before = state()

    def work():
        tx = db.transaction(readonly=readonly)
        with tx:
            for sql in ("PRAGMA cache_size = 7", "ATTACH ':memory:' AS other", "CREATE TEMP TABLE mine(x)"):
                reply = tx.ask(Query(sql), block=False)
                assert error_of(reply) is None or readonly
            if end == "rollback":
                tx.rollback()
            if end == "error":
                raise LookupError

    if end == "dropped":
        tx = db.transaction(readonly=readonly)
        tx.__enter__()
        tx.ask(Query("PRAGMA cache_size = 7"))
        tx.ask(Query("ATTACH ':memory:' AS other"))
        del tx
    elif end == "error":
        with pytest.raises(LookupError):
            work()
    else:
        work()
    with same_workers(db):
        assert state() == before


@pytest.mark.parametrize(
    "sql", ["PRAGMA recursive_triggers = ON", "CREATE TEMP TABLE mine(x)", "ATTACH ':memory:' AS o"]
)
def test_the_changes_of_the_connection_do_not_end_the_transaction(start, path, sql):
    for kind in KINDS:
        db = start(KINDS[kind](path.with_name(f"{kind}.db")), size=1)
        db.ask(Script("CREATE TABLE t(a)"))
        with same_workers(db):
            with db.transaction() as tx:
                for number in range(3):
                    tx.ask(Query("INSERT INTO t VALUES (?)", (number,)))
                    tx.ask(Query(sql)) if number == 1 else None
                assert tx.ask(Query("SELECT count(*) FROM t")).scalar() == 3
            assert db.ask(Query("SELECT a FROM t")).column("a") == [0, 1, 2]


# --- refused use --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"timeout": "1"}, TypeError, r"transaction\(timeout\) must be a number of seconds"),
        ({"timeout": True}, TypeError, r"transaction\(timeout\)"),
        ({"timeout": -1}, ValueError, r"transaction\(timeout=-1\)"),
        ({"timeout": float("nan")}, ValueError, r"transaction\(timeout=nan\)"),
        ({"readonly": 1}, TypeError, r"transaction\(readonly\) must be a bool"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(crew, options, kind, said):
    db = crew()
    with pytest.raises(kind, match=said):
        db.transaction(**options)


def test_a_transaction_takes_requests_without_a_time_limit_of_their_own(crew):
    db = crew()
    with db.transaction() as tx:
        for wrong in (Transaction([insert(3)]), Backup("copy.db"), "SELECT 1", None, Status()):
            with pytest.raises(TypeError, match="takes Query, Script, Call and Stream, not"):
                tx.ask(wrong)
        for late in (Query("SELECT 1", timeout=1), Script("SELECT 1", 1), Stream("SELECT 1", timeout=1)):
            with pytest.raises(ValueError, match="timeout of its own"):
                tx.ask(late)
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]


def test_a_timeout_of_infinity_is_no_limit(crew):
    db = crew()
    with db.transaction(timeout=float("inf")) as tx:
        assert tx.ask(Query("SELECT 1")).scalar() == 1


def test_a_full_queue_refuses_a_transaction_before_it_begins(crew):
    db = crew(max_queue=0)
    refused = []

    def try_to_enter():
        with pytest.raises(QueueFull), db.transaction():
            pytest.fail("the transaction has begun")
        refused.append(True)

    with db.transaction() as tx:
        with waiter(try_to_enter):
            assert eventually(lambda: refused)
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]


def test_a_lock_that_stays_taken_is_an_error_at_the_begin(start, path):
    db = start(SQLite(path, busy_timeout=0.02), size=1)
    db.ask(FILL)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(apsw.BusyError) as caught, db.transaction():
        pytest.fail("the transaction has begun")
    assert any("busy_timeout is 0.02" in note for note in caught.value.__notes__)
    other.close()
    with db.transaction() as tx:
        tx.ask(insert(3))
    assert_healthy(db)


def test_a_database_that_is_only_read_can_be_read_in_a_transaction(start, path):
    writing = start(path, size=1)
    writing.ask(FILL)
    writing.stop()
    db = start(SQLite(path, readonly=True), size=1)
    with pytest.raises(apsw.ReadOnlyError), db.transaction() as tx:
        tx.ask(insert(3))
    with db.transaction(readonly=True) as tx:
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 2
    assert eventually(lambda: is_idle(db))


def test_a_thread_of_the_crew_is_refused_before_its_transaction_begins(crew):
    db = crew(size=2)
    seen = []

    def enter_it(reply):
        before = db.ask(Status()).submitted
        try:
            with db.transaction(readonly=True):
                seen.append("entered")
        except WouldDeadlock:
            seen.append(db.ask(Status()).submitted - before)

    reply = db.ask(Query(RUNAWAY), block=False)
    reply.add_done_callback(enter_it)
    assert eventually(lambda: db.ask(Status()).running)
    reply.cancel()
    assert eventually(lambda: seen)
    assert seen == [0], "it must be refused even if another worker is idle, as by ask()"


def test_a_status_shows_a_transaction(crew):
    db = crew()
    with db.transaction():
        status = db.ask(Status())
        assert status.running == 1
        (job,) = [worker.job for worker in status.workers if worker.job]
        assert "transaction()" in job
    assert db.ask(Status()).running == 0


# --- tasks that wait for themselves or are cancelled in the commit ------------------------


def test_a_task_that_would_wait_for_its_own_transaction_gets_an_error_at_once(crew):
    db = crew(size=2)

    async def main():
        async with db.transaction() as tx:
            await tx.ask(insert(3), block=False)
            for wait in (lambda: db.ask(insert(4), block=False), lambda: db.ask(FILL, block=False)):
                with pytest.raises(WouldDeadlock, match="you hold all workers"):
                    await wait()
            with pytest.raises(WouldDeadlock, match="you hold all workers"):
                async with db.transaction():
                    pytest.fail("the transaction has begun")
            assert not db.ask(Status()).queued, "a refused transaction is in the queue"

    asyncio.run(main())


def test_a_task_that_is_cancelled_in_its_commit_has_committed(crew):
    db = crew("child")

    async def main(number):
        tx = db.transaction()
        await tx.__aenter__()
        await tx.ask(insert(number), block=False)
        leaving = asyncio.ensure_future(tx.__aexit__(None, None, None))
        await asyncio.sleep(0)  # it has asked for the commit
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await leaving
        assert any("is not rolled back" in note for note in getattr(caught.value, "__notes__", ["is not rolled back"]))
        assert await tx._entered().end is None

    for number in range(10, 30):
        asyncio.run(main(number))
    assert numbers(db) == [1, 2, *range(10, 30)]
