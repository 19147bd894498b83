"""The answers of SQLite: names of columns, counts, and remembered statements."""

import apsw
import pytest

from supervisor import Query, Script, SQLite


@pytest.fixture
def connection(path):
    connection = SQLite(path).connect()
    connection.execute(Script("CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'x')"))
    yield connection
    connection.close()


@pytest.fixture
def other(connection, path):
    """A second connection, like the connection of another worker."""
    other = SQLite(path).connect()
    yield other
    other.close()


@pytest.fixture(params=["by itself", "by another"])
def changer(request, connection, other):
    """The connection that changes the schema: the same connection, or a second connection."""
    return connection if request.param == "by itself" else other


def columns(connection, sql, params=()):
    """Run a query and return its columns, which each row must fit."""
    result = connection.execute(Query(sql, params))
    assert all(len(row) == len(result.columns) for row in result.rows), (result.columns, result.rows)
    return result.columns


# --- columns ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT id, a FROM t", ("id", "a")),
        ("SELECT * FROM t", ("id", "a")),
        ("SELECT a AS b, a AS b, id FROM t", ("b", "b", "id")),
        ("SELECT x.a, y.a FROM t AS x, t AS y", ("a", "a")),
        ("SELECT 1 + 1, 'text', count(*), 5 AS \"the most\"", ("1 + 1", "'text'", "count(*)", "the most")),
        ("SELECT 1 AS größe, 2 AS \"日本\", 3 AS ''", ("größe", "日本", "")),
        ("VALUES (1, 2)", ("column1", "column2")),
        ("WITH c(n) AS (SELECT 1) SELECT n FROM c", ("n",)),
        ("PRAGMA table_info(t)", ("cid", "name", "type", "notnull", "dflt_value", "pk")),
        (f"SELECT {', '.join(f'{n} AS c{n}' for n in range(2000))}", tuple(f"c{n}" for n in range(2000))),
    ],
)
def test_columns_have_the_names_that_sqlite_gives_them(connection, sql, names):
    for _ in ("for the first time", "and again"):
        assert columns(connection, sql) == names


def test_columns_of_an_empty_result_are_known_every_time(connection):
    for _ in range(3):
        assert columns(connection, "SELECT *, a || a AS aa FROM t WHERE id = ?", (99,)) == ("id", "a", "aa")


def test_a_statement_that_gives_no_rows_has_no_columns(connection):
    for sql in ("INSERT INTO t(a) VALUES (1)", "UPDATE t SET a = 2", "DELETE FROM t", "CREATE TABLE u(x)"):
        assert columns(connection, sql) == ()


@pytest.mark.parametrize("rows", ["with rows", "without rows"])
@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("ALTER TABLE t ADD COLUMN b", ("id", "a", "b")),
        ("ALTER TABLE t RENAME COLUMN a TO z", ("id", "z")),
        ("ALTER TABLE t DROP COLUMN a", ("id",)),
    ],
)
def test_a_table_that_changed_between_two_identical_queries_has_its_new_columns(
    connection, changer, rows, change, names
):
    if rows == "without rows":
        connection.execute(Query("DELETE FROM t"))
    for _ in range(2):
        assert columns(connection, "SELECT * FROM t") == ("id", "a")
    changer.execute(Query(change))
    for _ in range(2):
        assert columns(connection, "SELECT * FROM t") == names


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t DEFAULT VALUES RETURNING *",
        "UPDATE t SET id = id RETURNING *",
        "UPDATE t SET id = id WHERE id > 1000 RETURNING *",
        "DELETE FROM t RETURNING *",
    ],
)
def test_a_table_that_changed_between_two_identical_writes_returns_its_new_columns(connection, changer, sql):
    assert columns(connection, sql) == ("id", "a")
    changer.execute(Query("ALTER TABLE t ADD COLUMN b"))
    changer.execute(Query("INSERT INTO t(a) VALUES ('y')"))
    assert columns(connection, sql) == ("id", "a", "b")


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("INSERT INTO t(a) VALUES (?) RETURNING *", [1, 1]),
        ("UPDATE t SET a = a WHERE id = ? RETURNING *", [0, 1]),
        ("UPDATE t SET a = a WHERE id = ? RETURNING *", [1, 0]),
        ("UPDATE t SET a = a WHERE id = ? RETURNING *", [0, 0]),
        ("SELECT * FROM t WHERE id = ?", [0, 1]),
        ("SELECT * FROM t WHERE id = ?", [0, 0]),
    ],
)
def test_a_table_that_changed_between_two_identical_queries_with_many_parameters_has_its_new_columns(
    connection, changer, sql, rows
):
    if not sql.startswith("INSERT"):
        connection.execute(Query("INSERT INTO t(id) VALUES (100), (101)"))
    many = Query(sql, many=[(100 + number if exists else 1000,) for number, exists in enumerate(rows)])
    for names in [("id", "a"), ("id", "a"), ("id", "a", "b"), ("id", "a", "b", "c")]:
        if len(names) > 2:
            changer.execute(Query(f"ALTER TABLE t ADD COLUMN {names[-1]}"))
        result = connection.execute(many)
        assert result.columns == names
        assert [len(row) for row in result.rows] == [len(names)] * sum(rows)


