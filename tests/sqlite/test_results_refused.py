"""Results that are too large for the memory, and answers that are not results."""

import os

import apsw
import pytest

from actors.databases.child.results_codec import Packed, answer_frames
from supervisor import Call, ChildProcess, Query, Result, Script, SQLite, Status, Transaction
from tests.support import call_functions
from tests.support.common import SQLiteWith, error_of
from tests.support.fakes import FakeDatabase
from tests.support.health import run_python, same_workers

FILL = Script("CREATE TABLE kept(number, filling); INSERT INTO kept VALUES (1, NULL), (2, NULL)")
NUMBERS = Query("SELECT number FROM kept ORDER BY number")


# --- too much memory ----------------------------------------------------------------------


def test_sqlite_without_memory_is_an_error_of_the_statement_alone(start, path):
    db = start(path, size=1)
    db.ask(FILL)
    before = apsw.hard_heap_limit(apsw.memory_used() + 20_000_000)
    try:
        with same_workers(db):
            for sql in ("SELECT zeroblob(100000000)", "INSERT INTO kept VALUES (3, randomblob(100000000))"):
                with pytest.raises((apsw.NoMemError, MemoryError)):
                    db.ask(Query(sql))
                assert db.ask(NUMBERS).column(0) == [1, 2]
            assert db.ask(Query("INSERT INTO kept VALUES (3, 'small')")).rowcount == 1
    finally:
        apsw.hard_heap_limit(before)


HUGE_RESULT = """
import gc, resource, sys
from supervisor import Query, Status, Supervisor

HUGE = Query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, zeroblob(400) FROM n")
with Supervisor.start(sys.argv[1], size=1) as db:
    db.ask(Query("SELECT 1"))
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, resource.RLIM_INFINITY))
    before = sys.getallocatedblocks()
    errors = []
    for _ in range(3):
        errors.append(db.ask(HUGE, block=False).exception())
        assert isinstance(errors[-1], MemoryError), errors
        assert "zeroblob" in errors[-1].__notes__[0]
        assert db.ask(Query("SELECT 1")).scalar() == 1
    gc.collect()
    # One row is three objects, and there were more than 50,000 rows.
    assert sys.getallocatedblocks() - before < 10_000, "rows are still there"
    status = db.ask(Status())
    assert [worker.id for worker in status.workers] == [1]
    assert (status.failed, status.restarts) == (3, 0)
print("survived")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_a_huge_result_is_an_error_of_its_caller_and_its_memory_is_freed(path):
    assert run_python(HUGE_RESULT, path) == "survived\n"


def test_a_function_without_memory_is_an_error_of_its_statement_alone(start, path):
    def grow():
        raise MemoryError

    db = start(SQLiteWith(path, {"grow": grow}), size=1)
    db.ask(FILL)
    with same_workers(db):
        with pytest.raises(MemoryError):
            db.ask(Query("UPDATE kept SET filling = grow() WHERE number = 2"))
        assert db.ask(NUMBERS).column(0) == [1, 2]


def test_the_answer_of_a_committed_write_is_sent_without_a_copy():
    for value in (Result(("a",), [(bytes(1_000_000),)], 1), bytes(1_000_000)):
        packed = Packed(value, "the request", plain=True)
        [(_, body)] = packed.parts
        assert any(piece is body for parts in answer_frames(1, packed, None, 0.0, plain=True) for piece in parts)


RETURNED = {
    "query": lambda number, size: Query("INSERT INTO kept VALUES (?, NULL) RETURNING zeroblob(?)", (number, size)),
    "many": lambda number, size: Query(
        "INSERT INTO kept VALUES (?, NULL) RETURNING zeroblob(?)", many=[(number, size)]
    ),
    "transaction": lambda number, size: Transaction(
        [Query("INSERT INTO kept VALUES (?, NULL)", (number,)), Query("SELECT zeroblob(?)", (size,))]
    ),
    "call": lambda number, size: Call(call_functions.insert_and_return_bytes, number, size),
}


@pytest.mark.parametrize("place", ["file", "memory"])
@pytest.mark.parametrize("request_of", RETURNED.values(), ids=RETURNED)
def test_a_write_whose_answer_is_too_large_for_a_child_is_undone_or_reported_as_done(start, path, request_of, place):
    db = start(ChildProcess(path if place == "file" else SQLite(), memory_limit=1 << 25), size=1)
    db.ask(Script("CREATE TABLE kept(number, filling)"))
    told = set()
    for number in range(24):
        error = error_of(db.ask(request_of(number, (4 + number) << 18), block=False))
        is_done = db.ask(Query("SELECT count(*) FROM kept WHERE number = ?", (number,))).scalar()
        assert is_done == (error is None or getattr(error, "executed", False)), (number, repr(error))
        told.add(type(error))
    assert told >= {type(None), MemoryError}


# --- answers that are not results ---------------------------------------------------------


class CursorLike:
    """An object that belongs to a connection."""


@pytest.mark.parametrize(
    "answer",
    [iter([(1,)]), (row for row in [(1,)]), CursorLike(), [(1,)], {"a": 1}, None, Result],
    ids=lambda answer: type(answer).__name__,
)
def test_a_result_bound_to_a_connection_or_a_thread_is_refused(start, answer):
    db = start(FakeDatabase({"bound": lambda: answer}), size=1)
    db.ask(Query("first"))
    with same_workers(db):
        with pytest.raises(TypeError, match=rf"FakeConnection.execute\(\) .* Result, not {type(answer).__name__}"):
            db.ask(Query("bound"))
        assert db.ask(Query("next")).scalar() == "next"
    assert db.ask(Status()).failed == 1
