"""Scripts, calls and streams by `tx.ask` in a transaction, on every kind of database.

A request that fails is undone alone.
"""

import asyncio
import contextlib
import gc
import os
import signal
import threading
from operator import methodcaller

import apsw
import pykka
import pytest

from actors.worker import Worker
from supervisor import (
    Call,
    Query,
    QueryCancelled,
    QueryTimeout,
    RestartPolicy,
    ResultLost,
    Script,
    SessionClosed,
    SQLite,
    Status,
    Stream,
    Supervisor,
    SupervisorStopped,
    TransactionBroken,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support import call_functions
from tests.support.common import PATIENCE, ask_writer, error_of
from tests.support.faulty_child_database import enter, system_exit
from tests.support.health import KINDS, assert_serves, run_python, same_workers
from tests.support.waiters import waiter

FILL = Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)")
EAGER = RestartPolicy(max_restarts=1_000_000, backoff_initial=0.0, quiet_period=0.0)
NUMBERS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT i FROM n"
ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
# It gives three rows, and then no row for years.
SILENT = f"SELECT i FROM ({ENDLESS}) WHERE i <= 3 OR i < 0"


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return request.param


@pytest.fixture
def crew(start, path):
    """Start crews of a kind, with a SQL function.

    At the end of the test each crew must still serve."""
    refs = []

    def start_crew(kind="file", function=enter, size=1, **options):
        register = methodcaller("create_scalar_function", function.__name__, function)
        ref = start(KINDS[kind](path, on_connect=register), size=size, **options)
        ref.ask(FILL)
        refs.append(ref)
        return ref

    yield start_crew
    for ref in refs:
        if ref.is_alive():
            assert_serves(ref, insert(1000))


@pytest.fixture
def db(kind, crew):
    return crew(kind)


def numbers(asked):
    return asked.ask(Query("SELECT number FROM kept ORDER BY number")).column(0)


def insert(number):
    return Query("INSERT INTO kept VALUES (?)", (number,))


def values(rows):
    return [row[0] for row in rows]


# --- answers that are lost -----------------------------------------------------------------

LOST = Call(call_functions.insert_and_return_broken, 3)


def test_a_request_whose_lost_answer_ends_the_block_is_undone(crew):
    db = crew("child")
    with pytest.raises(ResultLost) as caught, db.transaction() as tx:
        tx.ask(LOST)
    assert caught.value.executed is None
    assert numbers(db) == [1, 2]


def test_a_request_whose_answer_is_lost_is_committed_with_its_transaction(crew):
    db = crew("child")
    with db.transaction() as tx:
        error = error_of(tx.ask(LOST, block=False))
        assert isinstance(error, ResultLost)
        assert error.executed is None
        assert numbers(tx) == [1, 2, 3]
    assert numbers(db) == [1, 2, 3]
    assert error_of(db.ask(Call(call_functions.insert_and_return_broken, 4), block=False)).executed is True
    assert numbers(db) == [1, 2, 3, 4]


def test_a_request_that_is_cancelled_while_its_answer_is_lost_is_undone(crew, monkeypatch):
    replies, real = [], Worker._perform

    def cancelled_as_it_fails(worker, step):
        try:
            return real(worker, step)
        except ResultLost:
            assert replies.pop().cancel()
            raise

    monkeypatch.setattr(Worker, "_perform", cancelled_as_it_fails)
    db = crew("child")
    with pytest.raises(QueryCancelled) as caught, db.transaction() as tx:
        replies.append(tx.ask(LOST, block=False))
        replies[-1].get()
    assert caught.value.executed is False
    assert numbers(db) == [1, 2]


# --- scripts ------------------------------------------------------------------------------


def test_a_script_is_part_of_the_transaction(db):
    with db.transaction() as tx:
        result = tx.ask(Script("INSERT INTO kept VALUES (3), (4); DELETE FROM kept WHERE number = 1; SELECT 1"))
        assert (result.columns, result.rows, result.rowcount) == ((), [], 3)
        assert numbers(tx) == [2, 3, 4]
    assert numbers(db) == [2, 3, 4]


def test_only_a_failed_script_is_undone_and_it_is_undone_as_a_whole(db):
    with db.transaction() as tx:
        tx.ask(insert(3))
        for script in (
            "INSERT INTO kept VALUES (4); INSERT INTO kept VALUES (1)",
            "INSERT INTO kept VALUES (4); CREATE TABLE other(x); SELECT missing",
            "SAVEPOINT s; INSERT INTO kept VALUES (4); SELEC",
            "INSERT INTO kept VALUES (4); BEGIN",
        ):
            error = error_of(tx.ask(Script(script), block=False))
            assert isinstance(error, apsw.Error)
            assert any("Script(" in note for note in error.__notes__)
            assert numbers(tx) == [1, 2, 3]
        tx.ask(insert(5))
    assert numbers(db) == [1, 2, 3, 5]


