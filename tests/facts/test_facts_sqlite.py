"""The behaviour of plain SQLite and APSW that the crew relies on.

If an upgrade changes it, a test fails here first."""

import gc
import os
import threading

import apsw
import pytest

from tests.support.common import PATIENCE, RUNAWAY


@pytest.fixture
def connect(path):
    """Open connections to the same file; the first one makes a table of two rows."""
    connections = []

    def open_one(journal_mode="wal"):
        connection = apsw.Connection(str(path))
        connections.append(connection)
        if len(connections) == 1:
            connection.pragma("journal_mode", journal_mode)
            connection.execute("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)")
        return connection

    yield open_one
    for connection in connections:
        connection.close(True)


def count(connection):
    return connection.execute("SELECT count(*) FROM t").fetchall()[0][0]


# --- interrupts ---------------------------------------------------------------------------


def test_an_interrupt_ends_a_running_statement_from_any_thread(connect):
    connection = connect()
    running, ended = threading.Event(), []

    def run():
        connection.set_progress_handler(lambda: running.set() or False, 1000)
        try:
            connection.execute(RUNAWAY)
        except apsw.InterruptError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert running.wait(PATIENCE)
    connection.interrupt()
    thread.join(PATIENCE)
    assert len(ended) == 1


def test_an_interrupt_before_the_first_step_is_lost_and_harms_nothing(connect):
    connection = connect()
    for _ in range(3):
        connection.interrupt()
        assert count(connection) == 2


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_an_interrupt_never_ends_the_wait_for_a_lock(connect, journal_mode):
    holder, waiting = connect(journal_mode), connect()
    holder.execute("BEGIN IMMEDIATE")
    tries = []

    def go_on_waiting(attempt):
        waiting.interrupt()
        tries.append(attempt)
        return attempt < 5

    waiting.set_busy_handler(go_on_waiting)
    with pytest.raises(apsw.BusyError):
        waiting.execute("INSERT INTO t VALUES (3)")
    assert tries == [0, 1, 2, 3, 4, 5]


def test_an_interrupted_select_leaves_the_transaction_open_and_an_interrupted_insert_has_undone_it(connect):
    connection = connect()
    connection.create_scalar_function("interrupt", lambda: connection.interrupt() or 1)
    connection.execute("BEGIN; INSERT INTO t VALUES (3)")
    with pytest.raises(apsw.InterruptError):
        connection.execute("SELECT interrupt() FROM t").fetchall()
    assert connection.in_transaction
    assert count(connection) == 3
    with pytest.raises(apsw.InterruptError):
        connection.execute("INSERT INTO t SELECT interrupt() FROM t")
    assert not connection.in_transaction
    assert count(connection) == 2


# --- locks --------------------------------------------------------------------------------


def test_a_reader_that_becomes_a_writer_after_another_commit_fails_at_once(connect):
    reader, writer = connect(), connect()
    waits = []
    reader.set_busy_handler(lambda attempt: waits.append(attempt) or True)
    reader.execute("BEGIN")
    assert count(reader) == 2
    writer.execute("INSERT INTO t VALUES (3)")
    with pytest.raises(apsw.BusyError) as caught:
        reader.execute("INSERT INTO t VALUES (4)")
    assert caught.value.extendedresult == apsw.SQLITE_BUSY_SNAPSHOT
    assert waits == [], "SQLite did not call the busy handler"
    assert reader.in_transaction
    reader.execute("ROLLBACK; BEGIN IMMEDIATE; INSERT INTO t VALUES (4); COMMIT")
    assert count(reader) == 4


def test_a_cursor_that_is_not_finished_holds_its_lock_and_an_error_may_keep_the_cursor(connect):
    connection, other = connect("delete"), connect()
    connection.execute("UPDATE t SET a = CAST(x'ff' AS TEXT) WHERE a = 2")

    def read():
        cursor = connection.cursor()
        return cursor.execute("SELECT a FROM t").fetchall()

    with pytest.raises(UnicodeDecodeError) as caught:
        read()
    with pytest.raises(apsw.BusyError):
        other.execute("INSERT INTO t VALUES (3)")
    assert not connection.in_transaction, "in_transaction does not show the lock"
    assert connection.txn_state() == apsw.mapping_txn_state["SQLITE_TXN_READ"]
    del caught
    gc.collect()
    other.execute("INSERT INTO t VALUES (3)")


