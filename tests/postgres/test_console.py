"""The console on a PostgreSQL server."""

import subprocess
import sys

import pytest

from actors.console.kinds import POSTGRESQL
from supervisor import PostgreSQL, Query, Script, Supervisor
from tests.support.common import environment


@pytest.fixture
def filled(uri):
    with Supervisor.start(PostgreSQL(uri), size=1) as db:
        db.ask(
            Script(
                "CREATE TABLE books(id integer PRIMARY KEY, title text NOT NULL); "
                "CREATE VIEW titles AS SELECT title FROM books; INSERT INTO books VALUES (1, 'Emma')"
            )
        )
        yield db


def querycrew(uri, *arguments):
    command = [sys.executable, "-m", "actors.console", uri, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)


def test_sql_from_the_shell(uri, filled):
    done = querycrew(uri, "SELECT * FROM books; SELECT $$a;b$$ AS quoted; INSERT INTO books VALUES (2, 'x')")
    assert (done.stdout, done.stderr, done.returncode) == ("id,title\n1,Emma\n\nquoted\na;b\n", "", 0)
    assert filled.ask(Query("SELECT count(*) FROM books")).scalar() == 2


def test_a_function_that_writes_runs_though_it_is_in_a_select(uri, filled):
    filled.ask(Script("CREATE SEQUENCE numbers"))
    done = querycrew(uri, "SELECT nextval('numbers')")
    assert (done.stdout, done.stderr) == ("nextval\n1\n", "")
    assert filled.ask(Query("SELECT nextval('numbers')")).scalar() == 2


def test_readonly(uri, filled):
    done = querycrew(uri, "--readonly", "DELETE FROM books")
    assert done.returncode == 1
    assert "read-only transaction" in done.stderr


def test_an_error_shows_the_line_of_the_statement(uri, filled):
    done = querycrew(uri, "SELECT nope FROM books")
    assert done.stderr == (
        'querycrew: error: UndefinedColumn: column "nope" does not exist (LINE 2: SELECT nope FROM books)\n'
    )


def test_the_tables_and_the_sql_that_made_them(filled):
    assert filled.ask(Query(POSTGRESQL.tables)).rows == [
        ("books", "table", "id, title"),
        ("titles", "view", "title"),
    ]
    assert filled.ask(Query(POSTGRESQL.columns)).rows == [("books", "id"), ("books", "title"), ("titles", "title")]
    books, key = filled.ask(POSTGRESQL.schema_of("Books")).column("sql")
    assert books == "CREATE TABLE books (\n  id integer NOT NULL,\n  title text NOT NULL\n)"
    assert key.startswith("CREATE UNIQUE INDEX")
    assert len(filled.ask(POSTGRESQL.schema_of(None)).rows) == 3