def test_a_script_may_have_savepoints_which_end_with_it(db):
    with db.transaction() as tx:
        tx.ask(
            Script("SAVEPOINT s; INSERT INTO kept VALUES (3); ROLLBACK TO s; RELEASE s; INSERT INTO kept VALUES (4)")
        )
        tx.ask(Script("SAVEPOINT mine; INSERT INTO kept VALUES (5)"))
        assert isinstance(error_of(tx.ask(Query("RELEASE mine"), block=False)), apsw.SQLError)
    assert numbers(db) == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ("INSERT INTO kept VALUES (4); RELEASE s", [1, 2, 3, 4, 5]),
        ("ROLLBACK TO s; INSERT INTO kept VALUES (4)", [1, 2, 4, 5]),
    ],
)
def test_a_script_may_end_a_savepoint_that_was_begun_before_it(db, script, left):
    with db.transaction() as tx:
        tx.ask(Query("SAVEPOINT s"))
        tx.ask(insert(3))
        tx.ask(Script(script))
        tx.ask(insert(5))
    assert numbers(db) == left


def test_a_script_that_cannot_be_undone_alone_undoes_all(db):
    with pytest.raises(TransactionBroken), db.transaction() as tx:
        tx.ask(Query("SAVEPOINT s"))
        tx.ask(insert(3))
        script = Script("RELEASE s; INSERT INTO kept VALUES (1)")
        assert isinstance(error_of(tx.ask(script, block=False)), apsw.ConstraintError)
        assert isinstance(error_of(tx.ask(insert(4), block=False)), TransactionBroken)
    assert numbers(db) == [1, 2]


ENDING_BY_HAND = ["COMMIT", "ROLLBACK", "COMMIT; BEGIN", "ROLLBACK; BEGIN IMMEDIATE; INSERT INTO kept VALUES (5)"]


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("sql", ENDING_BY_HAND)
@pytest.mark.parametrize("make", [Script, lambda sql: Call(call_functions.end_it_only, sql)], ids=["script", "call"])
def test_a_request_that_ends_the_transaction_by_hand_breaks_the_transaction(db, make, sql, readonly):
    with same_workers(db):
        with pytest.raises(TransactionBroken), db.transaction(readonly=readonly) as tx:
            tx.ask(Query("SELECT 1") if readonly else insert(3))
            errors = [error_of(tx.ask(request, block=False)) for request in (make(sql), Query("SELECT 1"), make(sql))]
            if not (readonly and "INSERT" in sql):
                assert [type(error) for error in errors] == [TransactionBroken] * 3
                assert [error.executed for error in errors] == [False] * 3
            assert isinstance(error_of(tx.ask(Stream("SELECT 1"), block=False)), TransactionBroken)
        assert numbers(db) == [1, 2]


def test_a_script_that_rolls_back_by_an_error_breaks_the_transaction(db):
    with pytest.raises(TransactionBroken), db.transaction() as tx:
        tx.ask(insert(3))
        error = error_of(tx.ask(Script("INSERT OR ROLLBACK INTO kept VALUES (1)"), block=False))
        assert isinstance(error, apsw.ConstraintError)
        assert isinstance(error_of(tx.ask(Script("INSERT INTO kept VALUES (4)"), block=False)), TransactionBroken)
    assert numbers(db) == [1, 2]


# --- calls --------------------------------------------------------------------------------


def test_a_call_is_part_of_the_transaction_and_answers_the_value_of_its_function(db):
    with db.transaction() as tx:
        tx.ask(insert(3))
        assert tx.ask(Call(call_functions.move, 3, 4)) == 3
        assert tx.ask(Call(call_functions.return_it, None)) is None
        assert isinstance(tx.ask(Call(call_functions.return_an_error)), ValueError)
        assert numbers(tx) == [1, 2, 4]
    assert numbers(db) == [1, 2, 4]


def test_only_a_failed_call_is_undone_and_it_is_undone_as_a_whole(db):
    with same_workers(db), db.transaction() as tx:
        tx.ask(insert(3))
        error = error_of(tx.ask(Call(call_functions.insert_and_fail, 4), block=False))
        assert isinstance(error, LookupError)
        assert any("insert_and_fail" in note for note in error.__notes__)
        assert numbers(tx) == [1, 2, 3]
        tx.ask(insert(5))
    assert numbers(db) == [1, 2, 3, 5]