def test_apsw_has_no_shared_cache():
    uri, flags = "file:facts?mode=memory&cache=shared", apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE
    one, other = apsw.Connection(uri, flags=flags), apsw.Connection(uri, flags=flags)
    one.execute("CREATE TABLE t(a)")
    assert "OMIT_SHARED_CACHE" in apsw.compile_options
    with pytest.raises(apsw.SQLError, match="no such table"):
        count(other)


# --- cursors, tracers and the authorizer --------------------------------------------------


@pytest.mark.parametrize("sql", ["SELECT a FROM t WHERE a > 9", "INSERT INTO t VALUES (3)", "-- nothing"])
def test_a_cursor_has_no_description_after_an_empty_result(connect, sql):
    cursor = connect().cursor()
    cursor.execute(sql)
    with pytest.raises(apsw.ExecutionCompleteError):
        cursor.get_description()


def test_a_cursor_has_no_description_once_it_is_complete(connect):
    cursor = connect().execute("SELECT a FROM t")
    assert cursor.get_description() == (("a", None),)
    cursor.fetchall()
    with pytest.raises(apsw.ExecutionCompleteError):
        cursor.get_description()


def test_the_exec_tracer_runs_before_the_first_step_and_can_prevent_it(connect):
    connection = connect()
    cursor = connection.cursor()
    seen = []

    def trace(cursor, sql, bindings):
        seen.append((sql, cursor.get_description(), cursor.is_readonly, count(connection)))
        return len(seen) == 1

    cursor.exec_trace = trace
    with pytest.raises(apsw.ExecTraceAbort):
        cursor.execute("INSERT INTO t VALUES (3) RETURNING a AS b; SELECT a FROM t WHERE a > 9 -- the end").fetchall()
    assert seen == [
        ("INSERT INTO t VALUES (3) RETURNING a AS b; ", (("b", None),), False, 2),
        ("SELECT a FROM t WHERE a > 9 -- the end", (("a", None),), True, 3),
    ]


def test_the_authorizer_sees_a_statement_when_it_is_prepared_and_after_a_change_of_the_schema(connect):
    connection, other = connect(), connect()
    heard = []
    connection.authorizer = lambda *arguments: heard.append(arguments) or apsw.SQLITE_OK
    sql = "SELECT * FROM t"
    connection.execute(sql).fetchall()
    assert heard
    heard.clear()
    connection.execute(sql).fetchall()
    assert heard == [], "APSW keeps the statement"
    other.execute("ALTER TABLE t ADD COLUMN b")
    connection.execute(sql).fetchall()
    assert heard


def test_the_tracer_sees_the_old_columns_of_a_kept_statement_after_a_change_of_the_schema(connect):
    connection, other = connect(), connect()
    cursor = connection.cursor()
    sql = "UPDATE t SET a = a RETURNING *"
    cursor.execute(sql).fetchall()
    other.execute("ALTER TABLE t ADD COLUMN b")
    traced = []
    cursor.exec_trace = lambda cursor, *_: traced.append(cursor.get_description()) or True
    cursor.execute(sql)
    assert [name for name, _ in traced[0]] == ["a"]
    assert [name for name, _ in cursor.get_description()] == ["a"], "APSW keeps the old description"
    assert [column[0] for column in cursor.description] == ["a", "b"], "the first step has prepared the statement again"
    assert [len(row) for row in cursor] == [2, 2]
    # A tracer that prevents the statement sees the new columns.
    cursor.exec_trace = lambda cursor, *_: bool(traced.append(cursor.get_description()))
    with pytest.raises(apsw.ExecTraceAbort):
        cursor.execute(sql)
    assert [name for name, _ in traced[-1]] == ["a", "b"]


