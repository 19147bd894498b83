"""DuckDB beside the contract: one instance a process, locks, columns, conflicts."""

import pickle
import subprocess
import sys
import threading
import uuid
from contextlib import suppress

import duckdb
import pyarrow as pa
import pytest

from supervisor import (
    Backup,
    Call,
    ChildProcess,
    DatabaseUnavailable,
    DuckDB,
    Query,
    QueryCancelled,
    RestartPolicy,
    Script,
    Status,
    Stream,
    Supervisor,
    Transaction,
    TransactionBroken,
    TransactionLeftOpen,
    WorkerDied,
)
from tests.conftest import eventually
from tests.duckdb import calls
from tests.support.common import error_of, up
from tests.support.health import is_idle, run_python, same_workers

RUNAWAY = "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000) c"
QUICK = RestartPolicy(backoff_initial=0.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.duckdb"


@pytest.fixture
def db(start, path):
    db = start(DuckDB(path), size=2, restart=QUICK)
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)"))
    return db


def kept(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number")).column(0)


# --- the database -------------------------------------------------------------------------


def test_a_crew_has_four_workers_and_one_child_that_writes(path):
    assert (DuckDB(path).default_size, DuckDB(path).max_size) == (4, None)
    for database, most in (
        (DuckDB(path), 1),
        (DuckDB(path, read_only=True), None),
        (DuckDB(), 1),
        (DuckDB("md:shared"), None),
    ):
        assert ChildProcess(database).max_size == most
    with pytest.raises(ValueError, match="serves at most 1 worker"):
        Supervisor.start(ChildProcess(DuckDB(path)), size=2)


def test_workers_share_one_instance_and_its_settings(start, path):
    db = start(DuckDB(path, config={"threads": 1}), size=3)
    assert eventually(lambda: up(db) == 3)
    db.ask(Query("SET GLOBAL memory_limit = '1GB'"))
    replies = [db.ask(Query("SELECT current_setting('threads'), current_setting('memory_limit')"), block=False)] * 6
    assert {reply.get().rows[0][0] for reply in replies} == {1}
    assert len({reply.get().rows[0][1] for reply in replies}) == 1


def test_memory_is_shared_by_the_workers_of_one_value(start):
    database = DuckDB()
    db = start(database, size=3)
    db.ask(Script("CREATE TABLE t(n INTEGER); INSERT INTO t VALUES (7)"))
    assert [db.ask(Query("SELECT n FROM t")).scalar() for _ in range(9)] == [7] * 9
    other = start(DuckDB(), size=1)
    with pytest.raises(duckdb.CatalogException):
        other.ask(Query("SELECT n FROM t"))
    assert start(database, size=1).ask(Query("SELECT n FROM t")).scalar() == 7
    named = start(DuckDB(":memory:together"), size=1)
    named.ask(Query("CREATE TABLE u(n INTEGER)"))
    assert start(DuckDB(":memory:together"), size=1).ask(Query("SELECT count(*) FROM u")).scalar() == 0
    assert DuckDB(":memory:together").name == "together"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: DuckDB(7), TypeError, "path"),
        (lambda: DuckDB(b"x"), TypeError, "path"),
        (lambda: DuckDB("x", read_only=1), TypeError, "read_only"),
        (lambda: DuckDB("x", create=0), TypeError, "create"),
        (lambda: DuckDB("x", config=["threads"]), TypeError, "config"),
        (lambda: DuckDB("x", config={7: 1}), TypeError, "config"),
        (lambda: DuckDB("x", config={"threads": object()}), TypeError, "threads"),
        (lambda: DuckDB("x", on_connect=7), TypeError, "on_connect"),
        (lambda: DuckDB(read_only=True), ValueError, "read_only"),
    ],
)
def test_an_option_is_checked_at_once(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_a_path_is_absolute_and_its_name_is_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DuckDB("a.db").path == str(tmp_path / "a.db")
    assert (DuckDB("a.db").name, DuckDB().name, DuckDB("md:box?token=x").name) == ("a", "memory", "md:box")
    assert DuckDB("") == DuckDB()
    assert pickle.loads(pickle.dumps(DuckDB("a.db", config={"threads": 2}))) == DuckDB("a.db", config={"threads": 2})


def test_no_secret_is_shown(start, tmp_path):
    databases = [
        DuckDB("md:box?motherduck_token=hunter2"),
        DuckDB("x.db", config={"s3_secret_access_key": "hunter2"}),
        DuckDB("x.db", on_connect="CREATE SECRET (TYPE s3, SECRET 'hunter2')"),
    ]
    for database in databases:
        assert "hunter2" not in f"{database!r} {database} {database.name}"
    db = start(DuckDB(tmp_path / "x.db", config={"threads": "hunter2"}), size=1, restart=QUICK)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    texts = f"{error!r} {error} {error.__cause__!r} {error.__cause__.__context__!r} {db.ask(Status())}"
    assert "hunter2" not in texts
    assert "INT" in texts, "the rest of the driver's text is there"


def test_a_missing_driver_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match=r"DuckDB\(\) needs duckdb.*pip install 'querycrew\[duckdb\]'"):
        DuckDB("x.db")