@pytest.mark.parametrize("what", ["connection", "cursor", "in a list", "generator"])
def test_a_call_whose_answer_belongs_to_the_connection_is_undone(db, what):
    with db.transaction() as tx:
        assert isinstance(error_of(tx.ask(Call(call_functions.bound, what), block=False)), TypeError)
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]


def test_a_call_whose_answer_cannot_be_sent_is_undone(crew):
    db = crew("child")
    with db.transaction() as tx:
        assert isinstance(error_of(tx.ask(Call(call_functions.insert_and_return_a_lock, 3), block=False)), TypeError)
        assert numbers(tx) == [1, 2]
        tx.ask(insert(4))
    assert numbers(db) == [1, 2, 4]


def test_a_function_that_cannot_be_sent_is_named_and_leaves_the_transaction_open(crew):
    db = crew("child")
    with db.transaction() as tx:
        tx.ask(insert(3))
        error = error_of(tx.ask(Call(lambda connection: connection), block=False))
        assert isinstance(error, TypeError)
        assert "lambda" in str(error)
        tx.ask(insert(4))
    assert numbers(db) == [1, 2, 3, 4]


def test_a_call_that_leaves_a_statement_unfinished_can_be_undone_and_not_committed(crew):
    db = crew()
    with same_workers(db):
        with pytest.raises(apsw.BusyError), db.transaction() as tx:
            tx.ask(insert(3))
            assert isinstance(
                error_of(tx.ask(Call(call_functions.leave_a_writing_cursor), block=False)), apsw.BusyError
            )
            assert numbers(tx) == [1, 2, 3]
        assert numbers(db) == [1, 2]
    call_functions.CURSORS.clear()


def test_a_call_that_only_reads_cannot_write_and_the_next_request_can(db):
    with db.transaction() as tx:
        error = error_of(tx.ask(Call(call_functions.insert_it, 3, readonly=True), block=False))
        assert isinstance(error, apsw.ReadOnlyError)
        tx.ask(insert(4))
    assert numbers(db) == [1, 2, 4]


def test_a_call_cannot_write_where_the_transaction_only_reads(db):
    with db.transaction(readonly=True) as tx:
        assert isinstance(error_of(tx.ask(Call(call_functions.insert_it, 3), block=False)), apsw.ReadOnlyError)
        assert numbers(tx) == [1, 2]
    assert numbers(db) == [1, 2]


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("end", ["commit", "rollback", "error"])
def test_the_changes_of_the_connection_by_a_call_are_gone_after_the_transaction(crew, readonly, end):
    db = crew()
    look = [
        "SELECT count(*) FROM sqlite_temp_schema",
        "SELECT count(*) FROM pragma_function_list WHERE name = 'left_behind'",
        "PRAGMA query_only",
    ]
    before = [db.ask(Query(sql)).rows for sql in look], [result.rows for result in ask_writer(db, *look)]
    with contextlib.suppress(LookupError), db.transaction(readonly=readonly) as tx:
        reply = tx.ask(Call(call_functions.spoil), block=False)
        assert error_of(reply) is None or readonly
        assert tx.ask(Query("SELECT number FROM kept ORDER BY number")).rows == [(1,), (2,)], "the rows are spoilt"
        if not readonly:
            tx.ask(insert(3))
        if end == "rollback":
            tx.rollback()
        if end == "error":
            raise LookupError
    assert ([db.ask(Query(sql)).rows for sql in look], [result.rows for result in ask_writer(db, *look)]) == before
    assert numbers(db) == ([1, 2, 3] if end == "commit" and not readonly else [1, 2])


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_call_that_closes_the_connection_costs_the_worker_and_the_transaction(crew, kind):
    db = crew(kind, restart=EAGER)
    with pytest.raises(WorkerDied) as caught, db.transaction() as tx:
        tx.ask(insert(3))
        tx.ask(Call(call_functions.close))
    assert caught.value.executed is False
    assert numbers(db) == [1, 2]


# --- streams ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "child"])
def test_only_streams_of_the_transaction_see_uncommitted_rows(crew, kind):
    db = crew(kind, size=2)
    with db.transaction() as tx:
        tx.ask(insert(3))
        assert values(tx.ask(Stream("SELECT number FROM kept ORDER BY number", chunk=2))) == [1, 2, 3]
        assert values(db.ask(Stream("SELECT number FROM kept ORDER BY number"))) == [1, 2]


