"""The behaviour of psycopg and libpq that the code relies on.

If an upgrade changes it, a test fails here first."""

import select
import threading

import pytest

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

from psycopg import pq  # noqa: E402
from psycopg._queries import PostgresQuery  # noqa: E402
from psycopg.adapt import AdaptersMap, Transformer  # noqa: E402

from tests.postgres.server import Server  # noqa: E402

STATUS = pq.ExecStatus


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def driver(server):
    with server.connect() as driver:
        driver.pgconn.nonblocking = 1
        yield driver


def flush(pgconn):
    while pgconn.flush():
        select.select([pgconn.socket], [pgconn.socket], [])
        pgconn.consume_input()


def next_result(pgconn):
    while pgconn.is_busy():
        select.select([pgconn.socket], [], [])
        pgconn.consume_input()
    return pgconn.get_result()


def results(pgconn):
    flush(pgconn)
    return list(iter(lambda: next_result(pgconn), None))


def until_sync(pgconn):
    found = []
    while True:
        result = next_result(pgconn)
        if result is not None:
            found.append(result.status)
            if result.status == STATUS.PIPELINE_SYNC:
                return found


# --- texts and values ---------------------------------------------------------------------


def test_a_query_converts_a_text_once_and_dumps_new_parameters(driver):
    query = PostgresQuery(Transformer(driver))
    query.convert("SELECT %s, %(b)s".replace("%(b)s", "%s"), (1, "a"))
    assert query.query == b"SELECT $1, $2"
    first = query.params
    query.params = ()  # the caller keeps `first`
    query.dump((70_000, "b"))
    assert [bytes(value) for value in first][1] == b"a"
    assert [bytes(value) for value in query.params][1] == b"b"
    assert len(query.types) == len(query.formats) == 2
    query.convert("SELECT '%'", None)
    assert (query.query, query.params, query.types) == (b"SELECT '%'", None, ())


def test_a_transformer_needs_only_adapters_and_a_connection(driver):
    class Context:
        adapters = driver.adapters
        connection = driver

    assert Transformer(Context()).encoding == "utf-8"


def test_loaders_that_were_set_serve_later_results_with_the_same_columns(driver):
    transformer = Transformer(driver)
    transformer.set_pgresult(driver.pgconn.exec_(b"SELECT 1::integer, 'a'::text"), set_loaders=True)
    assert transformer.load_rows(0, 1, tuple) == [(1, "a")]
    transformer.set_pgresult(driver.pgconn.exec_(b"SELECT 2::integer, 'b'::text"), set_loaders=False)
    assert transformer.load_rows(0, 1, tuple) == [(2, "b")]
    transformer.set_pgresult(None, set_loaders=False)
    assert transformer.pgresult is None


def test_libpq_cuts_a_text_off_at_nul(driver):
    driver.pgconn.send_query(b"SELECT 1\0 / 0")
    [result] = results(driver.pgconn)
    assert result.get_value(0, 0) == b"1"


def test_libpq_refuses_too_many_parameters_at_once(driver):
    with pytest.raises(psycopg.OperationalError):
        driver.pgconn.send_query_params(b"SELECT 1", [b"1"] * 65_536)
    driver.pgconn.send_query_params(b"SELECT 1", [])
    assert results(driver.pgconn)[0].status == STATUS.TUPLES_OK


# --- prepared statements ------------------------------------------------------------------


def test_the_server_refuses_a_prepared_statement_whose_rows_have_changed(driver):
    pgconn = driver.pgconn
    driver.execute("CREATE TEMP TABLE kept(n integer)", prepare=False)
    pgconn.send_prepare(b"mine", b"SELECT * FROM kept")
    results(pgconn)
    for change in ("ADD COLUMN m text", "ALTER COLUMN m TYPE integer USING 1", "RENAME COLUMN m TO o", "DROP COLUMN o"):
        driver.execute(f"ALTER TABLE kept {change}", prepare=False)
        pgconn.send_query_prepared(b"mine", [])
        [result] = results(pgconn)
        if change != "DROP COLUMN o":  # then it is as it was when it was prepared
            assert result.error_field(pq.DiagnosticField.SQLSTATE) == b"0A000", change
    assert result.status == STATUS.TUPLES_OK
    pgconn.send_query_prepared(b"nobody", [])
    [result] = results(pgconn)
    assert result.error_field(pq.DiagnosticField.SQLSTATE) == b"26000"


def test_psycopg_forgets_its_prepared_statements(driver):
    for _ in range(3):
        for _ in range(10):
            driver.execute("SELECT 1 AS again")
        assert driver._prepared._names
        driver.pgconn.exec_(b"DEALLOCATE ALL")
        driver._prepared.clear()
        driver._prepared._to_flush.clear()
        assert not driver._prepared._names
        assert driver.execute("SELECT 1 AS again").fetchone() == (1,)


# --- pipelines ----------------------------------------------------------------------------


