"""Columns and other large buffers: by the object store of the cluster, and freed after use."""

import os
import signal

import pytest

from supervisor import Call, DuckDB, Query, Ray, ResultLost, Stream, Supervisor, Transaction
from tests.conftest import eventually
from tests.ray.calls import count_up, free_in_store
from tests.ray.test_ray_deaths import LONG, gateways
from tests.support.common import PATIENCE, error_of

COLUMNS = "SELECT i, i / 4 AS quarter, 'text ' || i % 1000 AS word FROM range(?) AS t(i)"
MANY = 500_000  # rows: some 12 MB


@pytest.fixture(scope="module")
def expected():
    connection = DuckDB().connect()
    yield connection.execute(Query(COLUMNS, (MANY,), arrow=True)).to_arrow()
    connection.close()


@pytest.fixture(scope="module")
def db(address):
    with Supervisor.start(Ray(DuckDB(), address), size=1) as db:
        yield db


def shared_memory() -> int:
    """Return how many pieces of shared memory this process has mapped."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return len({line.split()[4] for line in maps if "memfd:querycrew" in line})


def is_store_empty(db) -> bool:
    return db.ask(Call(free_in_store)) == 100 << 20  # as the cluster of these tests has


def test_columns_arrive_in_shared_memory_and_leave_nothing(db, expected):
    result = db.ask(Query(COLUMNS, (MANY,), arrow=True))
    table = result.to_arrow()
    assert table.equals(expected)
    assert shared_memory() == 1
    assert eventually(lambda: is_store_empty(db)), "although the program still has the table"
    del result, table
    assert shared_memory() == 0


def test_a_table_outlives_the_gateway(start, address, expected):
    before = set(gateways())
    db = start(Ray(DuckDB(), address, silence=4.0), size=1)  # so it has a gateway of its own
    result = db.ask(Query(COLUMNS, (MANY,), arrow=True))
    [gateway] = set(gateways()) - before
    os.kill(gateway, signal.SIGKILL)
    assert eventually(lambda: error_of(db.ask(Query("SELECT 1"), block=False)) is None, LONG)
    assert result.to_arrow().equals(expected)


def test_a_table_larger_than_the_store_arrives(db):
    rows = 6_000_000
    table = db.ask(Query("SELECT i, i + 1 AS j, i * 2.0 AS k FROM range(?) AS t(i)", (rows,), arrow=True)).to_arrow()
    assert table.nbytes > 140_000_000
    assert [table.column(name)[rows - 1].as_py() for name in "ijk"] == [rows - 1, rows, 2.0 * rows - 2]


def test_several_tables_of_one_answer_keep_their_order(db):
    tables = db.ask(Transaction([Query(COLUMNS, (MANY + number,), arrow=True) for number in range(3)]))
    assert [table.to_arrow().num_rows for table in tables] == [MANY, MANY + 1, MANY + 2]
    replies = [db.ask(Query(COLUMNS, (MANY - number,), arrow=True), block=False) for number in range(5)]
    assert [reply.get(timeout=PATIENCE).to_arrow().num_rows for reply in replies] == [MANY - n for n in range(5)]


def test_a_part_of_a_table_travels_alone(db):
    few = db.ask(Query(COLUMNS, (MANY,), arrow=True, max_rows=3))
    assert few.to_arrow().column("i").to_pylist() == [0, 1, 2]
    assert few.truncated
    assert shared_memory() == 0, "a small answer travels in the pipe"


def test_a_stream_of_columns_is_the_whole_table(db, expected):
    with db.ask(Stream(COLUMNS, (MANY,), chunk=120_000, arrow=True)) as rows:
        tables = [chunk.to_arrow() for chunk in rows.chunks()]
    assert sum(table.num_rows for table in tables) == MANY
    assert tables[-1].column("i")[-1].as_py() == MANY - 1
    del tables
    assert eventually(lambda: is_store_empty(db))


def test_a_value_that_may_change_is_copied_when_its_job_ends(db):
    replies = [db.ask(Call(count_up), block=False) for _ in range(5)]
    assert [reply.get(timeout=PATIENCE)[-1] for reply in replies] == [1, 2, 3, 4, 5]


def test_without_memory_here_the_error_says_that_the_job_was_done(db, monkeypatch):
    def full(*_):
        raise OSError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("actors.databases.ray.gateway.mapped", full)
        error = error_of(db.ask(Query(COLUMNS, (MANY,), arrow=True), block=False))
    assert isinstance(error, ResultLost)
    assert error.executed is True
    assert db.ask(Query(COLUMNS, (MANY,), arrow=True)).to_arrow().num_rows == MANY