def test_all_rows_come_in_their_order(db):
    with db.transaction() as tx:
        for rows in (0, 1, 9, 10, 11, 1000):
            for chunk in (1, 10, 1000):
                stream = tx.ask(Stream(NUMBERS, (rows,), chunk=chunk))
                assert stream.columns == ("i",)
                assert values(stream) == list(range(1, rows + 1))
        assert [list(chunk.rows) for chunk in tx.ask(Stream(NUMBERS, (5,), chunk=2)).chunks()] == [
            [(1,), (2,)],
            [(3,), (4,)],
            [(5,)],
        ]
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]


def test_several_streams_may_be_open_at_once_between_writes(db):
    with db.transaction() as tx:
        streams = [tx.ask(Stream(NUMBERS, (30,), chunk=number)) for number in (1, 3, 7)]
        seen = [[], [], []]
        for step in range(30):
            for rows, stream in zip(seen, streams, strict=True):
                rows.append(next(stream).i)
            tx.ask(insert(100 + step))
            if step % 10 == 5:
                assert isinstance(error_of(tx.ask(insert(1), block=False)), apsw.ConstraintError)
                tx.ask(Query("INSERT INTO kept VALUES (?)", many=[(200 + step,), (300 + step,)]))
                tx.ask(Script("SAVEPOINT s; DELETE FROM kept WHERE number = 2; ROLLBACK TO s; RELEASE s"))
        assert seen == [list(range(1, 31))] * 3
        assert [next(stream, "over") for stream in streams] == ["over"] * 3
    assert numbers(db) == sorted([1, 2, *range(100, 130), 205, 215, 225, 305, 315, 325])


def test_a_loop_over_a_stream_may_write_to_its_table(db):
    with db.transaction() as tx:
        for row in tx.ask(Stream(NUMBERS, (20,), chunk=3)):
            tx.ask(insert(10 + row.i))
    assert numbers(db) == [1, 2, *range(11, 31)]


def test_an_error_in_a_stream_leaves_the_transaction_open(db):
    sql = f"SELECT abs(CASE i WHEN 5 THEN -9223372036854775808 ELSE i END) FROM ({ENDLESS})"
    with db.transaction() as tx:
        tx.ask(insert(3))
        for bad, error in (
            ("SELECT missing FROM nowhere", apsw.SQLError),
            ("INSERT INTO kept VALUES (9)", ValueError),
            ("SELECT 1; SELECT 2", ValueError),
            ("SELECT ?", apsw.BindingsError),
        ):
            assert isinstance(error_of(tx.ask(Stream(bad), block=False)), error)
        stream, seen = tx.ask(Stream(sql, chunk=2)), []
        with pytest.raises(apsw.SQLError, match="overflow") as caught:
            seen.extend(row[0] for row in stream)
        assert seen == [1, 2, 3, 4]
        assert any("Stream(" in note for note in caught.value.__notes__)
        with pytest.raises(SessionClosed):
            next(stream)
        tx.ask(insert(4))
    assert numbers(db) == [1, 2, 3, 4]


def test_a_stream_that_is_closed_or_dropped_frees_its_cursor(db):
    with db.transaction() as tx:
        tx.ask(Script("CREATE TABLE other(x); INSERT INTO other VALUES (1), (2), (3)"))

        def opened():
            stream = tx.ask(Stream("SELECT x FROM other", chunk=1))
            next(stream)
            return stream

        open_one = opened()
        assert isinstance(error_of(tx.ask(Query("DROP TABLE other"), block=False)), apsw.LockedError)
        open_one.close()
        open_one.close()
        with pytest.raises(SessionClosed):
            next(open_one)
        with opened():
            pass
        opened()  # its stream is dropped
        tx.ask(Stream("SELECT x FROM other", chunk=1))  # its reply is dropped
        tx.ask(Stream("SELECT x FROM other", chunk=1), block=False)
        for _ in opened():
            break
        with contextlib.suppress(LookupError), opened():
            raise LookupError
        gc.collect()
        tx.ask(Query("DROP TABLE other"))
    assert numbers(db) == [1, 2]


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("end", ["block", "commit", "rollback", "error", "dropped"])
def test_a_stream_ends_with_its_transaction_and_never_silently(db, end, readonly):
    tx = db.transaction(readonly=readonly)
    with contextlib.suppress(LookupError):
        tx.begin()
        stream = tx.ask(Stream(ENDLESS, chunk=10))
        assert [next(stream).i for _ in range(5)] == [1, 2, 3, 4, 5]
        match end:
            case "block":
                tx.__exit__(None, None, None)
            case "error":
                tx.__exit__(LookupError, LookupError(), None)
            case "dropped":
                del tx
            case _:
                getattr(tx, end)()
    with same_workers(db):
        db.ask(insert(3))
        with pytest.raises(SessionClosed):
            list(stream)
        with pytest.raises(SessionClosed):
            next(stream)
        stream.close()
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["file", "child"])
def test_tasks_read_streams_of_one_transaction_side_by_side(crew, kind):
    db = crew(kind)

    async def read(tx, rows, chunk):
        stream = await tx.ask(Stream(NUMBERS, (rows,), chunk=chunk), block=False)
        return [row.i async for row in stream]

    async def main():
        async with db.transaction() as tx:
            await tx.ask(insert(3), block=False)
            seen = await asyncio.gather(*(read(tx, rows, 7) for rows in (10, 20, 30)))
            async with await tx.ask(Stream(ENDLESS, chunk=3), block=False) as stream:
                assert (await anext(stream)).i == 1
            await tx.ask(insert(4), block=False)
            return seen

    assert asyncio.run(main()) == [list(range(1, rows + 1)) for rows in (10, 20, 30)]
    assert numbers(db) == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_write_does_not_wait_for_rows_of_a_stream_before_they_are_taken(crew, kind):
    db = crew(kind)
    with db.transaction() as tx:
        stream = tx.ask(Stream(SILENT, chunk=3))
        assert [next(stream).i for _ in range(3)] == [1, 2, 3]
        tx.ask(insert(3))
        stream.close()
    assert numbers(db) == [1, 2, 3]