def test_errors_of_the_crew_and_the_driver_are_one_tuple(db):
    assert duckdb.Error in db.errors
    with pytest.raises(db.errors):
        db.ask(Query("SELECT nothing"))


# --- opening ------------------------------------------------------------------------------


def test_a_file_that_another_process_has_open_is_named_with_that_process(start, path):
    program = (
        "import duckdb, os, sys\n"
        f"connection = duckdb.connect({str(path)!r})\n"
        "print(os.getpid(), flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        pid = other.stdout.readline().strip()
        db = start(DuckDB(path), size=1, restart=RestartPolicy(backoff_initial=0.01, backoff_max=0.01))
        error = error_of(db.ask(Query("SELECT 1"), block=False))
        assert isinstance(error, DatabaseUnavailable)
        assert isinstance(error.__cause__, duckdb.IOException)
        assert pid in str(error.__cause__)
        assert str(path) in str(error.__cause__)
        assert any("read_only=True" in note for note in error.__cause__.__notes__)
        other.stdin.close()
        other.wait()
    assert eventually(lambda: up(db) == 1)
    assert db.ask(Query("SELECT 1")).scalar() == 1


def test_another_configuration_in_the_same_process_is_explained(path):
    connection = DuckDB(path).connect()
    try:
        with pytest.raises(duckdb.ConnectionException) as caught:
            DuckDB(path, config={"threads": 1}).connect()
        assert any("other settings" in note for note in caught.value.__notes__)
    finally:
        connection.close()


def test_readonly_children_read_one_file_side_by_side(start, path):
    connection = DuckDB(path).connect()
    connection.execute(Script("CREATE TABLE kept(number INTEGER); INSERT INTO kept VALUES (1), (2)"))
    connection.close()
    db = start(ChildProcess(DuckDB(path, read_only=True)), size=2)
    assert eventually(lambda: up(db) == 2)
    assert len({worker.pid for worker in db.ask(Status()).workers}) == 2
    assert kept(db) == [1, 2]
    with pytest.raises(duckdb.Error, match="read-only"):
        db.ask(Query("INSERT INTO kept VALUES (3)"))


def test_a_file_that_is_gone_is_not_made_again(start, path):
    with pytest.raises(FileNotFoundError, match="makes no file"):
        DuckDB(path, create=False).connect()
    db = start(DuckDB(path), size=1, restart=QUICK)
    db.ask(Query("CREATE TABLE kept(number INTEGER)"))
    path.unlink()
    error = error_of(db.ask(Call(calls.fatal), block=False))
    assert isinstance(error, WorkerDied)
    assert isinstance(error_of(db.ask(Query("SELECT 1"), block=False)), DatabaseUnavailable)
    assert not path.exists()


@pytest.mark.parametrize("on_connect", ["SET VARIABLE who = 'me'", calls.say_who])
def test_on_connect_runs_for_each_connection(start, path, on_connect):
    db = start(DuckDB(path, on_connect=on_connect), size=2)
    for _ in range(4):
        assert db.ask(Query("SELECT getvariable('who')")).scalar() == "me"
        db.ask(Query("SET VARIABLE who = 'you'"))


def test_an_on_connect_that_fails_suspends_the_crew(start, path):
    db = start(DuckDB(path, on_connect="SELECT nothing"), size=1, restart=QUICK)
    assert isinstance(error_of(db.ask(Query("SELECT 1"), block=False)), DatabaseUnavailable)
    assert duckdb.connect(path).close() is None, "nothing keeps the file open"


# --- a clean connection -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "look"),
    [
        (Query("CREATE TEMP TABLE own(n INTEGER)"), "SELECT n FROM own"),
        (Query("EXPLAIN ANALYZE CREATE TEMP TABLE own(n INTEGER)"), "SELECT n FROM own"),
        (Query("PREPARE own AS SELECT 1"), "EXECUTE own"),
        (Query("SET search_path = 'temp'"), None),
        (Script("CREATE SCHEMA other; USE other; CREATE TABLE other.t(n INTEGER)"), "SELECT n FROM t"),
        (Call(calls.make_temporary), "SELECT n FROM own"),
        (Call(calls.register), "SELECT n FROM frame"),
    ],
    ids=str,
)
def test_a_job_finds_nothing_of_the_job_before(start, path, request_, look):
    db = start(DuckDB(path), size=1)
    db.ask(Query("CREATE TABLE kept(number INTEGER)"))
    with same_workers(db):
        db.ask(request_)
        if look is not None:
            with pytest.raises(duckdb.Error):
                db.ask(Query(look))
        assert kept(db) == []