def test_columns_are_right_after_a_change_at_any_place_among_many_texts(connection, other):
    # There are enough texts for the connection to forget texts that SQLite itself still knows.
    for added in range(60):
        for number in range(5):
            connection.execute(Query(f"SELECT {added * 5 + number}"))
        other.execute(Query(f"ALTER TABLE t ADD COLUMN c{added}"))
        assert len(columns(connection, "SELECT * FROM t")) == 3 + added


def test_a_statement_that_failed_before_has_the_right_columns_when_it_works(connection, other):
    connection.execute(Query("UPDATE t SET a = CAST(x'ff' AS TEXT)"))
    with pytest.raises(UnicodeDecodeError):
        columns(connection, "SELECT * FROM t")
    other.execute(Script("UPDATE t SET a = 'good'; ALTER TABLE t ADD COLUMN b"))
    assert columns(connection, "SELECT * FROM t") == ("id", "a", "b")


def test_a_change_that_a_failed_query_has_seen_first_is_not_forgotten(connection, other):
    sql = "SELECT *, abs(id) AS n FROM t"
    for _ in range(2):
        assert columns(connection, sql) == ("id", "a", "n")
    other.execute(Script("ALTER TABLE t ADD COLUMN b; UPDATE t SET id = -9223372036854775808"))
    with pytest.raises(apsw.SQLError, match="integer overflow"):
        columns(connection, sql)
    other.execute(Query("UPDATE t SET id = 1"))
    assert columns(connection, sql) == ("id", "a", "b", "n")


def test_a_change_that_a_script_of_the_same_text_has_seen_first_is_not_forgotten(connection, other):
    sql = "SELECT * FROM t"
    for _ in range(2):
        assert columns(connection, sql) == ("id", "a")
    other.execute(Query("ALTER TABLE t ADD COLUMN b"))
    connection.execute(Script(sql))
    assert columns(connection, sql) == ("id", "a", "b")


# --- remembered statements ----------------------------------------------------------------


def test_a_table_that_is_dropped_and_created_again_is_read_again(connection, changer):
    for _ in range(2):
        assert columns(connection, "SELECT * FROM t") == ("id", "a")
    changer.execute(Query("DROP TABLE t"))
    for _ in range(2):
        with pytest.raises(apsw.SQLError, match="no such table: t"):
            columns(connection, "SELECT * FROM t")
    changer.execute(Query("CREATE TABLE t(new)"))
    assert columns(connection, "SELECT * FROM t") == ("new",)
    changer.execute(Script("DROP TABLE t; CREATE VIEW t AS SELECT 1 AS one, 2 AS two"))
    assert columns(connection, "SELECT * FROM t") == ("one", "two")


def test_any_number_of_different_texts_is_answered_and_few_are_remembered(connection):
    for number in (*range(1000), *range(1000)):
        result = connection.execute(Query(f"SELECT {number} AS n{number}"))
        assert (result.columns, result.rows) == ((f"n{number}",), [(number,)])
    assert len(connection._known) <= 512


def test_texts_that_differ_in_a_comment_or_a_space_are_different_texts(connection):
    for sql in ("SELECT 1 AS n", "SELECT  1 AS n", "SELECT 1 AS n;", "SELECT 1 AS n -- n", "SELECT 1 AS m"):
        assert connection.execute(Query(sql)).columns == (sql[sql.index("AS") + 3],)


# --- counts -------------------------------------------------------------------------------