# --- ends, deadlines, deaths --------------------------------------------------------------


def endless_requests(file):
    """Return requests that never end. Each writes a file as it begins."""
    begun = "WITH RECURSIVE n(i) AS (VALUES(enter('{}')) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    sql = begun.format(file)
    return {"script": Script(sql), "call": Call(call_functions.run_it, sql), "stream": Stream(sql), "query": Query(sql)}


KINDS_OF_REQUESTS = ["query", "script", "call", "stream"]


@pytest.mark.parametrize("what", KINDS_OF_REQUESTS)
def test_a_request_that_runs_at_the_deadline_times_out(db, what, tmp_path):
    with same_workers(db):
        with pytest.raises(QueryTimeout) as caught, db.transaction(timeout=0.1) as tx:
            tx.ask(insert(3))
            tx.ask(endless_requests(tmp_path / "begun")[what])
        assert caught.value.executed is False
        assert numbers(db) == [1, 2]


@pytest.mark.parametrize("what", KINDS_OF_REQUESTS)
def test_the_cancel_of_a_running_request_cancels_the_transaction(db, what, tmp_path):
    file = tmp_path / "begun"
    with same_workers(db):
        with pytest.raises(QueryCancelled), db.transaction() as tx:
            tx.ask(insert(3))
            reply = tx.ask(endless_requests(file)[what], block=False)
            behind = tx.ask(Stream("SELECT 1"), block=False)
            assert eventually(file.exists)
            assert reply.cancel() is True
            assert [type(error_of(each)) for each in (reply, behind)] == [QueryCancelled] * 2
        assert numbers(db) == [1, 2]


@pytest.mark.parametrize("what", KINDS_OF_REQUESTS)
def test_a_rollback_ends_a_running_request(db, what, tmp_path):
    file = tmp_path / "begun"
    with same_workers(db):
        with db.transaction() as tx:
            tx.ask(insert(3))
            reply = tx.ask(endless_requests(file)[what], block=False)
            assert eventually(file.exists)
            tx.rollback()
            assert reply.done()
            assert reply.exception().executed is False
        assert numbers(db) == [1, 2]


@pytest.mark.parametrize("kind", ["file", "child"])
@pytest.mark.parametrize(
    "make", [Script, lambda sql: Call(call_functions.run_it, sql), Stream], ids=["script", "call", "stream"]
)
def test_a_worker_that_dies_of_a_request_ends_the_transaction(crew, kind, make):
    db = crew(kind, system_exit, restart=EAGER)
    with pytest.raises(WorkerDied) as caught, db.transaction() as tx:
        tx.ask(insert(3))
        error = error_of(tx.ask(make("SELECT system_exit()"), block=False))
        assert isinstance(error, WorkerDied)
        assert error.executed is False
        assert isinstance(error_of(tx.ask(Stream("SELECT 1"), block=False)), WorkerDied)
    assert caught.value.executed is False
    assert numbers(db) == [1, 2]