def test_statements_find_no_variables_of_python_and_calls_do(db):
    with pytest.raises(duckdb.CatalogException):
        db.ask(Query("SELECT * FROM calls"))
    assert db.ask(Call(calls.read_own_variable)) == [(1,), (2,)]
    with pytest.raises(duckdb.CatalogException):
        db.ask(Query("SELECT * FROM calls"))


def test_memory_survives_a_connection_that_is_opened_anew(start):
    db = start(DuckDB(), size=1)
    db.ask(Query("CREATE TABLE kept(number INTEGER)"))
    db.ask(Query("SET VARIABLE x = 1"))
    assert kept(db) == []


# --- statements ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("INSERT INTO kept VALUES (3), (4)", ((), [], 2)),
        ("UPDATE kept SET number = number + 10", ((), [], 2)),
        ("DELETE FROM kept WHERE number > 99", ((), [], 0)),
        ("INSERT INTO kept VALUES (5) RETURNING number, number + 1 AS more", (("number", "more"), [(5, 6)], 1)),
        ("DELETE FROM kept RETURNING number", (("number",), [(1,), (2,)], 2)),
        ("CREATE TABLE t(n INTEGER)", ((), [], 0)),
        ("DROP TABLE kept", ((), [], 0)),
        ('SELECT 3::BIGINT AS "Count"', (("Count",), [(3,)], 1)),
        ('SELECT 3::BIGINT AS "Count" WHERE false', (("Count",), [], 0)),
        ("SET threads = 2", ((), [], 0)),
        ("VALUES (1), (2)", (("col0",), [(1,), (2,)], 2)),
        ("FROM kept ORDER BY number", (("number",), [(1,), (2,)], 2)),
        ("  -- hm\n SELECT 'a;b' ;  -- end", (None, [("a;b",)], 1)),
        ("CHECKPOINT", (None, None, None)),
        ("PIVOT kept ON number IN (1, 2) USING count(*)", (("1", "2"), [(1, 1)], 1)),
    ],
)
@pytest.mark.parametrize("arrow", [False, True])
def test_results_of_statements(db, sql, wanted, arrow):
    columns, rows, rowcount = wanted
    result = db.ask(Query(sql, arrow=arrow))
    if columns is not None:
        assert result.columns == columns
    if rows is not None:
        assert sorted(result.rows) == rows
        assert result.rowcount == rowcount


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "-- nothing", ";"])
def test_a_query_is_exactly_one_statement(db, sql):
    for request in (Query(sql), Stream(sql), Query(sql, many=[()])):
        assert isinstance(error_of(db.ask(request, block=False)), ValueError)
    assert kept(db) == [1, 2]


