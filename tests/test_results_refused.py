"""Results that are too large for the memory there is, and results that are none."""

import os

import apsw
import pytest

from supervisor import Query, Result, Script, Status
from tests.fakes import FakeDatabase
from tests.support import SQLiteWith
from tests.unhurt import run_python, same_workers

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
def test_a_result_too_huge_is_its_callers_error_and_its_memory_comes_back(path):
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


# --- results that are none ----------------------------------------------------------------


class CursorLike:
    """Something that belongs to a connection."""


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