def test_the_death_of_a_child_ends_all_open_streams_with_an_error(crew):
    db = crew("child", restart=EAGER)
    with pytest.raises(WorkerDied), db.transaction() as tx:
        streams = [tx.ask(Stream(ENDLESS, chunk=3)) for _ in range(3)]
        (busy,) = [worker for worker in db.ask(Status()).workers if worker.job]
        os.kill(busy.pid, signal.SIGKILL)
        for stream in streams:
            with pytest.raises(WorkerDied):
                list(stream)
    assert numbers(db) == [1, 2]


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_a_shutdown_at_its_time_limit_ends_the_streams_too(crew, kind):
    db = crew(kind)
    with pytest.raises(SupervisorStopped), db.transaction() as tx:
        stream = tx.ask(Stream(ENDLESS, chunk=3))
        db.shutdown(timeout=0)
        with pytest.raises(SupervisorStopped):
            list(stream)


FORKING = """
import os, signal, sys, warnings
from supervisor import ChildProcess, Query, Stream, Supervisor, SupervisorStopped
warnings.simplefilter("ignore", DeprecationWarning)
kind, path = sys.argv[1:]
db = Supervisor.start(ChildProcess(path) if kind == "child" else path, size=1)
db.ask(Query("CREATE TABLE kept(number)"))
with db.transaction() as tx:
    tx.ask(Query("INSERT INTO kept VALUES (?)", many=[(n,) for n in range(10)]))
    stream = tx.ask(Stream("SELECT number FROM kept", chunk=2))
    child = os.fork()
    if not child:
        signal.alarm(20)
        code = 1
        try:
            seen = []
            try:
                for row in stream:
                    seen.append(row.number)
            except SupervisorStopped:
                code = 0 if seen == [0, 1] else 2
            stream.close()
            del stream
        finally:
            os._exit(code)
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print([row.number for row in stream])
db.stop()
"""


@pytest.mark.parametrize("kind", ["thread", "child"])
def test_a_forked_process_cannot_use_a_stream_and_its_parent_can(path, kind):
    assert run_python(FORKING, kind, path).splitlines() == ["child 0", str(list(range(10)))]


# --- begin, commit, rollback --------------------------------------------------------------


def test_a_transaction_may_begin_and_end_by_hand(db):
    for number, end in ((3, "commit"), (4, "rollback"), (5, "commit")):
        tx = db.transaction()
        assert tx.begin() is None
        tx.ask(insert(number))
        assert getattr(tx, end)() is None
        assert isinstance(error_of(tx.ask(insert(9), block=False)), SessionClosed)
        assert isinstance(error_of(tx.ask(Stream("SELECT 1"), block=False)), SessionClosed)
    assert numbers(db) == [1, 2, 3, 5]


def test_a_task_may_begin_and_end_a_transaction_by_hand(db):
    async def main():
        for number, end in ((3, "commit"), (4, "rollback")):
            tx = db.transaction()
            assert await tx.begin(block=False) is None
            await tx.ask(insert(number), block=False)
            assert await getattr(tx, end)(block=False) is None
            with pytest.raises(SessionClosed):
                await tx.ask(insert(9), block=False)

    asyncio.run(main())
    assert numbers(db) == [1, 2, 3]


def test_a_request_before_the_commit_is_part_of_the_transaction(db):
    tx = db.transaction()
    began = tx.begin(block=False)
    replies = [tx.ask(insert(number), block=False) for number in range(10, 30)]
    committed = tx.commit(block=False)
    late = tx.ask(insert(99), block=False)
    del tx
    assert committed.get(timeout=PATIENCE) is None
    assert [reply.get(timeout=PATIENCE).rowcount for reply in (*replies,)] == [1] * 20
    assert (began.get(), type(error_of(late))) == (None, SessionClosed)
    assert numbers(db) == [1, 2, *range(10, 30)]


def test_after_the_end_a_commit_is_refused_and_a_rollback_does_nothing(db):
    for end in ("commit", "rollback"):
        tx = db.transaction()
        tx.begin()
        tx.ask(Query("DELETE FROM kept WHERE number = 99"))
        getattr(tx, end)()
        with pytest.raises(SessionClosed):
            tx.commit()
        assert isinstance(error_of(tx.commit(block=False)), SessionClosed)
        assert tx.rollback() is None
        assert error_of(tx.rollback(block=False)) is None
    with db.transaction() as tx:
        tx.ask(insert(3))
    tx.rollback()
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("block", [True, False])
def test_a_block_may_be_left_after_its_end_by_hand(db, end, block):
    with db.transaction() as tx:
        tx.ask(insert(3))
        getattr(tx, end)(block=block)
    with contextlib.suppress(LookupError), db.transaction() as tx:
        tx.ask(insert(4))
        getattr(tx, end)()
        raise LookupError
    assert numbers(db) == ([1, 2, 3, 4] if end == "commit" else [1, 2])