def test_parameters_by_place_and_by_name(db):
    for arrow in (False, True):
        assert db.ask(Query("SELECT ? + ?", (1, 2), arrow=arrow)).rows == [(3,)]
        assert db.ask(Query("SELECT $a + $b", {"a": 1, "b": 2}, arrow=arrow)).rows == [(3,)]
    assert db.ask(Query("INSERT INTO kept VALUES ($n)", many=[{"n": 3}, {"n": 4}])).rowcount == 2


@pytest.mark.parametrize("arrow", [False, True])
def test_max_rows_reads_no_more(db, arrow):
    result = db.ask(Query("SELECT * FROM range(1000000000000)", max_rows=3, arrow=arrow))
    assert (result.column(0), result.truncated) == ([0, 1, 2], True)
    assert not db.ask(Query("SELECT * FROM range(3)", max_rows=3, arrow=arrow)).truncated
    assert db.ask(Query("INSERT INTO kept VALUES (8), (9) RETURNING number", max_rows=1)).truncated
    assert kept(db) == [1, 2, 8, 9], "the statement has run to its end"


def test_a_script_with_an_error_of_syntax_runs_nothing(db):
    with pytest.raises(duckdb.ParserException):
        db.ask(Script("INSERT INTO kept VALUES (3); SELEC"))
    assert kept(db) == [1, 2]
    assert db.ask(Script("INSERT INTO kept VALUES (3); SELECT * FROM range(10); DELETE FROM kept")).rowcount == 4


def test_a_backup_is_refused_with_another_way(db, tmp_path):
    error = error_of(db.ask(Backup(tmp_path / "copy"), block=False))
    assert isinstance(error, TypeError)
    assert "EXPORT DATABASE" in str(error)
    copy = tmp_path / "copy.db"
    db.ask(Script(f"ATTACH '{copy}' AS copy; COPY FROM DATABASE app TO copy; DETACH copy"))
    assert [row[0] for row in duckdb.connect(copy).execute("SELECT number FROM kept").fetchall()] == [1, 2]


# --- columns ------------------------------------------------------------------------------

TYPES = (
    "SELECT 1::HUGEINT AS huge, 1.5::DECIMAL(10, 2) AS money, DATE '2020-01-01' AS day, [1, 2] AS list, "
    "{'a': 1} AS struct, 'x'::BLOB AS blob, NULL::INTEGER AS nothing, TIMESTAMP '2020-01-01' AS moment, "
    "'00000000-0000-0000-0000-000000000007'::UUID AS id, 1.5 AS half"
)


@pytest.mark.parametrize("wrap", [lambda database: database, ChildProcess], ids=["thread", "child"])
def test_columns_come_without_tuples(start, path, wrap, monkeypatch):
    monkeypatch.setattr("actors.values.result.rows_of", lambda _: pytest.fail("no tuple is needed"))
    db = start(wrap(DuckDB(path)), size=1)
    direct = duckdb.connect().sql(TYPES).to_arrow_table()
    result = db.ask(Query(TYPES, arrow=True))
    assert result.to_arrow().equals(direct)
    large = db.ask(Query("SELECT i, i * 1.5 AS f, 'n' || i AS s FROM range(300000) t(i) ORDER BY i DESC", arrow=True))
    assert (len(large), large.columns) == (300_000, ("i", "f", "s"))
    assert large.to_arrow().column("i")[0].as_py() == 299_999
    assert large.to_polars().height == len(large.to_pandas()) == 300_000


def test_rows_and_columns_have_the_same_values(db):
    rows, columns = (db.ask(Query(TYPES, arrow=arrow)) for arrow in (False, True))
    assert rows.columns == columns.columns
    [by_row], [by_column] = rows.rows, columns.rows
    assert by_row[1:8] == by_column[1:8]
    assert (by_row[0], by_row[8]) == (1, uuid.UUID(int=7))
    assert rows.to_arrow().to_pydict() == columns.to_arrow().to_pydict() | {"huge": [1], "id": [str(uuid.UUID(int=7))]}


