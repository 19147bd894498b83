"""`for row in db.ask(Stream(…))` gives all rows in order, or an error.

It reads no faster than the caller takes the rows.
"""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import tracemalloc
from operator import methodcaller

import apsw
import pykka
import pytest

from actors.system.waiting import current_owner
from supervisor import (
    Query,
    QueryCancelled,
    QueryTimeout,
    RestartPolicy,
    Script,
    SessionClosed,
    Status,
    Stream,
    SupervisorStopped,
    WorkerDied,
    WouldDeadlock,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, ask_writer, error_of
from tests.support.faulty_child_database import enter, system_exit
from tests.support.health import KINDS, assert_serves, is_idle, run_python, same_workers
from tests.support.waiters import waiter

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

    def start_crew(kind="file", function=enter, size=1, name=None, **options):
        register = methodcaller("create_scalar_function", name or function.__name__, function)
        ref = start(KINDS[kind](path, on_connect=register), size=size, **options)
        ref.ask(
            Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)", timeout=PATIENCE)
        )
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
    assert_serves(db, Query("INSERT INTO kept VALUES (1000)"))


def values(rows):
    return [row[0] for row in rows]


async def values_of(stream):
    return [row[0] async for row in stream]


async def until(condition):
    """Let the event loop go on until `condition()` is true."""
    for _ in range(10_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("the condition never became true")


# --- all rows, in order -------------------------------------------------------------------


def test_all_rows_come_in_their_order(db):
    for rows in (0, 1, 9, 10, 11, 20, 1000):
        for chunk in (1, 2, 10, 1000):
            assert values(db.ask(Stream(NUMBERS, (rows,), chunk=chunk))) == list(range(1, rows + 1))


def test_a_task_takes_all_rows_in_their_order(db):
    async def main(rows, chunk):
        return [row.i async for row in await db.ask(Stream(NUMBERS, (rows,), chunk=chunk), block=False)]

    for rows in (0, 10, 11, 1000):
        for chunk in (1, 10, 1000):
            assert asyncio.run(main(rows, chunk)) == list(range(1, rows + 1))


def test_the_rows_of_a_stream_equal_the_rows_of_a_query(db):
    sql = "SELECT 1 AS a, 'x' AS a, x'00' AS b, NULL AS c, 1.5 AS \"d e\" UNION ALL SELECT ?, ?, ?, ?, ?"
    params = (2, "ü\0", b"\xff", None, float("inf"))
    result = db.ask(Query(sql, params))  # before the stream, which takes the only worker
    stream = db.ask(Stream(sql, params, chunk=1))
    assert stream.columns == result.columns == ("a", "a", "b", "c", "d e")
    rows = list(stream)
    assert rows == list(result)
    assert [type(row) for row in rows] == [type(row) for row in result]
    assert rows[0].a == rows[0]["a"] == 1
    assert rows[0]["d e"] == 1.5


@pytest.mark.parametrize("sql", ["SELECT number AS n, 1 AS n FROM kept WHERE 0", "SELECT 1 AS n, 2 AS n LIMIT 0"])
def test_columns_are_known_though_there_are_no_rows(db, sql):
    stream = db.ask(Stream(sql))
    assert stream.columns == ("n", "n")
    assert list(stream) == []


def test_parameters_may_have_names(db):
    assert values(db.ask(Stream("SELECT :a + :b", {"a": 1, "b": 2}))) == [3]


def test_a_statement_without_rows_gives_an_empty_stream(db):
    stream = db.ask(Stream("-- nothing"))
    assert (stream.columns, list(stream)) == ((), [])


def test_huge_values_come_whole(db):
    sql = "SELECT i, randomblob(3000000), CAST(zeroblob(2000000) AS TEXT) FROM (" + NUMBERS + ")"
    for chunk in (1, 2, 1000):
        sizes = [(row[0], len(row[1]), len(row[2])) for row in db.ask(Stream(sql, (4,), chunk=chunk))]
        assert sizes == [(number, 3_000_000, 2_000_000) for number in range(1, 5)]


def test_a_mix_of_next_and_for_and_break_loses_no_row(db):
    stream = db.ask(Stream(NUMBERS, (50,), chunk=7))
    seen = [next(stream).i, next(stream).i]
    for row in stream:
        seen.append(row.i)
        if row.i % 5 == 0:
            break
    iterator = iter(stream)
    seen += [next(iterator).i, next(stream).i, *values(stream)]
    assert seen == list(range(1, 51))
    assert next(stream, "over") == "over"
    assert list(stream) == []


def test_a_stream_sees_one_state_and_blocks_no_writer(crew):
    db = crew("file", size=2)
    db.ask(Query("INSERT INTO kept VALUES (?)", many=[(number,) for number in range(3, 31)]))
    stream = db.ask(Stream("SELECT number FROM kept ORDER BY number", chunk=5))
    assert next(stream).number == 1
    db.ask(Query("DELETE FROM kept"))
    assert values(stream) == list(range(2, 31))
    assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 0


def test_a_thread_may_pass_a_stream_to_another_thread(db):
    stream = db.ask(Stream(NUMBERS, (100,), chunk=10))
    seen = []
    for _ in range(5):
        with waiter(lambda: [next(stream).i for _ in range(20)]) as taken:
            pass
        seen += taken[0]
    assert seen == list(range(1, 101))


# --- the pace of the caller ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_worker_does_not_run_ahead_of_its_caller(crew, kind):
    computed = []
    db = crew(kind, lambda number: computed.append(number) or number, name="note")
    stream = db.ask(Stream(f"SELECT note(i) FROM ({ENDLESS})", chunk=10))
    for taken in range(1, 101):
        assert next(stream)[0] == taken
        assert len(computed) == -(-taken // 10) * 10, "the worker computed more rows than were taken"
    stream.close()
    assert eventually(lambda: is_idle(db))
    assert len(computed) == 100


def test_a_child_runs_ahead_by_two_chunks(crew, tmp_path):
    """One chunk is on its way while the child fetches the next chunk."""
    db, file = crew("child"), tmp_path / "computed"
    stream = db.ask(Stream(f"SELECT enter(?) FROM ({ENDLESS})", (str(file),), chunk=10))
    for taken in range(1, 101):
        next(stream)
        assert len(file.read_text().splitlines()) <= -(-taken // 10) * 10 + 20
    stream.close()
    assert eventually(lambda: is_idle(db))
    assert len(file.read_text().splitlines()) <= 120


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_stream_needs_no_more_memory_for_more_rows(crew, kind):
    db = crew(kind)
    list(db.ask(Stream("SELECT 1")))  # all modules are imported
    tracemalloc.start()
    try:
        for _ in db.ask(Stream(f"SELECT randomblob(1000) FROM ({NUMBERS})", (40_000,), chunk=100)):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000, "the memory grows with the 40 MB of rows"


# --- streams that are given up ------------------------------------------------------------


def close_it(db):
    stream = db.ask(Stream(ENDLESS, chunk=3))
    next(stream)
    stream.close()
    stream.close()
    return stream


def leave_a_block(db):
    with db.ask(Stream(ENDLESS, chunk=3)) as stream:
        next(stream)
    return stream


def leave_a_block_by_an_error(db):
    with pytest.raises(LookupError), db.ask(Stream(ENDLESS, chunk=3)) as stream:
        raise LookupError
    return stream


def break_a_loop(db):
    for row in db.ask(Stream(ENDLESS, chunk=3)):
        if row.i == 7:
            break


def raise_in_a_loop(db):
    with pytest.raises(LookupError):
        for _ in db.ask(Stream(ENDLESS, chunk=3)):
            raise LookupError


def drop_it_in_a_cycle(db):
    stream = db.ask(Stream(ENDLESS, chunk=3))
    stream.itself = stream
    del stream
    gc.collect()


def drop_a_generator_over_it(db):
    generator = (row for row in db.ask(Stream(ENDLESS, chunk=3)))
    next(generator)
    del generator


def take_none_of_it(db):
    db.ask(Stream(ENDLESS, chunk=3))


def take_not_even_the_reply(db):
    db.ask(Stream(ENDLESS, chunk=3), block=False)


def let_a_thread_end(db):
    thread = threading.Thread(target=lambda: next(db.ask(Stream(ENDLESS, chunk=3))))
    thread.start()
    thread.join(PATIENCE)


def leave_an_async_block(db):
    async def main():
        async with await db.ask(Stream(ENDLESS, chunk=3), block=False) as stream:
            await anext(stream)

    asyncio.run(main())


def break_an_async_loop(db):
    async def main():
        async for row in await db.ask(Stream(ENDLESS, chunk=3), block=False):
            if row.i == 7:
                break

    asyncio.run(main())


GIVEN_UP = [
    close_it,
    leave_a_block,
    leave_a_block_by_an_error,
    break_a_loop,
    raise_in_a_loop,
    drop_it_in_a_cycle,
    drop_a_generator_over_it,
    take_none_of_it,
    take_not_even_the_reply,
    let_a_thread_end,
    leave_an_async_block,
    break_an_async_loop,
]


@pytest.mark.parametrize("give_up", GIVEN_UP)
def test_a_stream_that_is_given_up_frees_its_worker(crew, give_up):
    assert_freed(crew("file"), give_up)


def test_a_stream_that_is_given_up_frees_its_worker_in_a_child(crew):
    db = crew("child")
    for give_up in GIVEN_UP:
        assert_freed(db, give_up)


def assert_freed(db, give_up):
    with same_workers(db):
        kept = give_up(db)  # a stream that was closed is not dropped
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
        assert eventually(lambda: is_idle(db))
        del kept


def test_many_streams_that_are_given_up_leave_nothing_behind(crew):
    db = crew("file", size=2)
    with same_workers(db):
        for _ in range(200):
            next(db.ask(Stream(ENDLESS, chunk=3)))
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_an_error_that_was_caught_before_does_not_keep_a_dropped_stream_open(crew):
    db = crew("file", size=2)

    def work():
        stream = db.ask(Stream(ENDLESS, chunk=3, timeout=3))
        next(stream)
        with contextlib.suppress(apsw.SQLError):
            db.ask(Query("SELECT missing"))

    gc.disable()
    try:
        work()
        assert eventually(lambda: not db.ask(Status()).running, 1), "the stream needs the garbage collector"
    finally:
        gc.enable()


# --- a stream never ends silently ---------------------------------------------------------


def after_close(db, tmp_path):
    stream = db.ask(Stream(NUMBERS, (10,), chunk=3))
    next(stream)
    stream.close()
    return stream


def after_an_error(db, tmp_path):
    stream = db.ask(
        Stream("SELECT abs(CASE i WHEN 5 THEN -9223372036854775808 ELSE i END) FROM (" + NUMBERS + ")", (9,), chunk=2)
    )
    assert values([next(stream) for _ in range(4)]) == [1, 2, 3, 4]
    with pytest.raises(apsw.SQLError, match="overflow"):
        next(stream)
    return stream


def after_its_deadline(db, tmp_path):
    stream = db.ask(Stream(ENDLESS, chunk=3, timeout=0.05))
    with pytest.raises(QueryTimeout):
        list(stream)
    return stream


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


def after_ctrl_c(db, tmp_path):
    file = tmp_path / "begun"
    sql = f"SELECT i FROM ({ENDLESS}) WHERE i <= 3 OR (i = 4 AND enter(?) < 0) OR i < 0"
    stream = db.ask(Stream(sql, (str(file),), chunk=3))
    assert values([next(stream) for _ in range(3)]) == [1, 2, 3]
    with ctrl_c(file.exists), pytest.raises(KeyboardInterrupt):
        next(stream)
    return stream


@pytest.mark.parametrize("end", [after_close, after_an_error, after_its_deadline, after_ctrl_c])
def test_a_stream_that_has_ended_early_raises_again_at_each_use(crew, end, tmp_path):
    stream = end(crew("file"), tmp_path)
    for take in (next, list, lambda rows: asyncio.run(values_of(rows))):
        with pytest.raises(Exception) as caught:  # each of several errors is right
            take(stream)
        assert isinstance(caught.value, (SessionClosed, apsw.SQLError, QueryTimeout, QueryCancelled))


def test_a_task_whose_wait_timed_out_gets_an_error_when_it_takes_the_next_row(crew):
    db = crew("file")

    async def main():
        stream = await db.ask(Stream(SILENT, chunk=3), block=False)
        assert [(await anext(stream)).i for _ in range(3)] == [1, 2, 3]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)
        with pytest.raises((SessionClosed, QueryCancelled)):
            await anext(stream)

    asyncio.run(main())


def test_two_tasks_that_take_rows_at_once_lose_no_row_silently(crew):
    db = crew("file")

    async def main():
        async with await db.ask(Stream(NUMBERS, (25,), chunk=10), block=False) as stream:
            seen = [(await anext(stream)).i for _ in range(10)]
            seen += values(await asyncio.gather(anext(stream), anext(stream)))
            return sorted([*seen, *await values_of(stream)])

    for _ in range(20):
        with contextlib.suppress(RuntimeError, SessionClosed):  # the stream may also refuse it
            assert asyncio.run(main()) == list(range(1, 26))


# --- errors -------------------------------------------------------------------------------


def test_an_error_in_the_middle_comes_after_the_rows_before_it(db):
    sql = f"SELECT abs(CASE i WHEN 500 THEN -9223372036854775808 ELSE i END) FROM ({ENDLESS})"
    seen = []
    with same_workers(db):
        with pytest.raises(apsw.SQLError, match="overflow"):
            seen.extend(row[0] for row in db.ask(Stream(sql, chunk=100)))
            pytest.fail("it ended silently")
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("at", [1, 10, 11, 25])
def test_an_error_of_a_function_at_a_row_is_raised_at_that_row(crew, kind, at):
    own = LookupError("row")

    def fail(number):
        if number == at:
            raise own
        return number

    db, seen = crew(kind, fail), []
    with pytest.raises(LookupError) as caught:
        seen.extend(row[0] for row in db.ask(Stream(f"SELECT fail(i) FROM ({ENDLESS})", chunk=10)))
    assert caught.value is own
    assert seen == list(range(1, (at - 1) // 10 * 10 + 1)), "only the chunks before the error must be seen"
    assert any("Stream(" in note for note in caught.value.__notes__)


WRITING = (
    "INSERT INTO kept VALUES (3)",
    "INSERT INTO kept VALUES (3), (4) RETURNING number",
    "WITH x AS (SELECT 3) INSERT INTO kept SELECT * FROM x",
    "DELETE FROM kept",
    "DROP TABLE kept",
    "CREATE TEMP TABLE mine(x)",
    "BEGIN IMMEDIATE",
    "PRAGMA user_version = 5",
    "VACUUM",
)


def test_a_statement_that_writes_is_refused_and_does_not_run(db):
    with same_workers(db):
        for sql in WRITING * 2:
            with pytest.raises(ValueError, match="a Stream only reads"):
                db.ask(Stream(sql))
            assert db.ask(Query("SELECT number FROM kept")).column(0) == [1, 2]
        assert db.ask(Query("PRAGMA user_version")).scalar() == 0
        assert db.ask(Query("SELECT * FROM sqlite_temp_schema")).rows == []


def test_a_pragma_that_writes_is_refused_again(crew):
    db = crew("memory")
    for _ in range(2):
        with pytest.raises(ValueError, match="a Stream only reads"):
            db.ask(Stream("PRAGMA optimize"))


def test_several_statements_are_refused_and_none_of_them_runs(db):
    for sql in ("SELECT 1; SELECT 2", "SELECT 1; DELETE FROM kept", "DELETE FROM kept; SELECT 1"):
        with pytest.raises(ValueError, match="more than one statement"):
            db.ask(Stream(sql))
    assert db.ask(Query("SELECT number FROM kept")).column(0) == [1, 2]


@pytest.mark.parametrize(
    ("sql", "error"),
    [("SELECT * FROM nowhere", apsw.SQLError), ("SELECT ?", apsw.BindingsError), ("SELEC", apsw.SQLError)],
)
def test_a_statement_that_cannot_begin_is_an_error_of_its_caller(db, sql, error):
    with same_workers(db):
        assert isinstance(error_of(db.ask(Stream(sql), block=False)), error)


@pytest.mark.parametrize("sql", ["BEGIN", "SAVEPOINT s", "ATTACH ':memory:' AS other", "PRAGMA cache_size = 7"])
def test_the_changes_of_the_connection_are_gone_after_the_stream(crew, sql):
    db = crew("file")
    look = ("PRAGMA cache_size", "SELECT count(*) FROM pragma_database_list WHERE name = 'other'")
    before = [db.ask(Query(each)).scalar() for each in look]
    for _ in range(2):
        list(db.ask(Stream(sql)))
        assert [db.ask(Query(each)).scalar() for each in look] == before


# --- deadlines and cancelling -------------------------------------------------------------


def test_a_deadline_frees_the_worker_though_the_caller_holds_the_stream(db):
    with same_workers(db):
        stream = db.ask(Stream(ENDLESS, chunk=3, timeout=0.05))
        assert db.ask(Query("SELECT 1"), block=False).get(timeout=PATIENCE).scalar() == 1
        with pytest.raises(QueryTimeout) as caught:
            list(stream)
        assert caught.value.executed is False


def test_a_deadline_holds_during_the_wait_for_a_chunk(db):
    stream = db.ask(Stream(SILENT, chunk=3, timeout=0.1))
    assert values([next(stream) for _ in range(3)]) == [1, 2, 3]
    with pytest.raises(QueryTimeout):
        next(stream)


def test_a_deadline_holds_before_the_first_row(db):
    with pytest.raises(QueryTimeout) as caught:
        db.ask(Stream(f"SELECT i FROM ({ENDLESS}) WHERE i < 0", timeout=0.05))
    assert caught.value.executed is False


def test_the_crews_time_limit_holds_for_streams(crew):
    db = crew("file", timeout=0.1)
    with pytest.raises(QueryTimeout):
        list(db.ask(Stream(ENDLESS)))
    with db.ask(Stream(ENDLESS, chunk=3, timeout=float("inf"))) as stream:
        with pytest.raises(QueryTimeout):
            db.ask(Query("SELECT 1"), block=False).get(
                timeout=PATIENCE
            )  # it waits for the stream, and has the limit of the crew
        assert [next(stream).i for _ in range(10)] == list(range(1, 11))


def test_a_timeout_before_the_first_rows_cancels_the_stream(db):
    with same_workers(db):
        with pytest.raises(pykka.Timeout):
            db.ask(Stream(f"SELECT i FROM ({ENDLESS}) WHERE i < 0"), timeout=0.05)
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_the_reply_of_a_stream_may_be_cancelled_before_the_first_rows(db):
    reply = db.ask(Stream(f"SELECT i FROM ({ENDLESS}) WHERE i < 0"), block=False)
    assert eventually(lambda: db.ask(Status()).running)
    assert reply.cancel() is True
    assert isinstance(error_of(reply), QueryCancelled)
    assert reply.cancel() is False


def test_a_reply_that_is_answered_cannot_be_cancelled(crew):
    db = crew("file")
    reply = db.ask(Stream(NUMBERS, (20,), chunk=10), block=False)
    stream = reply.get(timeout=PATIENCE)
    assert reply.cancel() is False
    assert values(stream) == list(range(1, 21))


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_cancelled_task_ends_its_stream(crew, kind):
    db = crew(kind)
    taken = []

    async def work():
        stream = await db.ask(Stream(SILENT, chunk=3), block=False)
        while True:
            taken.append((await anext(stream)).i)

    async def main():
        task = asyncio.create_task(work())
        await until(lambda: len(taken) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with same_workers(db):
        asyncio.run(main())
        assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


# --- many at once -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "child"])
def test_more_streams_than_workers_wait_in_the_queue(crew, kind):
    db = crew(kind, size=2)
    replies = [db.ask(Stream(NUMBERS, (30,), chunk=10), block=False) for _ in range(6)]
    first = [replies[0].get(timeout=PATIENCE), replies[1].get(timeout=PATIENCE)]
    assert db.ask(Status()).queued == 4
    assert not any(reply.done() for reply in replies[2:])
    late = db.ask(Stream(NUMBERS, (1,), timeout=0.05), block=False)
    error = error_of(late)
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    unwanted = replies.pop()
    assert unwanted.cancel() is True
    for stream in first:
        assert values(stream) == list(range(1, 31))
    for reply in replies[2:]:
        assert values(reply.get(timeout=PATIENCE)) == list(range(1, 31))


def test_many_threads_stream_side_by_side(crew):
    db, ends = crew("file", size=3), []

    def work(rows):
        ends.append(values(db.ask(Stream(NUMBERS, (rows,), chunk=7))) == list(range(1, rows + 1)))

    threads = [threading.Thread(target=work, args=(rows,)) for rows in range(100, 112)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert ends == [True] * 12


# --- deaths and stops ---------------------------------------------------------------------


def test_the_death_of_the_worker_in_the_middle_is_an_error(crew, kind):
    if kind == "memory":
        pytest.skip("in memory the connection is the database")
    db, seen = crew(kind, system_exit, restart=EAGER), []
    sql = f"SELECT i, CASE i WHEN 25 THEN system_exit() END FROM ({ENDLESS})"
    with pytest.raises(WorkerDied):
        seen.extend(row.i for row in db.ask(Stream(sql, chunk=10)))
    assert seen == list(range(1, 21))
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


@pytest.mark.parametrize("taken", [0, 15])
def test_the_death_of_a_child_in_the_middle_is_an_error(crew, taken):
    db = crew("child", restart=EAGER)
    stream = db.ask(Stream(NUMBERS, (1000,), chunk=10))
    seen = [next(stream).i for _ in range(taken)]
    (busy,) = [worker for worker in db.ask(Status()).workers if worker.job]
    os.kill(busy.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        seen.extend(row.i for row in stream)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_stop_waits_for_a_stream_until_its_deadline(crew, kind):
    db = crew(kind)
    whole, endless = db.ask(Stream(NUMBERS, (50,), chunk=10)), db.ask(Stream(ENDLESS, timeout=0.2), block=False)
    stopped = db.stop(block=False)
    assert values(whole) == list(range(1, 51))
    stream = endless.get(timeout=PATIENCE)
    assert stopped.get(timeout=PATIENCE) is True
    with pytest.raises(QueryTimeout):
        list(stream)


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_a_shutdown_at_its_time_limit_ends_an_open_stream(crew, kind):
    db = crew(kind)
    stream = db.ask(Stream(ENDLESS, chunk=3))
    next(stream)
    db.shutdown(timeout=0)
    with pytest.raises(SupervisorStopped):
        list(stream)


ENDING = """
import sys
from supervisor import ChildProcess, Stream, Supervisor
kind, path = sys.argv[1:]
db = Supervisor.start(ChildProcess(path) if kind == "child" else path, size=1)
sql = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
stream = db.ask(Stream(sql, chunk=3))
print([next(stream).i for _ in range(4)])
"""


@pytest.mark.parametrize("kind", ["thread", "child"])
def test_a_program_with_an_open_stream_ends(path, kind):
    assert run_python(ENDING, kind, path) == "[1, 2, 3, 4]\n"
    assert not path.with_name(path.name + "-wal").exists(), "the connections were not closed"


# --- refused requests ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: Stream(5), TypeError, r"Stream\(sql\) must be a str"),
        (lambda: Stream(" "), ValueError, r"Stream\(sql\) is empty"),
        (lambda: Stream("SELECT ?", 5), TypeError, r"Stream\(params\) must be a sequence"),
        (lambda: Stream("SELECT ?", "abc"), TypeError, r"Stream\(params\) must be a sequence"),
        (lambda: Stream("SELECT 1", chunk=0), ValueError, r"Stream\(chunk=0\) must be 1 or more"),
        (lambda: Stream("SELECT 1", chunk=1.5), TypeError, r"Stream\(chunk\) must be a whole number"),
        (lambda: Stream("SELECT 1", chunk=True), TypeError, r"Stream\(chunk\) must be a whole number"),
        (lambda: Stream("SELECT 1", timeout=-1), ValueError, r"Stream\(timeout=-1\)"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(make, kind, said):
    with pytest.raises(kind, match=said):
        make()


def test_a_request_shows_no_parameters():
    request = Stream("SELECT ?", ("s3cret",), timeout=1)
    assert "s3cret" not in repr(request) + str(request)
    assert request == Stream("SELECT ?", ("s3cret",), timeout=1)
    assert request != Stream("SELECT ?", ("other",), timeout=1)


def test_a_stream_cannot_be_sent_by_tell(crew):
    with pytest.raises(TypeError, match="a Stream needs its answer"):
        crew("file").tell(Stream("SELECT 1"))


def test_a_thread_of_the_crew_that_would_wait_for_itself_gets_an_error(crew):
    db, seen = crew("file"), []

    def take(reply):
        try:
            list(reply.get())
        except WouldDeadlock as error:
            seen.append(error)

    db.ask(Stream(NUMBERS, (100,), chunk=10), block=False).add_done_callback(take)
    assert eventually(lambda: seen)


def test_a_stream_does_not_touch_the_connection_of_the_writer(crew):
    db = crew("file")
    with db.ask(Stream(ENDLESS, chunk=3)) as stream:
        next(stream)
        assert ask_writer(db, "SELECT count(*) FROM kept")[0].scalar() == 2
        db.ask(Query("INSERT INTO kept VALUES (3)"), timeout=PATIENCE)


def test_a_thread_is_not_confused_with_a_thread_that_has_ended():
    numbers = set()
    for _ in range(50):  # the system uses the numbers of ended threads again
        thread = threading.Thread(target=lambda: numbers.add(current_owner()))
        thread.start()
        thread.join()
    assert len(numbers) == 50
    assert current_owner() == current_owner()
    assert current_owner() not in numbers


def test_a_stream_that_is_closed_with_rows_left_raises_though_all_were_fetched(crew):
    db = crew()
    stream = db.ask(Stream("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3"))
    next(stream)
    stream.close()
    with pytest.raises(SessionClosed):
        list(stream)
    finished = db.ask(Stream("SELECT 1"))
    assert [row[0] for row in finished] == [1]
    finished.close()
    assert list(finished) == []