def test_a_commit_behind_a_slow_request_does_not_cancel_it(crew):
    db, gate = crew(function=wait_for_gate), GATE
    gate.clear()
    with db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (wait_for_gate(3))"), block=False)
        committed = tx.commit(block=False)
        gate.set()
    assert committed.get(timeout=PATIENCE) is None
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("then", ["ask", "begin", "stop", "leave the crew"])
def test_a_thread_may_wait_for_other_requests_after_it_asked_for_the_commit(start, path, then):
    db, gate = start(SQLite(path, on_connect=with_gate), size=1), GATE
    db.ask(FILL)
    gate.clear()

    def open_gate():
        assert eventually(lambda: db.ask(Status()).queued or db.ask(Status()).state != "up")
        gate.set()

    with waiter(open_gate), db:
        tx = db.transaction(timeout=float("inf"))
        tx.begin()
        tx.ask(Query("INSERT INTO kept VALUES (wait_for_gate(3))"), block=False)
        committed = tx.commit(block=False)
        match then:
            case "ask":
                db.ask(insert(4))
            case "begin":
                with db.transaction() as other:
                    other.ask(insert(4))
            case "stop":
                db.stop()
    assert committed.get(timeout=PATIENCE) is None
    with Supervisor.start(path, size=1) as other:
        assert numbers(other)[:3] == [1, 2, 3]


def with_gate(connection):
    connection.create_scalar_function("wait_for_gate", wait_for_gate)


GATE = threading.Event()


def wait_for_gate(value):
    assert GATE.wait(PATIENCE)
    return value


def test_a_commit_behind_an_endless_request_may_be_cancelled(db, tmp_path):
    file = tmp_path / "begun"
    tx = db.transaction()
    tx.begin()
    tx.ask(endless_requests(file)["query"], block=False)
    assert eventually(file.exists)
    committed = tx.commit(block=False)
    assert committed.cancel() is True
    error = error_of(committed)
    assert (type(error), error.executed) == (QueryCancelled, False)
    assert numbers(db) == [1, 2]


def test_a_commit_that_fails_is_an_error_and_undoes_all(crew):
    db = crew()
    db.ask(Query("CREATE TABLE child(parent REFERENCES kept DEFERRABLE INITIALLY DEFERRED)"))
    for block in (True, False):
        tx = db.transaction()
        tx.begin()
        tx.ask(insert(3))
        tx.ask(Query("INSERT INTO child VALUES (77)"))
        with pytest.raises(apsw.ConstraintError, match="FOREIGN KEY"):
            tx.commit() if block else tx.commit(block=False).get(timeout=PATIENCE)
        tx.rollback()
        assert isinstance(error_of(tx.ask(insert(4), block=False)), SessionClosed)
    assert numbers(db) == [1, 2]


def test_a_transaction_that_cannot_begin_is_over(crew):
    db = crew(max_queue=0)
    with db.transaction() as tx:
        waiting = threading.Thread(target=lambda: refused.append(begin_one(db)))
        refused = []
        waiting.start()
        waiting.join(PATIENCE)
        tx.ask(insert(3))
    [(failed, error)] = refused
    assert type(error).__name__ == "QueueFull"
    assert isinstance(error_of(failed.ask(insert(4), block=False)), SessionClosed)
    assert failed.rollback() is None
    with pytest.raises(SessionClosed, match="entered once"):
        failed.begin()


def begin_one(db):
    tx = db.transaction()
    try:
        tx.begin()
    except Exception as error:
        return tx, error
    return tx, None


# --- the wait to begin --------------------------------------------------------------------


def begun_elsewhere(db, outcome, **options):
    """Begin a transaction in another thread, and append its error, if there is one."""

    def work():
        tx = db.transaction(**options)
        try:
            with tx:
                outcome.append("entered")
        except QueryTimeout as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("timeout", [30.0, None, float("inf")])
def test_the_wait_to_begin_has_a_limit_of_its_own(db, timeout):
    outcome = []
    with same_workers(db), db.transaction() as tx:
        thread = begun_elsewhere(db, outcome, wait=0.05, timeout=timeout)
        thread.join(PATIENCE)
        [error] = outcome
        assert error.executed is False
        assert "wait=0.05" in str(error)
        assert db.ask(Status()).queued == 0, "the job is still in the queue"
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]


def test_the_wait_to_begin_includes_the_lock_of_another_connection(crew, path):
    db = crew()
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with same_workers(db):
        with pytest.raises(QueryTimeout) as caught, db.transaction(wait=0.1):
            pytest.fail("it was entered")
        assert caught.value.executed is False
        other.execute("ROLLBACK")
        other.close()
        with db.transaction(wait=PATIENCE) as tx:
            tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["file", "child"])