def test_columns_of_one_name_and_no_rows(db):
    result = db.ask(Query("SELECT 1 AS a, 2 AS a WHERE false", arrow=True))
    assert (result.columns, result.rows, result.to_arrow().schema.types) == (("a", "a"), [], [pa.int32(), pa.int32()])


def test_columns_see_the_transaction(db):
    with db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        assert tx.ask(Query("SELECT number FROM kept ORDER BY 1", arrow=True)).to_arrow().to_pydict() == {
            "number": [1, 2, 3]
        }
    inserted, read = db.ask(
        Transaction([Query("INSERT INTO kept VALUES (4)"), Query("SELECT count(*) FROM kept", arrow=True)])
    )
    assert (inserted.rowcount, read.scalar()) == (1, 4)


def test_a_missing_pyarrow_is_an_error_of_the_request(db, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    for request in (Query("SELECT 1", arrow=True), Stream("SELECT 1", arrow=True)):
        error = error_of(db.ask(request, block=False))
        assert isinstance(error, ImportError)
        assert "querycrew[arrow]" in str(error)
    assert kept(db) == [1, 2]


@pytest.mark.parametrize("arrow", [False, True])
def test_an_error_in_the_middle_of_a_stream_is_the_drivers(db, arrow):
    sql = "SELECT CASE WHEN i = 900000 THEN error('broken ' || i) ELSE i END FROM range(1000000) t(i)"
    with same_workers(db):
        with pytest.raises(duckdb.Error, match="broken"):
            for _ in db.ask(Stream(sql, chunk=10_000, arrow=arrow)).chunks():
                pass
        assert eventually(lambda: is_idle(db))
        assert kept(db) == [1, 2]


@pytest.mark.parametrize("arrow", [False, True])
def test_a_stream_has_constant_memory(path, arrow):
    program = f"""
import resource
from supervisor import *
with Supervisor.start(DuckDB({str(path)!r}), size=1) as db:
    peaks = []
    for rows in (300_000, 6_000_000):
        sql = f"SELECT i, 'some text ' || i FROM range({{rows}}) t(i)"
        total = sum(len(chunk) for chunk in db.ask(Stream(sql, chunk=20_000, arrow={arrow})).chunks())
        assert total == rows
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    print(peaks[1] - peaks[0])
"""
    assert int(run_python(program)) < 60_000, "kilobytes; six million rows have more than 200 MB"


@pytest.mark.parametrize("arrow", [False, True])
def test_a_stream_is_cancelled_between_and_in_its_chunks(db, arrow):
    with same_workers(db):
        rows = db.ask(Stream("SELECT * FROM range(1000000000)", chunk=1000, arrow=arrow))
        assert next(rows) == (0,)
        rows.close()
        assert eventually(lambda: is_idle(db))
        reply = db.ask(Stream(RUNAWAY, arrow=arrow), block=False)
        assert eventually(lambda: db.ask(Status()).running == 1)
        reply.cancel()
        assert isinstance(error_of(reply), QueryCancelled)
        assert kept(db) == [1, 2]


def test_a_stream_that_writes_is_refused(db):
    error = error_of(db.ask(Stream("DELETE FROM kept RETURNING number"), block=False))
    assert isinstance(error, ValueError)
    assert kept(db) == [1, 2]


# --- transactions -------------------------------------------------------------------------


def test_snapshot_is_the_only_isolation(db):
    assert db.ask(Transaction([Query("SELECT 1")], isolation="snapshot"))[0].scalar() == 1
    with pytest.raises(ValueError, match="snapshot"):
        db.ask(Transaction([Query("SELECT 1")], isolation="serializable"))
    with pytest.raises(ValueError, match="snapshot"), db.transaction(isolation="read committed"):
        pass
    assert kept(db) == [1, 2]


def test_a_readonly_session_sees_one_state_and_writes_nothing(db):
    with db.transaction(readonly=True) as tx:
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 2
        db.ask(Query("INSERT INTO kept VALUES (3)"))
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 2
        with pytest.raises(duckdb.Error, match="read-only"):
            tx.ask(Query("INSERT INTO kept VALUES (4)"))
        with pytest.raises(TransactionBroken):
            tx.ask(Query("SELECT 1"))
        tx.rollback()
    assert kept(db) == [1, 2, 3]


def test_a_conflict_is_the_drivers_error_and_nothing_of_it_stays(db):
    with db.transaction() as first:
        first.ask(Query("UPDATE kept SET number = 10 WHERE number = 1"))
        error = error_of(db.ask(Query("UPDATE kept SET number = 20 WHERE number = 1"), block=False))
        assert isinstance(error, duckdb.TransactionException)
    assert kept(db) == [2, 10]


def test_a_function_that_goes_on_after_an_error_commits_nothing(db):
    error = error_of(db.ask(Call(calls.insert_and_swallow), block=False))
    assert isinstance(error, TransactionBroken)
    assert error.executed is False
    assert kept(db) == [1, 2]


def test_a_function_that_commits_gets_an_error_that_says_so(db):
    error = error_of(db.ask(Call(calls.insert_and_commit), block=False))
    assert isinstance(error, TransactionBroken)
    assert error.executed is None
    assert kept(db) == [1, 2, 3]


@pytest.mark.parametrize("function", [calls.return_connection, calls.return_relation])
def test_a_function_must_return_nothing_of_the_connection(db, function):
    with pytest.raises(TypeError, match="belongs to the worker's connection"):
        db.ask(Call(function))
    assert kept(db) == [1, 2]


def test_a_transaction_left_open_is_rolled_back(db):
    for request in (Query("BEGIN"), Query("/* hm */ start transaction"), Script("BEGIN; DELETE FROM kept")):
        assert isinstance(error_of(db.ask(request, block=False)), TransactionLeftOpen)
    assert kept(db) == [1, 2]


# --- lost connections ---------------------------------------------------------------------


@pytest.mark.parametrize("function", [calls.fatal, calls.internal, calls.close_it])
def test_a_lost_connection_costs_one_job(db, function):
    error = error_of(db.ask(Call(function), block=False))
    assert isinstance(error, WorkerDied)
    assert isinstance(error.__cause__, duckdb.Error)
    assert kept(db) == [1, 2]


def test_a_fatal_error_ends_idle_connections_of_the_instance_too(start, path):
    db = start(DuckDB(path), size=3, restart=QUICK)
    assert eventually(lambda: up(db) == 3)
    before = {worker.id for worker in db.ask(Status()).workers}
    other = DuckDB().connect()
    assert isinstance(error_of(db.ask(Call(calls.fatal), block=False)), WorkerDied)
    assert eventually(lambda: not before & {worker.id for worker in db.ask(Status()).workers} and up(db) == 3)
    assert db.ask(Status()).died == 1
    other.check()
    other.close()


def test_an_interrupt_hits_no_later_statement(path):
    connection = DuckDB(path).connect()
    stop = threading.Event()

    def interrupt():
        while not stop.is_set():
            connection.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for _ in range(100):
            with suppress(duckdb.InterruptException):  # and no `ConnectionLost`
                connection.execute(Query("SELECT 1"))
    finally:
        stop.set()
        thread.join()
    for _ in range(100):
        assert connection.execute(Query("SELECT 1")).scalar() == 1
    connection.close()


def test_cancels_hit_no_innocent(start, path):
    db = start(DuckDB(path), size=2)
    wrong = []
    for number in range(300):
        victim = db.ask(Query(RUNAWAY), block=False)
        innocents = [db.ask(Query("SELECT ?", (number,)), block=False) for _ in range(2)]
        victim.cancel()
        wrong += [reply for reply in innocents if reply.get(timeout=30).scalar() != number]
        assert isinstance(error_of(victim), QueryCancelled)
    assert wrong == []
    assert db.ask(Status()).died == 0


def test_the_package_hides_no_driver():
    assert "actors" not in duckdb.__file__.split("site-packages")[-1]


def test_nothing_is_printed_at_a_prompt(path):
    program = f"""
from supervisor import *
with Supervisor.start(DuckDB({str(path)!r}), size=1) as db:
    try:
        db.ask(Query({RUNAWAY!r}, timeout=3))
    except QueryTimeout:
        print("only this")
"""
    assert run_python(program) == "only this\n"