def test_an_error_of_a_commit_comes_after_the_result_and_before_the_sync(driver):
    pgconn = driver.pgconn
    driver.execute("CREATE TEMP TABLE late(n integer UNIQUE DEFERRABLE INITIALLY DEFERRED)", prepare=False)
    insert = b"INSERT INTO late VALUES (1), (1)"
    pgconn.send_query_params(insert, None)
    assert [result.status for result in results(pgconn)] == [STATUS.COMMAND_OK, STATUS.FATAL_ERROR]
    pgconn.enter_pipeline_mode()
    for text in (b"SELECT 1", insert, b"SELECT 2"):
        pgconn.send_query_params(text, None)
        pgconn.pipeline_sync()
    flush(pgconn)
    assert until_sync(pgconn) == [STATUS.TUPLES_OK, STATUS.PIPELINE_SYNC]
    assert until_sync(pgconn) == [STATUS.COMMAND_OK, STATUS.FATAL_ERROR, STATUS.PIPELINE_SYNC]
    assert until_sync(pgconn) == [STATUS.TUPLES_OK, STATUS.PIPELINE_SYNC]
    for text in (b"SELECT 1", insert, b"SELECT 2"):  # with one Sync the error of the commit is the last
        pgconn.send_query_params(text, None)
    pgconn.pipeline_sync()
    flush(pgconn)
    assert until_sync(pgconn) == [
        *(STATUS.TUPLES_OK, STATUS.COMMAND_OK, STATUS.TUPLES_OK),
        *(STATUS.FATAL_ERROR, STATUS.PIPELINE_SYNC),
    ]
    pgconn.exit_pipeline_mode()


def test_statements_after_a_failed_one_are_aborted_up_to_the_sync(driver):
    pgconn = driver.pgconn
    pgconn.enter_pipeline_mode()
    for text in (b"SELECT 1", b"SELECT 1/0", b"SELECT 2"):
        pgconn.send_query_params(text, None)
    pgconn.pipeline_sync()
    flush(pgconn)
    assert until_sync(pgconn) == [
        *(STATUS.TUPLES_OK, STATUS.FATAL_ERROR, STATUS.PIPELINE_ABORTED),
        STATUS.PIPELINE_SYNC,
    ]
    pgconn.exit_pipeline_mode()


# --- parts of an answer -------------------------------------------------------------------


@pytest.mark.skipif(not psycopg.capabilities.has_stream_chunked(), reason="libpq is older than 17")
def test_the_number_of_rows_comes_with_the_last_part_or_behind_it(driver):
    for rows in (1, 4, 5, 9):
        driver.pgconn.send_query_params(f"SELECT generate_series(1, {rows})".encode(), None)
        driver.pgconn.set_chunked_rows_mode(2)
        parts = results(driver.pgconn)
        assert {part.status for part in parts[:-1]} == {STATUS.TUPLES_CHUNK}
        assert (parts[-1].status, parts[-1].ntuples) == (STATUS.TUPLES_OK, 0)
        assert sum(part.ntuples for part in parts) == rows
        assert [part.command_tuples or 0 for part in parts[:-2]] == [0] * len(parts[:-2])
        assert sum(part.command_tuples or 0 for part in parts) == rows


# --- connections --------------------------------------------------------------------------


def test_a_connection_is_lost_by_its_status_and_not_by_the_class_of_the_error(server, driver):
    driver.pgconn.send_query(b"SELECT 1/0")
    results(driver.pgconn)
    assert driver.pgconn.status == pq.ConnStatus.OK
    server.run("SELECT pg_terminate_backend(%s)", driver.info.backend_pid)
    with pytest.raises(psycopg.Error):
        while True:
            driver.pgconn.send_query(b"SELECT 1")
            results(driver.pgconn)
    assert driver.pgconn.status == pq.ConnStatus.BAD


def test_the_farewell_of_a_server_comes_as_a_notice_to_an_idle_connection(server, driver):
    heard = []
    driver.add_notice_handler(lambda notice: heard.append(notice.sqlstate))
    server.run("SELECT pg_terminate_backend(%s)", driver.info.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        while True:
            select.select([driver.pgconn.socket], [], [])
            driver.pgconn.consume_input()
            driver.pgconn.notifies()
    driver.pgconn.notifies()
    assert heard in (["57P01"], []), "it is heard, or the end of the connection is seen"


def test_the_names_of_a_connections_settings(driver):
    assert isinstance(driver._notice_handlers, list)
    assert isinstance(driver._notify_handlers, list)
    assert getattr(driver, "_notifies_backlog", ()) is not None
    assert driver.adapters is driver._adapters
    assert isinstance(AdaptersMap(driver.adapters), AdaptersMap)


@pytest.mark.skipif(not psycopg.capabilities.has_cancel_safe(), reason="libpq is older than 17")
def test_a_safe_cancel_lets_other_threads_run(server, driver):
    ended = []

    def run():
        try:
            driver.execute("SELECT pg_sleep(1000)")
        except psycopg.Error as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not ended:
        driver.cancel_safe(timeout=5)
    thread.join()
    assert isinstance(ended[0], psycopg.errors.QueryCanceled)