def test_after_the_begin_only_the_limit_of_the_whole_transaction_holds(crew, kind):
    db = crew(kind)
    with db.transaction(wait=0.5, timeout=float("inf")) as tx:
        outcome = []
        begun_elsewhere(db, outcome, wait=0.7).join(PATIENCE)  # more time has passed than its own wait
        assert isinstance(outcome[0], QueryTimeout)
        tx.ask(insert(3))
    assert numbers(db) == [1, 2, 3]
    with pytest.raises(QueryTimeout), db.transaction(wait=PATIENCE, timeout=0.2) as tx:
        tx.ask(insert(4))
        tx.ask(Query(f"SELECT count(*) FROM ({ENDLESS})"))
    assert numbers(db) == [1, 2, 3]


def test_the_limit_of_the_whole_transaction_includes_the_wait_to_begin(db):
    outcome = []
    with db.transaction():
        begun_elsewhere(db, outcome, wait=PATIENCE, timeout=0.05).join(PATIENCE)
        assert isinstance(outcome[0], QueryTimeout)
        assert outcome[0].executed is False


def test_a_task_waits_to_begin_no_longer_than_its_limit(crew):
    db = crew()

    async def late():
        tx = db.transaction(wait=0.05)
        with pytest.raises(QueryTimeout) as caught:
            await tx.begin(block=False)
        assert caught.value.executed is False

    async def main():
        async with db.transaction() as tx:
            await asyncio.create_task(late())
            await tx.ask(insert(3), block=False)

    asyncio.run(main())
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize(
    ("wait", "kind", "said"),
    [
        ("1", TypeError, r"transaction\(wait\) must be a number of seconds"),
        (True, TypeError, r"transaction\(wait\)"),
        (-1, ValueError, r"transaction\(wait=-1\)"),
        (float("nan"), ValueError, r"transaction\(wait=nan\)"),
    ],
)
def test_a_wrong_wait_is_refused_by_name(crew, wait, kind, said):
    with pytest.raises(kind, match=said):
        crew().transaction(wait=wait)


# --- changes of the connection ------------------------------------------------------------


def test_the_changes_of_the_connection_last_until_the_end_of_the_transaction(db):
    with same_workers(db):
        for make in (Query("CREATE TEMP TABLE mine(x)"), Script("CREATE TEMP TABLE mine(x)")):
            with db.transaction() as tx:
                tx.ask(make)
                tx.ask(Query("PRAGMA cache_size = 7"))
                tx.ask(Query("DELETE FROM kept"))
                tx.ask(Query("INSERT INTO mine VALUES (1)"))
                assert tx.ask(Query("SELECT count(*) FROM mine")).scalar() == 1
                assert [row.x for row in tx.ask(Stream("SELECT x FROM mine"))] == [1]
                tx.ask(Call(call_functions.insert_it, 5))
                assert tx.ask(Query("SELECT count(*) FROM mine")).scalar() == 1
                tx.ask(Query("DROP TABLE mine"))
            assert numbers(db) == [5]


def test_open_streams_keep_no_writes_of_an_interrupted_transaction(db, tmp_path):
    """SQLite forgets an interrupt only when no statement is open."""
    file = tmp_path / "begun"
    for stop in (lambda reply: reply.cancel(), lambda reply: None):
        with same_workers(db):
            with pytest.raises((QueryCancelled, QueryTimeout)), db.transaction(timeout=1) as tx:
                streams = [tx.ask(Stream(ENDLESS, chunk=3)) for _ in range(3)]
                tx.ask(insert(3))
                reply = tx.ask(endless_requests(file)["query"], block=False)
                assert eventually(file.exists)
                stop(reply)
                reply.get()
            assert numbers(db) == [1, 2]
            del streams
            file.unlink()


@pytest.mark.parametrize("kind", ["file", "child"])
def test_an_open_cursor_of_an_interrupted_function_costs_at_most_the_worker(crew, kind, tmp_path):
    db = crew(kind, restart=EAGER)
    file = tmp_path / "begun"
    sql = endless_requests(file)["query"].sql
    for ask in (
        lambda: db.ask(Call(call_functions.leave_a_reading_cursor_and_run, sql), timeout=0.5),
        lambda: in_a_transaction(db, Call(call_functions.leave_a_reading_cursor_and_run, sql)),
    ):
        with pytest.raises((QueryTimeout, pykka.Timeout)):
            ask()
        assert numbers(db) == [1, 2]
    call_functions.CURSORS.clear()


def in_a_transaction(db, request):
    with db.transaction(timeout=0.5) as tx:
        tx.ask(insert(3))
        tx.ask(request)