COUNTS = [
    # statement, rowcount, lastrowid
    ("INSERT INTO t(a) VALUES ('y')", 1, 2),
    ("INSERT INTO t(a) VALUES ('y'), ('y'), ('y')", 3, 5),
    ("SELECT * FROM t", 5, None),
    ("SELECT * FROM t WHERE id > 99", 0, None),
    ("UPDATE t SET a = 'z' WHERE id > 3", 2, None),
    ("UPDATE t SET a = 'z' WHERE id > 99", 0, None),
    ("INSERT INTO t(id, a) VALUES (1000, 'y')", 1, 1000),
    ("INSERT OR IGNORE INTO t(id) VALUES (1000)", 0, None),
    ("INSERT OR IGNORE INTO t(id) VALUES (1000), (1001)", 1, 1001),
    ("INSERT INTO t(id) VALUES (1000) ON CONFLICT DO NOTHING", 0, None),
    ("INSERT INTO t(id) VALUES (1000) ON CONFLICT DO UPDATE SET a = 'w'", 1, None),
    ("REPLACE INTO t(id, a) VALUES (1000, 'new')", 1, 1000),
    ("INSERT INTO t(id) VALUES (-5)", 1, -5),
    ("INSERT INTO t(id) VALUES (0) RETURNING id", 1, 0),
    ("UPDATE t SET a = 'v' WHERE id > 1 RETURNING a", 6, None),
    ("DELETE FROM t WHERE id < 1 RETURNING *", 2, None),
    ("DELETE FROM t WHERE id = 99", 0, None),
    ("INSERT INTO t(a) SELECT a FROM t WHERE id > 999", 2, 1003),
    ("INSERT INTO t(a) SELECT a FROM t WHERE id > 9999", 0, None),
    ("CREATE TABLE u AS SELECT * FROM t", 0, None),
    ("CREATE INDEX i ON u(a)", 0, None),
    ("ALTER TABLE u ADD COLUMN b", 0, None),
    ("DROP TABLE u", 0, None),
    ("CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID", 0, None),
    ("INSERT INTO w VALUES (1)", 1, None),  # it has no rowid
    ("ANALYZE", 0, None),
    ("EXPLAIN QUERY PLAN SELECT * FROM t", 1, None),
    ("DELETE FROM t", 9, None),
]


def test_every_kind_of_statement_returns_its_own_counts_and_no_others(connection):
    counts = []
    for sql, _, _ in COUNTS:
        result = connection.execute(Query(sql))
        counts.append((sql, result.rowcount, result.lastrowid))
    assert counts == COUNTS


def test_a_statement_that_runs_again_returns_the_counts_of_this_run(connection):
    query = "INSERT OR IGNORE INTO t(id, a) VALUES (?, 'y')"
    results = [connection.execute(Query(query, (number,))) for number in (7, 7, 8, 1)]
    assert [(result.rowcount, result.lastrowid) for result in results] == [(1, 7), (0, None), (1, 8), (0, None)]


def test_a_script_returns_the_counts_of_all_its_statements_and_no_others(connection):
    connection.execute(Query("INSERT INTO t(a) VALUES ('y')"))
    for script, rowcount, lastrowid in (
        ("UPDATE t SET a = 'z'; SELECT * FROM t", 2, None),
        ("INSERT INTO t(a) VALUES ('y'), ('y'); DELETE FROM t WHERE id = 1", 3, 4),
        ("CREATE TABLE u(x)", 0, None),
    ):
        result = connection.execute(Script(script))
        assert (result.rowcount, result.lastrowid) == (rowcount, lastrowid)


def test_the_last_rowid_comes_from_the_statement_and_not_from_its_triggers(connection):
    connection.execute(
        Script(
            "CREATE TABLE log(id INTEGER PRIMARY KEY, what); INSERT INTO log VALUES (500, 'first'); "
            "CREATE TRIGGER noted AFTER INSERT ON t BEGIN INSERT INTO log(what) VALUES (new.a); END"
        )
    )
    result = connection.execute(Query("INSERT INTO t(a) VALUES ('y')"))
    assert (result.rowcount, result.lastrowid) == (1, 2)


def test_a_worker_reports_no_inserts_of_other_requests(start, path):
    db = start(path, size=3)
    db.ask(Script("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (41)"))
    replies = []
    for number in range(100, 160):
        replies.append((number, 1, db.ask(Query("INSERT INTO t VALUES (?)", (number,)), block=False)))
        replies.append((None, 0, db.ask(Query("UPDATE t SET id = id WHERE id < 0"), block=False)))
        replies.append((None, 0, db.ask(Query("INSERT OR IGNORE INTO t VALUES (41)"), block=False)))
    for lastrowid, rowcount, reply in replies:
        result = reply.get(timeout=30)
        assert (result.lastrowid, result.rowcount) == (lastrowid, rowcount)


@pytest.mark.parametrize(
    "query",
    [
        Query("INSERT INTO t(a) VALUES (1) RETURNING id"),
        Query("INSERT INTO t(a) VALUES (1) RETURNING id", max_rows=5),
        Query("INSERT INTO t(a) VALUES (?) RETURNING id", many=[(1,), (2,)]),
    ],
)
def test_a_text_that_runs_again_has_a_transaction_of_its_own_each_time(connection, query):
    for _ in range(4):
        ran: list[str] = []
        connection.connection.set_profile(lambda sql, nanoseconds, ran=ran: ran.append(sql))
        connection.execute(query)
        connection.connection.set_profile(None)
        assert (ran[0], ran[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