def test_the_authorizer_sees_a_temporary_object_as_an_insert_into_the_temporary_schema(connect):
    connection = connect()
    heard = []
    connection.authorizer = lambda action, *names: heard.append((action, names[0], names[2])) or apsw.SQLITE_OK
    for sql in (
        "CREATE TABLE temp.x(a)",
        "CREATE VIEW temp.v AS SELECT 1",
        "CREATE TRIGGER temp.r AFTER INSERT ON main.t BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE temp.d USING dbstat(main)",
    ):
        heard.clear()
        connection.execute(sql)
        schema = {name for action, name, where in heard if (action, where) == (apsw.SQLITE_INSERT, "temp")}
        assert schema & {"sqlite_master", "sqlite_temp_master"}, sql
        told = {apsw.SQLITE_CREATE_TEMP_TABLE, apsw.SQLITE_CREATE_TEMP_VIEW, apsw.SQLITE_CREATE_TEMP_TRIGGER}
        assert not told & {action for action, _, _ in heard}, (
            "without the word TEMP there is no action for temporary objects"
        )


def test_a_connection_cannot_be_closed_from_within_a_statement(connect):
    connection = connect()
    connection.create_scalar_function("close", lambda: connection.close(True))
    with pytest.raises(apsw.ThreadingViolationError):
        connection.execute("SELECT close()")
    assert count(connection) == 2


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [bytes(100), b"\xff" * 100, b"no magic"])
def test_a_damaged_header_passes_connect_and_fails_the_first_statement(connect, path, damage):
    connect().close()
    content = path.read_bytes()
    path.write_bytes(damage + content[len(damage) :])
    connection = connect()  # no error
    for sql in ("SELECT 1", "SELECT count(*) FROM sqlite_schema", "PRAGMA journal_mode"):
        with pytest.raises(apsw.NotADBError):
            connection.execute(sql)


@pytest.mark.parametrize(("journal_mode", "error"), [("delete", apsw.ReadOnlyError), ("wal", None)])
@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_file_that_is_removed_or_replaced_is_read_on_silently_and_in_wal_mode_even_written(
    connect, path, what, journal_mode, error
):
    connection = connect(journal_mode)
    if what == "removed":
        path.unlink()
    else:
        new = path.with_name("new.db")
        apsw.Connection(str(new)).execute("CREATE TABLE t(a)")
        os.replace(new, path)
    assert count(connection) == 2
    if error is None:
        connection.execute("INSERT INTO t VALUES (3)")
        assert count(connection) == 3, "the row was written to a file without a name"
        return
    with pytest.raises(error):
        connection.execute("INSERT INTO t VALUES (3)")


def test_a_full_disk_has_undone_the_whole_transaction_when_its_error_arrives(connect):
    connection = connect()
    connection.pragma("max_page_count", 20)
    connection.execute("BEGIN; INSERT INTO t VALUES (3)")
    with pytest.raises(apsw.FullError):
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    assert not connection.in_transaction
    assert count(connection) == 2


def test_a_statements_own_error_undoes_that_statement_alone(connect):
    connection = connect()
    connection.execute("CREATE UNIQUE INDEX once ON t(a); BEGIN; INSERT INTO t VALUES (3)")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO t VALUES (4), (5), (1)")
    assert connection.in_transaction
    assert count(connection) == 3
    connection.execute("COMMIT")


def test_whether_a_statement_only_reads_is_known_before_its_first_step(connect):
    cursor = connect().cursor()
    kinds = {}
    cursor.exec_trace = lambda cursor, sql, _: kinds.update({sql.strip(" ;"): cursor.is_readonly}) or True
    cursor.execute("SELECT a FROM t; BEGIN; ROLLBACK; DELETE FROM t; BEGIN IMMEDIATE; ROLLBACK").fetchall()
    assert [sql for sql, reads in kinds.items() if not reads] == ["DELETE FROM t", "BEGIN IMMEDIATE"]


# --- statements that fail -------------------------------------------------------------------


@pytest.mark.parametrize("sql", ["INSERT INTO s VALUES (1), ('x')", "UPDATE s SET a = iif(a = 4, 'x', 1)"])
def test_in_a_transaction_a_wrong_type_in_a_strict_table_leaves_the_rows_before_and_does_not_count_them(connect, sql):
    connection = connect()
    connection.execute("CREATE TABLE s(a INT) STRICT; INSERT INTO s VALUES (3), (4)")
    before = connection.total_changes()
    connection.execute("BEGIN")
    with pytest.raises(apsw.ConstraintError) as caught:
        connection.execute(sql)
    assert caught.value.extendedresult == apsw.SQLITE_CONSTRAINT_DATATYPE
    assert connection.total_changes() == before
    assert 1 in {row[0] for row in connection.execute("SELECT a FROM s")}
